"""VA-API as ffmpeg and vainfo meet it: the render node, the libva driver, profiles and entry points, decode and encode.

Order and texts: FFmpeg libavutil/hwcontext_vaapi.c, libavcodec/vaapi_encode.c; facts/transcode.md 1.2, 2.1, 3.2, 7c.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from labproof.simlab.pod import ffmpeg_log as errors
from labproof.simlab.pod.access import open_error
from labproof.simlab.pod.chips import Chip, chip_of
from labproof.simlab.pod.ffmpeg_log import FfmpegError, Log
from labproof.simlab.pod.images import image_config
from labproof.simlab.pod.media import Pictures
from labproof.simlab.world.states import Card, DrmDevice, PodWorld

#: Codec of an encoder name, for both interfaces to the media engines.
VA_CODECS = {
    f"{codec}_{api}": codec for codec in ("h264", "hevc", "vp9", "av1") for api in ("vaapi", "qsv")
}  # fmt: skip
_PROFILES = {
    ("h264", 8): ("H264High", 7),
    ("hevc", 8): ("HEVCMain", 17),
    ("hevc", 10): ("HEVCMain10", 18),
    ("vp9", 8): ("VP9Profile0", 19),
    ("vp9", 10): ("VP9Profile2", 21),
    ("av1", 8): ("AV1Profile0", 32),
    ("av1", 10): ("AV1Profile0", 32),
    ("mpeg2video", 8): ("MPEG2Main", 1),
    ("vp8", 8): ("VP8Version0_3", 14),
}
_NUMBERS = {"VAEntrypointEncSlice": 6, "VAEntrypointEncSliceLP": 8}
EIO, ENODEV = -5, -19
errors.MEANING.setdefault(EIO, "Input/output error")
errors.MEANING.setdefault(ENODEV, "No such device")


@dataclass
class VaContext:
    """A media device ffmpeg opened.

    Attributes:
        device: the DRM device behind it.
        kind: vaapi | qsv | opencl.
        name: what the command line calls it.
        pairs: (profile, entry point) that libva offers.
        low_power: the last encoder opened on it is a low-power one.
        maps_hdr: chip and driver build have the unit that maps HDR10.
    """

    device: DrmDevice
    kind: str
    name: str
    pairs: frozenset[tuple[str, str]]
    chip: Chip
    low_power: bool = False
    maps_hdr: bool = True

    @property
    def card(self) -> Card:
        """The chip's card."""
        return self.device.card


@dataclass(frozen=True)
class Libva:
    """What vaInitialize came to.

    Attributes:
        lines: libva's own (level, text), in order.
        driver: iHD | i965, "" when none works.
        vendor: the driver's string.
        device: the device behind the node.
    """

    lines: tuple[tuple[str, str], ...]
    driver: str = ""
    vendor: str = ""
    device: DrmDevice | None = None
    chip: Chip | None = None
    pairs: tuple[tuple[str, str], ...] = ()
    build: str = ""


def open_libva(pod: PodWorld, node: str, wish: str = "") -> Libva:
    """Load a libva driver for an opened DRM node.

    Args:
        node: path of a node that opens.
        wish: driver name that ffmpeg was told; else the environment's LIBVA_DRIVER_NAME; else iHD, then i965.
    """
    config = image_config(pod.image, pod.image_inputs)
    there = dict(config.va_drivers) if config else {}
    lacks = config.va_lacks if config else ()
    folder = pod.env.get("LIBVA_DRIVERS_PATH") or (config.va_folder if config else "/usr/lib/x86_64-linux-gnu/dri")
    device = next((d for d in pod.node.drm if node in (d.card_node, d.render_node)), None)
    if device is None:  # a framebuffer driver without media (bochs), or another vendor's
        text = "vaGetDriverNames() failed with unknown libva error"
        return Libva((("info", "VA-API version 1.22.0"), ("error", text)))
    chip = chip_of(device.card.inputs)
    lines: list[tuple[str, str]] = [("info", "VA-API version 1.22.0")]
    asked = wish or pod.env.get("LIBVA_DRIVER_NAME", "")
    if asked and not wish:
        lines.append(("info", f"User environment variable requested driver '{asked}'"))
    for name in (asked,) if asked else ("iHD", "i965"):
        path = f"{folder}/{name}_drv_video.so"
        lines.append(("info", f"Trying to open {path}"))
        if name not in there:
            lines.append(("info", "va_openDriver() returns -1"))
            continue
        if there[name] == "mixed" or (pod.env.get("LD_LIBRARY_PATH") and there[name] == "picky"):
            lines.append(("error", f"dlopen of {path} failed: {path}: undefined symbol: _ZN3iga15Intrinsics"))
            lines.append(("info", "va_openDriver() returns -1"))
            continue
        lines.append(("info", "Found init function __vaDriverInit_1_22"))
        old = chip is not None and there[name] == "old" and chip.generation >= 12
        if chip is None or name not in chip.libva or old:
            lines += [("error", f"{path} init failed"), ("info", "va_openDriver() returns 1")]
            continue
        lines.append(("info", "va_openDriver() returns 0"))
        vendor = chip.libva_name if name == chip.libva[0] else "Intel i965 driver for Intel(R) Gen - 2.4.1"
        pairs = offered(chip, device, there[name], device.card, lacks)
        return Libva(tuple(lines), name, vendor, device, chip, pairs, there[name])
    return Libva(tuple(lines), device=device, chip=chip)


