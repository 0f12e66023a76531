"""Single ffmpeg runs in one container: the command, the counters meanwhile, what it wrote and how good that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from labproof.facts import ffmpeg
from labproof.facts.pod_command import Ran
from labproof.facts.reading import NOT_ASKED, Reading, failed
from labproof.facts.transcode import Run, Sample
from labproof.facts.workload import PodSeen
from labproof.inventory.models import Lab
from labproof.probes.transcode_commands import Commands
from labproof.probes.transcode_sampling import telling

ATTEMPTS = 3
_KEPT = 4000  # characters of a run's stderr that are kept besides its telling lines


@dataclass(frozen=True)
class Worker:
    """A container to transcode in: `run(argv)` for short commands, `run(argv, seconds)` with a longer limit."""

    seen: PodSeen
    run: Callable[..., Ran]


class Counters(Protocol):
    """Whoever reads a card's counters."""

    def once(self) -> Reading[Sample]:
        """The counters now."""
        ...

    def until_done(self, running: Sequence[Future[Ran]], every_s: float) -> Reading[tuple[Sample, ...]]:
        """Samples until all of `running` are done."""
        ...


class Maker:
    """Makes runs in one container.

    Args:
        attempts: how often a run is measured at most; 1 leaves that to the caller.
    """

    def __init__(
        self, worker: Worker, commands: Commands, lab: Lab, sampler: Counters, attempts: int = ATTEMPTS
    ) -> None:
        self._worker = worker
        self._commands = commands
        self._timings = lab.timings
        self._sampler = sampler
        self._attempts = attempts

    def make(
        self, name: str, codec: str, direction: str, argv: list[str], frames: int, *, sampled: bool = True,
        judged: bool = True,
    ) -> Run:  # fmt: skip
        """Run one command; sample the counters meanwhile; probe what it wrote; compare it with the source."""
        baseline = self._sampler.once() if sampled else NOT_ASKED
        samples: Reading[tuple[Sample, ...]] = NOT_ASKED
        for _ in range(self._attempts):  # a run that the counters were hardly read during is measured again
            with ThreadPoolExecutor(1, "labproof ffmpeg") as pool:
                future = pool.submit(self._worker.run, argv, self._timings.transcode_s)
                if sampled:
                    samples = self._sampler.until_done([future], self._timings.sample_poll_s)
                ran = future.result()
            if not sampled or not ran.ok or self._attempts == 1 or telling(baseline, samples, ran):
                break
        else:
            samples = failed(samples.source, "too few samples fell into the run to say that nothing moved", "slow")
        run = read_run(name, codec, direction, self._worker.seen, ran, frames)
        run = replace(run, baseline=baseline, samples=samples)
        if not ran.ok or argv[-1] == "-":
            return run
        run = replace(run, output=self._probe(name))
        return self.compare(run, "psnr", "ssim") if judged else run

    def _probe(self, name: str) -> Reading[ffmpeg.VideoStream]:
        ran = self._worker.run(self._commands.probe(name), self._timings.transcode_s)
        return ffmpeg.parse_ffprobe(ran.stdout) if ran.ok else failed("ffprobe", ran.said(), "exec")

    def compare(self, run: Run, *measures: str) -> Run:
        """PSNR and SSIM of what a run wrote."""
        for measure in measures:
            ran = self._worker.run(self._commands.compare(run.name, run.codec, measure), self._timings.transcode_s)
            if measure == "psnr":
                run = replace(run, psnr=ffmpeg.parse_psnr(ran.stderr) if ran.ok else failed("psnr", ran.said(), "exec"))
            else:
                run = replace(run, ssim=ffmpeg.parse_ssim(ran.stderr) if ran.ok else failed("ssim", ran.said(), "exec"))
        return run


def read_run(name: str, codec: str, direction: str, seen: PodSeen, ran: Ran, frames: int) -> Run:
    """What a finished command says about itself; its streams are kept only as far as they tell something."""
    return Run(
        name,
        codec,
        direction,
        f"{seen.namespace}/{seen.name}",
        frames,
        replace(ran, stdout=ran.stdout[-600:], stderr=ran.stderr[-_KEPT:]),
        ffmpeg.telling_lines(ran.stderr, 40),
        ffmpeg.parse_progress(ran.stdout),
        ffmpeg.parse_cost(ran.stderr),
        ffmpeg.parse_mappings(ran.stderr),
        ffmpeg.hardware_lines(ran.stderr),
        ffmpeg.fallback_line(ran.stderr),
    )
