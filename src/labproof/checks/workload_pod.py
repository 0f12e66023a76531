"""POD-PAIR, POD-RUN: a pod that asks for a slot starts, and asking is not what breaks it."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Unchecked
from labproof.checks.registry import BLOCKING, clause_check
from labproof.checks.subject import Subject
from labproof.checks.workload_view import POD_CAUSES, outcome_evidence, pod_problem, running
from labproof.facts.pod_outcome import Outcome
from labproof.facts.reading import State, need

#: Outcomes in which the runtime, not the scheduler or the kubelet's admission, stopped the pod.
_BY_REQUEST = ("K24", "K25", "K26", "K35", "K49", "W19", "W20")
_BY_RUNTIME = frozenset({Outcome.SANDBOX, Outcome.CREATE, Outcome.START, Outcome.CRASH_LOOP, Outcome.EXITED})


@clause_check(
    "POD-PAIR-001",
    title="Asking for a GPU does not break the pod",
    severity=BLOCKING,
    scope="chain",
    reads=("workload",),
    causes=_BY_REQUEST,
    wants=("device-plugin",),
)
def request_does_not_break_the_pod(subject: Subject) -> Judgement:
    """The same pod with and without its request: where only the one with it fails, injection is at fault (K24)."""
    facts = subject.workload_facts
    asking = need(facts.probe, "probe pod")
    other = facts.runtime_class_only if facts.runtime_class_only.state is not State.NOT_ASKED else facts.leak
    plain = need(other, "pod without a request").pod
    seen = (outcome_evidence(asking), outcome_evidence(plain))
    broken = asking.outcome is not None and asking.outcome.outcome in _BY_RUNTIME
    if not (broken and running(plain)):
        return Pass(seen)  # both run, both fail (the runtime itself), or it never came to the runtime
    problem = pod_problem(subject, asking, facts.slots)
    if isinstance(problem, Unchecked):
        return problem
    if problem.cause not in _BY_REQUEST:
        return Pass(seen)  # POD-RUN-001 names it; it is not about the request
    return Fail((problem,), seen)


@clause_check(
    "POD-RUN-001",
    title="A pod with one slot runs",
    severity=BLOCKING,
    scope="chain",
    reads=("workload",),
    causes=POD_CAUSES,
    after=("POD-PAIR-001",),
)
def pod_with_one_slot_runs(subject: Subject) -> Judgement:
    """Running, by the container's state; what stopped it is told apart by field and text, never by phase alone."""
    facts = subject.workload_facts
    seen = need(facts.probe, "probe pod")
    if running(seen):
        image = Evidence("node.status.images", f"{facts.image.reference}: {facts.image.why}")
        slots = Evidence(
            f"GET nodes/{facts.node}, pods on it",
            f"{facts.slots.allocatable} slots of {facts.resource}, {facts.slots.held} held: {facts.slots.by_whom()}",
        )
        return Pass((outcome_evidence(seen), slots, image))
    problem = pod_problem(subject, seen, facts.slots)
    return problem if isinstance(problem, Unchecked) else Fail((problem,))
