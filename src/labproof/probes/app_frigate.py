"""Frigate: its statistics and its configuration, two reads (facts transcode 6; Frigate's stats/util.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from labproof.clients.app_http import AppHttp
from labproof.facts.apps import AppFacts, Camera, Detector, Frigate, GpuUsage
from labproof.facts.reading import value
from labproof.facts.store import now
from labproof.inventory.branches import App
from labproof.inventory.models import Lab


def look(http: AppHttp, app: App, lab: Lab, facts: AppFacts) -> AppFacts:
    """`/api/stats` and `/api/config`."""
    stats, config = _json(http, "api/stats"), _json(http, "api/config")
    types = {str(n): str(_part(d).get("type") or "") for n, d in _part(config.get("detectors")).items()}
    service = _part(stats.get("service"))
    shm = _part(_part(service.get("storage")).get("/dev/shm"))  # noqa: S108 - a path in Frigate's own answer
    seen = Frigate(
        version=str(service.get("version") or ""),
        gpus=tuple(
            GpuUsage(str(n), str(_part(u).get("gpu") or ""), str(_part(u).get("mem") or ""))
            for n, u in _part(stats.get("gpu_usages")).items()
        ),
        detectors=tuple(
            Detector(str(n), types.get(str(n), ""), float(_part(d).get("inference_speed") or 0.0))
            for n, d in _part(stats.get("detectors")).items()
        ),
        cameras=tuple(_camera(str(n), _part(c), _part(stats.get("cameras")), config)
                      for n, c in _part(config.get("cameras")).items() if _part(c).get("enabled", True)),
        shm_total_mb=_number(shm.get("total")),
        shm_needed_mb=_number(shm.get("min_shm")),
    )  # fmt: skip
    return replace(facts, frigate=value(seen, f"GET {http.where}/api/stats, /api/config", now()))


def _camera(name: str, config: Mapping[str, Any], stats: Mapping[str, Any], whole: Mapping[str, Any]) -> Camera:
    """A camera's own arguments win over those for all cameras; its first input's over both."""
    own = _part(config.get("ffmpeg"))
    first = _part(next(iter(own.get("inputs") or ()), {}))
    told = first.get("hwaccel_args") or own.get("hwaccel_args") or _part(whole.get("ffmpeg")).get("hwaccel_args") or ""
    text = " ".join(map(str, told)) if isinstance(told, list) else str(told)
    return Camera(name, text, float(_part(stats.get(name)).get("camera_fps") or 0.0))


def _json(http: AppHttp, path: str) -> Mapping[str, Any]:
    return _part(json.loads(http.ask(path)))


def _part(raw: object) -> Mapping[str, Any]:
    return raw if isinstance(raw, Mapping) else {}


def _number(raw: object) -> float | None:
    return float(raw) if isinstance(raw, int | float) else None
