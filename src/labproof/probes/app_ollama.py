"""Ollama: which models it has, which are loaded, and how much of each is on the card (facts transcode 6).

Only a loaded model says where it lies. The declared one is loaded by us when nothing is loaded at all, for one short
answer, and unloaded again (`keep_alive: 0`); with others in memory it is left alone, they would be put out for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from labproof.clients.app_http import AppHttp
from labproof.clients.errors import TransportFailure
from labproof.facts.apps import AppFacts, LoadedModel, Ollama
from labproof.facts.reading import failed, value
from labproof.facts.store import now
from labproof.inventory.branches import App
from labproof.inventory.models import Lab

_WORDS = 16  # tokens of our answer: enough for a rate, over in a moment
_PROMPT = "Count from one to ten."


def look(http: AppHttp, app: App, lab: Lab, facts: AppFacts) -> AppFacts:
    """`/api/tags`, `/api/ps`; the declared model loaded for a moment where that puts nothing out."""
    there = tuple(str(m.get("name")) for m in _models(http, "api/tags"))
    seen = Ollama(there, _loaded(http))
    wanted = app.expect.model
    source = f"GET {http.where}/api/ps"
    if wanted is None or any(same_model(m.name, wanted) for m in seen.loaded):
        return replace(facts, ollama=value(seen, source, now()))
    if not any(same_model(name, wanted) for name in there):
        return replace(facts, ollama=value(seen, f"GET {http.where}/api/tags", now()))
    if seen.loaded:
        names = ", ".join(m.name for m in seen.loaded)
        return replace(facts, ollama=value(replace(seen, left_alone=f"{names} would be put out"), source, now()))
    try:
        answer = _generate(http, wanted, _PROMPT, "60s")
    except TransportFailure as failure:
        told = failed(f"POST {http.where}/api/generate", failure.answer or failure.text, failure.kind.value, now())
        return replace(facts, ollama=told)
    loaded = _loaded(http)
    try:
        _generate(http, wanted, "", 0)
        unloaded = True
    except TransportFailure:
        unloaded = False  # its own keep_alive of a minute ends it
    seen = replace(seen, loaded=loaded, loaded_by_us=True, unloaded_again=unloaded, tokens_per_s=_tokens_per_s(answer))
    return replace(facts, ollama=value(seen, source, now()))


def same_model(name: str, wanted: str) -> bool:
    """`llama3.2` means `llama3.2:latest`."""
    return name in {wanted, f"{wanted}:latest"}


def _generate(http: AppHttp, model: str, prompt: str, keep_alive: str | int) -> Mapping[str, Any]:
    body: dict[str, Any] = {"model": model, "stream": False, "keep_alive": keep_alive}
    if prompt:
        body |= {"prompt": prompt, "options": {"num_predict": _WORDS}}
    found = json.loads(http.ask("api/generate", method="POST", body=body))
    return found if isinstance(found, Mapping) else {}


def _tokens_per_s(answer: Mapping[str, Any]) -> float | None:
    count, nanoseconds = answer.get("eval_count"), answer.get("eval_duration")
    if not isinstance(count, int) or not isinstance(nanoseconds, int) or not nanoseconds:
        return None
    return round(count / (nanoseconds / 1e9), 2)


def _loaded(http: AppHttp) -> tuple[LoadedModel, ...]:
    return tuple(
        LoadedModel(str(m.get("name")), int(m.get("size") or 0), int(m.get("size_vram") or 0))
        for m in _models(http, "api/ps")
    )


def _models(http: AppHttp, path: str) -> list[Mapping[str, Any]]:
    found = json.loads(http.ask(path))
    return [m for m in (found.get("models") or ()) if isinstance(m, Mapping)] if isinstance(found, Mapping) else []
