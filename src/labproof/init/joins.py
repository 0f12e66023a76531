"""Nodes with a GPU, and which VM each of them is: by SMBIOS UUID, hardware address, name, or as the only one left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from labproof.facts.kubernetes_objects import NodeFacts, PodFacts
from labproof.init.cards import RESOURCES, VENDORS, Card, HostSeen, Machine, device_of_product, wanted_cards
from labproof.init.endpoints import KubeDoor
from labproof.init.look import ClusterSeen, Seen, TalosSeen

#: A card whose model nobody could see: lab.yaml needs four digits, and these name no device.
NO_DEVICE = "0000"


@dataclass
class NodeSeen:
    """A node with a GPU, by Kubernetes, by Talos, or both."""

    name: str
    kube: KubeDoor | None = None
    cluster: ClusterSeen | None = None
    facts: NodeFacts | None = None
    talos: TalosSeen | None = None
    machine: Machine | None = None
    joined: str = ""
    cards: list[Card] = field(default_factory=list)  # of its own, where no host below was seen
    ssh: HostSeen | None = None  # the machine itself, logged in to

    @property
    def devices(self) -> Counter[str]:
        """vendor:device of its GPUs, as Talos lists them."""
        facts = self.talos.facts.value if self.talos is not None else None
        return Counter(
            d.vendor_device
            for d in (facts.pci.value or () if facts else ())
            if d.class_code.startswith("03") and d.vendor_device.partition(":")[0] in VENDORS
        )


@dataclass
class Lab:
    """What was found, joined. `traces`: what speaks of a GPU that is not there."""

    hosts: list[HostSeen]
    nodes: list[NodeSeen]
    cards: list[Card]
    traces: list[str]


def joined(seen: Seen, hosts: list[HostSeen]) -> Lab:
    """Follow every GPU from its slot to its node."""
    nodes = _nodes(seen)
    for node in nodes:
        node.ssh = next((h for h in hosts if h.name == node.name and not h.machines), None)
    above = [h for h in hosts if not any(n.ssh is h for n in nodes)]
    cards = wanted_cards(above)
    machines = [m for h in above for m in h.machines]
    _join(machines, nodes)
    looked_below = any(h.cards or h.facts or h.pve for h in above)
    traces: list[str] = []
    kept = []
    for node in nodes:
        if node.machine is None:
            node.cards = _own_cards(node, looked_below, traces)
        if node.machine is not None or node.cards:
            kept.append(node)
    cards += [card for node in kept for card in node.cards]
    traces += [f"VM {m.vmid} ({m.name})" for m in machines if not m.cards]
    for host in above:
        for config in (host.pve.configs.value or ()) if host.pve is not None else ():
            if config.hostpci and not any(m.vmid == config.vmid for m in host.machines):
                traces.append(f"VM {config.vmid} has hostpci, but host {host.name} has no such GPU")
    return Lab([h for h in above if any(c.host == h.name for c in cards)], kept, cards, traces)


def _nodes(seen: Seen) -> list[NodeSeen]:
    found: dict[str, NodeSeen] = {}
    for door, cluster in seen.clusters:
        facts = cluster.facts.value
        for node in (facts.nodes.value or ()) if facts is not None else ():
            found.setdefault(node.name, NodeSeen(node.name, door, cluster, node))
    for talos in seen.talos:
        if talos.facts.value is not None:
            node_seen = found.setdefault(talos.facts.value.name, NodeSeen(talos.facts.value.name))
            node_seen.talos = node_seen.talos or talos
    return list(found.values())


def _join(machines: list[Machine], nodes: list[NodeSeen]) -> None:
    def by_uuid(machine: Machine, node: NodeSeen) -> bool:
        return machine.uuid is not None and node.facts is not None and node.facts.system_uuid.lower() == machine.uuid

    def by_mac(machine: Machine, node: NodeSeen) -> bool:
        return bool(machine.mac and node.talos and machine.mac.upper() in node.talos.macs)

    def by_name(machine: Machine, node: NodeSeen) -> bool:
        return machine.name == node.name

    tests: tuple[tuple[str, Callable[[Machine, NodeSeen], bool]], ...] = (
        ("its smbios1 uuid is the node's systemUUID", by_uuid),
        ("its hardware address is a link's of the node", by_mac),
        ("VM and node have one name", by_name),
    )
    for how, test in tests:
        for machine in machines:
            hits = [n for n in nodes if n.machine is None and test(machine, n)]
            if len(hits) == 1 and not any(n.machine is machine for n in nodes):
                hits[0].machine, hits[0].joined = machine, how
    left = [m for m in machines if not any(n.machine is m for n in nodes)]
    bare = [n for n in nodes if n.machine is None and n.devices]
    if len(left) == len(bare) == 1 and Counter(c.device for c in left[0].cards) == bare[0].devices:
        bare[0].machine = left[0]
        bare[0].joined = "A GUESS: the only VM and the only node left, with the same devices; check it"


def _own_cards(node: NodeSeen, looked_below: bool, traces: list[str]) -> list[Card]:
    """GPUs in the node itself: its PCI devices, else what Kubernetes says of a node that is up."""
    if node.ssh is not None:
        return [Card(None, c.device, c.address, c.how, console=c.console) for c in node.ssh.cards]
    facts = node.talos.facts.value if node.talos is not None else None
    if facts is not None and facts.pci.value is not None:
        return [
            Card(
                None,
                d.vendor_device,
                d.address,
                f"talosctl -n {node.name} get pcidevices",
                tuple(o.vendor_device for o in facts.pci.value if o is not d and _slot(o.address) == _slot(d.address)),
                product=d.product,
            )
            for d in facts.pci.value
            if d.class_code.startswith("03") and d.vendor_device.partition(":")[0] in VENDORS
        ]
    if node.facts is None:
        return []
    return _told_by_kubernetes(node, node.facts, looked_below, traces)


def _slot(address: str) -> str:
    return address.rpartition(".")[0]


def _told_by_kubernetes(node: NodeSeen, facts: NodeFacts, looked_below: bool, traces: list[str]) -> list[Card]:
    labels = facts.labels
    count = labels.get("nvidia.com/gpu.count", "")
    product = labels.get("nvidia.com/gpu.product", "")
    resources = sorted(name for name in facts.allocatable if gpu_resource(name))
    vendor = next((v for name in resources for start, v in RESOURCES.items() if name.startswith(start)), None)
    labelled = [v for v in VENDORS if any(f"pci-{v}.present" in k or f"_{v}.present" in k for k in labels)]
    slices = [s for s in (node.cluster.slices.value or () if node.cluster else ()) if s.node == node.name]
    held = [p.full_name for p in pods_of(node.cluster) if p.node == node.name and p.host_devices and not p.finished]
    if not (resources or slices or held or labelled):
        return []
    told = [*resources, *(f"ResourceSlice of {s.driver}" for s in slices), *(f"{p} mounts a GPU device" for p in held)]
    told += [f"NFD label of vendor {v}" for v in labelled if not resources]
    ready = facts.condition("Ready")
    if ready is None or ready.status != "True" or (resources and not any(facts.allocatable[r] for r in resources)):
        traces.append(f"node {node.name}, not ready or nothing allocatable: {', '.join(told)}")
        return []
    if looked_below and not (resources or slices):
        traces.append(f"node {node.name}: {', '.join(told)}")
        return []
    model = device_of_product(product) if product else None
    device = model or f"{vendor or (labelled[0] if labelled else '0000')}:{NO_DEVICE}"
    how = f"{', '.join(told)} on the node" + (f", label gpu.product {product}" if product else "")
    number = int(count) if count.isdigit() and 0 < int(count) <= 64 else 1
    return [Card(None, device, None, how, product=product) for _ in range(number)]


def gpu_resource(name: str) -> bool:
    """Whether an extended resource is a GPU's: a known vendor's, or one that says so (`squat.ai/dri`)."""
    domain, _, kind = name.partition("/")
    by_vendor = domain in ("nvidia.com", "amd.com", "gpu.intel.com")
    return by_vendor or kind in ("gpu", "dri", "rocm", "igpu", "vaapi", "render")


def pods_of(cluster: ClusterSeen | None) -> tuple[PodFacts, ...]:
    """Pods of a cluster that were seen."""
    facts = cluster.facts.value if cluster is not None else None
    return (facts.pods.value or ()) if facts is not None else ()
