"""ffmpeg: a command line is read into sources, filters and an encoder, and that graph is run on the pod's world.

What it models: facts/transcode.md 1.0 and 1.1 (generated source or file, CUDA decode, filters, software and NVENC
encoders, null, framemd5 and file outputs). Everything else ends with `not simulated`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from labproof.simlab.pod import ffmpeg_log as errors
from labproof.simlab.pod.ffmpeg_argv import CommandLine, Target, parse, seconds
from labproof.simlab.pod.ffmpeg_encode import CODEC_OF_ENCODER, Muxer, default_encoder, muxer_of
from labproof.simlab.pod.ffmpeg_graph import Comparison, Surroundings, apply_graph, parse_graph
from labproof.simlab.pod.ffmpeg_input import Stream, open_decoder_device, open_input, start_decoder
from labproof.simlab.pod.ffmpeg_listing import banner, listing
from labproof.simlab.pod.ffmpeg_log import LEVELS, FfmpegError, Log
from labproof.simlab.pod.ffmpeg_run import Work, perform
from labproof.simlab.pod.images import image_config
from labproof.simlab.pod.media import Pictures
from labproof.simlab.pod.nvcodec import CudaContext, codec_of, open_cuda, open_encoder
from labproof.simlab.pod.process import NotSimulatedError, ProcessIO
from labproof.simlab.pod.tree import write_error
from labproof.simlab.pod.vacodec import VA_CODECS, VaContext, derive, open_va_encoder, open_vaapi
from labproof.simlab.world.states import PodWorld

_SOFTWARE = ("libx264", "libx265", "rawvideo", "wrapped_avframe")


@dataclass
class Graph:
    """The pictures that reach the encoder, and comparisons made on the way."""

    pictures: Pictures
    comparisons: list[Comparison] = field(default_factory=list)


async def run_ffmpeg(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Run ffmpeg.

    Raises:
        NotSimulatedError: an argument outside the model.
    """
    config = image_config(pod.image, pod.image_inputs)
    if config is None or config.ffmpeg is None:
        raise NotSimulatedError("ffmpeg in an image that has none")
    if config.library_path and config.library_path not in pod.env.get("LD_LIBRARY_PATH", "").split(":"):
        text = f"{argv[0]}: error while loading shared libraries: libavdevice.so.59: cannot open shared object file: "
        io.write_stderr(f"{text}No such file or directory\n".encode())
        return 127
    line = parse(argv[1:])
    log = Log(io, config.ffmpeg)
    if line.listing:
        if "hide_banner" not in line.settings and line.listing != "version":
            io.write_stderr(banner(config.ffmpeg).encode())
        io.write_stdout(listing(config.ffmpeg, line.listing).encode())
        return 0
    level = line.settings.get("v", "info").rpartition("+")[2]
    log.level = LEVELS[level] if level in LEVELS else int(level)
    if "hide_banner" not in line.settings:
        log.note(banner(config.ffmpeg).rstrip("\n"))
    if len(line.targets) != 1 or not line.sources:
        raise NotSimulatedError(f"{len(line.sources)} inputs and {len(line.targets)} outputs")
    try:
        work = _prepare(pod, log, line)
        work.argv = tuple(argv)
        return await perform(work)
    except FfmpegError as failure:
        await io.sleep(0.05)
        return log.exit_status(failure.code)


