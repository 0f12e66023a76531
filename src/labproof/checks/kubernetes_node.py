"""K8S-NODE: the GPU node is in the cluster, alive, open for pods, and the machine that was declared."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.kubernetes_view import NodeView
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.facts.kubernetes import Sample
from labproof.facts.reading import need

#: A kubelet renews its Lease every 10 s and is declared dead after 40 s; observed 46.5 s until Ready=Unknown
#: (facts real-kubernetes, Timings). Twice that leaves room for a clock that is a little off.
LEASE_STALE_S = 90.0
SCHEMATIC = "extensions.talos.dev/schematic"


@clause_check(
    "K8S-NODE-001",
    title="The GPU node is Ready and its kubelet alive",
    severity=BLOCKING,
    scope="node",
    reads=("kubernetes",),
    causes=("K85", "K86", "K88"),
)
def node_is_ready(subject: Subject) -> Judgement:
    """Ready condition, and the kubelet's Lease: Ready stays True from before when the kubelet is already dead."""
    view = NodeView(subject)
    nodes = need(view.facts.nodes, "nodes")
    source = view.facts.nodes.source
    if view.name not in {n.name for n in nodes}:
        seen = Evidence(source, f"nodes: {', '.join(sorted(n.name for n in nodes)) or 'none'}")
        return Fail((Problem("K88", view.name, (seen,), view.values()),))
    ready = view.node.condition("Ready")
    if ready is None or ready.status != "True":
        condition = f"Ready={ready.status} {ready.reason}: {ready.message}" if ready else "no Ready condition"
        cause = "K86" if ready is not None and ready.status == "False" else "K85"
        return Fail((Problem(cause, view.name, (Evidence(source, condition),), view.values()),))
    seen = Evidence(source, f"Ready={ready.status} {ready.reason}, kubelet {view.node.kubelet}")
    silent = _silence(need(view.facts.samples, "looks at the node"), view.name)
    if silent is not None:
        told = Evidence("GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", silent)
        return Fail((Problem("K85", view.name, (seen, told), view.values()),))
    return Pass((seen,))


def _silence(samples: tuple[Sample, ...], node: str) -> str | None:
    """How long the kubelet has been silent, None when it is alive or its Lease could not be read."""
    renewals = [(s.at, s.leases[node]) for s in samples if s.leases.get(node)]
    if not renewals or renewals[-1][1] > renewals[0][1]:  # renewed while we looked: alive, whatever the clocks say
        return None
    at, renewed = renewals[-1]
    silent = at - renewed
    if silent <= LEASE_STALE_S:
        return None
    return f"Lease of {node} last renewed {silent:.0f} s before the look (every 10 s is normal)"


@clause_check(
    "K8S-NODE-002",
    title="The GPU node accepts pods",
    severity=BLOCKING,
    scope="node",
    reads=("kubernetes",),
    causes=("K87",),
    after=("K8S-NODE-001",),
)
def node_accepts_pods(subject: Subject) -> Judgement:
    """A cordoned node runs what it has and takes nothing new."""
    view = NodeView(subject)
    if view.node.unschedulable:
        seen = Evidence(view.facts.nodes.source, f"{view.name}: spec.unschedulable true")
        return Fail((Problem("K87", view.name, (seen,), view.values()),))
    return Pass((Evidence(view.facts.nodes.source, f"{view.name} is schedulable"),))


@clause_check(
    "K8S-NODE-003",
    title="The node is the declared machine",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K88",),
    wants=("vm",),
    after=("K8S-NODE-001",),
)
def node_is_the_declared_machine(subject: Subject) -> Judgement:
    """The SMBIOS UUID the kubelet reports against the one lab.yaml joins the VM by, where it does."""
    view = NodeView(subject)
    match = subject.vm.match
    declared = match.smbios_uuid if match is not None else None
    seen = Evidence(view.facts.nodes.source, f"{view.name}: systemUUID {view.node.system_uuid or 'not reported'}")
    if declared is None or not view.node.system_uuid:
        return Pass((seen,))
    wanted, found = _same_form(declared), _same_form(view.node.system_uuid)
    if found not in (wanted, _byte_swapped(wanted)):
        want = Evidence("lab.yaml", f"vms: {subject.vm.name}: match.smbios_uuid {declared}")
        return Fail((Problem("K88", view.name, (want, seen), view.values()),))
    return Pass((seen,))


def _same_form(uuid: str) -> str:
    return uuid.replace("-", "").lower()


def _byte_swapped(uuid: str) -> str:
    """The first three fields with their bytes reversed: how SMBIOS before 2.6 and some readers show the same UUID."""
    if len(uuid) != 32:
        return uuid
    fields = (uuid[:8], uuid[8:12], uuid[12:16])
    return "".join("".join(reversed([f[i : i + 2] for i in range(0, len(f), 2)])) for f in fields) + uuid[16:]


@clause_check(
    "K8S-NODE-004",
    title="The node's Talos schematic is the declared one",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("T03",),
    wants=("talos",),
    after=("K8S-NODE-001",),
)
def node_runs_the_declared_schematic(subject: Subject) -> Judgement:
    """The annotation Talos writes since 1.8: it needs no Talos credential (facts talos, schematic source 3)."""
    view = NodeView(subject)
    declared = subject.node.talos.schematic if subject.node.talos is not None else None
    held = view.node.annotations.get(SCHEMATIC)
    seen = Evidence(view.facts.nodes.source, f"{view.name}: annotation {SCHEMATIC} {held or 'not set'}")
    if declared is None or held is None:  # Talos before 1.8 and images that are not from a factory have none
        return Pass((seen,))
    wrong = Problem("T03", view.name, (Evidence("lab.yaml", f"schematic {declared}"), seen), view.values())
    return verdict_of([wrong] if held != declared else [], [seen])
