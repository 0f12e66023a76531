"""POD-OVERFLOW, POD-OVERREQ, POD-LEAK: slots are a limit, and without one there is no GPU."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.checks.workload_view import outcome_evidence, pod_label, running, values_of
from labproof.facts.nvidia_smi import parse_smi_list
from labproof.facts.pod_outcome import Outcome
from labproof.facts.reading import State, need
from labproof.facts.workload import LeakSeen, OverflowSeen, PodSeen


@clause_check(
    "POD-OVERFLOW-001",
    title="A pod more than there are slots waits, and runs once one is free",
    severity=DEGRADED,
    scope="chain",
    reads=("workload",),
    causes=("K40", "K41"),
    wants=("device-plugin",),
    after=("POD-RUN-001",),
)
def overflow_pod_waits(subject: Subject) -> Judgement:
    """Pending for `Insufficient <resource>`, not for any other reason; K43 is what makes this the normal case."""
    facts = subject.workload_facts
    seen = need(facts.overflow, "overflow pod")
    values = values_of(subject, seen.pod)
    refused = [f for f in seen.fillers if not running(f)]
    if refused:
        return _filler_refused(refused[0], values)
    outcome = seen.pod.outcome
    if outcome is None:
        return Unchecked(f"the overflow pod was not created: {seen.pod.text}")
    said = (Evidence("slots", _arithmetic(seen, facts.resource)), outcome_evidence(seen.pod))
    if outcome.outcome is Outcome.UNSCHEDULABLE:
        if outcome.unschedulable is None or not outcome.unschedulable.lacks(facts.resource):
            return Unchecked(f"the overflow pod waits for another reason: {outcome.text}")
        if seen.woke_s.state is State.FAILED:
            late = Evidence(seen.woke_s.source, seen.woke_s.why)
            return Fail((Problem("K40", pod_label(seen.pod), (*said, late), values),))
        woke = f"runs {seen.woke_s.value} s later" if seen.woke_s.value is not None else seen.woke_s.why
        return Pass((*said, Evidence("after a slot was freed", woke)))
    if seen.asked > 1 or outcome.outcome is Outcome.RUNNING:  # the scheduler counts as we do: somebody gave one back
        return Unchecked(f"slots changed hands while we looked: {outcome_evidence(seen.pod).text}", busy=True)
    if outcome.detail == "devices in use":
        return Fail((Problem("K40", pod_label(seen.pod), said, values),))
    return Unchecked(f"the overflow pod is neither waiting nor running: {outcome_evidence(seen.pod).text}")


@clause_check(
    "POD-OVERREQ-001",
    title="Asking for two slots is refused",
    severity=HYGIENE,
    scope="chain",
    reads=("workload",),
    causes=("K12",),
    wants=("nvidia", "sharing", "device-plugin"),
    after=("POD-RUN-001",),
)
def two_slots_are_refused(subject: Subject) -> Judgement:
    """Two slots of one card are no double share: granted, they only take another pod's place (K12)."""
    facts = subject.workload_facts
    if facts.over_request.state is State.NOT_ASKED and facts.via == "exec":  # full by the owner's will; K12 needs room
        return Pass((Evidence("lab.yaml probe.via: exec", facts.over_request.why),))
    seen = need(facts.over_request, "pod that asks for two slots")
    evidence = outcome_evidence(seen)
    if running(seen):
        return Fail((Problem("K12", pod_label(seen), (evidence,), values_of(subject, seen)),))
    if seen.outcome is not None and seen.outcome.detail == "more than one replica asked":
        return Pass((evidence,))
    return Unchecked(f"neither granted nor refused for its size: {evidence.text}")


@clause_check(
    "POD-LEAK-001",
    title="A pod that asks for no GPU sees none",
    severity=DEGRADED,
    scope="chain",
    reads=("workload",),
    causes=("K44",),
    wants=("nvidia", "device-plugin"),
)
def no_request_no_gpu(subject: Subject) -> Judgement:
    """Neither without RuntimeClass (image asks for all) nor with it (`void`); a runtime that refuses is fine (K45)."""
    facts = subject.workload_facts
    pods = [need(facts.leak, "pod without a request")]
    if facts.runtime_class_only.state is not State.NOT_ASKED:
        pods.append(need(facts.runtime_class_only, "pod with the RuntimeClass only"))
    evidence: list[Evidence] = []
    problems: list[Problem] = []
    for leak in pods:
        refused = leak.pod.outcome is not None and leak.pod.outcome.detail == "visible devices refused"  # K45
        if refused:
            evidence.append(outcome_evidence(leak.pod))
            continue
        if not running(leak.pod):
            if leak is pods[0]:
                return Unchecked(f"the pod without a request did not run: {outcome_evidence(leak.pod).text}")
            continue  # POD-PAIR-001 and POD-RUN-001 speak of a RuntimeClass that starts nothing
        devices = need(leak.devices, "devices in the pod without a request")
        cards = _cards(leak)
        told = Evidence(
            f"{leak.pod.role} pod: ls -ln /dev; nvidia-smi -L",
            f"{', '.join(devices) or 'no /dev/nvidia*'}; {', '.join(cards) or 'no card'}",
        )
        if devices or cards:
            problems.append(Problem("K44", pod_label(leak.pod), (told,), values_of(subject, leak.pod)))
        evidence.append(told)
    return verdict_of(problems, evidence)


@clause_check(
    "POD-LEAK-002",
    title="No workload takes the GPU without a slot",
    severity=HYGIENE,
    scope="chain",
    reads=("workload",),
    causes=("W53",),
    wants=("nvidia", "device-plugin", "runtime_class:present"),
)
def nobody_takes_the_gpu_unaccounted(subject: Subject) -> Judgement:
    """Pods with the GPU RuntimeClass and no request by-pass the plugin's count; DaemonSets are the GPU stack itself."""
    slots = subject.workload_facts.slots
    where = f"pods on {slots.node}"
    problems = [
        Problem(
            "W53", h.name, (Evidence(where, f"{h.name}: RuntimeClass without a request, since {h.since}"),),
            (*(v for v in values_of(subject) if v[0] not in ("namespace", "pod")),
             ("namespace", h.namespace), ("pod", h.pod)),
        )
        for h in slots.unaccounted
    ]  # fmt: skip
    return verdict_of(problems, (Evidence(where, f"slots held by: {slots.by_whom()}"),))


def _arithmetic(seen: OverflowSeen, resource: str) -> str:
    return f"{seen.free_before} of {resource} were free, we held {seen.ours}, one more pod asked for {seen.asked}"


def _filler_refused(filler: PodSeen, values: tuple[tuple[str, str], ...]) -> Judgement:
    detail = filler.outcome.detail if filler.outcome is not None else ""
    cause = {"devices in use": "K40", "no healthy device": "K41", "devices no longer healthy": "K41"}.get(detail)
    if cause is None:
        return Unchecked(f"a pod for a free slot did not run: {outcome_evidence(filler).text}")
    return Fail((Problem(cause, pod_label(filler), (outcome_evidence(filler),), values),))


def _cards(leak: LeakSeen) -> list[str]:
    ran = leak.listed.value
    return [f"{name} {uuid}" for _, name, uuid in parse_smi_list(ran.stdout)] if ran is not None and ran.ok else []
