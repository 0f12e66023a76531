"""Takes card memory for a moment, in the probe pod, with the ffmpeg that is there: frames are uploaded and held.

A frame of 8192x8192 in yuv420p is 96 MiB. `hwupload_cuda` allocates each on the card (cuMemAlloc), and `loop` keeps a
reference to all of them (FFmpeg libavutil/hwcontext_cuda.c, libavfilter/f_loop.c). Nothing is encoded.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from labproof.facts.pod_command import Ran
from labproof.facts.reading import NOT_ASKED, Reading, value
from labproof.facts.workload import Slots, VramSeen
from labproof.inventory.models import Probe, Timings
from labproof.probes.transcode_sampling import Sampler

FRAME_MIB = 96
SIDE = 8192


def command(ffmpeg: str, wanted_mib: int) -> list[str]:
    """The argv that holds at least `wanted_mib` MiB of the card's memory."""
    frames = -(-wanted_mib // FRAME_MIB)
    held = f"format=yuv420p,hwupload_cuda,loop=loop=1:size={frames}:start=0"
    return [
        ffmpeg, "-hide_banner", "-nostdin", "-v", "verbose", "-nostats", "-init_hw_device", "cuda=card",
        "-filter_hw_device", "card", "-f", "lavfi", "-i", f"color=c=black:size={SIDE}x{SIDE}:rate=1:duration={frames}",
        "-vf", held, "-frames:v", str(frames), "-f", "null", "-",
    ]  # fmt: skip


def take_memory(
    run: Callable[..., Ran], probe: Probe, timings: Timings, slots: Slots, free_mib: int | None
) -> Reading[VramSeen]:
    """Try to hold the declared memory.

    Args:
        run: `run(argv, seconds)` in the probe pod.
        slots: who holds slots, so that nobody's memory is taken.
        free_mib: what nvidia-smi called free just before.

    Returns:
        What happened; not asked where lab.yaml does not want it. Where others hold slots and would be left with less
        than `probe.min_free_vram_mib`, nothing is tried.
    """
    if probe.vram_mib is None:
        return NOT_ASKED
    others = ", ".join(h.name for h in slots.holders if not h.ours)
    seen = VramSeen(probe.vram_mib, free_mib, others)
    left_to_others = probe.min_free_vram_mib if others else 0
    if free_mib is not None and free_mib - left_to_others < probe.vram_mib:
        return value(seen, "nvidia-smi -q -x")
    argv = command(probe.ffmpeg, probe.vram_mib)
    with ThreadPoolExecutor(1, "labproof memory") as pool:
        future = pool.submit(run, argv, timings.transcode_s)
        samples = Sampler(run).until_done([future], timings.sample_poll_s)
        ran = future.result()
    used = [s.memory_used for s in samples.value or () if s.memory_used is not None]
    return value(
        VramSeen(probe.vram_mib, free_mib, others, value(ran, ran.line()), max(used, default=None)), ran.line()
    )
