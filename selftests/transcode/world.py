"""A healthy T4's transcodes as typed facts, taken apart by the shipped parsers from texts as ffmpeg prints them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from labproof.facts.ffmpeg import Quality, VideoStream
from labproof.facts.pod_command import Ran
from labproof.facts.reading import Reading, value
from labproof.facts.transcode import AtOnce, Run, Sample, TranscodeFacts
from labproof.facts.workload import Floors, ImageChoice
from labproof.probes.transcode import read_run
from labproof.probes.transcode_commands import DECODE_LOOPS, Commands
from selftests.workload.world import NODE, pod, slots

COMMANDS = Commands("ffmpeg", "ffprobe", "/tmp/labproof-run1-", 10.0)
FRAMES = COMMANDS.frames
OPENED = "[h264_nvenc @ 0x1] Loaded Nvenc version 13.0\n[h264_nvenc @ 0x1] Nvenc initialized successfully\n"


def ended(
    argv: list[str], mapping: str, cpu_s: float, *, frames: int = FRAMES, rc: int | None = 0, log: str = "",
    speed: float = 1.0, why: str = "", at: float = 1000.0,
) -> Ran:  # fmt: skip
    """A run as ffmpeg 7 would tell it: progress on stdout, the verbose log on stderr."""
    stdout = f"frame={frames}\nfps=30.0\ndrop_frames=0\ndup_frames=0\nspeed={speed}x\nprogress=end\n"
    stderr = f"Stream mapping:\n  Stream #0:0 -> #0:0 ({mapping})\n{log}"
    if rc == 0:
        stderr += f"bench: utime={cpu_s}s stime=0.000s rtime=10.0s\nbench: maxrss=72236KiB\n"
    return Ran(tuple(argv), rc, stdout if rc == 0 else "", stderr, why, False, at, at + 10.0)


def samples(*counters: tuple[int, int, int], free: int = 14000) -> Reading[tuple[Sample, ...]]:
    """Samples of (encoder %, decoder %, sessions)."""
    return value(tuple(Sample(1000.0 + n, e, d, s, 15360 - free, free, 61, ()) for n, (e, d, s) in enumerate(counters)))


IDLE = value(Sample(999.0, 0, 0, 0, 0, 14913))
FINE = value(Quality(47.6, 44.1)), value(Quality(0.997, None))


def stream(codec: str, encoder: str, frames: int = FRAMES) -> Reading[VideoStream]:
    return value(VideoStream(codec, "High", "yuv420p", 1920, 1080, "30/1", frames, f"Lavc61.19.101 {encoder}"))


def encode(name: str, argv: list[str], encoder: str, codec: str = "h264", **how: Any) -> Run:
    """A paced encode by NVENC that went well, unless `how` says otherwise."""
    log = how.pop("log", OPENED)
    run = read_run(name, codec, "encode", pod("probe"), ended(argv, f"rawvideo (native) -> {codec} ({encoder})", 0.9,
                                                              log=log, **how), FRAMES)  # fmt: skip
    run = replace(run, baseline=IDLE, samples=samples((0, 0, 0), (7, 0, 1), (8, 0, 1)))
    return replace(run, output=stream(codec, encoder), psnr=FINE[0], ssim=FINE[1]) if run.ran.ok else run


def h264(**how: Any) -> Run:
    return encode("h264", COMMANDS.encode_h264(), "h264_nvenc", **how)


def hevc(**how: Any) -> Run:
    return encode("hevc", COMMANDS.encode_hevc(), "hevc_nvenc", "hevc", **how)


def software() -> Run:
    done = ended(COMMANDS.software(), "rawvideo (native) -> h264 (libx264)", 9.5)
    return replace(read_run("software", "h264", "encode", pod("probe"), done, FRAMES), output=stream("h264", "libx264"))


def decode(**how: Any) -> Run:
    how.setdefault("log", "[h264 @ 0x1] NVDEC capabilities:\n[h264 @ 0x1] Reinit context to 1920x1088, pix_fmt: cuda\n")
    done = ended(
        COMMANDS.decode(), "h264 (native) -> wrapped_avframe (native)", 4.0, frames=FRAMES * DECODE_LOOPS, **how
    )
    run = read_run("decode", "h264", "decode", pod("probe"), done, FRAMES * DECODE_LOOPS)
    return replace(run, baseline=IDLE, samples=samples((0, 60, 0), (0, 95, 0)))


def transcode(**how: Any) -> Run:
    how.setdefault("log", OPENED + "Using input frames context (format cuda) with h264_nvenc encoder.\n")
    done = ended(COMMANDS.transcode(), "h264 (native) -> h264 (h264_nvenc)", 0.5, **how)
    run = read_run("transcode", "h264", "transcode", pod("probe"), done, FRAMES)
    run = replace(run, baseline=IDLE, samples=samples((5, 3, 1), (5, 3, 1)))
    return replace(run, output=stream("h264", "h264_nvenc")) if run.ran.ok else run


def app(cpu_s: float = 0.5, **how: Any) -> Run:
    how.setdefault("log", OPENED)
    done = ended(COMMANDS.app(), "h264 (native) -> h264 (h264_nvenc)", cpu_s, **how)
    run = read_run("app", "h264", "transcode", pod("probe"), done, FRAMES)
    return replace(run, output=stream("h264", "h264_nvenc"), psnr=FINE[0], ssim=FINE[1]) if run.ran.ok else run


def av1(
    log: str = "[av1_nvenc @ 0x1] Codec not supported\n[av1_nvenc @ 0x1] No capable devices found\n", rc: int = 1
) -> Run:
    done = ended(COMMANDS.encode_av1(), "rawvideo (native) -> av1 (av1_nvenc)", 0.1, frames=30, rc=rc, log=log)
    return read_run("av1", "av1", "encode", pod("probe"), done, 30)


def together(*runs: Run, sessions: int | None = None, free: int = 13000) -> Reading[AtOnce]:
    """Runs started at once, the counters as the card shows them."""
    seen = len(runs) if sessions is None else sessions
    return value(AtOnce(len(runs), runs, IDLE, samples((0, 0, 0), (20, 0, seen), free=free)))


def stream_of(number: int, **how: Any) -> Run:
    return encode(f"at-once-{number}", COMMANDS.encode_h264(f"at-once-{number}"), "h264_nvenc", **how)


def healthy() -> TranscodeFacts:
    return TranscodeFacts(
        "pve5/0000:3b:00.0",
        NODE,
        "pod",
        "run1",
        1000.0,
        slots(),
        ImageChoice("image", True, 1, "the node has it"),
        value(pod("probe")),
        value("7.1.2-Jellyfin"),
        value("570.172.08"),
        value(True),
        value(Floors(14913, 0, 40, "")),
        (software(), h264(), hevc(), decode(), transcode(), app(), av1()),
        together(stream_of(0), stream_of(1)),
    )


def with_run(run: Run) -> TranscodeFacts:
    """The healthy facts with one run replaced by another of its name."""
    facts = healthy()
    return replace(facts, runs=tuple(run if known.name == run.name else known for known in facts.runs))
