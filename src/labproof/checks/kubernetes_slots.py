"""K8S-ALLOC, K8S-HOLD: how many slots the node offers, and who holds them."""

from __future__ import annotations

import time

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.kubernetes_plugin_faults import SILENT_CAUSES, last_line, silent_problem
from labproof.checks.kubernetes_view import NodeView
from labproof.checks.registry import BLOCKING, DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.facts.kubernetes import Holder, free_slots, holders
from labproof.facts.kubernetes_objects import PodFacts
from labproof.facts.plugin_log import Line
from labproof.facts.pod_outcome import Outcome
from labproof.facts.reading import need
from labproof.inventory.models import Workload

#: Talos labels a node with its extensions; the value is a version and moves with every release (facts talos 1).
EXTENSION_LABELS = "extensions.talos.dev/"


@clause_check(
    "K8S-ALLOC-001",
    title="The node offers the GPU resource",
    severity=BLOCKING,
    scope="node",
    reads=("kubernetes",),
    causes=SILENT_CAUSES,
    wants=("device-plugin",),
    after=("K8S-PLUGIN-001",),
)
def node_offers_the_resource(subject: Subject) -> Judgement:
    """Allocatable above zero at the last look; capacity alone proves nothing, it outlives the plugin."""
    view = NodeView(subject)
    offered = view.node.allocatable.get(view.resource, 0)
    if offered > 0:
        return Pass((Evidence(view.facts.nodes.source, f"{view.name}: allocatable {view.resource} {offered}"),))
    return Fail((silent_problem(view),))


@clause_check(
    "K8S-ALLOC-002",
    title="Allocatable is cards times replicas, and stays so",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K08", "K38", "K39", "K41"),
    wants=("device-plugin",),
    after=("K8S-ALLOC-001",),
    whole=True,
)
def allocatable_is_exact_and_stable(subject: Subject) -> Judgement:
    """Exact at every look, against the plugin's live configuration (lab.yaml's where no log shows it)."""
    view = NodeView(subject)
    samples = need(view.facts.samples, "looks at allocatable")
    looks = [(s.allocatable.get(view.name, {}).get(view.resource, 0)) for s in samples]
    capacity = view.node.capacity.get(view.resource, 0)
    seen = Evidence(view.facts.samples.source, f"{view.name}: allocatable {view.resource} {looks}, capacity {capacity}")
    if len(set(looks)) > 1:
        log = last_line(view.logs("plugin"), Line.UNHEALTHY, Line.XID, Line.KUBELET_RESTARTED)
        return Fail((Problem("K41", view.name, (seen, *([log] if log else [])), view.values()),))
    expected, because = _expected(view)
    if expected is None or looks[-1] == expected:
        return Pass((seen, Evidence("lab.yaml and plugin log", because)))
    want = Evidence("lab.yaml and plugin log", f"{expected} = {because}")
    logs = view.logs("plugin")
    unhealthy = last_line(logs, Line.XID) or last_line(logs, Line.UNHEALTHY)
    if looks[-1] < expected and (unhealthy is not None or looks[-1] < capacity):
        pod = view.values(pod=logs[0].pod if logs else "")
        return Fail((Problem("K39", view.name, (want, seen, *([unhealthy] if unhealthy else [])), pod),))
    if looks[-1] < expected and view.live_config is not None:
        return Fail((Problem("K38", view.name, (want, seen), view.values()),))
    return Fail((Problem("K08", view.name, (want, seen), view.values()),))


def _expected(view: NodeView) -> tuple[int | None, str]:
    """The exact number of slots and how it comes about; None where nobody declared it (a generic plugin's count)."""
    live, sharing = view.live_config, view.cluster.sharing
    if live is not None:
        each = live[0].slots_per_card(view.cluster.plugin.resource_name)
        return view.cards * each, f"{view.cards} cards x {each} (live configuration)"
    shared = intel_sharing(view)
    if shared is not None:
        return view.cards * shared[0], f"{view.cards} cards x {shared[0]} ({shared[1]})"
    if view.cluster.plugin.flavour == "generic" and sharing.strategy == "none":
        return None, "a generic plugin's count is its own"
    each = sharing.replicas if sharing.strategy != "none" else 1
    return view.cards * each, f"{view.cards} cards x {each} (lab.yaml)"


