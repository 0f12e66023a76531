"""The part of an ffmpeg run that takes time: frames go through, counters of the card move, progress is told."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, field, replace

from labproof.simlab.pod.access import CONTEXT_MIB
from labproof.simlab.pod.ffmpeg_argv import CommandLine, Target
from labproof.simlab.pod.ffmpeg_encode import (
    CODEC_OF_ENCODER,
    Muxer,
    bit_rate,
    coded_format,
    cpu_ms,
    loss_db,
    profile_of,
)
from labproof.simlab.pod.ffmpeg_graph import Comparison
from labproof.simlab.pod.ffmpeg_input import Stream
from labproof.simlab.pod.ffmpeg_log import Log
from labproof.simlab.pod.media import (
    MediaRecord,
    Pictures,
    damaged,
    frame_bytes,
    frame_hash,
    mse_of,
    psnr_of,
    ssim_of,
)
from labproof.simlab.pod.nvcodec import DECODER_MIB, SESSION_MIB, SURFACES_MIB, CudaContext, refuse_frames
from labproof.simlab.pod.process import ProcessIO, ProcessKilled
from labproof.simlab.pod.readings import slow_by_heat
from labproof.simlab.pod.vacodec import EIO, VaContext, engines_of
from labproof.simlab.world.states import Card, PodWorld, Process

_RUNS = itertools.count(1)
#: What is left of the clocks while a hardware slowdown is active.
_SLOWED = 0.38


@dataclass
class Work:
    """A graph that is ready to run."""

    pod: PodWorld
    log: Log
    line: CommandLine
    target: Target
    muxer: Muxer
    encoder: str
    streams: list[Stream]
    pictures: Pictures
    comparisons: list[Comparison]
    session: CudaContext | VaContext | None
    contexts: list[CudaContext | VaContext]
    argv: tuple[str, ...] = ()
    done: float = 0.0
    elapsed: float = 0.0
    owner: str = field(default="")
    number: int = 0

    @property
    def io(self) -> ProcessIO:
        """The process' streams and clock."""
        return self.log.io


async def perform(work: Work) -> int:
    """Run all frames through and finish the output; 0, or raises when the process is killed.

    Raises:
        ProcessKilled: cancelled while running; the output stays empty.
    """
    work.owner = f"{work.pod.owner}#{next(_RUNS)}"
    _describe_output(work)
    per_frame = work.pictures.cpu_ms + cpu_ms(work.encoder, work.target.options, work.pictures)
    if isinstance(work.session, CudaContext):
        per_frame += work.log.build.nvenc_cpu_ms * work.pictures.megapixel_share
    cards = _occupy(work)
    number = _enter_process_table(work)
    try:
        await _frames(work, per_frame)
    finally:
        work.pod.processes.pop(number, None)
        for card in cards:
            for table in (card.sessions, card.decoding, card.vram):
                table.pop(work.owner, None)
    record = _finish(work, per_frame)
    if record is not None and work.muxer.name != "null" and work.target.url not in ("-", "pipe:1", "pipe:"):
        work.pod.files[work.target.url] = record
    return 0


def _occupy(work: Work) -> list[Card]:
    """Take what the run holds on its cards: contexts, session, decoder."""
    cards = {id(c.card): c.card for c in [*work.contexts, *([work.session] if work.session else [])]}
    if work.contexts:
        refuse_frames(work.log, work.contexts[0].card, work.pictures, work.encoder)
    share = work.pictures.megapixel_share
    for card in cards.values():
        held = float(CONTEXT_MIB)
        if work.session and work.session.card is card:
            held += (SESSION_MIB + SURFACES_MIB) * max(0.3, share)
            card.sessions[work.owner] = 0.01
        if any(s.decoding and s.device and s.device.card is card for s in work.streams):
            held += DECODER_MIB * max(0.3, share)
            card.decoding[work.owner] = 0.01
        if work.contexts and card is work.contexts[0].card:
            held += work.pictures.held_mib
        card.vram[work.owner] = round(held)
        _bring_about(card)
    return list(cards.values())


def _enter_process_table(work: Work) -> int:
    """The run as other processes of the container see it; only runs on a DRM device have anything to tell."""
    number = 40 + next(_RUNS)
    media = next((c for c in work.contexts if isinstance(c, VaContext)), None)
    if media is not None:
        work.pod.processes[number] = Process(work.argv, {5: media.device.render_node})
    work.number = number
    return number


