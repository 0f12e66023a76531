"""How a cluster offers its GPUs: plugin, discovery, sharing, injection, RuntimeClass, what was typed, who holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from labproof.catalogue.versions import does
from labproof.facts.kubernetes import ClusterFacts
from labproof.facts.kubernetes_objects import DaemonSetFacts, NodeFacts
from labproof.facts.plugin_config import parse_plugin_config
from labproof.facts.plugin_log import effective_config
from labproof.init.joins import NodeSeen, gpu_resource

_OWN_NAMESPACE = "labproof"
#: Labels that no hand typed: Kubernetes', Talos' and the discovery tools' own.
_TOOLS = ("kubernetes.io/", "k8s.io/", "extensions.talos.dev/", "nvidia.com/gfd.", "nvidia.com/cuda.")


@dataclass
class Shape:
    """What lab.yaml says of a cluster, each value with how it is known."""

    flavour: str = "nvidia-device-plugin"
    flavour_how: str = ""
    resource: str | None = None
    namespace: str | None = None
    version: str | None = None
    discovery: str | None = None
    injection: tuple[str, str] = ("legacy", "")
    nfd: tuple[str, str] = ("none", "")
    gfd: tuple[bool, str] = (False, "")
    sharing: tuple[str, int, bool, str] = ("none", 1, False, "")
    runtime_class: tuple[str, str, str] = ("nvidia", "absent", "")
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[tuple[str, str, str]] = field(default_factory=list)
    workloads: list[tuple[str, int, str]] = field(default_factory=list)
    holders: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    exporter: str = ""


def shape_of(facts: ClusterFacts, nodes: Sequence[NodeSeen]) -> Shape:
    """Read the shape from what one cluster answered.

    Args:
        facts: the cluster.
        nodes: its GPU nodes.
    """
    shape = Shape()
    gpu_nodes = [n.facts for n in nodes if n.facts is not None]
    _plugin(shape, facts, gpu_nodes)
    tag = next((t for t in map(_talos_tag, gpu_nodes) if t), "")
    _injection(shape, facts, tag)
    _labels(shape, facts, gpu_nodes)
    _sharing(shape, facts, gpu_nodes, sum(len(n.machine.cards if n.machine else n.cards) for n in nodes))
    _runtime_class(shape, facts)
    _holders(shape, facts, {n.name for n in gpu_nodes})
    exporters = [d.full_name for d in facts.daemonsets.value or () if d.role == "dcgm-exporter"]
    shape.exporter = f"DaemonSet {exporters[0]}" if exporters else ""
    return shape


def _plugin(shape: Shape, facts: ClusterFacts, nodes: Sequence[NodeFacts]) -> None:
    sets = facts.daemonsets.value or ()
    plugins = [d for d in sets if d.role == "plugin"]
    foreign = [d for d in sets if d.role == "foreign-plugin"]
    intel = next((d for d in foreign if any("intel-gpu-plugin" in i for i in (*d.images, *d.containers))), None)
    resources = Counter(r for n in nodes for r, count in n.allocatable.items() if count and gpu_resource(r))
    if facts.cluster_policy.value:
        shape.flavour = "gpu-operator"
        shape.flavour_how = f"ClusterPolicy {facts.cluster_policy.value[0].name}"
        validator = next((d for d in sets if d.role == "validator"), None)
        own = next((i for i in (validator.images if validator else ()) if "/gpu-operator:" in i), None)
        shape.version = own.rpartition(":")[2] if own else None
    elif plugins:
        shape.flavour_how = f"DaemonSet {plugins[0].full_name}"
        shape.version = _image_version(plugins[0])
        shape.discovery = plugins[0].env.get("DEVICE_DISCOVERY_STRATEGY")
    elif intel is not None:
        shape.flavour, shape.flavour_how = "intel", f"DaemonSet {intel.full_name}"
        shape.version = _image_version(intel)
        plugins = [intel]
    elif resources:
        shape.flavour, shape.resource = "generic", resources.most_common(1)[0][0]
        plugins = foreign[:1]
        shape.flavour_how = f"the nodes offer {shape.resource}; " + (
            f"DaemonSet {foreign[0].full_name}" if foreign else "NOT SEEN: which plugin does it"
        )
    elif any(p.host_devices for p in facts.pods.value or ()):
        shape.flavour, shape.flavour_how = "hostpath", "pods mount /dev/dri or /dev/nvidia*, no plugin was seen"
    else:
        shape.flavour_how = "NOT SEEN: no device plugin; this is where labproof would look for NVIDIA's"
    shape.namespace = plugins[0].namespace if plugins else None
    if shape.discovery not in ("nvml", "auto", "tegra"):
        shape.discovery = None
    shape.others = [f"DaemonSet {d.full_name} ({', '.join(d.images)})" for d in foreign if d not in plugins]


def _image_version(daemonset: DaemonSetFacts) -> str | None:
    found = next((m for m in (re.search(r":v?(\d+\.\d+\.\d+)$", i) for i in daemonset.images) if m), None)
    return found[1] if found else None


def _talos_tag(node: NodeFacts) -> str:
    found = re.search(r"\((v\d+\.\d+\.\d+[^)]*)\)", node.os_image)
    return found[1] if found and node.os_image.startswith("Talos") else ""


def _injection(shape: Shape, facts: ClusterFacts, tag: str) -> None:
    policies = facts.cluster_policy.value or ()
    if policies:
        spec = policies[0].spec
        nri = spec.get("cdi.nriPluginEnabled") == "true"
        mode = "nri" if nri else ("cdi" if spec.get("cdi.enabled", "true") == "true" else "legacy")
        shape.injection = (mode, "cdi of the ClusterPolicy")
    elif tag and does(tag, "cdi"):
        shape.injection = ("cdi", f"Talos {tag} injects by CDI")
    else:
        shape.injection = (
            "legacy",
            f"Talos {tag} has no CDI" if tag else "NOT SEEN: legacy, unless the runtime uses CDI",
        )


def _labels(shape: Shape, facts: ClusterFacts, nodes: Sequence[NodeFacts]) -> None:
    sets = facts.daemonsets.value or ()
    gfd = next((d for d in sets if d.role == "gfd"), None)
    shape.gfd = (gfd is not None, f"DaemonSet {gfd.full_name}" if gfd else "no DaemonSet of it")
    names = {name for n in nodes for name in n.labels}
    by_vendor = next(
        (n for n in names if re.fullmatch(r"feature\.node\.kubernetes\.io/pci-[0-9a-f]{4}\.present", n)), ""
    )
    stock = next((n for n in names if re.match(r"feature\.node\.kubernetes\.io/pci-03[0-9a-f]{2}_", n)), "")
    worker = next((d.full_name for d in sets if d.role == "nfd-worker"), "")
    if by_vendor:
        shape.nfd = ("vendor", f"label {by_vendor}")
    elif stock:
        shape.nfd = ("stock", f"label {stock}")
    elif worker:
        shape.nfd = ("stock", f"DaemonSet {worker}; no label of a GPU yet")
    else:
        shape.nfd = ("none", "no NFD worker and no label of it")
    _typed(shape, facts, nodes, sets)


def _typed(shape: Shape, facts: ClusterFacts, nodes: Sequence[NodeFacts], sets: Sequence[DaemonSetFacts]) -> None:
    """Labels somebody typed that a plugin or a GPU pod selects, and taints of the GPU nodes."""
    users = [p for p in facts.pods.value or () if any(gpu_resource(r) for r in p.requests)]
    selected = {k for d in sets for k in d.node_selector} | {k for p in users for k in p.node_selector}
    terms = [t for d in sets for t in d.affinity] + [t for p in users for t in p.affinity]
    selected |= {r.key for term in terms for r in term}
    for node in nodes:
        made = set(node.annotations.get("nfd.node.kubernetes.io/feature-labels", "").split(","))
        made |= {k for k in node.labels if shape.gfd[0] and k.startswith("nvidia.com/")}
        # the operator labels GPU nodes and deploys by these labels itself
        made |= {k for k in node.labels if shape.flavour == "gpu-operator" and k.startswith("nvidia.com/")}
        for key in sorted(selected & set(node.labels) - made):
            if not any(tool in key for tool in _TOOLS) and all(n.labels.get(key) == node.labels[key] for n in nodes):
                shape.labels[key] = node.labels[key]
        for taint in node.taints:
            row = (taint.key, taint.value, taint.effect)
            own = taint.key.startswith(("node.kubernetes.io/", "node-role.", "node.cloudprovider", "node.cilium"))
            if not own and row not in shape.taints and all(taint in n.taints for n in nodes):
                shape.taints.append(row)


def _sharing(shape: Shape, facts: ClusterFacts, nodes: Sequence[NodeFacts], cards: int) -> None:
    for node in nodes:
        replicas = node.labels.get("nvidia.com/gpu.replicas", "")
        strategy = node.labels.get("nvidia.com/gpu.sharing-strategy", "time-slicing")
        if replicas.isdigit() and int(replicas) > 1 and strategy in ("time-slicing", "mps"):
            renamed = any(r.endswith(".shared") for r in node.allocatable)
            shape.sharing = (strategy, int(replicas), renamed, "GFD's labels gpu.replicas and gpu.sharing-strategy")
            return
    default = next((d.env["DEFAULT_CONFIG"] for d in facts.daemonsets.value or () if d.env.get("DEFAULT_CONFIG")), "")
    default = next((p.spec.get("devicePlugin.config.default", "") for p in facts.cluster_policy.value or ()), default)
    labelled = next((n.labels.get("nvidia.com/device-plugin.config", "") for n in nodes), "")
    for config_map in facts.config_maps.value or ():
        only = next(iter(config_map.data), "") if len(config_map.data) == 1 else "default"
        text = config_map.data.get(labelled or default or only, "")
        config, findings = parse_plugin_config(text)
        if not config or findings:
            continue
        live = effective_config(config)
        slots = live.slots_per_card("nvidia.com/gpu")
        if live.strategy in ("time-slicing", "mps") and slots > 1:
            shape.sharing = (live.strategy, slots, live.rename, f"ConfigMap {config_map.namespace}/{config_map.name}")
            return
    total = sum(count for n in nodes for r, count in n.allocatable.items() if gpu_resource(r))
    if shape.flavour == "nvidia-device-plugin" and cards and total > cards and total % cards == 0:
        how = f"A GUESS: {total} allocatable on {cards} card(s); the plugin's ConfigMap was not seen"
        shape.sharing = ("time-slicing", total // cards, False, how)
    else:
        shape.sharing = ("none", 1, False, "no label and no configuration of the plugin speaks of sharing")


def _runtime_class(shape: Shape, facts: ClusterFacts) -> None:
    classes = facts.runtime_classes.value
    if classes is None:
        expected = "present" if shape.flavour in ("nvidia-device-plugin", "gpu-operator") else "absent"
        shape.runtime_class = ("nvidia", expected, f"NOT SEEN: {facts.runtime_classes.why}")
        return
    known = {c.name: c for c in classes if "nvidia" in c.handler or "nvidia" in c.name}
    used = Counter(p.runtime_class for p in facts.pods.value or () if p.runtime_class in known)
    name = used.most_common(1)[0][0] if used else next(iter(sorted(known)), "")
    name = "nvidia" if "nvidia" in known and not used else name
    if name:
        shape.runtime_class = (name, "present", f"RuntimeClass {name}, handler {known[name].handler}")
    else:
        shape.runtime_class = ("nvidia", "absent", "no RuntimeClass of NVIDIA's in the cluster")


def _holders(shape: Shape, facts: ClusterFacts, nodes: set[str]) -> None:
    stack = {d.namespace for d in facts.daemonsets.value or ()}
    slots: Counter[str] = Counter()
    who: dict[str, str] = {}
    for pod in facts.pods.value or ():
        held = sum(count for name, count in pod.requests.items() if gpu_resource(name))
        if pod.node not in nodes or pod.finished or pod.deleting or not (held or pod.host_devices):
            continue
        shape.holders.append(f"{pod.full_name} holds {held} slot(s)" + "".join(f", {d}" for d in pod.host_devices))
        kind, owner = pod.owner
        if not held or pod.namespace in (_OWN_NAMESPACE, *stack) or kind == "Job" or pod.phase != "Running":
            continue
        name = owner.rpartition("-")[0] if kind == "ReplicaSet" else (owner or pod.name)
        full = f"{pod.namespace}/{name}"
        slots[full] += held
        who[full] = f"pod {pod.name} runs on {pod.node} and asks for {held}"
    shape.workloads = [(name, slots[name], who[name]) for name in sorted(slots)]
