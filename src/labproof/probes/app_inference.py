"""An OpenAI-style server (vLLM, llama.cpp) and ComfyUI: what they serve, on which device, how fast.

A health address answers 200 while no model is loaded (facts wild 5, W66), so the model is asked for by name.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from labproof.clients.app_http import AppHttp
from labproof.clients.errors import TransportFailure
from labproof.facts.apps import AppFacts, ModelServer, TorchDevice
from labproof.facts.reading import failed, value
from labproof.facts.store import now
from labproof.inventory.branches import App
from labproof.inventory.models import Lab

_WORDS = 16


def openai(http: AppHttp, app: App, lab: Lab, facts: AppFacts) -> AppFacts:
    """`/v1/models`; with a declared rate also one short completion."""
    listed = _part(json.loads(http.ask("v1/models"))).get("data") or ()
    names = tuple(str(_part(m).get("id") or "") for m in listed)
    source = f"GET {http.where}/v1/models"
    seen, wanted = ModelServer(names), app.expect.model
    if wanted is None or wanted not in names or app.expect.min_tokens_per_s is None:
        return replace(facts, models=value(seen, source, now()))
    body = {"model": wanted, "prompt": "Count from one to ten:", "max_tokens": _WORDS, "temperature": 0}
    began = time.perf_counter()
    try:
        answer = _part(json.loads(http.ask("v1/completions", method="POST", body=body)))
    except TransportFailure as failure:
        told = failed(f"POST {http.where}/v1/completions", failure.answer or failure.text, failure.kind.value, now())
        return replace(facts, models=told)
    seconds = _seconds(answer, time.perf_counter() - began)
    made = int(_part(answer.get("usage")).get("completion_tokens") or 0)
    rate = round(made / seconds, 2) if seconds > 0 and made else None
    return replace(facts, models=value(replace(seen, tokens_per_s=rate), source, now()))


def _seconds(answer: Mapping[str, Any], measured: float) -> float:
    """llama.cpp tells its own time in `timings`; else the whole request is counted."""
    told = _part(answer.get("timings")).get("predicted_ms")
    return float(told) / 1000 if isinstance(told, int | float) and told else measured


def comfyui(http: AppHttp, app: App, lab: Lab, facts: AppFacts) -> AppFacts:
    """`/system_stats`: the devices that its PyTorch works on."""
    stats = _part(json.loads(http.ask("system_stats")))
    found = tuple(
        TorchDevice(str(_part(d).get("name") or ""), str(_part(d).get("type") or ""))
        for d in stats.get("devices") or ()
    )
    return replace(facts, devices=value(found, f"GET {http.where}/system_stats", now()))


def _part(raw: object) -> Mapping[str, Any]:
    return raw if isinstance(raw, Mapping) else {}
