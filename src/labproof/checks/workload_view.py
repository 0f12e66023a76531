"""What the workload and transcode checks share: names for remedies, evidence, and why a pod of ours does not run."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Problem, Unchecked
from labproof.checks.subject import Subject
from labproof.facts.plugin_config import pod_resource
from labproof.facts.pod_outcome import Outcome, PodOutcome
from labproof.facts.workload import PodSeen, Slots

#: What the kubelet's or the runtime's text means (`pod_outcome.explain`) -> cause.
_BY_DETAIL = {
    "no such runtime handler": "K22",
    "runtime binary missing": "K22",
    "cdi hook missing": "K24",
    "cdi device unresolvable": "K25",
    "cdi device node missing": "K25",
    "cuda too new for driver": "K35",
    "cgroup device rules refused": "K49",
    "visible devices refused": "K45",
    "devices in use": "K40",
    "no healthy device": "K41",
    "devices no longer healthy": "K41",
    "unregistered resource": "K41",
    "node lacks resource": "K41",
    "plugin refused": "K21",
}
#: Causes `pod_problem` can name.
POD_CAUSES = (
    "K13", "K21", "K22", "K23", "K24", "K25", "K26", "K33", "K35", "K38", "K40", "K41", "K45", "K49",
    "W19", "W20", "W28", "W68",
)  # fmt: skip
_NOT_OURS_TO_JUDGE = {
    "quota": "a ResourceQuota refuses our pod",
    "admission webhook": "an admission webhook refuses our pod",
    "no such PriorityClass": "the pod's PriorityClass does not exist",
    "no service account yet": "the namespace has no ServiceAccount yet",
}


def values_of(subject: Subject, pod: PodSeen | None = None) -> tuple[tuple[str, str], ...]:
    """Names for the remedy's placeholders, as far as this chain has them."""
    chain = subject.chain
    named = {
        "host": chain.host.name if chain.host else "",
        "vm": str(chain.vm.id or chain.vm.name) if chain.vm else "",
        "node": chain.node.name if chain.node else "",
        "device": chain.gpu.device,
        "address": chain.gpu.address or "",
        "resource": pod_resource(chain.cluster) if chain.cluster else "",
        "namespace": pod.namespace if pod else (chain.cluster.probe.namespace if chain.cluster else ""),
        "pod": pod.name if pod else "",
    }
    return tuple((name, text) for name, text in named.items() if text)


def pod_label(seen: PodSeen) -> str:
    """How a pod is called in reports: by what it is for; its name changes with every run."""
    return f"{seen.role} pod in {seen.namespace}"


def outcome_evidence(seen: PodSeen) -> Evidence:
    """What said how the pod stands."""
    where = f"pod {seen.namespace}/{seen.name or seen.role}"
    if seen.refused:
        return Evidence(f"POST {where}", seen.text)
    outcome = seen.outcome or PodOutcome(Outcome.WAITING)
    text = f"{outcome.outcome.value}: {outcome.reason} {outcome.text}".strip()
    return Evidence(f"{where} {outcome.source}".strip(), text)


def running(seen: PodSeen) -> bool:
    """Whether the pod was seen running."""
    return seen.outcome is not None and seen.outcome.outcome is Outcome.RUNNING


def pod_problem(subject: Subject, seen: PodSeen, slots: Slots) -> Problem | Unchecked:
    """Why a pod with one slot does not run: a cause, or why that is no fault of the lab's GPU."""
    cause: str | None
    if seen.refused:
        cause = {"pod security": "K33", "no such RuntimeClass": "K23"}.get(seen.refused)
        if cause is None:
            return Unchecked(f"{_NOT_OURS_TO_JUDGE.get(seen.refused, 'the API refuses our pod')}: {seen.text}")
    else:
        found = _cause_of(seen, slots)
        if isinstance(found, Unchecked):
            return found
        cause = found
    return Problem(cause, pod_label(seen), (outcome_evidence(seen),), values_of(subject, seen))


def _cause_of(seen: PodSeen, slots: Slots) -> str | Unchecked:
    outcome = seen.outcome or PodOutcome(Outcome.WAITING)
    kind = outcome.outcome
    if kind is Outcome.UNSCHEDULABLE:
        return _unschedulable(outcome, slots)
    if kind is Outcome.IMAGE:
        return Unchecked(f"test environment: image {seen.image} cannot be had: {outcome.reason} {outcome.text}")
    if kind is Outcome.EVICTED:
        preempted = outcome.reason == "Preempting"
        return Unchecked(f"our pod was taken away: {outcome.reason} {outcome.text}", busy=preempted)
    if outcome.detail == "executable not found":
        return Unchecked(f"test environment: image {seen.image} has no {outcome.name}")
    if outcome.detail == "device node missing":
        return "W19" if outcome.name.endswith("nvidia-uvm") else "W20"
    if outcome.exit_code == 139:  # every program dies while it loads its libraries (K26)
        return "K26"
    if kind in (Outcome.EXITED, Outcome.OOM_KILLED, Outcome.CRASH_LOOP) and not outcome.detail:
        return "W28"
    return _BY_DETAIL.get(outcome.detail, "W68")


def _unschedulable(outcome: PodOutcome, slots: Slots) -> str | Unchecked:
    why = outcome.unschedulable
    if why is not None and why.lacks(slots.resource):
        if slots.allocatable is None:
            return "K13"
        if slots.allocatable == 0:
            return "K38" if slots.capacity else "K13"
        return Unchecked(f"no slot was left: {slots.by_whom()}", busy=True)
    return Unchecked(f"our pod could not be placed for a reason that is not the GPU: {outcome.text}")
