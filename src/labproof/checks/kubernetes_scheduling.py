"""K8S-TAINT, K8S-SELECT: taints, tolerations and selectors of the node, the GPU stack and the workloads."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Judgement, Problem, verdict_of
from labproof.checks.kubernetes_slots import pins_extension_version, selector_breaks_on_product, twin_of
from labproof.checks.kubernetes_view import NodeView
from labproof.checks.registry import DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.facts.kubernetes_objects import PodFacts, Taint

_STACK = (
    "plugin",
    "gfd",
    "nfd-worker",
    "driver",
    "toolkit",
    "validator",
    "dcgm",
    "dcgm-exporter",
    "mig-manager",
    "mps",
)


@clause_check(
    "K8S-TAINT-001",
    title="The GPU DaemonSets tolerate the node's taints",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K16",),
    after=("K8S-PLUGIN-001",),
)
def gpu_daemonsets_tolerate_the_taints(subject: Subject) -> Judgement:
    """Also for those whose pods are there still: a taint set later takes them away at the next restart."""
    view = NodeView(subject)
    taints = view.untolerated
    told = Evidence(view.facts.nodes.source, f"{view.name}: taints {', '.join(map(str, taints)) or 'none'}")
    problems, seen = [], [told]
    for daemonset in view.daemonsets(*_STACK):
        if not daemonset.selects(view.node.labels):
            continue  # it does not want this node, whatever the taints
        left = [t for t in taints if not any(x.tolerates(t) for x in daemonset.tolerations)]
        if left:
            lacks = Evidence(
                view.facts.daemonsets.source, f"{daemonset.full_name} tolerates not {', '.join(map(str, left))}"
            )
            problems.append(
                Problem("K16", daemonset.full_name, (told, lacks), view.values(namespace=daemonset.namespace))
            )
    return verdict_of(problems, seen)


@clause_check(
    "K8S-TAINT-002",
    title="The declared taints are on the node",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K18",),
    wants=("taints",),
    after=("K8S-NODE-001",),
)
def declared_taints_are_present(subject: Subject) -> Judgement:
    """With the pods that have no business on the node as a consequence (DaemonSets belong everywhere)."""
    view = NodeView(subject)
    wanted = [Taint(t.key, t.value, t.effect) for t in subject.cluster.scheduling.taints]
    missing = [t for t in wanted if t not in view.node.taints]
    seen = Evidence(view.facts.nodes.source, f"{view.name}: taints {', '.join(map(str, view.node.taints)) or 'none'}")
    if not missing:
        return verdict_of([], [seen])
    strangers = [p.full_name for p in view.facts.pods.value or () if _is_stranger(view, p, missing)]
    want = Evidence("lab.yaml", f"scheduling.taints {', '.join(map(str, missing))}")
    who = [Evidence(view.facts.pods.source, f"pods without GPU there: {', '.join(strangers[:8])}")] if strangers else []
    return verdict_of([Problem("K18", view.name, (want, seen, *who), view.values())])


def _is_stranger(view: NodeView, pod: PodFacts, taints: list[Taint]) -> bool:
    if pod.node != view.name or pod.finished or pod.requests or pod.owner[0] in ("DaemonSet", "Node"):
        return False
    return not all(any(x.tolerates(t) for x in pod.tolerations) for t in taints)


@clause_check(
    "K8S-TAINT-003",
    title="GPU workloads tolerate the node's taints",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K17",),
    wants=("device-plugin",),
    after=("K8S-PLUGIN-001",),
)
def gpu_workloads_tolerate_the_taints(subject: Subject) -> Judgement:
    """Every unfinished pod that asks for the resource: one that runs today is Pending after its next restart."""
    view = NodeView(subject)
    taints = view.untolerated
    told = Evidence(view.facts.nodes.source, f"{view.name}: taints {', '.join(map(str, taints)) or 'none'}")
    problems = []
    for pod in gpu_pods(view):
        if not pod.node and not _may_come(view, pod):
            continue  # it waits for another node, whatever ours tolerates
        left = [t for t in taints if not any(x.tolerates(t) for x in pod.tolerations)]
        if left:
            said = [Evidence(f"{view.facts.pods.source} {pod.full_name}", pod.outcome.text)] if pod.outcome.text else []
            values = view.values(namespace=pod.namespace, pod=pod.name)
            problems.append(Problem("K17", pod.full_name, (told, *said), values))
    return verdict_of(problems, [told])


@clause_check(
    "K8S-SELECT-001",
    title="GPU workloads select labels and resources the node has",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K09", "K10", "K76"),
    wants=("device-plugin",),
    after=("K8S-ALLOC-001",),
)
def gpu_workloads_select_what_there_is(subject: Subject) -> Judgement:
    """The product label gains `-SHARED` under time-slicing, the resource `.shared` when renamed: selectors go stale."""
    view = NodeView(subject)
    offered = view.node.allocatable
    told = Evidence(
        view.facts.nodes.source, f"{view.name}: offers {', '.join(f'{k}={v}' for k, v in sorted(offered.items()))}"
    )
    problems = []
    for pod in gpu_pods(view):
        values = view.values(namespace=pod.namespace, pod=pod.name)
        stale = selector_breaks_on_product(view, pod)
        if stale:
            label = Evidence(
                view.facts.nodes.source, f"nvidia.com/gpu.product={view.node.labels.get('nvidia.com/gpu.product')}"
            )
            asks = Evidence(f"{view.facts.pods.source} {pod.full_name}", f"selects {', '.join(stale)}")
            problems.append(Problem("K09", pod.full_name, (asks, label), values))
        pinned = pins_extension_version(view, pod)
        if pinned and not pod.node:  # a selector counts when a pod is placed: one that runs is not told to leave
            asks = Evidence(f"{view.facts.pods.source} {pod.full_name}", f"selects {', '.join(pinned)}")
            has = ", ".join(f"{k}={view.node.labels[k]}" for k in (p.partition("=")[0] for p in pinned))
            label = Evidence(view.facts.nodes.source, f"{view.name} has {has}")
            problems.append(Problem("K76", pod.full_name, (asks, label), values))
        for resource, count in pod.requests.items():
            if count and not offered.get(resource) and offered.get(twin_of(resource)):
                asks = Evidence(f"{view.facts.pods.source} {pod.full_name}", f"asks for {count} {resource}")
                problems.append(Problem("K10", pod.full_name, (asks, told), values))
    return verdict_of(problems, [told])


def _may_come(view: NodeView, pod: PodFacts) -> bool:
    """Whether a pod that is not placed yet selects this node."""
    labels = view.node.labels
    return all(labels.get(k) == v for k, v in pod.node_selector.items()) and (
        not pod.affinity or any(all(r.matches(labels) for r in term) for term in pod.affinity)
    )


def gpu_pods(view: NodeView) -> list[PodFacts]:
    """Unfinished pods that ask for the lab's resource (or its renamed twin) and run on this node or nowhere yet."""
    stem = view.resource.removesuffix(".shared")
    return [
        p
        for p in view.pods
        if not p.finished and not p.deleting and p.node in (view.name, "")
        if any(r.removesuffix(".shared") == stem for r in p.requests)
    ]