def _prepare(pod: PodWorld, log: Log, line: CommandLine) -> Work:
    """Everything before the first frame is encoded, in ffmpeg's order."""
    target = line.targets[0]
    devices: list[CudaContext | VaContext] = []
    for option, spec in line.devices:
        devices.append(_global_device(pod, log, option, spec, devices))
    streams = [open_input(pod, log, source, number) for number, source in enumerate(line.sources)]
    muxer, encoder = _output(pod, log, line, target)
    for stream in streams:
        open_decoder_device(pod, log, stream, devices)
        if stream.device is not None and stream.device not in devices:
            devices.append(stream.device)
    _mapping(log, line, streams, encoder)
    for stream in streams:
        start_decoder(pod, log, stream)
    graph = _filters(log, line, streams, encoder, devices)
    pictures = _to_encoder(log, target, graph.pictures, encoder)
    if "frames" in target.options or "t" in target.options:
        wish = int(target.options["frames"]) if "frames" in target.options else 10**9
        if "t" in target.options:
            wish = min(wish, round(seconds(target.options["t"]) * pictures.rate))
        pictures = replace(pictures, frames=min(pictures.frames, wish))
    session: CudaContext | VaContext | None = None
    if codec_of(encoder):
        cuda = [d for d in devices if isinstance(d, CudaContext)]
        session = open_encoder(pod, log, encoder, pictures, target.options, cuda[-1] if cuda else None)
    elif encoder in VA_CODECS:
        media = [d for d in devices if isinstance(d, VaContext) and d.kind == encoder.rpartition("_")[2]]
        session = open_va_encoder(log, encoder, pictures, target.options, media[-1] if media else None)
    work = Work(
        pod=pod,
        log=log,
        line=line,
        target=target,
        muxer=muxer,
        encoder=encoder,
        streams=streams,
        pictures=pictures,
        comparisons=graph.comparisons,
        session=session,
        contexts=devices,
    )
    if pictures.frames >= 10**9:
        raise NotSimulatedError("a source without an end")
    return work


def _global_device(
    pod: PodWorld, log: Log, option: str, spec: str, opened: list[CudaContext | VaContext]
) -> CudaContext | VaContext:
    """`-init_hw_device kind=name:where,option=value`, or `kind=name@parent`."""
    kind, _, rest = (spec if option == "init_hw_device" else f"vaapi=vaapi:{spec}").partition("=")
    name, at, parent = rest.partition("@")
    name, _, where = (name, "", "") if at else rest.partition(":")
    words = where.split(",")
    options = dict(word.partition("=")[::2] for word in words[1:])
    try:
        if kind == "cuda":
            return open_cuda(pod, log, words[0])
        if kind == "vaapi" and not at:
            return open_vaapi(pod, log, words[0], options, name)
        if kind in ("qsv", "opencl") and at:
            below = next((d for d in opened if isinstance(d, VaContext) and d.name == parent), None)
            if below is not None:
                return derive(pod, log, kind, name, below)
    except FfmpegError as failure:
        log.err(f"Failed to set value '{spec}' for option '{option}': {failure}")
        log.err(f"Error parsing global options: {failure}")
        raise
    raise NotSimulatedError(f"-init_hw_device {spec}")


def _output(pod: PodWorld, log: Log, line: CommandLine, target: Target) -> tuple[Muxer, str]:
    """Choose muxer and encoder and open the output file."""
    muxer = muxer_of(target.url, target.options.get("f"))
    if muxer is None:
        raise NotSimulatedError(f"output {target.url}")
    encoder = target.encoder or default_encoder(muxer)
    encoder = log.build.substitutes.get(encoder, encoder)
    if encoder not in log.build.encoders:
        if log.modern:
            log.err(f"Unknown encoder '{encoder}'", "vost#0:0")
            log.err("Error selecting an encoder", "vost#0:0")
            log.err(f"Error opening output file {target.url}.\nError opening output files: Encoder not found")
        else:
            log.err(f"Unknown encoder '{encoder}'")
        raise FfmpegError(errors.ENCODER_NOT_FOUND)
    if encoder not in CODEC_OF_ENCODER:
        raise NotSimulatedError(f"encoder {encoder}")
    if muxer.name == "null" or target.url in ("-", "pipe:1", "pipe:"):
        return muxer, encoder
    if target.url in pod.files and "y" not in line.settings:
        log.err(f"File '{target.url}' already exists. Exiting.")
        raise FfmpegError(errors.EXIT)
    reason = write_error(pod, target.url)
    if reason:
        code = next(number for number, text in errors.MEANING.items() if text == reason)
        if log.modern:
            log.err(f"Error opening output {target.url}: {reason}", f"out#0/{muxer.name}")
            log.err(f"Error opening output file {target.url}.\nError opening output files: {reason}")
        else:
            log.err(f"{target.url}: {reason}")
        raise FfmpegError(code)
    pod.files[target.url] = b""  # created and truncated before the first frame
    return muxer, encoder