def _may_hang(work: Work) -> None:
    """A media engine that stops in the middle (facts/transcode.md W42).

    Raises:
        FfmpegError: the surface never becomes ready.
    """
    session = work.session
    after = session.card.inputs.get("stops_after_frames") if isinstance(session, VaContext) else None
    if after is not None and work.done >= float(after):
        work.log.err("Failed to sync surface 0x4: 1 (operation failed).", work.encoder)
        raise work.log.encoder_failed(work.encoder, EIO)


def _count_engines(work: Work, step: float) -> None:
    process = work.pod.processes.get(work.number)
    media = next((c for c in work.contexts if isinstance(c, VaContext)), None)
    if process is None or media is None:
        return
    if isinstance(work.session, VaContext):
        media.low_power = work.session.low_power
    busy = engines_of(
        media, encodes=work.session is not None, decodes=any(s.decoding for s in work.streams),
        filters=bool(work.pictures.scalers or work.pictures.transfer),
    )  # fmt: skip
    for engine, share in busy.items():
        process.engines[engine] = process.engines.get(engine, 0.0) + share * step * 1e9


def _bring_about(card: Card) -> None:
    """What a card does when it is worked on: `incidents_under_load` of its inputs, each once."""
    for number in card.inputs.get("incidents_under_load") or {}:
        if int(number) not in {known for _, known in card.happened}:
            card.happened.append((time.time(), int(number)))


async def _frames(work: Work, per_frame_ms: float) -> None:
    total = work.pictures.frames
    paced = any(s.source.realtime for s in work.streams)
    period = float(work.line.settings.get("stats_period", "0.5"))
    told = 0.0
    while work.done < total:
        rate = _rate(work, per_frame_ms, paced)
        left = (total - work.done) / rate
        step = min(left, period, max(0.02, total / rate / 6))
        await work.io.sleep(step)
        if work.io.cancelled:
            raise ProcessKilled
        work.elapsed += step
        _count_engines(work, step)
        _may_hang(work)
        if work.session and work.log.build.nvenc_leak_mib * work.done > work.pod.memory_limit_mib:
            out_of_memory = getattr(work.io, "out_of_memory", None)
            if out_of_memory:  # the kubelet's process is told, so that the container can say OOMKilled
                out_of_memory()
            raise ProcessKilled
        work.done = min(float(total), work.done + rate * step)
        if work.elapsed - told >= period and work.done < total:
            told = work.elapsed
            _progress(work, "continue")


def _rate(work: Work, per_frame_ms: float, paced: bool) -> float:
    """Frames per second now, and the engines' shares that go with it."""
    pictures, owner = work.pictures, work.owner
    # software codecs use all cores; the rest of a graph runs on one
    software = work.encoder in ("libx264", "libx265") or not any(s.decoding for s in work.streams)
    cores = max(0.1, work.pod.cpu_limit if software else min(1.0, work.pod.cpu_limit))
    rate = 1000.0 * cores / per_frame_ms
    if paced:
        rate = min(rate, float(pictures.rate))
    loads: list[tuple[dict[str, float], float, Card]] = []
    if work.session:
        card = work.session.card
        row = card.inputs["encode"][CODEC_OF_ENCODER[work.encoder]]
        loads.append((card.sessions, _capacity(card, float(row["fps"]), "encode", pictures), card))
    for stream in work.streams:
        if stream.decoding and stream.device:
            card = stream.device.card
            row = card.inputs["decode"][stream.codec]
            loads.append((card.decoding, _capacity(card, float(row["fps"]), "decode", stream.pictures), card))
    for table, capacity, card in loads:
        others = [share for name, share in table.items() if name != owner]
        neighbours = sum(0.07 * int(n.get("sessions", 0)) for n in (card.inputs.get("neighbours") or {}).values())
        free = max(1.0 - sum(others) - neighbours, 1.0 / (1 + len(others)))
        rate = min(rate, capacity * free)
    for table, capacity, _card in loads:
        table[owner] = min(1.0, rate / capacity)
    return max(rate, 0.5)


def _capacity(card: Card, fps: float, engine: str, pictures: Pictures) -> float:
    share = float((card.inputs.get("engine_share") or {}).get(engine, 1.0))
    hot = "thresholds_c" in card.inputs and slow_by_heat(card)
    return fps * share * (_SLOWED if hot else 1.0) / max(0.02, pictures.megapixel_share)


