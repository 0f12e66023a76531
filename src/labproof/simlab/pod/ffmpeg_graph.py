"""ffmpeg's filter graphs: parsed from their text and applied to pictures.

A filter that works on the card refuses frames in memory and the other way round: that is what makes a silent software
decode loud (facts/transcode.md 2.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from labproof.simlab.pod import ffmpeg_log as errors
from labproof.simlab.pod.media import Pictures, difference, mse_of
from labproof.simlab.pod.process import NotSimulatedError
from labproof.simlab.pod.vacodec import VaContext

_PIX_FMTS = {
    "yuv420p": "yuv420p",
    "nv12": "nv12",
    "p010": "p010le",
    "p010le": "p010le",
    "yuv420p10le": "yuv420p10le",
}
#: CPU time per 1080p frame, ms.
_COST = {
    "scale": 2.6,
    "psnr": 2.4,
    "ssim": 3.1,
    "hwdownload": 1.1,
    "hwupload": 0.9,
    "hwupload_cuda": 0.9,
    "scale_cuda": 0.2,
    "scale_vaapi": 0.2,
    "vpp_qsv": 0.2,
    "tonemap_vaapi": 0.2,
    "overlay_vaapi": 0.3,
    "avgblur_opencl": 0.3,
    "tonemap_opencl": 0.3,
}


@dataclass(frozen=True)
class Filter:
    """One filter of a graph; `index` counts over the whole graph, as ffmpeg names them."""

    name: str
    args: tuple[str, ...]
    index: int

    @property
    def context(self) -> str:
        """Parsed_psnr_4."""
        return f"Parsed_{self.name}_{self.index}"

    def option(self, name: str, position: int | None = None) -> str | None:
        """A value given by name or by place."""
        for arg in self.args:
            key, given, value = arg.partition("=")
            if given and key == name:
                return value
        plain = [arg for arg in self.args if "=" not in arg]
        return plain[position] if position is not None and position < len(plain) else None


@dataclass(frozen=True)
class Chain:
    """Filters in a row between labelled pads."""

    inputs: tuple[str, ...]
    filters: tuple[Filter, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A finished psnr or ssim filter."""

    filter: Filter
    mse: float


@dataclass
class Surroundings:
    """What the filters need from the run: its log, encoder name for error texts, and the filters' device.

    Attributes:
        device: cuda | vaapi | qsv | opencl | "" (none that filters may use).
        media: the VA device behind it.
    """

    log: errors.Log
    encoder: str
    device: str
    media: VaContext | None = None
    comparisons: list[Comparison] = field(default_factory=list)


def parse_graph(text: str) -> list[Chain]:
    """Split a graph into chains.

    Raises:
        NotSimulatedError: quoting or escapes, which the suite does not use.
    """
    if any(sign in text for sign in "'\\@"):
        raise NotSimulatedError(f"filter graph with quotes or instances: {text}")
    chains, index = [], 0
    for part in text.split(";"):
        match = re.fullmatch(r"\s*((?:\[[^\]]+\])*)([^\[\]]*)((?:\[[^\]]+\])*)\s*", part)
        if not match:
            raise NotSimulatedError(f"filter chain {part}")
        filters = []
        for word in match[2].split(","):
            name, _, args = word.strip().partition("=")
            filters.append(Filter(name, tuple(args.split(":")) if args else (), index))
            index += 1
        labels = [tuple(re.findall(r"\[([^\]]+)\]", group)) for group in (match[1], match[3])]
        chains.append(Chain(labels[0], tuple(filters), labels[1]))
    return chains


def apply_graph(chains: list[Chain], feeds: Mapping[str, Pictures], around: Surroundings) -> Pictures:
    """Run pictures through a graph and return what reaches the (only) open end.

    Args:
        chains: the parsed graph.
        feeds: pictures by input label ("" for a simple chain).
        around: log and device; comparisons made on the way are added to it.

    Raises:
        FfmpegError: a filter is missing in the build or refuses its input; the lines are written.
        NotSimulatedError: a filter outside the model.
    """
    pads = dict(feeds)
    for chain in chains:
        for used in chain.filters:
            if used.name not in around.log.build.filters:
                around.log.err(f"No such filter: '{used.name}'", "AVFilterGraph")
                if not around.log.modern:  # 5.1 reports it as an invalid argument of the graph
                    raise around.log.filters_failed(around.encoder, errors.EINVAL)
                around.log.err("Error : Filter not found", "AVFilterGraph")
                raise around.log.filters_failed(around.encoder, errors.FILTER_NOT_FOUND)
    end: Pictures | None = None
    for chain in chains:
        streams = [pads.pop(label) for label in chain.inputs] if chain.inputs else [pads.pop("")]
        for used in chain.filters:
            streams = _apply(used, streams, around)
        if chain.outputs:
            pads |= dict(zip(chain.outputs, streams, strict=False))
        else:
            end = streams[0]
    if end is None:
        raise NotSimulatedError("a filter graph whose outputs are all labelled")
    if end.pending_download:
        raise NotSimulatedError("hwdownload without a format filter after it")
    return end


