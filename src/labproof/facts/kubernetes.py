"""Facts of the kubernetes layer: one cluster, read once, each list a reading of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from labproof.facts.kubernetes_objects import (
    ClusterPolicyFacts,
    ConfigMapFacts,
    DaemonSetFacts,
    EventFacts,
    GpuDevicePluginFacts,
    NamespaceFacts,
    NodeFacts,
    PodFacts,
    RuntimeClassFacts,
)
from labproof.facts.plugin_log import PluginLog
from labproof.facts.reading import NOT_ASKED, Reading
from labproof.facts.refusal import Refusal


@dataclass(frozen=True)
class Sample:
    """Extended resources of every GPU node at one look.

    Attributes:
        allocatable, capacity: node -> resource -> count.
        leases: node -> renewTime of its Lease (the kubelet's heartbeat), Unix seconds.
    """

    at: float
    allocatable: dict[str, dict[str, int]]
    capacity: dict[str, dict[str, int]]
    leases: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Admission:
    """What the API server would do with the probe pod (server-side dry run: nothing is created).

    Attributes:
        refusal: why it would be refused, None when accepted.
        priority: the priority the pod would have.
        runtime_class: the RuntimeClass it named.
    """

    namespace: str
    refusal: Refusal | None
    priority: int | None = None
    priority_class: str = ""
    runtime_class: str = ""


@dataclass(frozen=True)
class Holder:
    """Who holds GPU slots: a row of the table "who holds what".

    Attributes:
        since: Unix seconds at which the pod came to the node.
        owner: `Kind/name` of its controller, empty for a bare pod.
    """

    node: str
    resource: str
    slots: int
    namespace: str
    pod: str
    since: float
    owner: str = ""
    priority: int | None = None


@dataclass(frozen=True)
class ClusterFacts:
    """One cluster as its API tells it.

    Attributes:
        name: the declared name.
        version: gitVersion of the API server.
        endpoint: what was contacted, as whom (`https://... context moody`).
        nodes: all nodes, by name.
        pods: pods that ask for an extended resource, run on a GPU node, or belong to the GPU stack; of all namespaces.
        daemonsets: DaemonSets of the GPU stack, whatever their namespace.
        config_maps: those the GPU stack mounts or the operator names.
        namespaces: namespaces in which the GPU stack, its users and our own pods live.
        events: warnings about the GPU stack, GPU pods and GPU nodes.
        samples: `timings.stable_reads` looks at allocatable, `timings.stable_interval_s` apart.
        admission: dry run of the probe pod.
        logs: plugin, GFD and config-manager logs, current and previous; each container's log is a reading of its own.
        cluster_policy: asked for flavour `gpu-operator` only.
        gpu_device_plugins: asked for flavour `intel` only; absent where Intel's operator is not installed.
    """

    name: str
    endpoint: str = ""
    version: Reading[str] = NOT_ASKED
    nodes: Reading[tuple[NodeFacts, ...]] = NOT_ASKED
    pods: Reading[tuple[PodFacts, ...]] = NOT_ASKED
    daemonsets: Reading[tuple[DaemonSetFacts, ...]] = NOT_ASKED
    config_maps: Reading[tuple[ConfigMapFacts, ...]] = NOT_ASKED
    runtime_classes: Reading[tuple[RuntimeClassFacts, ...]] = NOT_ASKED
    namespaces: Reading[tuple[NamespaceFacts, ...]] = NOT_ASKED
    events: Reading[tuple[EventFacts, ...]] = NOT_ASKED
    samples: Reading[tuple[Sample, ...]] = NOT_ASKED
    admission: Reading[Admission] = NOT_ASKED
    logs: tuple[Reading[PluginLog], ...] = ()
    cluster_policy: Reading[tuple[ClusterPolicyFacts, ...]] = NOT_ASKED
    gpu_device_plugins: Reading[tuple[GpuDevicePluginFacts, ...]] = NOT_ASKED


def holders(pods: tuple[PodFacts, ...], resource: str | None = None, node: str | None = None) -> tuple[Holder, ...]:
    """Who holds GPU slots now: bound pods that are not finished, in the order of node, resource and age.

    Args:
        pods: `ClusterFacts.pods`.
        resource: only this extended resource; all when None.
        node: only this node; all when None.
    """
    rows = [
        Holder(
            pod.node, name, count, pod.namespace, pod.name, pod.slot_since or pod.created,
            "/".join(pod.owner) if pod.owner[0] else "", pod.priority,
        )
        for pod in pods
        if pod.node and not pod.finished and node in (None, pod.node)
        for name, count in pod.requests.items()
        if count > 0 and resource in (None, name)
    ]  # fmt: skip
    return tuple(sorted(rows, key=lambda row: (row.node, row.resource, row.since, row.namespace, row.pod)))


def free_slots(node: NodeFacts, pods: tuple[PodFacts, ...], resource: str) -> int:
    """Slots a new pod could get on the node: allocatable less what unfinished pods hold (never below 0)."""
    held = sum(row.slots for row in holders(pods, resource, node.name))
    return max(0, node.allocatable.get(resource, 0) - held)
