"""APP: the declared apps run, answer, and name the version of their images."""

from __future__ import annotations

from labproof.checks.apps_view import nothing_to_judge, resting, values_of
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.facts.pod_outcome import Outcome
from labproof.facts.reading import State, need

#: An answer that did not come because of the way to the pod, or of the app behind it.
_NO_ANSWER = ("unavailable", "refused", "timeout", "reset", "dns", "tls", "protocol", "not_found", "rejected")


@clause_check(
    "APP-RUN-001",
    title="The app runs",
    severity=DEGRADED,
    scope="app",
    reads=("apps",),
    causes=("W105",),
    upon=("workload",),
)
def app_runs(subject: Subject) -> Judgement:
    """A running pod of the declared workload, unless its owner put it to rest."""
    facts = subject.app_facts
    rest = resting(subject, facts)
    if rest is not None:
        return rest
    pod = facts.pod.value
    if pod is None:
        if facts.pod.state is not State.ABSENT:
            need(facts.pod, "pods")
        told = Evidence(facts.pod.source, facts.pod.why)
        return Fail((Problem("W105", subject.app.name, (told,), values_of(subject)),))
    outcome = pod.outcome
    told = Evidence(facts.pod.source, f"{pod.full_name} on {pod.node or 'no node'}: {outcome.outcome.value}")
    if outcome.outcome is Outcome.RUNNING:
        return Pass((told,))
    said = Evidence(outcome.source, f"{outcome.reason} {outcome.text}".strip()[:400])
    return Fail((Problem("W105", subject.app.name, (told, said), values_of(subject)),))


@clause_check(
    "APP-ANSWER-001",
    title="The app answers",
    severity=DEGRADED,
    scope="app",
    reads=("apps",),
    causes=("W106",),
    after=("APP-RUN-001",),
    upon=("workload",),
)
def app_answers(subject: Subject) -> Judgement:
    """Some answer on its port; a refused key or a missing right is not the app's fault."""
    facts = subject.app_facts
    if facts.answer.state is State.FAILED and facts.answer.kind in _NO_ANSWER:
        told = Evidence(facts.answer.source, facts.answer.why)
        return Fail((Problem("W106", subject.app.name, (told,), values_of(subject)),))
    nothing = nothing_to_judge(subject, facts)
    if nothing is not None:
        return nothing
    return Pass((Evidence(facts.answer.source, facts.answer.value or "answered"),))


@clause_check(
    "APP-IMAGE-001",
    title="The app's images have a fixed version",
    severity=HYGIENE,
    scope="app",
    reads=("apps",),
    causes=("W111",),
    after=("APP-RUN-001",),
    upon=("workload",),
)
def images_are_fixed(subject: Subject) -> Judgement:
    """A digest, or a tag other than `latest`: no tag means `latest`."""
    facts = subject.app_facts
    pod = facts.pod.value
    if pod is None:
        return resting(subject, facts) or Unchecked(f"{subject.app.name} has no pod")
    floating = [image for image in pod.images if _floats(image)]
    told = Evidence(f"pod {pod.full_name}", ", ".join(pod.images))
    return verdict_of([Problem("W111", subject.app.name, (told,), values_of(subject))] if floating else [], (told,))


def _floats(image: str) -> bool:
    if "@" in image:
        return False
    tag = image.rpartition("/")[2].partition(":")[2]
    return tag in {"", "latest"}
