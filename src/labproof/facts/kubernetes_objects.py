"""Objects of a cluster, trimmed to what is judged. Times are Unix seconds, 0.0 where the API gave none."""

from __future__ import annotations

from dataclasses import dataclass, field

from labproof.facts.pod_outcome import PodOutcome


@dataclass(frozen=True)
class Taint:
    """A node taint."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True)
class Toleration:
    """A pod's toleration; an empty key with `Exists` tolerates everything, an empty effect every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """Kubernetes' own rule (k8s.io/api/core/v1 Toleration.ToleratesTaint)."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator == "Exists":
            return True
        return bool(self.key) and self.value == taint.value


@dataclass(frozen=True)
class Condition:
    """A condition of a node or of a custom resource."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    since: float = 0.0
    heartbeat: float = 0.0


@dataclass(frozen=True)
class NodeImage:
    """An image the node already has."""

    names: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True)
class NodeFacts:
    """One node.

    Attributes:
        capacity, allocatable: extended resources only (`nvidia.com/gpu`), as counts.
        runtime_handlers: handlers the container runtime knows ("" is its default), None where this release does
            not list them (`status.runtimeHandlers`, since Kubernetes 1.30; real-kubernetes: not with containerd 1.6).
        system_uuid: the machine's SMBIOS UUID as the kubelet read it.
    """

    name: str
    labels: dict[str, str]
    annotations: dict[str, str]
    taints: tuple[Taint, ...]
    unschedulable: bool
    conditions: tuple[Condition, ...]
    capacity: dict[str, int]
    allocatable: dict[str, int]
    runtime_handlers: tuple[str, ...] | None = None
    system_uuid: str = ""
    boot_id: str = ""
    kernel: str = ""
    os_image: str = ""
    runtime: str = ""
    kubelet: str = ""
    images: tuple[NodeImage, ...] = ()
    addresses: tuple[str, ...] = ()

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type, None when the node has none."""
        return next((c for c in self.conditions if c.type == kind), None)


@dataclass(frozen=True)
class ContainerFacts:
    """One container of a pod: what it asks for and how it stands.

    Attributes:
        env: only the variables that steer GPU injection and the plugin, with plain values (never a Secret's).
        devices: (resource, device id, health) of `allocatedResourcesStatus`, where the feature gate shows it.
    """

    name: str
    image: str
    init: bool
    requests: dict[str, int]
    env: dict[str, str]
    state: str  # running | waiting | terminated | ""
    reason: str
    ready: bool
    restarts: int
    started: float
    last_exit: int | None
    last_reason: str
    privileged: bool = False
    devices: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class PodFacts:
    """One pod: holders of GPU slots, pods on GPU nodes, and the GPU components' own.

    Attributes:
        owner: (kind, name) of the controller, ("", "") for a bare pod.
        requests: effective extended resources: the larger of all main containers together and any init container.
        host_devices: hostPath volumes under /dev that reach a GPU.
        slot_since: when the pod came to the node (bound and seen by the kubelet).
    """

    namespace: str
    name: str
    uid: str
    node: str
    phase: str
    owner: tuple[str, str]
    labels: dict[str, str]
    outcome: PodOutcome
    containers: tuple[ContainerFacts, ...]
    requests: dict[str, int]
    tolerations: tuple[Toleration, ...]
    node_selector: dict[str, str]
    affinity: tuple[tuple[Requirement, ...], ...]
    runtime_class: str
    priority: int | None
    priority_class: str
    host_devices: tuple[str, ...]
    created: float
    slot_since: float
    deleting: bool = False

    @property
    def full_name(self) -> str:
        """`namespace/name`, as owners write it."""
        return f"{self.namespace}/{self.name}"

    @property
    def finished(self) -> bool:
        """Whether its slots are free again: the scheduler and the kubelet ignore Succeeded and Failed pods."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True)
class Requirement:
    """One term of a node selector: key, operator (In, NotIn, Exists, DoesNotExist, Gt, Lt), values."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        """Kubernetes' rule for node selector requirements (k8s.io/component-helpers nodeaffinity)."""
        held = labels.get(self.key)
        if self.operator == "Exists":
            return held is not None
        if self.operator == "DoesNotExist":
            return held is None
        if self.operator == "In":
            return held in self.values
        if self.operator == "NotIn":
            return held not in self.values
        if held is None or len(self.values) != 1 or not held.lstrip("-").isdigit():
            return False
        return int(held) > int(self.values[0]) if self.operator == "Gt" else int(held) < int(self.values[0])

    def __str__(self) -> str:
        return f"{self.key} {self.operator} {'|'.join(self.values)}".rstrip()