def intel_sharing(view: NodeView) -> tuple[int, str] | None:
    """sharedDevNum of the Intel plugin on this node and where it stands, None for other plugins.

    From the operator's resource, else from the DaemonSet's own argument.
    """
    if view.cluster.plugin.flavour != "intel":
        return None
    for plugin in view.facts.gpu_device_plugins.value or ():
        if view.name in plugin.nodes:
            return plugin.shared, f"sharedDevNum of GpuDevicePlugin {plugin.name}"
    return None


# ------------------------------------------------------------------ holders


@clause_check(
    "K8S-HOLD-001",
    title="Every held slot has a named holder",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K40",),
    wants=("device-plugin",),
    after=("K8S-ALLOC-001",),
)
def every_slot_has_a_holder(subject: Subject) -> Judgement:
    """A refusal for want of devices while the holders leave slots free: the kubelet's own books are stale."""
    view = NodeView(subject)
    rows = holders(view.pods, view.resource, view.name)
    free = free_slots(view.node, view.pods, view.resource)
    seen = [Evidence(view.facts.pods.source, _row(row)) for row in rows]
    seen.append(Evidence(view.facts.pods.source, f"{view.name}: {sum(r.slots for r in rows)} slots held, {free} free"))
    refused = [
        p for p in view.pods
        if p.outcome.outcome is Outcome.REJECTED and p.outcome.detail == "devices in use"
        and p.node == view.name and p.requests.get(view.resource, 0) <= free
        and _nobody_left_since(p, rows)
    ]  # fmt: skip
    problems = [
        Problem(
            "K40", p.full_name,
            (Evidence(f"{view.facts.pods.source} {p.full_name} status.message", p.outcome.text), seen[-1]),
            view.values(pod=p.name, namespace=p.namespace),
        )
        for p in refused
    ]  # fmt: skip
    return verdict_of(problems, seen)


def _nobody_left_since(refused: PodFacts, rows: tuple[Holder, ...]) -> bool:
    """Whether the slots were free already when the pod was refused, as far as the API can tell.

    A holder of then may be gone now; only a refusal younger than every holder of today counts, so that yesterday's
    full card is not taken for stale books.
    """
    return bool(refused.created) and all(row.since and row.since <= refused.created for row in rows)


def _row(row: Holder) -> str:
    since = time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(row.since)) if row.since else "unknown"
    owner = f" ({row.owner})" if row.owner else ""
    return f"{row.slots} x {row.resource} held by {row.namespace}/{row.pod}{owner} since {since}"


@clause_check(
    "K8S-HOLD-002",
    title="Declared workloads hold their slots",
    severity=DEGRADED,
    scope="cluster",
    reads=("kubernetes",),
    causes=("K09", "K10", "K11", "K17", "K22", "K25", "K34", "K41", "K43", "K76", "K92", "K93"),
    wants=("workloads", "device-plugin"),
    after=("K8S-NODE-002", "K8S-ALLOC-001"),
)
def declared_workloads_hold_their_slots(subject: Subject) -> Judgement:
    """`state: always` means its pods run and hold what lab.yaml says; on-demand and parked ones are only listed."""
    view = NodeView(subject)
    problems, seen = [], []
    for workload in subject.cluster.workloads:
        pods = pods_of_workload(view.pods, workload)
        held = sum(p.requests.get(view.resource, 0) for p in pods if p.phase == "Running")
        told = Evidence(view.facts.pods.source, f"{workload.name} ({workload.state}) holds {held} of {workload.slots}")
        seen.append(told)
        if workload.state == "always" and held != workload.slots:
            more = held > workload.slots
            problem = Problem("K93", workload.name, (told,), view.values()) if more else None
            problems.append(problem or _why_not_held(view, workload, pods, told))
    return verdict_of(problems, seen)


def pods_of_workload(pods: tuple[PodFacts, ...], workload: Workload) -> tuple[PodFacts, ...]:
    """Pods of a declared `namespace/name`: owned by it (a Deployment through its ReplicaSet), or named after it."""
    namespace, _, name = workload.name.rpartition("/")
    mine = []
    for pod in pods:
        if namespace and pod.namespace != namespace:
            continue
        kind, owner = pod.owner
        owner = owner.rpartition("-")[0] if kind == "ReplicaSet" else owner
        # Owners type a Deployment's name, a controller's of their own, or the beginning of a pod's.
        plain = kind not in ("ReplicaSet", "StatefulSet", "DaemonSet")
        if owner == name or (plain and (pod.name == name or pod.name.startswith(f"{name}-"))):
            mine.append(pod)
    return tuple(mine)


