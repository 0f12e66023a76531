"""What the APP checks share: whether there is anything to judge, the evidence of it, placeholders for remedies."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Pass, Unchecked
from labproof.checks.subject import Subject
from labproof.facts.apps import AppFacts
from labproof.facts.pod_outcome import Outcome
from labproof.facts.reading import State


def values_of(subject: Subject) -> tuple[tuple[str, str], ...]:
    """Placeholders for the catalogue's remedies."""
    app, pod = subject.app, subject.app_facts.pod.value
    namespace, _, name = app.workload.partition("/")
    chain = subject.chain
    found = {
        "namespace": namespace,
        "pod": pod.name if pod is not None else name,
        "node": pod.node if pod is not None else subject.node.name,
        "resource": subject.cluster.plugin.resource_name,
        "host": chain.host.name if chain.host is not None else "",
        "address": chain.gpu.address or "",
        "device": chain.gpu.device,
    }
    return tuple(sorted(found.items()))


def resting(subject: Subject, facts: AppFacts) -> Pass | None:
    """An app that its owner put to rest is no fault (facts wild 2, 10); None for one that shall run."""
    app = subject.app
    if app.state == "parked":
        return Pass((Evidence("lab.yaml", f"{app.name} is parked"),))
    if facts.replicas.state is State.VALUE and facts.replicas.value == 0:
        return Pass((Evidence(facts.replicas.source, f"{app.workload}: replicas 0"),))
    if app.state == "on-demand" and facts.pod.state is State.ABSENT:
        return Pass((Evidence(facts.pod.source, f"{app.name} is on demand and has no pod now"),))
    return None


def nothing_to_judge(subject: Subject, facts: AppFacts) -> Pass | Unchecked | None:
    """Why a question to the app has no answer to judge; None when it has.

    A refused key, or a missing right, is ours to mend and no finding about the app.
    """
    rest = resting(subject, facts)
    if rest is not None:
        return rest
    pod = facts.pod.value
    if pod is None or pod.outcome.outcome is not Outcome.RUNNING:
        return Unchecked(f"{subject.app.name} does not run")
    if facts.answer.state is not State.VALUE:
        busy = facts.answer.kind == "busy"
        return Unchecked(f"{subject.app.name}: {facts.answer.why}", facts.answer, busy=busy)
    return None