@dataclass(frozen=True)
class DaemonSetFacts:
    """One DaemonSet of the GPU stack.

    Attributes:
        role: what it is (`plugin`, `gfd`, `nfd-worker`, `driver`, `toolkit`, `validator`, `dcgm`, `dcgm-exporter`,
            `mig-manager`, `mps`), decided by container names and images, never by labels alone: the NVIDIA chart gives
            its plugin and its GFD the same labels (facts kubernetes-gpu 1.4).
        affinity: required node affinity: any of these terms, each a conjunction.
        config_maps: ConfigMaps its pods mount.
        chart: Helm chart and version that brought it, from the label `helm.sh/chart`; empty when it has none.
    """

    namespace: str
    name: str
    uid: str
    role: str
    desired: int
    current: int
    ready: int
    updated: int
    generation: int
    observed_generation: int
    containers: tuple[str, ...]
    images: tuple[str, ...]
    env: dict[str, str]
    tolerations: tuple[Toleration, ...]
    node_selector: dict[str, str]
    affinity: tuple[tuple[Requirement, ...], ...]
    runtime_class: str
    config_maps: tuple[str, ...]
    host_paths: tuple[str, ...]
    chart: str = ""

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    def selects(self, labels: dict[str, str]) -> bool:
        """Whether a node of these labels is selected (node selector and required affinity)."""
        return all(labels.get(k) == v for k, v in self.node_selector.items()) and (
            not self.affinity or any(all(r.matches(labels) for r in term) for term in self.affinity)
        )


@dataclass(frozen=True)
class GpuDevicePluginFacts:
    """A GpuDevicePlugin of Intel's operator: what it asks for, and what the operator says of it.

    Attributes:
        shared: `sharedDevNum`; monitoring: `enableMonitoring`; monitoring_mode: `monitoringMode`, empty when not set.
        desired, ready: of the DaemonSet it stands for; nodes: where its pods are.
    """

    name: str
    image: str
    shared: int
    monitoring: bool
    monitoring_mode: str
    node_selector: dict[str, str]
    daemonset: str
    desired: int
    ready: int
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class ConfigMapFacts:
    """A ConfigMap that a GPU component mounts or the operator names; others are not kept."""

    namespace: str
    name: str
    data: dict[str, str]
    edited: float  # newest managedFields time


@dataclass(frozen=True)
class RuntimeClassFacts:
    """A RuntimeClass."""

    name: str
    handler: str
    node_selector: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NamespaceFacts:
    """A namespace with its Pod Security labels (`enforce`, `enforce-version`, `audit`, `warn`)."""

    name: str
    pod_security: dict[str, str]


@dataclass(frozen=True)
class EventFacts:
    """A warning about something of the GPU stack."""

    namespace: str
    kind: str
    name: str
    uid: str
    reason: str
    message: str
    count: int
    last: float


@dataclass(frozen=True)
class ClusterPolicyFacts:
    """The NVIDIA operator's ClusterPolicy (`nvidia.com/v1`).

    Attributes:
        spec: the fields that decide, flattened (`driver.enabled`, `hostPaths.driverInstallDir`,
            `devicePlugin.config.name`): only those that are set.
    """

    name: str
    state: str
    conditions: tuple[Condition, ...]
    spec: dict[str, str]
    created: float = 0.0
