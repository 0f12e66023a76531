"""CODEC-HEAT, CODEC-KLOG: the card keeps its clocks and the kernel keeps quiet while our work runs."""

from __future__ import annotations

import re
from collections import Counter

from labproof.checks.judgement import Evidence, Fail, Judgement, Measurement, Pass, Problem, Unchecked
from labproof.checks.registry import DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.transcode_proof import started
from labproof.checks.workload_view import values_of
from labproof.facts.reading import need
from labproof.facts.talos import KernelLog
from labproof.facts.transcode import Sample, TranscodeFacts

THERMAL = frozenset({"hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown"})
#: Records that tell of trouble with a GPU or its PCI link; Talos' own tasks and service records do not.
_GPU_LINE = re.compile(r"NVRM|nvidia-(?:uvm|nvlink|modeset)|\bnvidia 0000:|PCIe Bus Error|\bAER:|GPU HANG|\*ERROR\*")
_STAMP = re.compile(r"^\w+: +\w+: \[[^\]]*\]: ")


@clause_check(
    "CODEC-HEAT-001",
    title="No slowdown by heat or power supply under load",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=("W75",),
    wants=("nvidia",),
)
def no_slowdown_under_load(subject: Subject) -> Judgement:
    """Read between the transcodes' first and last frame: a card that is cool at rest may still throttle at work."""
    facts = started(subject)
    if isinstance(facts, Unchecked):
        return facts
    samples = _samples(facts)
    known = [s for s in samples if s.slowdowns is not None]
    if not known:
        return _by_temperature(subject, samples)
    hot = [s for s in known if THERMAL & set(s.slowdowns or ())]
    heat = tuple(float(s.temperature) for s in known if s.temperature is not None)
    kept = (Measurement("temperature_under_load", max(heat), "C", heat),) if heat else ()
    source = "nvidia-smi clocks_event_reasons while transcoding"
    top = f"at most {max(heat):g} C" if heat else "temperature not told"
    if hot:
        names = sorted({name for s in hot for name in s.slowdowns or () if name in THERMAL})
        told = Evidence(source, f"{', '.join(names)} in {len(hot)} of {len(known)} samples, {top}")
        return Fail((Problem("W75", facts.node, (told,), values_of(subject)),), measurements=kept)
    return Pass((Evidence(source, f"none in {len(known)} samples, {top}"),), measurements=kept)


@clause_check(
    "CODEC-KLOG-001",
    title="The kernel reports nothing of the card while it works",
    severity=DEGRADED,
    scope="node",
    reads=("talos", "transcode"),
    causes=("W83",),
    wants=("nvidia",),
    after=("TALOS-API-001",),
)
def kernel_is_quiet_while_we_work(subject: Subject) -> Judgement:
    """The kernel log is read again after the transcodes of all chains; stamps differ between two readings by a hair."""
    for chain in subject.target.chains:
        need(subject.facts.transcode(chain.id), f"transcodes on {subject.node.name}")
    before = need(subject.talos_facts.kernel_log, "kernel log before the work")
    reading = subject.facts.kernel_log(subject.node.name)
    after = need(reading, "kernel log after the work")
    new = _new_lines(before, after)
    span = Evidence(reading.source, f"{before.records} records before, {after.records} after")
    if new:
        told = tuple(Evidence(reading.source, line) for line in new[:5])
        return Fail((Problem("W83", subject.node.name, (*told, span), values_of(subject)),))
    return Pass((span,))


def _by_temperature(subject: Subject, samples: list[Sample]) -> Judgement:
    """For drivers that do not tell why clocks are low: far below every card's slowdown there is no slowdown by heat."""
    heat = tuple(float(s.temperature) for s in samples if s.temperature is not None)
    if not heat:
        return Unchecked("no sample of the card's clocks and temperature fell into a transcode")
    limit = subject.cluster.probe.max_temperature_c
    if max(heat) > limit:
        return Unchecked(f"{max(heat):g} C under load, and this driver does not tell whether clocks are cut")
    told = f"at most {max(heat):g} C of {limit} (probe.max_temperature_c); this driver does not tell why clocks are low"
    return Pass((Evidence("nvidia-smi while transcoding", told),))


def _samples(facts: TranscodeFacts) -> list[Sample]:
    found = [s for run in facts.runs for s in run.samples.value or ()]
    together = facts.at_once.value
    return [*found, *(together.samples.value or ())] if together is not None else found


def _new_lines(before: KernelLog, after: KernelLog) -> list[str]:
    """GPU records that the second reading has and the first had not (the same text may be logged again)."""
    had = Counter(_STAMP.sub("", line) for line in before.lines)
    new = []
    for line in after.lines:
        text = _STAMP.sub("", line)
        if had[text] > 0:
            had[text] -= 1
        elif _GPU_LINE.search(text):
            new.append(line)
    return new
