"""NVENC and NVDEC as ffmpeg meets them: what each step needs from container, driver and card, and what it says.

Order and texts: FFmpeg libavcodec/nvenc.c, nvdec.c, libavutil/hwcontext_cuda.c; facts/transcode.md 2.1, 7b.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labproof.simlab.pod import ffmpeg_log as errors
from labproof.simlab.pod.access import (
    CONTEXT_MIB,
    OUT_OF_MEMORY,
    CudaError,
    context_refusal,
    cuda_devices,
    free_mib,
    has_library,
    library_version,
    limits,
    nvenc_api,
    open_sessions,
    session_limit,
)
from labproof.simlab.pod.ffmpeg_log import FfmpegError, Log
from labproof.simlab.pod.media import Pictures
from labproof.simlab.world.states import Card, NodeGpu, PodWorld

#: Frame buffer of one encoder session at 1080p, and of its bitstream and input surfaces; with the context about
#: 195 MiB for a whole 1080p job (Jellyfin's own figure, facts/transcode.md 5).
SESSION_MIB, SURFACES_MIB, DECODER_MIB = 55, 35, 48

_CODECS = {"h264_nvenc": "h264", "hevc_nvenc": "hevc", "av1_nvenc": "av1"}


def codec_of(encoder: str) -> str | None:
    """Codec of an NVENC encoder name, None for other encoders."""
    return _CODECS.get(encoder)


@dataclass
class CudaContext:
    """A CUDA device ffmpeg opened, with the card behind it."""

    gpu: NodeGpu

    @property
    def card(self) -> Card:
        """The physical card."""
        return self.gpu.card


def open_cuda(pod: PodWorld, log: Log, wish: str = "") -> CudaContext:
    """Create a CUDA hardware device (`-init_hw_device cuda`, `-hwaccel cuda`).

    Raises:
        FfmpegError: EPERM without libcuda (W12), EXTERNAL for a CUDA error (W18-W20).
    """
    context = log.device_context("cuda")
    if not has_library(pod, "libcuda.so.1"):
        log.err("Cannot load libcuda.so.1", context)
        log.err("Could not dynamically load CUDA", context)
        log.err("Device creation failed: -1.")
        raise FfmpegError(errors.EPERM)
    cards = cuda_devices(pod)
    if isinstance(cards, CudaError):
        raise _cuda_failed(log, context, "cu->cuInit(0)", cards)
    number = int(wish or "0") if (wish or "0").isdigit() else 0
    if number >= len(cards):
        invalid = CudaError("CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal", 101)
        raise _cuda_failed(log, context, "cu->cuDeviceGet(&hwctx->internal->cuda_device, device_idx)", invalid)
    refused = context_refusal(cards[number].card, pod.node.driver_version)
    if refused:
        call = "cu->cuCtxCreate(&hwctx->cuda_ctx, desired_flags, hwctx->internal->cuda_device)"
        raise _cuda_failed(log, context, call, refused)
    return CudaContext(cards[number])


def _cuda_failed(log: Log, context: str, call: str, error: CudaError) -> FfmpegError:
    log.err(f"{call} failed -> {error}", context)
    log.err(f"Device creation failed: {errors.EXTERNAL}.")
    return FfmpegError(errors.EXTERNAL)


def open_decoder(pod: PodWorld, log: Log, codec: str, pictures: Pictures, device: CudaContext) -> bool:
    """Try NVDEC for a stream; False = it fell back to software without a failure (W14, W23).

    `pictures` are what the stream decodes to.
    """
    context = codec
    row = limits(device.card.inputs.get("decode") or {}, codec)
    height = -(-pictures.height // 16) * 16 if codec == "h264" else pictures.height
    fallback = f"Reinit context to {pictures.width}x{height}, pix_fmt: {pictures.pix_fmt}"
    if not has_library(pod, "libnvcuvid.so.1"):
        log.err("Cannot load libnvcuvid.so.1", context)
        log.err("Failed loading nvcuvid.", context)
        works = False
    elif pod.node.library_version is None or free_mib(device.card) < DECODER_MIB:
        log.err(f"decoder->cvdl->cuvidCreateDecoder(&decoder->decoder, params) failed -> {OUT_OF_MEMORY}", context)
        works = False
    else:
        depth = 10 if "10" in pictures.pix_fmt else 8
        works = row is not None and depth in row["bits"]
        most = row["max"] if row else [0, 0]
        log.verbose("NVDEC capabilities:", context)
        log.verbose(f"format supported: {'yes' if works else 'no'}, max_mb_count: {65536 if works else 0}", context)
        log.verbose(f"min_width: 48, max_width: {most[0]}", context)
        log.verbose(f"min_height: 16, max_height: {most[1]}", context)
        if works and (pictures.width > most[0] or pictures.height > most[1]):
            works = False
        if not works:
            log.err("Hardware is lacking required capabilities", context)
    if not works:
        log.line("warning", "Failed setup for format cuda: hwaccel initialisation returned error.", context)
        if codec == "h264":  # only the H.264 decoder logs its format changes
            log.verbose(fallback, context)
        return False
    if codec == "h264":
        log.verbose(f"Reinit context to {pictures.width}x{height}, pix_fmt: cuda", context)
    return True


def open_encoder(
    pod: PodWorld,
    log: Log,
    encoder: str,
    pictures: Pictures,
    options: Mapping[str, str],
    device: CudaContext | None,
) -> CudaContext:
    """Open an NVENC session.

    Args:
        pod: the container.
        log: the run's log.
        encoder: h264_nvenc, hevc_nvenc, av1_nvenc.
        pictures: what will be encoded; on the card when `hardware` says so.
        options: the output's options.
        device: CUDA device the run already opened, which then gives the context.

    Raises:
        FfmpegError: any of W12-W22, with the lines written.
    """
    driver = pod.node.driver_version
    if not has_library(pod, "libcuda.so.1"):
        log.err("Cannot load libcuda.so.1", encoder)
        raise _closed(log, encoder, errors.EPERM)
    if not has_library(pod, "libnvidia-encode.so.1"):
        log.err("Cannot load libnvidia-encode.so.1", encoder)
        _driver_hint(log, encoder)
        raise _closed(log, encoder, errors.EPERM)
    offered, wanted = (
        nvenc_api(library_version(pod, "libnvidia-encode.so.1") or driver),
        log.build.nvenc_api or (0, 0),
    )
    log.verbose(f"Loaded Nvenc version {offered[0]}.{offered[1]}", encoder)
    if wanted > offered:
        text = "Driver does not support the required nvenc API version. "
        log.err(f"{text}Required: {wanted[0]}.{wanted[1]} Found: {offered[0]}.{offered[1]}", encoder)
        _driver_hint(log, encoder)
        raise _closed(log, encoder, errors.ENOSYS)
    log.verbose("Nvenc initialized successfully", encoder)
    chosen = device or _enumerate(pod, log, encoder, options)
    refused = _session_refusal(pod, chosen.card)
    if refused:
        text, code = refused
        log.err(f"OpenEncodeSessionEx failed: {text}: (no details)", encoder)
    elif lacking := _unable(chosen.card, encoder, pictures, options):
        log.line("warning", lacking, encoder)
        if device is not None:
            log.line("fatal", "Provided device doesn't support required NVENC features", encoder)
        code = errors.ENOSYS
    else:
        code = 0
    if code and device is None:  # the scan of all devices forgets why each was refused
        log.line("fatal", "No capable devices found", encoder)
        code = errors.EXTERNAL
    if code:
        raise _closed(log, encoder, code)
    if device is None:
        log.verbose("supports NVENC", encoder)
    _initialise(pod, log, encoder, chosen.card, pictures)
    if pictures.hardware:
        log.verbose(f"Using input frames context (format {pictures.hardware}) with {encoder} encoder.")
    return chosen


def _enumerate(pod: PodWorld, log: Log, encoder: str, options: Mapping[str, str]) -> CudaContext:
    cards = cuda_devices(pod)
    if isinstance(cards, CudaError):
        log.err(f"dl_fn->cuda_dl->cuInit(0) failed -> {cards}", encoder)
        raise _closed(log, encoder, errors.EXTERNAL)
    log.verbose(f"{len(cards)} CUDA capable devices found", encoder)
    wish = options.get("gpu", "any")
    number = int(wish) if wish.isdigit() else 0
    for index, gpu in enumerate(cards):
        sm = gpu.card.inputs["compute_capability"]
        log.verbose(f"[ GPU #{index} - < {gpu.card.inputs['product']} > has Compute SM {sm} ]", encoder)
        if index == number:
            break
    if number >= len(cards):
        log.line("fatal", f"Requested GPU {number}, but only {len(cards)} GPUs are available!", encoder)
        raise _closed(log, encoder, errors.EINVAL)
    card = cards[number].card
    refused = context_refusal(card, pod.node.driver_version)
    if refused:
        call = "dl_fn->cuda_dl->cuCtxCreate(&ctx->cu_context_internal, 0, cu_device)"
        log.err(f"{call} failed -> {refused}", encoder)
        log.line("fatal", "No capable devices found", encoder)
        raise _closed(log, encoder, errors.EXTERNAL)
    return CudaContext(cards[number])


def _session_refusal(pod: PodWorld, card: Card) -> tuple[str, int] | None:
    """Why NVENC opens no session: text with NVENC's number, and ffmpeg's error."""
    if not card.inputs.get("encode"):
        return "unsupported device (2)", errors.ENOSYS
    limit = session_limit(card, pod.node.driver_version)
    full = limit is not None and open_sessions(card) >= limit
    if full or free_mib(card) < CONTEXT_MIB + SESSION_MIB:
        return "out of memory (10)", errors.ENOMEM
    return None


def _unable(card: Card, encoder: str, pictures: Pictures, options: Mapping[str, str]) -> str:
    """The first capability the chip lacks, in nvenc.c's words."""
    row: Mapping[str, Any] | None = limits(card.inputs.get("encode") or {}, _CODECS[encoder])
    if row is None:
        return "Codec not supported"
    if "444" in pictures.pix_fmt and "444" not in row["chroma"]:
        return "YUV444P not supported"
    if pictures.width > row["max"][0]:
        return f"Width {pictures.width} exceeds {row['max'][0]}"
    if pictures.height > row["max"][1]:
        return f"Height {pictures.height} exceeds {row['max'][1]}"
    b_frames = int(options.get("bf", "0"))
    if b_frames > row["b_frames"]:
        return f"Max B-frames {b_frames} exceed {row['b_frames']}"
    if "10" in pictures.pix_fmt and 10 not in row["bits"]:
        return "10 bit encode not supported"
    return ""


