"""POD-POWER: the power limit that the owner set is the one in force."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Judgement, Problem, verdict_of
from labproof.checks.registry import DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.workload_view import values_of
from labproof.facts.reading import need

#: Watts by which nvidia-smi may differ: it prints two decimals of what the firmware rounds.
_TOLERANCE_W = 1.0


@clause_check(
    "POD-POWER-001",
    title="The declared power limit is in force",
    severity=DEGRADED,
    scope="chain",
    reads=("workload",),
    causes=("W82",),
    wants=("nvidia", "power-limit"),
    after=("POD-SMI-001",),
)
def declared_power_limit_is_in_force(subject: Subject) -> Judgement:
    """A limit set with `nvidia-smi -pl` is gone after a reboot or a driver reload (facts wild 4, lab A1)."""
    facts = subject.workload_facts
    report = need(need(facts.nvidia_smi, "nvidia-smi").report, "nvidia-smi -q -x")
    wanted = subject.chain.gpu.power_limit_watts or 0.0
    problems, evidence = [], []
    for gpu in report.gpus:
        limit = need(gpu.power_limit, "power limit of the card")
        seen = Evidence(gpu.power_limit.source, f"{limit:g} W in force, {wanted:g} W declared")
        evidence.append(seen)
        if abs(limit - wanted) > _TOLERANCE_W:
            problems.append(Problem("W82", gpu.uuid.value or facts.node, (seen,), values_of(subject)))
    return verdict_of(problems, evidence)
