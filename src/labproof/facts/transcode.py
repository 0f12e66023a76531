"""Facts of the transcode layer: what each of our ffmpeg runs did, and what the card's counters said meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from labproof.facts.ffmpeg import Cost, Mapping, Progress, Quality, VideoStream
from labproof.facts.metrics import EncoderWatch
from labproof.facts.pod_command import Ran
from labproof.facts.reading import NOT_ASKED, Reading
from labproof.facts.workload import Floors, ImageChoice, PodSeen, Slots


@dataclass(frozen=True)
class Sample:
    """The card's counters at one moment; they count for the whole card. None: the driver did not tell.

    Attributes:
        at: Unix seconds.
        encoder, decoder: utilisation in percent.
        sessions: encoder sessions open.
        memory_used, memory_free: MiB.
        temperature: Celsius.
    """

    at: float
    encoder: int | None
    decoder: int | None
    sessions: int | None
    memory_used: int | None
    memory_free: int | None
    temperature: int | None = None
    slowdowns: tuple[str, ...] | None = None  # active clock event reasons: hw_slowdown, sw_thermal_slowdown ...
    engines: tuple[tuple[str, int], ...] = ()  # engine, time or cycles it worked for our process; empty: not told
    clock_mhz: int | None = None  # actual frequency of the GPU
    idle_ms: int | None = None  # residency of its idle power state (rc6)


@dataclass(frozen=True)
class Run:
    """One ffmpeg run.

    Attributes:
        name: software, h264, hevc, decode, transcode, app, av1, at-once-0 ...
        codec: codec worked on.
        direction: encode, decode, transcode.
        pod: where it ran, namespace/pod.
        wanted_frames: frames the command must write.
        log: the lines of stderr worth keeping (the whole of it would be megabytes).
        hardware: proof lines found in stderr (`labproof.facts.ffmpeg.HARDWARE_LINES`).
        fallback: the line that tells of a fallback to software, empty when there is none.
        baseline: counters just before the run.
        samples: counters while it ran.
        output: the written file as ffprobe counted it (not asked for `-f null`).
        psnr, ssim: output against the regenerated source.
    """

    name: str
    codec: str
    direction: str
    pod: str
    wanted_frames: int
    ran: Ran
    log: str
    progress: Reading[Progress]
    cost: Reading[Cost]
    mappings: tuple[Mapping, ...] = ()
    hardware: tuple[str, ...] = ()
    fallback: str = ""
    baseline: Reading[Sample] = NOT_ASKED
    samples: Reading[tuple[Sample, ...]] = NOT_ASKED
    output: Reading[VideoStream] = NOT_ASKED
    psnr: Reading[Quality] = NOT_ASKED
    ssim: Reading[Quality] = NOT_ASKED

    @property
    def interval(self) -> tuple[float, float]:
        """Unix seconds at which it began and ended."""
        return self.ran.started, self.ran.ended


@dataclass(frozen=True)
class AtOnce:
    """Several runs started together, one per slot."""

    wanted: int
    runs: tuple[Run, ...]
    baseline: Reading[Sample]
    samples: Reading[tuple[Sample, ...]]

    @property
    def overlap_s(self) -> float:
        """Seconds during which all of them ran."""
        if not self.runs:
            return 0.0
        return min(r.ran.ended for r in self.runs) - max(r.ran.started for r in self.runs)


@dataclass(frozen=True)
class TranscodeFacts:
    """What was observed for one chain."""

    name: str
    node: str
    via: str
    run: str
    at: float
    slots: Slots
    image: ImageChoice
    probe: Reading[PodSeen]
    ffmpeg_version: Reading[str] = NOT_ASKED
    driver_version: Reading[str] = NOT_ASKED
    nvidia_smi_works: Reading[bool] = NOT_ASKED
    floors: Reading[Floors] = NOT_ASKED
    runs: tuple[Run, ...] = ()
    at_once: Reading[AtOnce] = NOT_ASKED
    exporter: Reading[EncoderWatch] = NOT_ASKED
    uuids: tuple[str, ...] = ()
    created: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    render_node: Reading[str] = NOT_ASKED  # Intel and AMD: the node of the chain's card
    kernel_driver: Reading[str] = NOT_ASKED  # i915, xe, amdgpu
    kernel: Reading[str] = NOT_ASKED  # release of the running kernel

    def of(self, name: str) -> Run | None:
        """The run of that name, None when it was not made."""
        return next((run for run in self.runs if run.name == name), None)
