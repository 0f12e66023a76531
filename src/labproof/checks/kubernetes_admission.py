"""K8S-RTC, K8S-ADMIT: what a GPU pod names exists, and the API server takes it."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.kubernetes_view import NodeView
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.facts.kubernetes_objects import DaemonSetFacts
from labproof.facts.reading import State, need
from labproof.facts.refusal import Because

#: Roles whose pods mount host paths, so that Pod Security `baseline` refuses them (facts kubernetes-gpu 1.4, 5.2, 8.5).
_NEED_PRIVILEGED = ("plugin", "gfd", "driver", "toolkit", "validator", "dcgm", "dcgm-exporter", "mig-manager", "mps")


@clause_check(
    "K8S-RTC-001",
    title="The RuntimeClass exists and the node knows its handler",
    severity=BLOCKING,
    scope="node",
    reads=("kubernetes",),
    causes=("K22", "K23"),
    wants=("runtime_class:present",),
    after=("K8S-NODE-001",),
)
def runtime_class_works(subject: Subject) -> Judgement:
    """Listed handlers come from containerd itself; where a release does not list them, sandbox failures tell."""
    view = NodeView(subject)
    name = subject.cluster.runtime_class.name
    classes = need(view.facts.runtime_classes, "RuntimeClasses")
    source = view.facts.runtime_classes.source
    found = next((c for c in classes if c.name == name), None)
    if found is None:
        told = Evidence(source, f"RuntimeClasses: {', '.join(sorted(c.name for c in classes)) or 'none'}")
        return Fail((Problem("K23", name, (told,), view.values()),))
    seen = Evidence(source, f"{name}: handler {found.handler}")
    handlers = view.node.runtime_handlers
    if handlers is not None:
        known = ", ".join(h or "(default)" for h in handlers)
        told = Evidence(view.facts.nodes.source, f"{view.name}: status.runtimeHandlers {known}")
        if found.handler not in handlers:
            return Fail((Problem("K22", view.name, (seen, told), view.values()),))
        return Pass((seen, told))
    failing = next(
        (
            p for p in view.facts.pods.value or ()
            if p.node == view.name and p.outcome.detail == "no such runtime handler" and p.outcome.name == found.handler
        ),
        None,
    )  # fmt: skip
    if failing is not None:
        told = Evidence(f"{view.facts.events.source} {failing.full_name}", failing.outcome.text)
        return Fail((Problem("K22", view.name, (seen, told), view.values(pod=failing.name)),))
    return Pass((seen, Evidence(view.facts.nodes.source, "this release lists no runtime handlers; no sandbox failed")))


@clause_check(
    "K8S-RTC-002",
    title="No RuntimeClass where the injection mode wants none",
    severity=DEGRADED,
    scope="cluster",
    reads=("kubernetes",),
    causes=("K25",),
    wants=("runtime_class:absent",),
)
def runtime_class_is_absent(subject: Subject) -> Judgement:
    """With NRI or CDI injection a pod that names the class as well is injected twice (facts kubernetes-gpu 3, K25)."""
    view = NodeView(subject)
    name = subject.cluster.runtime_class.name
    classes = need(view.facts.runtime_classes, "RuntimeClasses")
    names = ", ".join(sorted(c.name for c in classes)) or "none"
    told = Evidence(
        view.facts.runtime_classes.source, f"RuntimeClasses: {names}; injection {subject.cluster.injection}"
    )
    there = any(c.name == name for c in classes)
    remedy = f"kubectl delete runtimeclass {name}      and drop `runtimeClassName: {name}` from the pods that name it"
    return verdict_of([Problem("K25", name, (told,), view.values(), remedy)] if there else [], [told])


@clause_check(
    "K8S-ADMIT-001",
    title="The plugin's namespace admits its pods",
    severity=DEGRADED,
    scope="cluster",
    reads=("kubernetes",),
    causes=("K33",),
    wants=("device-plugin",),
    after=("K8S-PLUGIN-001",),
)
def plugin_namespace_is_privileged(subject: Subject) -> Judgement:
    """Pods that run now were admitted once; at the next rollout an enforced `baseline` refuses their host paths.

    Without an `enforce` label the cluster's default decides, which the API does not show (Talos: baseline, kube-system
    exempt): then only a refusal seen in events counts.
    """
    view = NodeView(subject)
    spaces = {n.name: n.pod_security for n in need(view.facts.namespaces, "namespaces")}
    problems, seen = [], []
    for namespace in sorted({d.namespace for d in view.daemonsets(*_NEED_PRIVILEGED) if d.host_paths}):
        level = spaces.get(namespace, {}).get("enforce", "")
        told = Evidence(view.facts.namespaces.source, f"{namespace}: enforce {level or 'not set (cluster default)'}")
        seen.append(told)
        refused = _refused(view, namespace)
        if level in ("baseline", "restricted") or refused is not None:
            evidence = (told, refused) if refused is not None else (told,)
            problems.append(Problem("K33", namespace, evidence, view.values(namespace=namespace)))
    return verdict_of(problems, seen)


def _refused(view: NodeView, namespace: str) -> Evidence | None:
    """The newest refusal of a DaemonSet that still lacks pods: an old event of a cured one is no finding."""
    lacking: dict[str, DaemonSetFacts] = {
        d.name: d for d in view.daemonsets(*_NEED_PRIVILEGED) if d.namespace == namespace and d.current < d.desired
    }
    for event in view.facts.events.value or ():
        lacks = event.kind == "DaemonSet" and event.namespace == namespace and event.name in lacking
        if lacks and "violates PodSecurity" in event.message:
            return Evidence(f"{view.facts.events.source} {event.name} {event.reason}", event.message[:400])
    return None


@clause_check(
    "K8S-ADMIT-002",
    title="The API server takes a GPU pod of ours",
    severity=BLOCKING,
    scope="cluster",
    reads=("kubernetes",),
    causes=("K23", "K94"),
    after=("K8S-RTC-001",),
)
def probe_pod_is_admitted(subject: Subject) -> Judgement:
    """Server-side dry run: RuntimeClass, Pod Security, quota and webhooks answer as for a real pod; nothing is made."""
    view = NodeView(subject)
    reading = view.facts.admission
    if reading.state is State.NOT_ASKED and subject.cluster.probe.via == "exec":
        return Pass((Evidence("lab.yaml", "probe.via is exec: no pod of ours is created in this cluster"),))
    admission = need(reading, "dry run of a GPU pod")
    if admission.refusal is None:
        text = f"accepted in {admission.namespace}, priority {admission.priority or 0}"
        return Pass((Evidence(reading.source, text),))
    cause = "K23" if admission.refusal.because is Because.RUNTIME_CLASS else "K94"
    told = Evidence(reading.source, f"{admission.refusal.status}: {admission.refusal.text}"[:600])
    return Fail((Problem(cause, admission.namespace, (told,), view.values(namespace=admission.namespace)),))