def _describe_output(work: Work) -> None:
    log, pictures, build = work.log, work.pictures, work.log.build
    codec = CODEC_OF_ENCODER[work.encoder]
    if work.encoder in ("libx264", "libx265"):
        if work.encoder == "libx264":
            log.note("using cpu capabilities: MMX2 SSE2Fast SSSE3 SSE4.2 AVX FMA3 BMI2 AVX2", "libx264")
            log.note(f"profile {profile_of(work.encoder, work.target.options, pictures)}, 4:2:0, 8-bit", "libx264")
        elif log.level >= 32:
            work.io.write_stderr(b"x265 [info]: HEVC encoder version 3.5+1-f0c1022b6\n")
    log.note(f"Output #0, {work.muxer.name}, to '{_output_name(work)}':")
    log.note(f"  Metadata:\n    encoder         : Lavf{build.lavf}")
    look = f"{pictures.hardware or pictures.pix_fmt}(progressive), {pictures.width}x{pictures.height}"
    log.note(f"  Stream #0:0: Video: {codec}, {look}, q=2-31, {float(pictures.rate):g} fps")
    log.note(f"    Metadata:\n      encoder         : Lavc{build.lavc} {work.encoder}")


def _output_name(work: Work) -> str:
    return "pipe:" if work.target.url == "-" else work.target.url


def _size_so_far(work: Work) -> int | None:
    if work.muxer.name in ("null", "framemd5", "md5", "rawvideo"):
        return None
    rate = bit_rate(work.encoder, work.target.options, work.pictures)
    return int(rate / 8 * work.done / float(work.pictures.rate)) + 1187


def _progress(work: Work, state: str) -> None:
    """One block of `-progress` (facts/transcode.md 2.4)."""
    where = work.line.settings.get("progress")
    if where not in ("pipe:1", "-", "pipe:2"):
        return
    frames, size = int(work.done), _size_so_far(work)
    media = frames / float(work.pictures.rate)
    clock = f"{int(media // 3600):02d}:{int(media % 3600 // 60):02d}:{media % 60:09.6f}"
    rate = f"{size * 8 / media / 1000:6.1f}kbits/s" if size and media else "N/A"
    lines = {
        "frame": frames,
        "fps": f"{frames / work.elapsed if work.elapsed else 0:.2f}",
        "stream_0_0_q": "-1.0" if state == "end" and work.encoder == "libx264" else f"{_quantiser(work):.1f}",
        "bitrate": rate,
        "total_size": "N/A" if size is None else size,
        "out_time_us": round(media * 1e6),
        "out_time_ms": round(media * 1e6),
        "out_time": clock,
        "dup_frames": 0,
        "drop_frames": 0,
        "speed": f"{_speed(work):>4.3g}x",
        "progress": state,
    }
    text = "".join(f"{key}={value}\n" for key, value in lines.items()).encode()
    (work.io.write_stderr if where == "pipe:2" else work.io.write_stdout)(text)


def _quantiser(work: Work) -> float:
    return -0.0 if work.encoder in ("wrapped_avframe", "rawvideo") else 23.0


def _speed(work: Work) -> float:
    return work.done / float(work.pictures.rate) / work.elapsed if work.elapsed else 0.0


def _finish(work: Work, per_frame_ms: float) -> MediaRecord | None:
    """Close the output: summary, benchmark, comparison lines; the record of the file."""
    log, pictures = work.log, work.pictures
    if work.muxer.name == "framemd5":
        _frame_md5(work)
    _progress(work, "end")
    size = _size_so_far(work)
    unit, media = ("KiB" if log.modern else "kB"), pictures.frames / float(pictures.rate)
    clock = f"{int(media // 3600):02d}:{int(media % 3600 // 60):02d}:{media % 60:05.2f}"
    length = "N/A" if size is None else f"{size // 1024:8d}{unit}"
    rate = "N/A" if size is None else f"{size * 8 / media / 1000:6.1f}kbits/s"
    fps = pictures.frames / work.elapsed if work.elapsed else 0.0
    if not log.modern:
        log.verbose("No more output streams to write to, finishing.")
    head = f"frame={pictures.frames:5d} fps={fps:3.0f} q={_quantiser(work):.1f} Lsize={length}"
    log.note(f"{head} time={clock} bitrate={rate} speed={_speed(work):4.3g}x    ")
    for number, stream in enumerate(work.streams):
        log.verbose(f"Input file #{number} ({stream.source.url}):")
        packets = min(stream.pictures.frames, pictures.frames)
        log.verbose(f"  Input stream #{number}:0 (video): {packets} packets read; {packets} frames decoded; ")
    log.verbose(f"Output file #0 ({_output_name(work)}):")
    log.verbose(f"  Output stream #0:0 (video): {pictures.frames} frames encoded; {pictures.frames} packets muxed")
    if "benchmark" in work.line.settings:
        cpu = per_frame_ms * pictures.frames / 1000 + 0.02 + (0.06 if work.contexts or work.session else 0.0)
        stime = cpu * (0.3 if work.contexts or work.session else 0.08)
        log.note(f"bench: utime={cpu - stime:.3f}s stime={stime:.3f}s rtime={work.elapsed:.3f}s")
        log.note(f"bench: maxrss={int(61000 + 70000 * pictures.megapixel_share)}{unit}")
    for comparison in work.comparisons:
        log.note(_comparison_text(comparison), comparison.filter.context)
    if isinstance(work.session, CudaContext):
        log.verbose("Nvenc unloaded", work.encoder)
    return _record(work, size)


