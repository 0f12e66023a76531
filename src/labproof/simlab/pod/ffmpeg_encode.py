"""Software encoders and the choice of an encoder: cost, loss and what the file will say about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from labproof.simlab.pod.ffmpeg_argv import bits
from labproof.simlab.pod.media import Pictures, psnr_of_rate

#: CPU time per 1080p frame in ms by preset; `medium` of libx264 was measured (31 ms, facts/transcode.md 2.3).
_X264_MS = {
    "ultrafast": 4.5, "superfast": 6.5, "veryfast": 10.0, "faster": 17.0, "fast": 23.0, "medium": 31.0, "slow": 52.0,
    "slower": 98.0, "veryslow": 170.0,
}  # fmt: skip
_X265_FACTOR = 2.9

#: CPU time per 1080p frame, ms: generator and libx264 measured (facts/transcode.md 2.3), the others in proportion.
GENERATE_MS = 0.6
SOFTWARE_DECODE_MS = {"h264": 4.1, "hevc": 5.6, "av1": 6.4, "vp9": 5.2, "rawvideo": 0.1}
HARDWARE_DECODE_MS = 0.5
NVENC_MS = 1.1
NVENC_COPY_MS = 0.8  # frames in memory go over the bus first

_FORMATS = {
    "mp4": ("mp4", "mov,mp4,m4a,3gp,3g2,mj2"),
    "m4v": ("mp4", "mov,mp4,m4a,3gp,3g2,mj2"),
    "mov": ("mov", "mov,mp4,m4a,3gp,3g2,mj2"),
    "mkv": ("matroska", "matroska,webm"),
    "webm": ("webm", "matroska,webm"),
    "ts": ("mpegts", "mpegts"),
    "nut": ("nut", "nut"),
}
_DEFAULTS = {"null": "wrapped_avframe", "framemd5": "rawvideo", "md5": "rawvideo", "rawvideo": "rawvideo"}
CODEC_OF_ENCODER = {
    "libx264": "h264",
    "libx265": "hevc",
    "h264_nvenc": "h264",
    "hevc_nvenc": "hevc",
    "av1_nvenc": "av1",
    **{f"{codec}_{api}": codec for codec in ("h264", "hevc", "vp9", "av1") for api in ("vaapi", "qsv")},
    "rawvideo": "rawvideo",
    "wrapped_avframe": "wrapped_avframe",
}


@dataclass(frozen=True)
class Muxer:
    """An output format: ffmpeg's name for it, and the one ffprobe prints."""

    name: str
    probe_name: str


def muxer_of(url: str, form: str | None) -> Muxer | None:
    """Output format from `-f` or the file's ending; None when neither tells."""
    if form in _DEFAULTS:
        return Muxer(form, form)
    ending = form or url.rpartition(".")[2]
    by_name = {"matroska": "mkv", "mpegts": "ts"}.get(ending, ending)
    return Muxer(*_FORMATS[by_name]) if by_name in _FORMATS else None


def default_encoder(muxer: Muxer) -> str:
    """Encoder ffmpeg takes without -c:v."""
    return _DEFAULTS.get(muxer.name, "libx264")


def cpu_ms(encoder: str, options: Mapping[str, str], pictures: Pictures) -> float:
    """CPU time per frame of an encoder, in ms."""
    share = pictures.megapixel_share
    if encoder == "libx264":
        return _X264_MS.get(options.get("preset", "medium"), 31.0) * share
    if encoder == "libx265":
        return _X264_MS.get(options.get("preset", "medium"), 31.0) * _X265_FACTOR * share
    if encoder.endswith(("_nvenc", "_vaapi", "_qsv")):
        return (NVENC_MS + (0.0 if pictures.hardware else NVENC_COPY_MS)) * share
    return 0.05 * share


def loss_db(encoder: str, options: Mapping[str, str], pictures: Pictures) -> float:
    """Average PSNR of an encode of clean pictures, in dB."""
    rate = bit_rate(encoder, options, pictures)
    quality = psnr_of_rate(rate / float(pictures.width * pictures.height * pictures.rate))
    if encoder == "libx264":
        quality += 0.0 if options.get("preset") in ("ultrafast", "superfast", "veryfast") else 0.8
    if CODEC_OF_ENCODER[encoder] in ("hevc", "vp9", "av1"):
        quality += 1.5
    if encoder.endswith(("_nvenc", "_vaapi", "_qsv")):
        quality -= 0.9
    return quality


def bit_rate(encoder: str, options: Mapping[str, str], pictures: Pictures) -> int:
    """Bits per second an encode will have."""
    if "b" in options and bits(options["b"]) > 0:
        return int(bits(options["b"]) * 0.972)
    constant = options.get("crf") or options.get("cq") or options.get("qp")
    if constant is None and "global_quality" in options:
        constant = str(min(40.0, float(options["global_quality"]) / 2))  # VP9's scale is 0 to 255
    if constant is None and encoder.endswith("_nvenc"):
        return 1_948_000  # NVENC's default is 2 Mb/s
    level = float(constant) if constant else (28.0 if encoder == "libx265" else 23.0)
    per_pixel = 0.145 * 2 ** ((23.0 - level) / 6.0)
    return int(per_pixel * pictures.width * pictures.height * float(pictures.rate))


def profile_of(encoder: str, options: Mapping[str, str], pictures: Pictures) -> str:
    """Profile ffprobe will print."""
    codec, ten = CODEC_OF_ENCODER[encoder], "10" in pictures.pix_fmt
    if codec == "hevc":
        return "Main 10" if ten else "Main"
    if codec == "av1":
        return "Main"
    if codec == "vp9":
        return "Profile 2" if ten else "Profile 0"
    named = {"baseline": "Constrained Baseline", "main": "Main", "high": "High"}
    default = "Main" if encoder == "h264_nvenc" else ("High 10" if ten else "High")
    if encoder == "libx264" and options.get("preset") == "ultrafast":
        default = "Constrained Baseline"  # no CABAC, no 8x8 transform (seen with 5.1.9)
    return named.get(options.get("profile", ""), default)


def coded_format(pix_fmt: str) -> str:
    """Pixel format a decoder of the result gives: NVENC takes nv12, the stream is planar to others."""
    return {"nv12": "yuv420p", "p010le": "yuv420p10le"}.get(pix_fmt, pix_fmt)
