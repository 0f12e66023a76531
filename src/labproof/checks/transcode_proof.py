"""What a transcode proves, and what a failed one means: shared by the CODEC checks.

Exit status 0 proves nothing (facts transcode 2). Kinds of proof that do not depend on each other: what only a
hardware path logs, the card's counters read during the run against a baseline, and the CPU's time per frame against a
software encode in the same pod. Two are needed. Unreadable counters leave the proof incomplete, which is no pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labproof.catalogue.ffmpeg_errors import classify
from labproof.catalogue.floors import floor
from labproof.checks.judgement import Evidence, Measurement, Pass, Problem, Unchecked
from labproof.checks.subject import Subject
from labproof.checks.workload_view import outcome_evidence, running, values_of
from labproof.facts.reading import need
from labproof.facts.transcode import Run, Sample, TranscodeFacts

#: Causes by clause. A failure with a known line that a clause does not list is told as W71 with that line.
ENCODE_CAUSES = ("W11", "W12", "W13", "W15", "W16", "W17", "W18", "W19", "W20", "W25", "W28", "W70", "W71", "W72")
HEVC_CAUSES = ("W16", "W18", "W25", "W28", "W70", "W71", "W72")
DECODE_CAUSES = ("W12", "W14", "W18", "W19", "W20", "W23", "W24", "W25", "W28", "W70", "W71")
TRANSCODE_CAUSES = ("W18", "W24", "W25", "W28", "W70", "W71", "W72")
APP_CAUSES = ("W18", "W23", "W27", "W28", "W71")
AT_ONCE_CAUSES = ("K50", "W17", "W18", "W26", "W28", "W70", "W71", "W72")
_SIGNALS = (137, 139, 143)


@dataclass(frozen=True)
class Proof:
    """What speaks for the hardware.

    Attributes:
        log: names of hardware-only log lines (or of a hardware-only filter that took the frames).
        counter: what moved on the card, empty when nothing did.
        counters_read: whether the counters could be read at all.
        cpu_ratio: CPU time per frame against the software reference, None without a reference.
    """

    log: tuple[str, ...]
    counter: str
    counters_read: bool
    cpu_ratio: float | None

    @property
    def cheap(self) -> bool:
        """Whether the CPU was spared."""
        return self.cpu_ratio is not None and self.cpu_ratio <= floor("cpu_ratio")

    def lines(self) -> str:
        """One line for evidence."""
        ratio = "no software reference" if self.cpu_ratio is None else f"{self.cpu_ratio:.2f} x the CPU time of libx264"
        counter = self.counter or ("no counter moved" if self.counters_read else "counters not readable")
        return f"log: {', '.join(self.log) or 'nothing'}; counters: {counter}; {ratio}"


def started(subject: Subject) -> TranscodeFacts | Unchecked:
    """The facts, or why nothing was transcoded for a reason that the workload clauses speak of."""
    facts = subject.transcode_facts
    pod = need(facts.probe, "probe pod")
    if not running(pod):
        return Unchecked(f"the probe pod does not run: {outcome_evidence(pod).text}")
    if facts.ffmpeg_version.value is None:
        reading = facts.ffmpeg_version
        path = subject.cluster.probe.ffmpeg
        return Unchecked(f"test environment: {path} does not run in the pod: {reading.why}", reading)
    return facts


def run_of(facts: TranscodeFacts, name: str) -> Run | Pass | Unchecked:
    """A run by name; where it was not made, what to say instead."""
    found = facts.of(name)
    if found is not None:
        return found
    reference = facts.of("software")
    if reference is not None and not reference.ran.ok:
        return Unchecked(f"no test clip: the software encode failed: {reference.ran.said()}")
    if facts.via == "exec":
        return Pass((Evidence("lab.yaml probe.via: exec", f"{name} is left out in a pod that is not ours"),))
    return Unchecked(f"no run {name} was made")


def command(run: Run) -> str:
    """The command without the words that every run has in common."""
    dull = {"-hide_banner", "-nostdin", "-benchmark", "-nostats", "-y"}
    return " ".join(word for word in run.ran.argv if word not in dull)


def failure_of(
    subject: Subject, facts: TranscodeFacts, run: Run, listed: tuple[str, ...]
) -> Problem | Unchecked | None:
    """Why a run failed, as one of the causes the clause lists; None when it ended with 0."""
    ran = run.ran
    if ran.ok:
        return None
    values = values_of(subject, facts.probe.value)
    if ran.rc is None and not ran.why.startswith("it did not end"):
        return Unchecked(f"{run.name}: {ran.why}")
    if ran.rc is None or ran.rc in _SIGNALS:
        return Problem("W28", run.name, (Evidence(command(run), ran.said()),), values)
    meaning = classify(f"{run.log}\n{ran.stderr}")
    if meaning is None:
        return Problem("W71", run.name, (Evidence(command(run), run.log[-400:] or ran.said()),), values)
    cause = meaning.cause
    if cause == "W17" and not _met_the_session_limit(subject, facts, run):
        cause = "W18"
    if meaning.verdict == "environment" and cause not in listed:
        return Unchecked(f"test environment: {run.name} failed with {cause}: {meaning.line}")
    evidence = (Evidence(f"{command(run)} (status {ran.rc})", meaning.line),)
    return Problem(cause if cause in listed else "W71", run.name, evidence, values)


def _met_the_session_limit(subject: Subject, facts: TranscodeFacts, run: Run) -> bool:
    """`out of memory (10)` is the session limit when memory is free, a full card when it is not (W17, W18)."""
    free = [s.memory_free for s in (*(run.samples.value or ()), *filter(None, [run.baseline.value]))
            if s.memory_free is not None]  # fmt: skip
    if not free and facts.floors.value is not None and facts.floors.value.free_vram_mib is not None:
        free = [facts.floors.value.free_vram_mib]
    return not free or min(free) > floor("encoder_limit_memory_mib")


def encode_proof(facts: TranscodeFacts, run: Run) -> Proof:
    """Proof of an encode: NVENC's own lines, sessions or encoder use above the baseline, CPU time."""
    by_nvenc = tuple(f"-> {m.encoder}" for m in run.mappings if m.encoder.endswith("_nvenc"))
    log = (*by_nvenc, *(name for name in run.hardware if name != "NVDEC frames")) if by_nvenc else ()
    return Proof(log, *_moved(run, (("encoder sessions", _sessions), ("encoder %", _encoder))), cpu_ratio(facts, run))


