"""Plex, Emby, Immich's machine learning, an OpenAI-style server and ComfyUI, each as far as it tells of its device.

Which device it is follows from the container: driver libraries, the card that CUDA opens, the variant of the image.
Fields: Plex' /status/sessions, Emby's Sessions, vLLM's and ComfyUI's own routes; facts/transcode.md 6.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from labproof.simlab.apps.settings import as_json, knows, settings_of, text
from labproof.simlab.kube.pod_http import Answer, Asked, Handler
from labproof.simlab.kube.services import Running, Service
from labproof.simlab.pod.access import CudaError, cuda_devices, has_library, open_error
from labproof.simlab.world.states import PodWorld


def encodes_on_card(world: PodWorld) -> bool:
    """Whether NVENC opens in this container."""
    cards = cuda_devices(world)
    able = has_library(world, "libcuda.so.1") and has_library(world, "libnvidia-encode.so.1")
    return able and not isinstance(cards, CudaError) and any(g.card.inputs.get("encode") for g in cards)


def renders_on_card(world: PodWorld) -> bool:
    """Whether the process may open a render node, which VA-API needs."""
    return any(path.startswith("/dev/dri/renderD") and open_error(world, path) is None for path in world.devices)


def computes_on_card(world: PodWorld) -> bool:
    """Whether CUDA opens in this container."""
    return has_library(world, "libcuda.so.1") and not isinstance(cuda_devices(world), CudaError)


def _listening(port: int, make: Callable[[Running], Handler]) -> Service:
    def start(running: Running) -> Callable[[], None]:
        return running.kubelet.cluster.listeners.listen(running.pod["metadata"]["uid"], port, make(running))

    return start


def _plex(running: Running) -> Handler:
    async def answer(asked: Asked) -> Answer:
        settings = settings_of(running)
        if not knows(asked, settings, "x-plex-token"):
            return text("", 401)
        if asked.path != "/status/sessions":
            return text("", 404)
        hardware = bool(settings.get("hardware_transcoding", True)) and encodes_on_card(running.world)
        rows = []
        for title in settings.get("playing") or ():
            session: dict[str, Any] = {"videoDecision": "transcode", "audioDecision": "copy", "speed": 4.2}
            if hardware:
                session |= {
                    "transcodeHwRequested": True,
                    "transcodeHwDecoding": "nvdec",
                    "transcodeHwEncoding": "nvenc",
                }
            rows.append({"title": title, "type": "movie", "TranscodeSession": session})
        return as_json({"MediaContainer": {"size": len(rows), "Metadata": rows}})

    return answer


def _emby(running: Running) -> Handler:
    async def answer(asked: Asked) -> Answer:
        settings = settings_of(running)
        if not knows(asked, settings, "x-emby-token"):
            return text("Access token is invalid or expired.", 401)
        if asked.path != "/emby/Sessions":
            return text("", 404)
        nvidia = encodes_on_card(running.world)
        hardware = bool(settings.get("premiere", True)) and (nvidia or renders_on_card(running.world))
        names = ("h264_cuvid", "h264_nvenc") if nvidia else ("h264_vaapi", "h264_vaapi")
        decoder, encoder = names if hardware else ("h264", "libx264")
        info = {"IsVideoDirect": False, "VideoDecoder": decoder, "VideoEncoder": encoder,
                "VideoDecoderIsHardware": hardware, "VideoEncoderIsHardware": hardware}  # fmt: skip
        rows = [{"NowPlayingItem": {"Name": title}, "TranscodingInfo": info} for title in settings.get("playing") or ()]
        return as_json([*rows, {"Client": "Emby Web"}])

    return answer


def _immich(running: Running) -> Handler:
    on_card = "-cuda" in running.world.image.partition("@")[0] and not settings_of(running).get("digest_of_cpu_image")
    providers = ["CPUExecutionProvider"]
    if on_card and computes_on_card(running.world):
        providers = ["CUDAExecutionProvider", *providers]
    running.log("INFO     Loading visual model 'ViT-B-32__openai' to memory")
    running.log(f"INFO     Setting execution providers to {providers}, in descending order of preference")

    async def answer(asked: Asked) -> Answer:
        return text("pong") if asked.path == "/ping" else as_json({"message": "Immich ML"})

    return answer


def _openai(running: Running) -> Handler:
    async def answer(asked: Asked) -> Answer:
        settings = settings_of(running)
        models = [m for m in settings.get("models") or () if not settings.get("load_failed")]
        if asked.path == "/health":
            return text("")
        if asked.path == "/v1/models":
            return as_json({"object": "list", "data": [{"id": m, "object": "model"} for m in models]})
        if asked.path == "/v1/completions" and asked.method == "POST":
            wanted = int(json.loads(asked.body or b"{}").get("max_tokens", 16))
            rate = float(settings.get("tokens_per_s", 48.0)) if computes_on_card(running.world) else 2.5
            timings = {"predicted_n": wanted, "predicted_ms": 1000 * wanted / rate}
            choices = [{"text": " two three"}]
            return as_json({"choices": choices, "usage": {"completion_tokens": wanted}, "timings": timings})
        return as_json({"error": {"message": "Not Found"}}, 404)

    return answer


def _comfyui(running: Running) -> Handler:
    async def answer(asked: Asked) -> Answer:
        if asked.path != "/system_stats":
            return text("404: Not Found", 404)
        device: dict[str, Any] = {"name": "cpu", "type": "cpu", "index": None, "vram_total": 0, "vram_free": 0}
        cards = cuda_devices(running.world)
        if computes_on_card(running.world) and not isinstance(cards, CudaError):
            product = cards[0].card.inputs["product"]
            device |= {"name": f"cuda:0 {product} : cudaMallocAsync", "type": "cuda", "index": 0}
        return as_json({"system": {"os": "posix", "comfyui_version": "0.3.62"}, "devices": [device]})

    return answer


#: By the image's repository.
SERVERS: dict[str, Service] = {
    "plexinc/pms-docker": _listening(32400, _plex),
    "emby/embyserver": _listening(8096, _emby),
    "linuxserver/emby": _listening(8096, _emby),
    "immich-app/immich-machine-learning": _listening(3003, _immich),
    "vllm/vllm-openai": _listening(8000, _openai),
    "ai-dock/comfyui": _listening(8188, _comfyui),
}