def _initialise(pod: PodWorld, log: Log, encoder: str, card: Card, pictures: Pictures) -> None:
    row = (card.inputs["encode"])[_CODECS[encoder]]
    if pictures.width < row["min"][0] or pictures.height < row["min"][1]:
        text = "InitializeEncoder failed: invalid param (8): Frame Dimension less than the minimum supported value."
        log.err(text, encoder)
        raise _closed(log, encoder, errors.EINVAL)
    if free_mib(card) < CONTEXT_MIB + SESSION_MIB + SURFACES_MIB:
        log.err("CreateBitstreamBuffer failed: out of memory (10): (no details)", encoder)
        raise _closed(log, encoder, errors.ENOMEM)


def refuse_frames(log: Log, card: Card, pictures: Pictures, encoder: str) -> None:
    """Frames that filters keep on the card must fit (libavutil/hwcontext_cuda.c, cuda_pool_alloc).

    Raises:
        FfmpegError: ENOMEM, with the lines written.
    """
    if not pictures.held_mib or free_mib(card) >= CONTEXT_MIB + pictures.held_mib:
        return
    log.err(f"cu->cuMemAlloc(&data, size) failed -> {OUT_OF_MEMORY}", "AVHWFramesContext")
    raise log.filters_failed(encoder, errors.ENOMEM)


def _driver_hint(log: Log, encoder: str) -> None:
    # printed for a missing library too, where it misleads (W13)
    log.err(f"The minimum required Nvidia driver for nvenc is {log.build.nvenc_driver} or newer", encoder)


def _closed(log: Log, encoder: str, code: int) -> FfmpegError:
    log.verbose("Nvenc unloaded", encoder)
    return log.encoder_failed(encoder, code)
