"""Ollama: models on disk, loaded into card memory as far as it goes, the rest into main memory.

Fields: docs/api.md of ollama (tags, ps, generate); facts/transcode.md 6. Layers go to the card as long as they fit
beside the context that CUDA itself takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from labproof.simlab.apps.settings import as_json, settings_of, text
from labproof.simlab.kube.pod_http import Answer, Asked
from labproof.simlab.kube.services import Running
from labproof.simlab.pod.access import CONTEXT_MIB, CudaError, cuda_devices, free_mib, has_library
from labproof.simlab.world.states import Card

PORT = 11434
_MIB = 1024 * 1024
_ON_CARD, _ON_CPU = 62.0, 5.5  # tokens per second of a small model, all on one side or the other


class Ollama:
    """One server process."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._models: dict[str, Any] = dict(settings_of(running).get("models") or {})
        self._loaded: dict[str, int] = {}  # model -> MiB on the card
        self._owner = f"{running.world.owner}/ollama"

    async def answer(self, asked: Asked) -> Answer:
        """Any request."""
        if asked.path == "/":
            return text("Ollama is running")
        if asked.path == "/api/tags":
            return as_json({"models": [self._row(name) for name in self._models]})
        if asked.path == "/api/ps":
            rows = [{**self._row(name), "size_vram": vram * _MIB} for name, vram in self._loaded.items()]
            return as_json({"models": rows})
        if asked.path == "/api/generate" and asked.method == "POST":
            return self._generate(json.loads(asked.body or b"{}"))
        return text("404 page not found", 404)

    def close(self) -> None:
        """Everything loaded is given back."""
        for model in list(self._loaded):
            self._unload(model)

    def _row(self, name: str) -> dict[str, Any]:
        size = int(self._models[name]["size_mib"]) * _MIB
        return {"name": name, "model": name, "size": size, "digest": "sim", "details": {"family": "llama"}}

    def _generate(self, body: dict[str, Any]) -> Answer:
        name = str(body.get("model", ""))
        name = name if name in self._models else f"{name}:latest"
        if name not in self._models:
            return as_json({"error": f"model '{body.get('model')}' not found"}, 404)
        broken = self._models[name].get("broken")
        if broken:
            return as_json({"error": f"unable to load model: {broken}"}, 500)
        if body.get("keep_alive") == 0 and not body.get("prompt"):
            self._unload(name)
            return as_json({"model": name, "response": "", "done": True, "done_reason": "unload"})
        if name not in self._loaded:
            self._load(name)
        share = self._loaded[name] / int(self._models[name]["size_mib"])
        rate = 1 / (share / _ON_CARD + (1 - share) / _ON_CPU) * float(self._models[name].get("pace", 1.0))
        count = int((body.get("options") or {}).get("num_predict", 16))
        answer = {"model": name, "response": "One, two, three", "done": True, "done_reason": "length"}
        return as_json({**answer, "eval_count": count, "eval_duration": int(count / rate * 1e9)})

    def _load(self, name: str) -> None:
        size = int(self._models[name]["size_mib"])
        card = self._card()
        fits = min(size, max(0, free_mib(card) - CONTEXT_MIB)) if card is not None else 0
        if card is not None and fits:
            card.vram[f"{self._owner}/{name}"] = fits
        self._loaded[name] = fits

    def _unload(self, name: str) -> None:
        self._loaded.pop(name, None)
        card = self._card()
        if card is not None:
            card.vram.pop(f"{self._owner}/{name}", None)

    def _card(self) -> Card | None:
        world = self._running.world
        if not has_library(world, "libcuda.so.1"):
            return None
        cards = cuda_devices(world)
        return None if isinstance(cards, CudaError) or not cards else cards[0].card


def ollama(running: Running) -> Callable[[], None]:
    """Start the server."""
    server = Ollama(running)
    close = running.kubelet.cluster.listeners.listen(running.pod["metadata"]["uid"], PORT, server.answer)

    def end() -> None:
        close()
        server.close()

    return end
