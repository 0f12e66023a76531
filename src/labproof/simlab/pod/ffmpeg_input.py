"""Opening ffmpeg's inputs: generated pictures, files of the container, and their decoders on CPU or card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from labproof.simlab.pod import ffmpeg_log as errors
from labproof.simlab.pod.ffmpeg_argv import Source, seconds
from labproof.simlab.pod.ffmpeg_encode import GENERATE_MS, HARDWARE_DECODE_MS, SOFTWARE_DECODE_MS
from labproof.simlab.pod.ffmpeg_log import FfmpegError, Log
from labproof.simlab.pod.media import MediaRecord, Pictures, damaged
from labproof.simlab.pod.nvcodec import CudaContext, open_cuda, open_decoder
from labproof.simlab.pod.process import NotSimulatedError
from labproof.simlab.pod.vacodec import VaContext, open_va_decoder, open_vaapi
from labproof.simlab.world.states import PodWorld


@dataclass
class Stream:
    """One opened input stream.

    Attributes:
        codec: rawvideo, h264, hevc ...
        pictures: what it decodes to (with the decoder's CPU time).
        device: device of its decoder; decoding: whether the card does the work.
    """

    source: Source
    codec: str
    pictures: Pictures
    device: CudaContext | VaContext | None = None
    decoding: bool = False
    record: MediaRecord | None = None


def open_input(pod: PodWorld, log: Log, source: Source, number: int) -> Stream:
    """Open one input and write its section of the log.

    Raises:
        FfmpegError: no such file, or no media file.
    """
    if source.options.get("f") == "lavfi":
        pictures = _generated(source, log)
        rate = _rate(pictures.rate)
        log.note(f"Input #{number}, lavfi, from '{source.url}':")
        log.note("  Duration: N/A, start: 0.000000, bitrate: N/A")
        look = f"{pictures.pix_fmt}, {_size(pictures)}, {rate} tbr, {rate} tbn"
        log.note(f"  Stream #{number}:0: Video: rawvideo, 1 reference frame (I420 / 0x30323449), {look}")
        return Stream(source, "rawvideo", pictures)
    record = pod.files.get(source.url)
    if not isinstance(record, MediaRecord):
        missing = record is None
        raise _not_opened(log, source.url, number, errors.ENOENT if missing else errors.INVALID_DATA)
    pictures = record.pictures
    pictures = replace(pictures, frames=_limited(source, pictures) * source.repeats, feeds=())
    if record.codec == "h264":
        log.verbose(f"Reinit context to {pictures.width}x{-(-pictures.height // 16) * 16}, pix_fmt: yuv420p", "h264")
    log.note(f"Input #{number}, {record.container}, from '{source.url}':")
    log.note(f"  Metadata:\n    encoder         : Lavf{record.muxer}")
    length = float(record.duration)
    stamp = f"{int(length // 3600):02d}:{int(length % 3600 // 60):02d}:{length % 60:05.2f}"
    log.note(f"  Duration: {stamp}, start: 0.000000, bitrate: {record.size_bytes * 8 / length / 1000:.0f} kb/s")
    rate = _rate(pictures.rate)
    look = f"{pictures.pix_fmt}(progressive), {_size(pictures)}, {record.bit_rate // 1000} kb/s"
    log.note(
        f"  Stream #{number}:0[0x1](und): Video: {record.codec} ({record.profile}), {look}, {rate} fps, {rate} tbr"
    )
    if record.encoder_tag:
        log.note(f"    Metadata:\n      encoder         : {record.encoder_tag}")
    cost = SOFTWARE_DECODE_MS.get(record.codec, 5.0) * pictures.megapixel_share
    return Stream(source, record.codec, replace(pictures, cpu_ms=cost), record=record)


def open_decoder_device(
    pod: PodWorld, log: Log, stream: Stream, opened: Sequence[CudaContext | VaContext] = ()
) -> None:
    """Create the device `-hwaccel` asks for, or take the one of that name that was made before.

    Raises:
        FfmpegError: an explicit device cannot be created; `auto` falls back instead.
    """
    wish = stream.source.hwaccel
    raw = stream.codec == "rawvideo"  # 5.1 makes the device for it all the same (recording s19-ffmpeg-cuda)
    if wish == "none" or (raw and (log.modern or wish == "auto")):
        return
    if wish not in ("cuda", "nvdec", "vaapi", "auto"):
        raise NotSimulatedError(f"-hwaccel {wish}")
    kind = "vaapi" if wish == "vaapi" else "cuda"
    if kind not in log.build.hwaccels:
        log.err(f"Unrecognized hwaccel: {wish}.")
        log.err(f"Supported hwaccels: {' '.join(log.build.hwaccels)} ")
        raise FfmpegError(errors.EINVAL)
    named = stream.source.options.get("hwaccel_device", "")
    try:
        if wish == "vaapi":
            known = next((d for d in opened if isinstance(d, VaContext) and d.name == named), None)
            device: CudaContext | VaContext = known or open_vaapi(pod, log, named or "/dev/dri/renderD128", {}, "dec")
        else:
            device = open_cuda(pod, log, named)
        stream.device = None if raw else device
    except FfmpegError as failure:
        if wish == "auto":
            log.note("Auto hwaccel disabled: no device found.", stream.codec)
            return
        context = f"dec:{stream.codec}" if log.modern else stream.codec
        log.err(f"No device available for decoder: device type {kind} needed for codec {stream.codec}.", context)
        text = errors.MEANING[failure.code]
        if log.modern:
            log.err(f"Hardware device setup failed for decoder: {text}", context)
            log.err(f"Error opening output file.\nError opening output files: {text}")
        else:
            log.err(f"Device setup failed for decoder on input stream #0:0 : {text}")
        raise


def start_decoder(pod: PodWorld, log: Log, stream: Stream) -> None:
    """Start decoding: on the card when there is a device and the chip can, silently in software otherwise."""
    pictures = stream.pictures
    if stream.device is None or stream.codec in log.build.software_decoders:
        if stream.codec == "h264":
            height = -(-pictures.height // 16) * 16
            log.verbose(f"Reinit context to {pictures.width}x{height}, pix_fmt: {pictures.pix_fmt}", "h264")
        return
    if isinstance(stream.device, VaContext):
        works = open_va_decoder(log, stream.codec, pictures, stream.device)
    else:
        works = open_decoder(pod, log, stream.codec, pictures, stream.device)
    if not works:
        return
    stream.decoding = True
    kind = "vaapi" if isinstance(stream.device, VaContext) else "cuda"
    keep = stream.source.options.get("hwaccel_output_format") == kind
    surface = "p010le" if "10" in pictures.pix_fmt else "nv12"
    cost = (HARDWARE_DECODE_MS + (0.0 if keep else 1.1)) * pictures.megapixel_share
    wrong = (stream.device.card.inputs.get("picture_error") or {}).get("decode", 0.0)
    stream.pictures = replace(
        damaged(pictures, float(wrong)), hardware=kind if keep else "", pix_fmt=surface, cpu_ms=cost
    )


def _generated(source: Source, log: Log) -> Pictures:
    name, _, args = source.url.partition("=")
    if "," in args or name not in ("testsrc2", "color"):
        raise NotSimulatedError(f"lavfi source {source.url}")
    given = dict(part.partition("=")[::2] for part in args.split(":") if part)
    size = given.pop("size", "") or given.pop("s", "320x240")
    size = {"hd1080": "1920x1080", "hd720": "1280x720", "vga": "640x480"}.get(size, size)
    width, height = (int(n) for n in size.split("x"))
    rate = Fraction(str(given.pop("rate", "") or given.pop("r", "25")))
    length = given.pop("duration", "") or given.pop("d", "") or source.options.get("t", "")
    colour = given.pop("color", "") or given.pop("c", "black") if name == "color" else ""
    if given:
        raise NotSimulatedError(f"lavfi source {source.url}")
    frames = round(seconds(length) * rate) if length else 10**9
    log.verbose(f"size:{width}x{height} rate:{rate.numerator}/{rate.denominator} sar:1/1", f"Parsed_{name}_0")
    share = width * height / (1920 * 1080)
    picture = f"{name}={width}x{height}@{rate}{colour}"
    return Pictures(picture, width, height, rate, frames, "yuv420p", cpu_ms=GENERATE_MS * share)


def _limited(source: Source, pictures: Pictures) -> int:
    if "t" in source.options:
        return min(pictures.frames, round(seconds(source.options["t"]) * pictures.rate))
    return pictures.frames


def _not_opened(log: Log, url: str, number: int, code: int) -> FfmpegError:
    text = errors.MEANING[code]
    if log.modern:
        log.err(f"Error opening input: {text}", f"in#{number}")
        log.err(f"Error opening input file {url}.")
        log.err(f"Error opening input files: {text}")
    else:
        log.err(f"{url}: {text}")
    return FfmpegError(code)


def _size(pictures: Pictures) -> str:
    shape = Fraction(pictures.width, pictures.height)
    return f"{pictures.width}x{pictures.height} [SAR 1:1 DAR {shape.numerator}:{shape.denominator}]"


def _rate(rate: Fraction) -> str:
    return str(rate.numerator) if rate.denominator == 1 else f"{float(rate):.2f}"
