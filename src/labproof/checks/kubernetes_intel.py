"""K8S-INTEL: Intel's device plugin: the operator's resource, one plugin a node, the resources workloads ask for."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.kubernetes_slots import intel_sharing
from labproof.checks.kubernetes_view import NodeView
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.facts.reading import State, need

DOMAIN = "gpu.intel.com/"
OPERATOR = "intel-deviceplugin-operator"


@clause_check(
    "K8S-INTEL-001",
    title="Intel's operator serves the node",
    severity=BLOCKING,
    scope="node",
    reads=("kubernetes",),
    causes=("K55", "K74", "K100"),
    wants=("plugin:intel",),
    after=("K8S-NODE-001",),
)
def operator_serves_the_node(subject: Subject) -> Judgement:
    """A GpuDevicePlugin whose DaemonSet wants this node and is ready there; none where the operator is not used."""
    view = NodeView(subject)
    reading = view.facts.gpu_device_plugins
    if reading.state is State.ABSENT:
        return Pass((Evidence(reading.source, "no operator: the plugin is a plain DaemonSet"),))
    plugins = need(reading, "GpuDevicePlugins")
    if not plugins:
        return Fail(
            (
                Problem(
                    "K55", view.name, (Evidence(reading.source, "no GpuDevicePlugin"), *_operator(view)), view.values()
                ),
            )
        )
    rows = [f"{p.name}: desired {p.desired}, ready {p.ready}, on {', '.join(p.nodes) or 'no node'}" for p in plugins]
    evidence = tuple(Evidence(reading.source, row) for row in rows)
    if any(view.name in p.nodes for p in plugins):
        return Pass(evidence)
    labels = view.node.labels
    lacking = [
        f"{k}={v}" for p in plugins for k, v in p.node_selector.items() if labels.get(k) != v
    ]  # fmt: skip
    told = Evidence(view.facts.nodes.source, f"{view.name} lacks {', '.join(lacking) or 'nothing that is selected'}")
    feature = any(text.startswith("intel.feature.node.kubernetes.io/") for text in lacking)
    cause = "K74" if feature else "K100"
    return Fail((Problem(cause, view.name, (*evidence, told), view.values()),))


def _operator(view: NodeView) -> tuple[Evidence, ...]:
    """How the operator's own pods stand; their webhook lets a GpuDevicePlugin in."""
    pods = [p for p in view.pods if any(OPERATOR in c.image for c in p.containers)]
    told = ", ".join(f"{p.full_name} {p.phase}" for p in pods) or "no pod of the operator runs"
    return (Evidence(view.facts.pods.source, told),)


@clause_check(
    "K8S-INTEL-002",
    title="One Intel plugin serves the node",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K57",),
    wants=("plugin:intel",),
    after=("K8S-PLUGIN-001",),
)
def one_plugin_serves_the_node(subject: Subject) -> Judgement:
    """Two register the same resource and overwrite each other; nothing prevents it (facts kubernetes-gpu 5.3)."""
    view = NodeView(subject)
    here = [d.full_name for d in view.daemonsets("plugin") if any(not p.finished for p in view.pods_of(d))]
    shown = ", ".join(sorted(here)) or "none"
    evidence = Evidence(view.facts.daemonsets.source, f"plugins with a pod on {view.name}: {shown}")
    if len(here) <= 1:
        return Pass((evidence,))
    return Fail((Problem("K57", view.name, (evidence,), view.values()),))


@clause_check(
    "K8S-INTEL-003",
    title="The node offers the Intel resources its workloads ask for",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K51", "K56"),
    wants=("plugin:intel",),
    after=("K8S-ALLOC-001",),
)
def asked_resources_are_offered(subject: Subject) -> Judgement:
    """i915 or xe by the driver, and the monitoring resource, whose name changed with 0.36 (K56)."""
    view = NodeView(subject)
    offered = {k for k, v in view.node.allocatable.items() if k.startswith(DOMAIN) and v > 0}
    told = Evidence(view.facts.nodes.source, f"{view.name}: offers {', '.join(sorted(offered)) or 'nothing of Intel'}")
    problems = []
    for pod in view.pods:
        if pod.finished or pod.node not in (view.name, ""):
            continue
        for resource in (r for r, n in pod.requests.items() if r.startswith(DOMAIN) and n and r not in offered):
            cause = "K56" if "monitoring" in resource else "K51"
            asks = Evidence(f"{view.facts.pods.source} {pod.full_name}", f"asks for {resource}")
            values = view.values(namespace=pod.namespace, pod=pod.name, resource=resource)
            problems.append(Problem(cause, pod.full_name, (asks, told), values))
    return verdict_of(problems, (told,))


@clause_check(
    "K8S-INTEL-004",
    title="The Intel plugin shares the GPU as declared",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K102",),
    wants=("plugin:intel",),
    after=("K8S-INTEL-001",),
)
def shared_as_declared(subject: Subject) -> Judgement:
    """sharedDevNum against lab.yaml's sharing; without sharing one pod has the card."""
    view = NodeView(subject)
    live = intel_sharing(view)
    sharing = subject.cluster.sharing
    declared = sharing.replicas if sharing.strategy == "shared" else 1
    if live is None:
        return Pass((Evidence(view.facts.gpu_device_plugins.source, "the plugin's arguments are its own"),))
    seen = Evidence(view.facts.gpu_device_plugins.source, f"{live[0]} ({live[1]}); lab.yaml: {declared}")
    if live[0] == declared:
        return Pass((seen,))
    return Fail((Problem("K102", view.name, (seen,), view.values()),))
