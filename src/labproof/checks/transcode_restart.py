"""The card comes back: after its VM was restarted twice, everything holds that held before."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem
from labproof.checks.registry import DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.facts.reading import need


@clause_check(
    "CODEC-RESTART-001",
    title="The card survives restarts of its VM",
    severity=DEGRADED,
    scope="chain",
    reads=("vm", "talos", "kubernetes", "workload", "transcode"),
    causes=("T80",),
    wants=("vm", "acts:vm-restart"),
    after=("CODEC-TRANSCODE-001",),
)
def card_survives_restarts(subject: Subject) -> Judgement:
    """A card without a working reset works once after the host's boot, so the second start is the proof."""
    facts = need(subject.facts.restart(subject.vm.name), f"two restarts of {subject.vm.name}")
    evidence = [
        Evidence(
            f"start {s.number} of {facts.vm}", s.ended or "; ".join(s.broken) or f"all well after {s.seconds:.0f} s"
        )
        for s in facts.starts
    ]
    if facts.rival:
        evidence.append(Evidence(f"qm start of {facts.rival} meanwhile", facts.rival_refused))
    if all(not start.broken and not start.ended for start in facts.starts):
        return Pass(tuple(evidence))
    bad = [e for e, start in zip(evidence, facts.starts, strict=False) if start.broken or start.ended]
    values = (("vm", facts.vm), ("host", subject.vm.host), ("address", subject.chain.gpu.address or "its address"))
    return Fail((Problem("T80", facts.vm, (*bad, *(e for e in evidence if e not in bad)), values),))
