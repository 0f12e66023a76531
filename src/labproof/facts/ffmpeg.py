"""What ffmpeg and ffprobe say, as typed facts: progress, cost, stream mapping, PSNR, SSIM, streams of a file.

Pure parsers of text. Every form was seen from ffmpeg 5.1.9 and 9.0.2 [facts transcode 1.0, 2.3, 2.4, 2.7].
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from labproof.facts.reading import Reading, failed, value


@dataclass(frozen=True)
class Progress:
    """The last block of `-progress pipe:1`.

    Attributes:
        ended: the block closed with `progress=end`; without it ffmpeg was stopped.
        frames: frames written.
        dropped: frames dropped to keep the rate.
        speed: times real time, None for `N/A` (very short runs).
        fps: frames per second as ffmpeg itself averaged them, None for `N/A`.
    """

    ended: bool
    frames: int
    dropped: int
    duplicated: int
    speed: float | None
    fps: float | None


@dataclass(frozen=True)
class Cost:
    """The `bench:` lines: CPU seconds of user and system, wall clock seconds, peak resident memory in KiB."""

    user_s: float
    system_s: float
    real_s: float
    maxrss_kib: int | None

    def cpu_ms_per_frame(self, frames: int) -> float:
        """CPU milliseconds for one frame, all threads together."""
        return (self.user_s + self.system_s) * 1000.0 / max(1, frames)


@dataclass(frozen=True)
class Mapping:
    """One line of `Stream mapping:`: what decodes a stream and what encodes it."""

    source_codec: str
    decoder: str
    target_codec: str
    encoder: str


@dataclass(frozen=True)
class Quality:
    """Average PSNR and its worst frame in dB (None: identical, infinite), or SSIM over all planes (0 to 1)."""

    average: float | None
    minimum: float | None
    identical: bool = False


@dataclass(frozen=True)
class VideoStream:
    """The video stream of a file as ffprobe counted it.

    Attributes:
        frames: decoded and counted (`nb_read_frames`), None when ffprobe was not asked to count.
        encoder: the muxed tag (`Lavc61.19.101 h264_nvenc`), empty where the container keeps none.
    """

    codec: str
    profile: str
    pix_fmt: str
    width: int
    height: int
    frame_rate: str
    frames: int | None
    encoder: str
    color_transfer: str = ""


def parse_progress(stdout: str) -> Reading[Progress]:
    """The last progress block of a run; failed when there is none at all."""
    block: dict[str, str] = {}
    last: dict[str, str] = {}
    for line in stdout.splitlines():
        key, equals, text = line.partition("=")
        if not equals:
            continue
        block[key.strip()] = text.strip()
        if key.strip() == "progress":
            last, block = block, {}
    last = last or block
    if not last:
        return failed("ffmpeg -progress pipe:1", "ffmpeg told no progress", "format")
    return value(
        Progress(
            last.get("progress") == "end",
            int(_number(last.get("frame", "")) or 0),
            int(_number(last.get("drop_frames", "")) or 0),
            int(_number(last.get("dup_frames", "")) or 0),
            _number(last.get("speed", "").removesuffix("x")),
            _number(last.get("fps", "")),
        ),
        "ffmpeg -progress pipe:1",
    )


def parse_cost(stderr: str) -> Reading[Cost]:
    """The last `bench:` lines; a run that failed early prints only maxrss, which is no cost."""
    times = re.findall(r"bench: utime=([\d.]+)s stime=([\d.]+)s rtime=([\d.]+)s", stderr)
    if not times:
        return failed("ffmpeg -benchmark", "ffmpeg printed no `bench: utime=` line", "format")
    user, system, real = (float(part) for part in times[-1])
    memory = re.findall(r"bench: maxrss=(\d+)\s*(?:kB|KiB)", stderr)
    return value(Cost(user, system, real, int(memory[-1]) if memory else None), "ffmpeg -benchmark")


def parse_mappings(stderr: str) -> tuple[Mapping, ...]:
    """Lines `Stream #0:0 -> #0:0 (h264 (native) -> h264 (h264_nvenc))`; a copied stream is not one."""
    found = re.findall(r"Stream #\S+ -> #\S+ \((\S+) \(([^)]+)\) -> (\S+) \(([^)]+)\)\)", stderr)
    return tuple(Mapping(*parts) for parts in found)


def parse_psnr(stderr: str) -> Reading[Quality]:
    """`[Parsed_psnr_4 @ ..] PSNR y:.. average:49.7 min:48.9 max:52.8` in dB; identical frames are `inf`."""
    found = re.findall(r"Parsed_psnr\S* @ \S+\] PSNR .*?average:(\S+) min:(\S+)", stderr)
    if not found:
        return failed("ffmpeg psnr", "ffmpeg printed no PSNR", "format")
    average, minimum = found[-1]
    return value(Quality(_number(average), _number(minimum), average == "inf"), "ffmpeg psnr")


def parse_ssim(stderr: str) -> Reading[Quality]:
    """`[Parsed_ssim_4 @ ..] SSIM Y:.. U:.. V:.. All:0.9975 (25.97)`."""
    found = re.findall(r"Parsed_ssim\S* @ \S+\] SSIM .*?All:(\S+)", stderr)
    if not found:
        return failed("ffmpeg ssim", "ffmpeg printed no SSIM", "format")
    average = _number(found[-1])
    return value(Quality(average, None, average == 1.0), "ffmpeg ssim")


def parse_ffprobe(stdout: str) -> Reading[VideoStream]:
    """The first video stream of `ffprobe -of json`; counts arrive as JSON strings."""
    source = "ffprobe -of json"
    try:
        streams = json.loads(stdout).get("streams") or []
        stream = streams[0]
    except (ValueError, AttributeError, IndexError, KeyError):
        return failed(source, "ffprobe found no video stream", "format")
    counted = _number(str(stream.get("nb_read_frames", "")))
    return value(
        VideoStream(
            str(stream.get("codec_name", "")),
            str(stream.get("profile", "")),
            str(stream.get("pix_fmt", "")),
            int(stream.get("width") or 0),
            int(stream.get("height") or 0),
            str(stream.get("r_frame_rate", "")),
            int(counted) if counted is not None else None,
            str((stream.get("tags") or {}).get("encoder", "")),
            str(stream.get("color_transfer", "")),
        ),
        source,
    )


#: Lines that only a real hardware path prints at -v verbose [facts transcode 2.1].
HARDWARE_LINES: dict[str, re.Pattern[str]] = {
    "NVENC opened": re.compile(r"Nvenc initialized successfully|supports NVENC"),
    "zero copy": re.compile(r"Using input frames context \(format cuda\) with \w+ encoder"),
    "NVDEC frames": re.compile(r"Reinit context to \d+x\d+, pix_fmt: cuda|NVDEC capabilities:"),
    "VA encode": re.compile(r"Using VAAPI entrypoint VAEntrypointEncSlice|Initialize MFX session"),
    "VA zero copy": re.compile(r"Using input frames context \(format (?:vaapi|qsv)\) with \w+ encoder"),
    "VA frames": re.compile(r"Reinit context to \d+x\d+, pix_fmt: vaapi"),
}

#: Lines that tell of a decoder that went on in software although hardware was asked for [facts transcode 2.2].
FALLBACK_LINES = re.compile(
    r"hwaccel initialisation returned error|not supported for hardware decode"
    r"|Hardware is lacking required capabilities|Auto hwaccel disabled"
)
_REINIT = re.compile(r"Reinit context to \d+x\d+, pix_fmt: (\w+)")
_HARDWARE_FORMATS = ("cuda", "vaapi", "qsv", "vulkan")


def hardware_lines(stderr: str) -> tuple[str, ...]:
    """Names of the hardware proof lines that a verbose log holds."""
    return tuple(name for name, pattern in HARDWARE_LINES.items() if pattern.search(stderr))


def fallback_line(stderr: str) -> str:
    """The first line that tells of software decoding after hardware was asked for, or empty.

    A `Reinit context` to a software format is one only after the decoder had a hardware format: every input is first
    opened in software to learn its streams, and that logs the same line.
    """
    in_hardware = False
    for line in stderr.splitlines():
        if FALLBACK_LINES.search(line):
            return line.strip()
        reinit = _REINIT.search(line)
        if reinit is None:
            continue
        if reinit.group(1) in _HARDWARE_FORMATS:
            in_hardware = True
        elif in_hardware:
            return line.strip()
    return ""


def telling_lines(stderr: str, limit: int = 12) -> str:
    """The lines worth keeping as evidence of a failed run: its last ones, without statistics."""
    dull = re.compile(r"^(bench:|\[AVIOContext|\s*(Input|Output|Total|Metadata|Side data|Duration|encoder|cpb)\b)")
    lines = [line.rstrip() for line in stderr.splitlines() if line.strip() and not dull.match(line)]
    return "\n".join(lines[-limit:])


def _number(text: str) -> float | None:
    try:
        number = float(text.strip())
    except ValueError:
        return None
    return number if number == number and abs(number) != float("inf") else None  # noqa: PLR0124 - NaN