def _apply(used: Filter, streams: list[Pictures], around: Surroundings) -> list[Pictures]:
    pictures = streams[0]
    cost = _COST.get(used.name, 0.0) * pictures.megapixel_share
    spent = replace(pictures, cpu_ms=pictures.cpu_ms + cost, feeds=(used.context,))
    if pictures.pending_download and used.name != "format":
        raise NotSimulatedError("hwdownload without a format filter after it")
    match used.name:
        case "null" | "setpts" | "settb":
            return [_retimed(used, spent)]
        case "split":
            return [spent] * int(used.option("outputs", 0) or 2)
        case "format":
            return [_format(used, pictures, spent, around)]
        case "hwupload" | "hwupload_cuda":
            return [_upload(used, pictures, spent, around)]
        case "loop":
            return [_loop(used, spent)]
        case "hwdownload":
            _needs(used, pictures, around, hardware=True)
            return [replace(spent, hardware="", pending_download=pictures.pix_fmt)]
        case "scale" | "scale_cuda" | "scale_vaapi" | "vpp_qsv":
            _needs(used, pictures, around, hardware=used.name != "scale")
            return [_scale(used, pictures, spent)]
        case "tonemap_vaapi" | "tonemap_opencl":
            return [_tone_map(used, pictures, spent, around)]
        case "avgblur_opencl":
            _needs(used, pictures, around, hardware=True)
            return [spent]
        case "overlay_vaapi":
            for stream in streams:
                _needs(used, stream, around, hardware=True)
            return [replace(spent, scalers=(*spent.scalers, "overlay"))]
        case "setparams" | "sidedata":
            return [_described(used, spent)]
        case "psnr" | "ssim":
            return [_compare(used, streams, spent, around)]
    raise NotSimulatedError(f"filter {used.name}")


def _described(used: Filter, pictures: Pictures) -> Pictures:
    """`setparams` and `sidedata` write colour properties on frames; what they show stays."""
    transfer = used.option("color_trc") or pictures.transfer
    return replace(pictures, transfer=transfer)


def _tone_map(used: Filter, pictures: Pictures, spent: Pictures, around: Surroundings) -> Pictures:
    """HDR10 in, SDR out; the video processor of older chips has no such unit (facts/transcode.md 1.4)."""
    _needs(used, pictures, around, hardware=True)
    if used.name == "tonemap_vaapi" and around.media is not None and not around.media.maps_hdr:
        around.log.err("VAAPI driver doesn't support HDR to SDR", used.context)
        raise around.log.filters_failed(around.encoder, errors.EINVAL)
    if used.name == "tonemap_vaapi" and pictures.transfer != "smpte2084":
        around.log.err("Only support HDR10 as input for vaapi tone-mapping", used.context)
        raise around.log.filters_failed(around.encoder, errors.EINVAL)
    return replace(spent, transfer="bt709", pix_fmt="nv12")


def _retimed(used: Filter, pictures: Pictures) -> Pictures:
    counted = used.name == "setpts" and used.option("expr", 0) == "N"
    return replace(pictures, clock="counted") if counted else pictures


def _loop(used: Filter, pictures: Pictures) -> Pictures:
    """Keeps references to the first `size` frames: on the card each holds its own memory (f_loop.c)."""
    kept = min(int(used.option("size") or "0"), pictures.frames)
    depth = 2 if "10" in pictures.pix_fmt else 1
    frame_mib = pictures.width * pictures.height * 1.5 * depth / 2**20
    return replace(pictures, held_mib=pictures.held_mib + (kept * frame_mib if pictures.hardware else 0.0))


def _needs(used: Filter, pictures: Pictures, around: Surroundings, *, hardware: bool) -> None:
    """Refuse frames of the wrong kind: no conversion filter can be put between."""
    if bool(pictures.hardware) == hardware:
        return
    before = pictures.feeds[0] if pictures.feeds else "graph 0 input from stream 0:0"
    between = f"between the filter '{before}' and the filter '{used.context}'"
    around.log.verbose(f"auto-inserting filter 'auto_scale_0' {between}", used.context)
    first, second = (before, "auto_scale_0") if hardware or pictures.hardware else ("auto_scale_0", used.context)
    around.log.err(
        f"Impossible to convert between the formats supported by the filter '{first}' and the filter '{second}'"
    )
    raise around.log.filters_failed(around.encoder, errors.ENOSYS)