def _mapping(log: Log, line: CommandLine, streams: list[Stream], encoder: str) -> None:
    log.note("Stream mapping:")
    codec = CODEC_OF_ENCODER[encoder]
    how = f"{codec} ({encoder})" if codec != encoder else f"{codec} (native)"
    if not line.graph:
        log.note(f"  Stream #0:0 -> #0:0 ({streams[0].codec} (native) -> {how})")
        return
    chains = parse_graph(line.graph)
    for number, stream in enumerate(streams):
        fed = next((c.filters[0].name for c in chains if f"{number}:v" in c.inputs), "")
        if fed:
            log.note(f"  Stream #{number}:0 ({stream.codec}) -> {fed}:default")
    log.note(f"  {chains[-1].filters[-1].name}:default -> Stream #0:0 ({encoder})")


def _filters(
    log: Log, line: CommandLine, streams: list[Stream], encoder: str, devices: list[CudaContext | VaContext]
) -> Graph:
    for number, stream in enumerate(streams):
        p = stream.pictures
        rate = f"{p.rate.numerator}/{p.rate.denominator}"
        look = f"w:{p.width} h:{p.height} pixfmt:{p.hardware or p.pix_fmt} fr:{rate} sar:1/1"
        log.verbose(look, f"graph 0 input from stream {number}:0")
    named = "filter_hw_device" in line.settings or bool(line.devices)
    # ffmpeg 8 builds the filters before a decoder's device exists (facts/transcode.md 1.2)
    usable = bool(devices) and (named or log.build.major < 8)
    wanted = line.settings.get("filter_hw_device")
    chosen = next(
        (d for d in devices if isinstance(d, VaContext) and d.name == wanted), devices[-1] if devices else None
    )
    kind = chosen.kind if isinstance(chosen, VaContext) else "cuda"
    around = Surroundings(log, encoder, kind if usable else "", chosen if isinstance(chosen, VaContext) else None)
    target = line.targets[0]
    if line.graph:
        chains = parse_graph(line.graph)
        feeds: dict[str, Pictures] = {}
        for number, stream in enumerate(streams):
            name = f"graph 0 input from stream {number}:0"
            feeds |= {
                label: replace(stream.pictures, feeds=(name,))
                for label in (f"{number}:v", f"{number}:v:0", str(number))
            }
        return Graph(apply_graph(chains, feeds, around), around.comparisons)
    if len(streams) != 1:
        raise NotSimulatedError("several inputs without a complex filter graph")
    if not target.filters:
        return Graph(streams[0].pictures)
    feed = replace(streams[0].pictures, feeds=("graph 0 input from stream 0:0",))
    return Graph(apply_graph(parse_graph(target.filters), {"": feed}, around), around.comparisons)


def _to_encoder(log: Log, target: Target, pictures: Pictures, encoder: str) -> Pictures:
    """Bring the pictures into a format the encoder takes: `-pix_fmt`, and no card frames for software encoders."""
    wish = {"p010": "p010le"}.get(target.options.get("pix_fmt", ""), target.options.get("pix_fmt", ""))
    software_only = encoder in _SOFTWARE and encoder != "wrapped_avframe"
    if pictures.hardware and (software_only or (wish and wish != pictures.hardware)):
        before = pictures.feeds[0] if pictures.feeds else "graph 0 input from stream 0:0"
        log.err(
            f"Impossible to convert between the formats supported by the filter '{before}' "
            "and the filter 'auto_scale_0'"
        )
        raise log.filters_failed(encoder, errors.ENOSYS)
    if not wish or wish == pictures.pix_fmt or pictures.hardware:
        return pictures
    if wish not in ("yuv420p", "nv12", "p010le", "yuv420p10le"):
        raise NotSimulatedError(f"-pix_fmt {wish}")
    return replace(pictures, pix_fmt=wish, cpu_ms=pictures.cpu_ms + 0.4 * pictures.megapixel_share)
