"""Jellyfin: its encoding options, and HLS sessions whose segments its own ffmpeg makes in the pod's world.

Routes and fields: Jellyfin's ConfigurationController, SystemController, DynamicHlsController; which encoder it takes:
EncodingHelper.cs (the configured type's when ffmpeg lists it, else silently libx264); facts/transcode.md 6.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from labproof.simlab.apps.settings import as_json, knows, settings_of, text
from labproof.simlab.kube.clock import rfc3339
from labproof.simlab.kube.pod_http import Answer, Asked
from labproof.simlab.kube.process import ContainerIO
from labproof.simlab.kube.services import Running
from labproof.simlab.pod.images import image_config

PORT = 8096
_DEFAULTS: Mapping[str, Any] = {
    "EncodingThreadCount": -1, "TranscodingTempPath": "/cache/transcodes", "EnableFallbackFont": False,
    "HardwareAccelerationType": "none", "EncoderAppPath": "/usr/lib/jellyfin-ffmpeg/ffmpeg",
    "EncoderAppPathDisplay": "/usr/lib/jellyfin-ffmpeg/ffmpeg", "VaapiDevice": "/dev/dri/renderD128", "QsvDevice": "",
    "EnableTonemapping": False, "EnableVppTonemapping": False, "H264Crf": 23, "H265Crf": 28,
    "EnableDecodingColorDepth10Hevc": True, "EnableEnhancedNvdecDecoder": True, "EnableHardwareEncoding": True,
    "AllowHevcEncoding": False, "AllowAv1Encoding": False, "HardwareDecodingCodecs": ["h264", "vc1"],
}  # fmt: skip
_SEGMENTS = 3
_MEDIA_SECONDS = 12  # of the video that sessions are made of


class Jellyfin:
    """One server process."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._settings = settings_of(running)
        self._options = {**_DEFAULTS, **(self._settings.get("encoding") or {})}
        self._logs: dict[str, str] = {"log_20261120.log": ""}
        self._jobs: dict[str, bool] = {}  # PlaySessionId -> ffmpeg ended well

    async def answer(self, asked: Asked) -> Answer:
        """Any request."""
        if asked.path == "/health":
            return text("Healthy")
        if not knows(asked, self._settings, "x-emby-token"):
            return text("", 401)
        if asked.path == "/System/Configuration/encoding":
            return as_json(self._options)
        if asked.path == "/System/Logs":
            now = rfc3339(self._running.kubelet.cluster.clock.now())
            return as_json([{"DateCreated": now, "DateModified": now, "Size": len(t), "Name": n}
                            for n, t in self._logs.items()])  # fmt: skip
        if asked.path == "/System/Logs/Log":
            name = asked.query.get("name", "")
            return text(self._logs[name]) if name in self._logs else text("", 404)
        if asked.path == "/Videos/ActiveEncodings" and asked.method == "DELETE":
            self._jobs.pop(asked.query.get("playSessionId", ""), None)
            return Answer(b"", 204, "text/plain")
        return await self._video(asked)

    async def _video(self, asked: Asked) -> Answer:
        found = re.fullmatch(r"/Videos/([0-9a-f]{32})/(.+)", asked.path)
        item = (self._settings.get("items") or {}).get(found[1]) if found else None
        if found is None or item is None:
            return text("Error processing request.", 404)
        query = "&".join(f"{k}={v}" for k, v in asked.query.items())
        head = "#EXTM3U\n#EXT-X-VERSION:3\n"
        if found[2] == "master.m3u8":
            body = f"{head}#EXT-X-STREAM-INF:BANDWIDTH=2128000,RESOLUTION=1280x720\nmain.m3u8?{query}\n"
        elif found[2] == "main.m3u8":
            rows = [f"#EXTINF:4.000000, nodesc\nhls1/main/{n}.ts?{query}\n" for n in range(_SEGMENTS)]
            body = f"{head}#EXT-X-TARGETDURATION:4\n{''.join(rows)}#EXT-X-ENDLIST\n"
        elif re.fullmatch(r"hls1/main/\d+\.ts", found[2]):
            session = asked.query.get("PlaySessionId", "")
            if session not in self._jobs:
                self._jobs[session] = await self._transcode(found[1], item, session)
            good = self._jobs[session]
            return Answer(b"\x47" * 188 * 16, 200, "video/mp2t") if good else text("Error processing request.", 500)
        else:
            return text("", 404)
        return text(body, 200, "application/vnd.apple.mpegurl")

    async def _transcode(self, ident: str, item: Mapping[str, Any], session: str) -> bool:
        """Run ffmpeg as the options say, and keep its log as Jellyfin names and writes it."""
        running = self._running
        cluster, world = running.kubelet.cluster, running.world
        path = str(item["path"])
        if path not in world.files:
            world.files[path] = await self._media(item)
        said: list[bytes] = []
        io = ContainerIO(cluster.clock.speed, lambda chunk: None, said.append)
        argv = self._command(path)
        status = await cluster.programs.run(argv, world, io)
        stamp = rfc3339(cluster.clock.now()).replace(":", "-").replace("T", "_").removesuffix("Z")
        name = f"FFmpeg.Transcode-{stamp}_{ident}_{session[-8:]}.log"
        source = json.dumps({"Protocol": "File", "Id": ident, "Path": path, "Container": "mkv"})
        log = b"".join(said).decode("utf-8", "replace")
        self._logs[name] = f"{source}\n\n{' '.join(argv)}\n\n{log}"
        if status:
            running.log(f"[ERR] MediaBrowser.MediaEncoding: FFmpeg exited with code {status}")
        return status == 0

    def _command(self, path: str) -> list[str]:
        kind = str(self._options["HardwareAccelerationType"])
        encoder = f"h264_{kind}"
        config = image_config(self._running.world.image, self._running.world.image_inputs)
        able = config is not None and config.ffmpeg is not None and encoder in config.ffmpeg.encoders
        words = [str(self._options["EncoderAppPath"]), "-analyzeduration", "200M", "-probesize", "1G"]
        tail = ["-b:v", "2000000", "-f", "null", "-"]
        if kind == "nvenc" and able and self._options["EnableHardwareEncoding"]:
            words += ["-init_hw_device", "cuda=cu:0", "-filter_hw_device", "cu", "-hwaccel", "cuda",
                      "-hwaccel_output_format", "cuda", "-i", path, "-codec:v:0", encoder, "-preset", "p1"]  # fmt: skip
            return [*words, "-vf", "scale_cuda=w=1280:h=720:format=nv12", *tail]
        return [*words, "-i", path, "-codec:v:0", "libx264", "-preset", "veryfast", "-vf", "scale=1280:720", *tail]

    async def _media(self, item: Mapping[str, Any]) -> Any:
        """A video of the library: made by the image's own ffmpeg in a world of its own, in no time."""
        running = self._running
        elsewhere = replace(running.world, files={}, gpus=())
        io = ContainerIO(1e9, lambda chunk: None, lambda chunk: None)
        made = "/tmp/media.mp4"  # noqa: S108 - a path in the simulated container
        source = f"testsrc2=size=1920x1080:rate=30:duration={item.get('seconds', _MEDIA_SECONDS)}"
        argv = [str(_DEFAULTS["EncoderAppPath"]), "-v", "error", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p",
                "-c:v", "libx264", "-b:v", "6M", "-y", made]  # fmt: skip
        await running.kubelet.cluster.programs.run(argv, elsewhere, io)
        return elsewhere.files[made]


def jellyfin(running: Running) -> Callable[[], None]:
    """Start the server."""
    server = Jellyfin(running)
    running.log("[INF] Startup complete 0:00:02.41")
    return running.kubelet.cluster.listeners.listen(running.pod["metadata"]["uid"], PORT, server.answer)