def _format(used: Filter, pictures: Pictures, spent: Pictures, around: Surroundings) -> Pictures:
    wish = (used.option("pix_fmts", 0) or "").split("|")[0]
    if wish == pictures.hardware and wish:
        return spent
    if wish not in _PIX_FMTS:
        raise NotSimulatedError(f"format={wish}")
    target = _PIX_FMTS[wish]
    if pictures.pending_download:
        if target != pictures.pending_download:
            around.log.err(f"Invalid output format {target} for hwframe download.", "Parsed_hwdownload_0")
            around.log.err("Failed to configure output pad on Parsed_hwdownload_0")
            raise around.log.filters_failed(around.encoder, errors.EINVAL)
        return replace(spent, pending_download="")
    _needs(used, pictures, around, hardware=False)
    change = 0.0 if target == pictures.pix_fmt else 0.4 * pictures.megapixel_share
    return replace(spent, pix_fmt=target, cpu_ms=spent.cpu_ms + change)


def _upload(used: Filter, pictures: Pictures, spent: Pictures, around: Surroundings) -> Pictures:
    if pictures.hardware:
        raise NotSimulatedError("hwupload of frames that are on a card already")
    if used.name == "hwupload" and not around.device:
        around.log.err("A hardware device reference is required to upload frames to.", used.name)
        around.log.err(f"Query format failed for '{used.context}': Invalid argument", used.context)
        raise around.log.filters_failed(around.encoder, errors.EINVAL)
    surfaces = around.device in ("vaapi", "qsv") and pictures.pix_fmt == "yuv420p"
    pix_fmt = "nv12" if surfaces else pictures.pix_fmt
    return replace(spent, hardware=around.device or "cuda", pix_fmt=pix_fmt)


def _scale(used: Filter, pictures: Pictures, spent: Pictures) -> Pictures:
    first = used.option("s", None) or used.option("size", None)
    width, height = first.split("x") if first else (
        used.option("w", 0) or used.option("width") or "iw",
        used.option("h", 1) or used.option("height") or "ih",
    )  # fmt: skip
    sizes = {"iw": pictures.width, "ih": pictures.height, "0": 0}
    known = {}
    for key, word, own in (("w", width, pictures.width), ("h", height, pictures.height)):
        if not (word in sizes or re.fullmatch(r"-?\d+", word)):
            raise NotSimulatedError(f"{used.name} to {word}")
        known[key] = sizes.get(word, 0) or int(word) or own
    if known["w"] < 0:
        known["w"] = _even(pictures.width * known["h"] / pictures.height)
    if known["h"] < 0:
        known["h"] = _even(pictures.height * known["w"] / pictures.width)
    target = used.option("format")
    if target and target not in _PIX_FMTS:
        raise NotSimulatedError(f"{used.name} format={target}")
    pix_fmt = _PIX_FMTS[target] if target else pictures.pix_fmt
    same = (known["w"], known["h"]) == (pictures.width, pictures.height)
    scalers = pictures.scalers if same else (*pictures.scalers, f"{used.name}:{known['w']}x{known['h']}")
    return replace(spent, width=known["w"], height=known["h"], pix_fmt=pix_fmt, scalers=scalers)


def _even(size: float) -> int:
    return round(size / 2) * 2


def _compare(used: Filter, streams: list[Pictures], spent: Pictures, around: Surroundings) -> Pictures:
    if len(streams) != 2:
        raise NotSimulatedError(f"{used.name} with {len(streams)} inputs")
    for stream in streams:
        _needs(used, stream, around, hardware=False)
    left, right = streams
    if (left.width, left.height) != (right.width, right.height):
        around.log.err("Width and height of input videos must be same.", used.context)
        around.log.err(f"Failed to configure input pad on {used.context}", used.context)
        raise around.log.filters_failed(around.encoder, errors.EINVAL, "1:0")
    mse = difference(left, right)
    frames = min(left.frames, right.frames)
    if left.frames != right.frames and used.option("shortest") != "1":
        frames = max(left.frames, right.frames)
        missing = abs(left.frames - right.frames) / frames
        mse = mse * (1 - missing) + mse_of(14.0) * missing  # the shorter input's last frame is repeated
    around.comparisons.append(Comparison(used, mse))
    return replace(spent, frames=frames, cpu_ms=spent.cpu_ms + right.cpu_ms)
