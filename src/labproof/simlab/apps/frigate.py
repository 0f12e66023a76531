"""Frigate: `/api/stats`, `/api/config`; figures by nvidia-smi, latched for an hour after a failed reading.

Fields and the cooldown: Frigate's stats/util.py (HWACCEL_ERROR_COOLDOWN 3600 s), calculate_shm_requirements;
facts/transcode.md 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from labproof.simlab.apps.settings import as_json, settings_of, text
from labproof.simlab.kube.plugin import nvml_error
from labproof.simlab.kube.pod_http import Answer, Asked
from labproof.simlab.kube.quantity import amount
from labproof.simlab.kube.services import Running
from labproof.simlab.pod.readings import read_card

PORT = 5000
_COOLDOWN_S = 3600.0
_MIB = 1024 * 1024
_ON_CARD_MS, _ON_CPU_MS = 9.4, 87.0


def frigate(running: Running) -> Callable[[], None]:
    """Start the server."""
    settings = settings_of(running)
    failed_at = [-_COOLDOWN_S]
    if settings.get("gpu_read_failed_ago_s") is not None:
        failed_at[0] = running.kubelet.cluster.world_time - float(settings["gpu_read_failed_ago_s"])

    async def answer(asked: Asked) -> Answer:
        if asked.path == "/api/version":
            return text(str(settings.get("version", "0.16.2-4d58206")))
        if asked.path == "/api/config":
            return as_json(_config(settings))
        if asked.path == "/api/stats":
            return as_json(_stats(running, settings, failed_at))
        return text("404 Not Found", 404)

    return running.kubelet.cluster.listeners.listen(running.pod["metadata"]["uid"], PORT, answer)


def _config(settings: Mapping[str, Any]) -> dict[str, Any]:
    cameras = {
        name: {"name": name, "enabled": True, "detect": {"width": 1280, "height": 720}, **(entry or {})}
        for name, entry in (settings.get("cameras") or {}).items()
    }
    common = {"hwaccel_args": settings.get("hwaccel_args", "")}
    return {"ffmpeg": common, "cameras": cameras, "detectors": settings.get("detectors") or {"cpu": {"type": "cpu"}}}


def _stats(running: Running, settings: Mapping[str, Any], failed_at: list[float]) -> dict[str, Any]:
    config = _config(settings)
    detectors = {
        name: {"inference_speed": _ON_CPU_MS if entry.get("type") == "cpu" else _ON_CARD_MS, "detection_start": 0.0,
               "pid": 380}
        for name, entry in config["detectors"].items()
    }  # fmt: skip
    cameras = {
        name: {"camera_fps": 5.0, "process_fps": 5.0, "skipped_fps": 0.0, "detection_fps": 0.4, "ffmpeg_pid": 402}
        for name, camera in config["cameras"].items() if camera["enabled"]
    }  # fmt: skip
    shm = {"total": round(_shm_mib(running), 1), "used": 31.1, "free": 1.0, "mount_type": "tmpfs",
           "min_shm": round(_needed_mib(config), 1)}  # fmt: skip
    service = {"version": str(settings.get("version", "0.16.2-4d58206")), "uptime": 3600,
               "storage": {"/dev/shm": shm}}  # noqa: S108  # fmt: skip
    return {
        "cameras": cameras,
        "detectors": detectors,
        "gpu_usages": _gpu_usages(running, failed_at),
        "service": service,
    }


def _gpu_usages(running: Running, failed_at: list[float]) -> dict[str, Any]:
    now = running.kubelet.cluster.clock.now()
    if nvml_error(running) or "nvidia-smi" not in running.world.programs:
        failed_at[0] = now
    if now - failed_at[0] < _COOLDOWN_S:
        return {"nvidia-gpu": {"gpu": "", "mem": ""}}
    found = {}
    for gpu in running.world.gpus:
        told = read_card(gpu.card)
        memory = 100 * told.used_mib / told.total_mib
        found[gpu.card.inputs["product"]] = {
            "vendor": "nvidia", "gpu": f"{told.gpu_percent}%", "mem": f"{memory:.1f}%",
            "enc": f"{told.encoder_percent}%", "dec": f"{told.decoder_percent}%", "temp": str(told.temperature_c),
        }  # fmt: skip
    return found


def _shm_mib(running: Running) -> float:
    """An emptyDir in memory at /dev/shm, else the runtime's 64 MiB."""
    volumes = {v["name"]: v.get("emptyDir") for v in running.pod["spec"].get("volumes") or ()}
    for mount in running.container.spec.get("volumeMounts") or ():
        source = volumes.get(mount["name"])
        if mount["mountPath"] == "/dev/shm" and source is not None:  # noqa: S108
            limit = source.get("sizeLimit")
            return float(amount(limit)) / _MIB if limit else running.kubelet.memory_mib / 2
    return 64.0


def _needed_mib(config: Mapping[str, Any]) -> float:
    def frames(width: int, height: int) -> float:
        return 20 * (width * height * 1.5 + 270480) / _MIB

    cameras = [c["detect"] for c in config["cameras"].values() if c["enabled"]]
    return 50 + sum(frames(c["width"], c["height"]) for c in cameras) + 2 * frames(1280, 720)
