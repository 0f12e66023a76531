"""CODEC-CONCURRENT: as many streams as there are slots, at the same time."""

from __future__ import annotations

from labproof.catalogue.floors import floor
from labproof.checks.judgement import Evidence, Fail, Judgement, Measurement, Pass, Problem, Unchecked
from labproof.checks.registry import DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.transcode_codecs import judge_quality
from labproof.checks.transcode_proof import AT_ONCE_CAUSES, failure_of, output_problems, started
from labproof.checks.workload_view import values_of
from labproof.facts.reading import State, need
from labproof.facts.transcode import AtOnce, TranscodeFacts


@clause_check(
    "CODEC-CONCURRENT-001",
    title="All slots transcode at once",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=AT_ONCE_CAUSES,
    wants=("nvidia", "sharing"),
    after=("CODEC-H264-001",),
)
def all_slots_transcode_at_once(subject: Subject) -> Judgement:
    """Every stream whole and at real time, together in time, with as many encoder sessions, and memory to spare."""
    facts = started(subject)
    if isinstance(facts, Unchecked):
        return facts
    if facts.at_once.state is State.NOT_ASKED and facts.via == "exec":
        return Pass((Evidence("lab.yaml probe.via: exec", facts.at_once.why),))
    together = need(facts.at_once, "transcodes at once")
    problems: list[Problem] = []
    values = values_of(subject, facts.probe.value)
    alone = facts.of("h264")
    damaged_alone = alone is not None and bool(judge_quality(alone.psnr, None)[0])  # CODEC-QUALITY-001 speaks of that
    for run in together.runs:
        broken = failure_of(subject, facts, run, AT_ONCE_CAUSES)
        if isinstance(broken, Unchecked):
            return broken
        if broken is not None:
            problems.append(broken)
            continue
        wrong = [(c, e) for c, e in output_problems(subject, facts, run) if e.source != "ffprobe"]
        bad, text = judge_quality(run.psnr, None)
        if bad and not damaged_alone:
            wrong.append(("W70", Evidence(f"psnr of {run.name}", text)))
        problems += [Problem(cause, run.name, (evidence,), values) for cause, evidence in wrong]
    if problems:
        return Fail(tuple(_one_a_cause(problems)), (Evidence("runs", _summary(together)),))
    return _card_wide(subject, facts, together)


def _card_wide(subject: Subject, facts: TranscodeFacts, together: AtOnce) -> Judgement:
    values = values_of(subject, facts.probe.value)
    summary = Evidence("encodes started together", _summary(together))
    shortest = min(run.ran.seconds for run in together.runs)
    if together.overlap_s < floor("overlap_share") * shortest:
        return Unchecked(f"the runs hardly overlapped: {together.overlap_s:.1f} s of {shortest:.1f} s")
    samples = together.samples.value or ()
    sessions = [s.sessions for s in samples if s.sessions is not None]
    if not sessions:
        return Unchecked(f"proof incomplete, encoder sessions could not be read: {together.samples.why}")
    before = (together.baseline.value.sessions if together.baseline.value is not None else None) or 0
    if max(sessions) - before < together.wanted:
        text = f"{before} sessions before, at most {max(sessions)} meanwhile, {together.wanted} streams"
        return Fail((Problem("W71", "at once", (Evidence("encoder sessions", text), summary), values),))
    full = [s for s in samples if s.memory_used is not None and s.memory_free is not None]
    peak = (
        max((s.memory_used or 0) / max(1, (s.memory_used or 0) + (s.memory_free or 0)) for s in full) if full else 0.0
    )
    if peak > floor("memory_share"):
        text = f"{peak:.0%} of the card's memory in use, at most {floor('memory_share'):.0%}"
        return Fail((Problem("K50", "at once", (Evidence("memory.used", text), summary), values),))
    seen = Evidence("encoder sessions", f"{before} before, {max(sessions)} meanwhile")
    speeds = tuple(r.progress.value.speed for r in together.runs if r.progress.value and r.progress.value.speed)
    speed = (Measurement("at_once_speed", min(speeds), "x", speeds),) if speeds else ()
    return Pass((summary, seen), measurements=(*speed, Measurement("at_once_memory", round(peak * 100, 1), "%")))


def _one_a_cause(problems: list[Problem]) -> list[Problem]:
    """The first problem of each cause: four streams that fail alike are one finding."""
    first: dict[str, Problem] = {}
    for problem in problems:
        first.setdefault(problem.cause, problem)
    return list(first.values())


def _summary(together: AtOnce) -> str:
    fine = sum(1 for run in together.runs if run.ran.ok)
    return f"{fine} of {together.wanted} streams ended well, {max(0.0, together.overlap_s):.1f} s together"