def offered(
    chip: Chip, device: DrmDevice, build: str, card: Card, lacks: Collection[str] = ()
) -> tuple[tuple[str, str], ...]:
    """(profile, entry point) pairs: without HuC, with the free build or an image's own build some are left out."""
    if card.inputs.get("without_media"):  # a virtual function or a part without media engines (W44)
        return (("VAProfileNone", "VAEntrypointVideoProc"),)
    return tuple(
        (profile, entrypoint)
        for profile, entrypoint, huc, full in chip.profiles
        if not (huc and not device.huc) and not (full and build == "free") and f"{profile}:{entrypoint}" not in lacks
    )


def open_vaapi(pod: PodWorld, log: Log, node: str, options: Mapping[str, str], name: str) -> VaContext:
    """Create a VA-API device (`-init_hw_device vaapi`, `-hwaccel vaapi`).

    Raises:
        FfmpegError: W29 (no such node, or it does not open), W32, W33, W35.
    """
    context = log.device_context("vaapi")
    if open_error(pod, node) is not None:
        log.verbose(f"Failed to open {node} as DRM device node.", context)
        log.err(f"No VA display found for device {node}.", context)
        raise _creation_failed(log, errors.EINVAL)
    device = next((d for d in pod.node.drm if node in (d.card_node, d.render_node)), None)
    driver = device.driver if device else "bochs-drm"
    log.verbose(f"Opened DRM device {node}: driver {driver} version 1.6.0.", context)
    va = open_libva(pod, node, options.get("driver", ""))
    for level, text in va.lines:
        (log.err if level == "error" else log.verbose)(f"libva: {text}", context)
    if not va.driver or va.device is None or va.chip is None:
        log.err("Failed to initialise VAAPI connection: -1 (unknown libva error).", context)
        raise _creation_failed(log, EIO)
    log.verbose("Initialised VAAPI connection: version 1.22", context)
    log.verbose(f"VAAPI driver: {va.vendor}.", context)
    log.verbose("Driver not found in known nonstandard list, using standard behaviour.", context)
    maps = va.chip.tone_mapping and va.build == "full"
    return VaContext(va.device, "vaapi", name, frozenset(va.pairs), va.chip, maps_hdr=maps)


def derive(pod: PodWorld, log: Log, kind: str, name: str, parent: VaContext) -> VaContext:
    """A QSV or OpenCL device on top of a VA-API one.

    Raises:
        FfmpegError: W46 (no runtime, or the chip is too old for it), W31 (OpenCL opens the by-path node).
    """
    config = image_config(pod.image, pod.image_inputs)
    if kind == "qsv":
        if config is None or not config.onevpl or parent.chip.generation < 8:
            log.err("Error creating a MFX session: -9.", "QSV" if log.modern else "AVHWDeviceContext")
            raise _creation_failed(log, -1313558101)
        log.verbose("Initialize MFX session: API version is 2.13, implementation version is 2.13", "QSV")
        return VaContext(parent.device, "qsv", name, parent.pairs, parent.chip)
    path = f"/dev/dri/by-path/pci-{parent.device.address}-render"
    if config is None or not config.opencl or (path in pod.devices and open_error(pod, path) is not None):
        log.err("No matching devices found.", "OPENCL" if log.modern else "AVHWDeviceContext")
        raise _creation_failed(log, ENODEV)
    log.verbose("0.0: Intel(R) OpenCL Graphics / Intel(R) Iris(R) Xe Graphics", "OPENCL")
    return VaContext(parent.device, "opencl", name, parent.pairs, parent.chip)