def _comparison_text(comparison: Comparison) -> str:
    """The filter's closing line; planes and extremes follow from the average."""
    average = psnr_of(comparison.mse)
    if comparison.filter.name == "psnr":
        if math.isinf(average):
            return "PSNR y:inf u:inf v:inf average:inf min:inf max:inf"
        planes = f"y:{average + 0.058:.6f} u:{average - 0.087:.6f} v:{average - 0.149:.6f}"
        return f"PSNR {planes} average:{average:.6f} min:{average - 1.78:.6f} max:{average + 3.21:.6f}"
    parts = []
    for plane, shift in (("Y", -0.0004), ("U", 0.0005), ("V", 0.0009), ("All", 0.0)):
        whole = ssim_of(average)
        value = whole if whole >= 1.0 else min(0.9999, max(0.0, whole + shift))
        decibel = "inf" if value >= 1.0 else f"{-10 * math.log10(1 - value):.6f}"
        parts.append(f"{plane}:{value:.6f} ({decibel})")
    return f"SSIM {' '.join(parts)}"


def _frame_md5(work: Work) -> None:
    pictures = work.pictures
    size = f"{pictures.width}x{pictures.height}"
    rows = ["#format: frame checksums", "#version: 2", "#hash: MD5", f"#software: Lavf{work.log.build.lavf}"]
    rows += [f"#tb 0: {pictures.rate.denominator}/{pictures.rate.numerator}", "#media_type 0: video"]
    rows += ["#codec_id 0: rawvideo", f"#dimensions 0: {size}", "#sar 0: 1/1"]
    rows.append("#stream#, dts,        pts, duration,     size, hash")
    for number in range(pictures.frames):
        head = f"0, {number:10d}, {number:10d}, {1:8d}, {frame_bytes(pictures):8d}, "
        rows.append(head + frame_hash(pictures, number))
    text = "".join(f"{row}\n" for row in rows).encode()
    if work.target.url in ("-", "pipe:1", "pipe:"):
        work.io.write_stdout(text)
    else:
        work.pod.files[work.target.url] = text


def _record(work: Work, size: int | None) -> MediaRecord | None:
    if size is None:
        return None
    pictures, options, build = work.pictures, work.target.options, work.log.build
    codec = CODEC_OF_ENCODER[work.encoder]
    quality = mse_of(loss_db(work.encoder, options, pictures))
    if work.session:
        quality += float((work.session.card.inputs.get("picture_error") or {}).get("encode", 0.0))
    matroska = work.muxer.probe_name.startswith("matroska")
    uneven = (1000 / pictures.rate).denominator != 1
    coded = replace(
        damaged(pictures, quality),
        pix_fmt=coded_format(pictures.pix_fmt),
        hardware="",
        clock="millisecond" if matroska and uneven else "exact",
        cpu_ms=0.0,
        feeds=(),
    )
    return MediaRecord(
        codec=codec,
        profile=profile_of(work.encoder, options, pictures),
        encoder=work.encoder,
        encoder_tag=f"Lavc{build.lavc} {work.encoder}",
        container=work.muxer.probe_name,
        pictures=coded,
        bit_rate=bit_rate(work.encoder, options, pictures),
        size_bytes=size,
        tag=options.get("tag", {"h264": "avc1", "hevc": "hev1", "av1": "av01"}.get(codec, "")),
        muxer=build.lavf,
        b_frames=2 if work.encoder in ("libx264", "libx265") else int(options.get("bf", "0")),
    )