def _why_not_held(view: NodeView, workload: Workload, pods: tuple[PodFacts, ...], told: Evidence) -> Problem:
    namespace = workload.name.rpartition("/")[0]
    waiting = sorted((p for p in pods if p.phase != "Running"), key=lambda p: -p.created)
    live = [p for p in waiting if not p.finished] or waiting
    if not live:
        return Problem("K92", workload.name, (told,), view.values(namespace=namespace))
    pod = live[0]
    outcome = pod.outcome
    said = Evidence(
        f"{view.facts.pods.source} {pod.full_name} {outcome.source}",
        " ".join(x for x in (outcome.outcome.value, outcome.text) if x)[:500],
    )
    return Problem(
        _cause_of(view, pod), workload.name, (told, said), view.values(namespace=pod.namespace, pod=pod.name)
    )


def _cause_of(view: NodeView, pod: PodFacts) -> str:
    outcome = pod.outcome
    by_detail = {
        "more than one replica asked": "K11",
        "no such runtime handler": "K22",
        "cdi device unresolvable": "K25",
        "no healthy device": "K41",
    }
    if outcome.detail in by_detail:
        return by_detail[outcome.detail]
    if outcome.outcome is Outcome.IMAGE:
        return "K34"
    if not pod.node and pins_extension_version(view, pod):
        return "K76"
    why = outcome.unschedulable
    if why is None:
        return "K92"
    # The message counts all nodes; what it says of ours is told by our node's own taints, labels and resources.
    lacking = [r for r in pod.requests if why.lacks(r)]
    if any(not view.node.allocatable.get(r) and view.node.allocatable.get(twin_of(r)) for r in lacking):
        return "K10"
    if lacking:
        return "K43"
    if selector_breaks_on_product(view, pod):
        return "K09"
    tolerated = all(any(x.tolerates(t) for x in pod.tolerations) for t in view.untolerated)
    return "K92" if tolerated else "K17"


def pins_extension_version(view: NodeView, pod: PodFacts) -> list[str]:
    """Terms of a pod that ask for another version of an extension than the node's label tells (facts wild K76)."""
    labels = view.node.labels
    return [
        f"{key}={value}" for key, value in pod.node_selector.items()
        if key.startswith(EXTENSION_LABELS) and value and key in labels and labels[key] != value
    ]  # fmt: skip


def twin_of(resource: str) -> str:
    """The name the resource has with the other setting of `renameByDefault`."""
    return resource.removesuffix(".shared") if resource.endswith(".shared") else f"{resource}.shared"


def selector_breaks_on_product(view: NodeView, pod: PodFacts) -> list[str]:
    """Terms of a pod that ask for the product's unshared name while the label now ends in `-SHARED`."""
    key = "nvidia.com/gpu.product"
    live = view.node.labels.get(key, "")
    asked = [pod.node_selector[key]] if key in pod.node_selector else []
    asked += [v for term in pod.affinity for r in term if r.key == key and r.operator == "In" for v in r.values]
    return [v for v in asked if f"{v}-SHARED" == live and live not in asked]


@clause_check(
    "K8S-HOLD-003",
    title="No rejected GPU pods are left lying",
    severity=HYGIENE,
    scope="cluster",
    reads=("kubernetes",),
    causes=("K42",),
    wants=("device-plugin",),
)
def no_rejected_pods_are_left(subject: Subject) -> Judgement:
    """Pods the kubelet refused stay Failed for good, and a ReplicaSet makes new ones beside them."""
    view = NodeView(subject)
    left = [p for p in view.pods if p.outcome.outcome is Outcome.REJECTED and p.requests and not p.deleting]
    seen = Evidence(view.facts.pods.source, f"{len(left)} rejected GPU pods")
    problems = [
        Problem(
            "K42",
            namespace,
            (Evidence(view.facts.pods.source, ", ".join(names)[:400]),),
            view.values(namespace=namespace),
        )
        for namespace, names in sorted(_by_namespace(left).items())
    ]
    return verdict_of(problems, [seen])


def _by_namespace(pods: list[PodFacts]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pod in pods:
        found.setdefault(pod.namespace, []).append(f"{pod.name} {pod.outcome.reason}")
    return found