def _creation_failed(log: Log, code: int) -> FfmpegError:
    errors.MEANING.setdefault(code, "Unknown error occurred")
    log.err(f"Device creation failed: {code}.")
    return FfmpegError(code)


def open_va_decoder(log: Log, codec: str, pictures: Pictures, context: VaContext) -> bool:
    """Try VLD for a stream; False: it went on in software without a failure (facts/transcode.md 2.2)."""
    depth = 10 if "10" in pictures.pix_fmt else 8
    profile = _PROFILES.get((codec, depth))
    works = profile is not None and (f"VAProfile{profile[0]}", "VAEntrypointVLD") in context.pairs
    height = -(-pictures.height // 16) * 16 if codec == "h264" else pictures.height
    if not works:
        log.verbose(f"Codec {codec} profile {100 if codec == 'h264' else 1} not supported for hardware decode.", codec)
        log.line("warning", "Failed setup for format vaapi: hwaccel initialisation returned error.", codec)
        if codec == "h264":
            log.verbose(f"Reinit context to {pictures.width}x{height}, pix_fmt: {pictures.pix_fmt}", codec)
        return False
    if codec == "h264":
        log.verbose(f"Reinit context to {pictures.width}x{height}, pix_fmt: vaapi", codec)
    return True


def open_va_encoder(
    log: Log, encoder: str, pictures: Pictures, options: Mapping[str, str], device: VaContext | None
) -> VaContext:
    """Open a VA-API or QSV encoder.

    Raises:
        FfmpegError: W36, W37, W40, W41.
    """
    if not pictures.hardware or device is None:
        log.err("A hardware frames reference is required to associate the encoding device.", encoder)
        raise log.encoder_failed(encoder, errors.EINVAL)
    log.verbose(f"Using input frames context (format {pictures.hardware}) with {encoder} encoder.")
    depth = 10 if "10" in pictures.pix_fmt else 8
    codec = VA_CODECS[encoder]
    profile, number = _PROFILES[codec, depth]
    mine = {entrypoint for name, entrypoint in device.pairs if name == f"VAProfile{profile}"}
    if not mine:
        log.err("No usable encoding profile found.", encoder)
        raise log.encoder_failed(encoder, errors.ENOSYS)
    low = options.get("low_power") in ("1", "true")
    order = ("VAEntrypointEncSliceLP",) if low else ("VAEntrypointEncSlice", "VAEntrypointEncSliceLP")
    chosen = next((entrypoint for entrypoint in order if entrypoint in mine), None)
    if chosen is None:
        log.err(f"No usable encoding entrypoint found for profile VAProfile{profile} ({number}).", encoder)
        raise log.encoder_failed(encoder, errors.ENOSYS)
    if pictures.width > 16384 or pictures.width < 128:
        size = f"{pictures.width}x{pictures.height}"
        text = f"Hardware does not support encoding at size {size} (constraints: width 128-16384 height 96-12288)."
        log.err(text, encoder)
        raise log.encoder_failed(encoder, errors.EINVAL)
    mode = options.get("rc_mode") or ("VBR" if "b" in options else "CQP")
    device.low_power = chosen.endswith("LP")
    if device.low_power and mode in ("CBR", "VBR") and device.chip.has_huc and not device.device.huc:
        log.err(f"Driver does not support {mode} RC mode (supported modes: CQP).", encoder)
        raise log.encoder_failed(encoder, errors.EINVAL)
    if encoder.endswith("_qsv"):
        log.verbose(f"VDENC: {'ON' if device.low_power else 'OFF'}", encoder)
    else:
        log.verbose(f"Using VAAPI profile VAProfile{profile} ({number}).", encoder)
        log.verbose(f"Using VAAPI entrypoint {chosen} ({_NUMBERS[chosen]}).", encoder)
        log.verbose(f"RC mode: {mode}.", encoder)
    return device


def engines_of(context: VaContext, *, encodes: bool, decodes: bool, filters: bool) -> dict[str, float]:
    """Engines a run keeps busy and how much of its time each takes; encoding by shaders uses the render engine too."""
    xe = context.device.driver == "xe"
    names = {"video": "vcs", "render": "rcs", "video-enhance": "vecs"} if xe else {}
    busy: dict[str, float] = {}
    if encodes or decodes:
        busy["video"] = 0.9
    if encodes and not context.low_power:
        busy["render"] = 0.4
    if filters:
        busy["video-enhance"] = 0.2
    if context.card.inputs.get("engines_stand_still"):
        return {}
    return {names.get(name, name): share for name, share in busy.items()}