def decode_proof(facts: TranscodeFacts, run: Run) -> Proof:
    """Proof of a decode: a filter that takes hardware frames only, decoder use above the baseline."""
    graph = next((run.ran.argv[i + 1] for i, word in enumerate(run.ran.argv[:-1]) if word == "-vf"), "")
    filters = tuple(f.partition("=")[0] for f in graph.split(",") if f.startswith(("hwdownload", "scale_cuda")))
    log = tuple(f"{name} took the frames" for name in filters) if run.ran.ok else ()
    return Proof((*log, *run.hardware), *_moved(run, (("decoder %", _decoder),)), cpu_ratio(facts, run))


def _sessions(sample: Sample) -> int | None:
    return sample.sessions


def _encoder(sample: Sample) -> int | None:
    return sample.encoder


def _decoder(sample: Sample) -> int | None:
    return sample.decoder


def _moved(run: Run, counters: tuple[tuple[str, Callable[[Sample], int | None]], ...]) -> tuple[str, bool]:
    """What rose above the baseline, and whether anything could be read."""
    samples = run.samples.value or ()
    read, moved = False, []
    for name, counter in counters:
        values = [v for v in map(counter, samples) if v is not None]
        if not values:
            continue
        read = True
        before = (counter(run.baseline.value) if run.baseline.value is not None else None) or 0
        if max(values) > before:
            moved.append(f"{name} {before} -> {max(values)}")
    return ", ".join(moved), read


def cpu_ratio(facts: TranscodeFacts, run: Run) -> float | None:
    """CPU time per frame against the software reference in the same pod, None without one."""
    reference = facts.of("software")
    if reference is None or reference.cost.value is None or run.cost.value is None:
        return None
    soft = reference.cost.value.cpu_ms_per_frame(reference.wanted_frames)
    return run.cost.value.cpu_ms_per_frame(run.wanted_frames) / soft if soft else None


def output_problems(subject: Subject, facts: TranscodeFacts, run: Run) -> list[tuple[str, Evidence]]:
    """What is wrong with what a run wrote: frames, codec, the encoder that wrote it, its pace."""
    found: list[tuple[str, Evidence]] = []
    progress = run.progress.value
    if progress is not None and (not progress.ended or progress.frames != run.wanted_frames):
        text = f"{progress.frames} of {run.wanted_frames} frames, {'ended' if progress.ended else 'stopped early'}"
        found.append(("W70", Evidence("-progress", text)))
    stream = run.output.value
    if stream is not None:
        if stream.frames is not None and stream.frames != run.wanted_frames:
            found.append(("W70", Evidence("ffprobe -count_frames", f"{stream.frames} of {run.wanted_frames} frames")))
        wrong_tag = stream.encoder and not any(word in stream.encoder for word in ("nvenc", "vaapi", "qsv"))
        if stream.codec != run.codec or wrong_tag:
            found.append(("W71", Evidence("ffprobe", f"{stream.codec} by {stream.encoder or 'nobody told'}")))
    elif run.ran.ok and run.ran.argv[-1] != "-":
        found.append(("W70", Evidence("ffprobe", run.output.why)))
    if (
        "-re" in run.ran.argv
        and progress is not None
        and progress.speed is not None
        and progress.speed < floor("speed")
    ):
        found.append(("W72", Evidence("-progress", f"speed {progress.speed} of real time")))
    return found


def measurements_of(facts: TranscodeFacts, run: Run) -> tuple[Measurement, ...]:
    """Numbers worth comparing between runs."""
    found = []
    cost, progress = run.cost.value, run.progress.value
    if cost is not None:
        found.append(Measurement(f"{run.name}_cpu_per_frame", round(cost.cpu_ms_per_frame(run.wanted_frames), 3), "ms"))
        if "-re" not in run.ran.argv and cost.real_s > 0 and progress is not None:
            found.append(Measurement(f"{run.name}_fps", round(progress.frames / cost.real_s, 1), "frame/s"))
    samples = run.samples.value or ()
    for name, counter in (("encoder", _encoder), ("decoder", _decoder)):
        values = tuple(float(v) for v in map(counter, samples) if v is not None)
        if any(values):
            found.append(Measurement(f"{run.name}_{name}_util", max(values), "%", values))
    return tuple(found)
