"""Ask every endpoint at once, with the suite's own probes, within a few seconds; nothing is written anywhere."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from pydantic import SecretStr

from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.kubernetes import KubeSession, KubeTarget
from labproof.clients.pve import PveSession
from labproof.clients.talos import TalosSession, TalosTarget
from labproof.facts.host import HostFacts
from labproof.facts.kubernetes import ClusterFacts
from labproof.facts.kubernetes_objects import NodeFacts
from labproof.facts.reading import NOT_ASKED, Reading, absent, failed, value
from labproof.facts.store import now
from labproof.facts.talos import TalosFacts
from labproof.facts.vm import PveFacts
from labproof.init.endpoints import Doors, KubeDoor, PveDoor, SshDoor, TalosDoor
from labproof.inventory.models import Cluster, Host, Lab, Node, Plugin, Probe, PveApi, Ssh, Talos, Timings
from labproof.probes.host import probe_host
from labproof.probes.kubernetes import probe_cluster
from labproof.probes.talos import probe_talos
from labproof.probes.vm import probe_pve, pve_target
from labproof.probes.vm_parse import node_names

T = TypeVar("T")

#: All of it, seconds, from the first packet; and the part that leaves time for nodes that Kubernetes names.
LIMIT_S, FIRST_S = 9.0, 6.5
#: One look, no retry worth waiting for.
TIMINGS = Timings(connect_s=3.0, command_s=6.0, request_s=4.0, stable_reads=1, stable_interval_s=0.1)
_GPU_DOMAINS = ("nvidia.com/", "amd.com/", "gpu.intel.com/", "squat.ai/", "devic.es/")


@dataclass(frozen=True)
class Slices:
    """A driver's ResourceSlices on one node (DRA)."""

    driver: str
    node: str
    devices: int


@dataclass(frozen=True)
class ClusterSeen:
    """What one cluster answered."""

    facts: Reading[ClusterFacts]
    slices: Reading[tuple[Slices, ...]] = NOT_ASKED


@dataclass(frozen=True)
class TalosSeen:
    """A Talos node: how it was asked, what it is called, what it answered, the MACs of its links."""

    door: TalosDoor
    node: str
    facts: Reading[TalosFacts]
    macs: frozenset[str] = frozenset()


@dataclass
class Seen:
    """Every answer."""

    hosts: list[tuple[SshDoor, Reading[HostFacts]]] = field(default_factory=list)
    pves: list[tuple[PveDoor, Reading[PveFacts]]] = field(default_factory=list)
    talos: list[TalosSeen] = field(default_factory=list)
    clusters: list[tuple[KubeDoor, ClusterSeen]] = field(default_factory=list)

    def readings(self) -> list[tuple[str, Reading[Any]]]:
        """Each endpoint in words, with its answer."""
        rows: list[tuple[str, Reading[Any]]] = [(f"ssh {d.as_whom}", r) for d, r in self.hosts]
        rows += [(f"pve {d.url}" + (f" node {r.value.node}" if r.value else ""), r) for d, r in self.pves]
        rows += [(f"talos {t.node or t.door.path} ({t.door.as_whom or 'no context'})", t.facts) for t in self.talos]
        return rows + [(f"k8s {d.context or d.path}", c.facts) for d, c in self.clusters]


def look(wanted: Doors) -> Seen:
    """Contact everything at once; no answer in time is a failed reading like any other."""
    began = time.monotonic()
    tasks: dict[tuple[str, int, str], Callable[[], Any]] = {}
    for i, ssh in enumerate(wanted.ssh):
        tasks["ssh", i, ""] = partial(_host, ssh)
    for i, pve in enumerate(wanted.pve):
        tasks["pve", i, ""] = partial(_pve, pve)
    for i, talos in enumerate(wanted.talos):
        for node in talos.nodes if not talos.broken else ():
            tasks["talos", i, node] = partial(_talos, talos, node)
    for i, kube in enumerate(wanted.kube):
        tasks["k8s", i, ""] = partial(_cluster, kube)
    answers = together(tasks, began + FIRST_S)
    seen = Seen()
    for (kind, i, node), answer in answers.items():
        late = failed(kind, f"no answer within {FIRST_S:g} s", "timeout")
        if kind == "ssh":
            seen.hosts.append((wanted.ssh[i], answer or late))
        elif kind == "pve":
            seen.pves += [(wanted.pve[i], reading) for reading in answer or (late,)]
        elif kind == "talos":
            seen.talos.append(answer or TalosSeen(wanted.talos[i], node, late))
        else:
            seen.clusters.append((wanted.kube[i], answer or ClusterSeen(late)))
    seen.talos += [TalosSeen(d, "", failed(d.path, d.broken, "unsupported")) for d in wanted.talos if d.broken]
    _further_talos_nodes(seen, began + LIMIT_S)
    return seen


def together(tasks: Mapping[Any, Callable[[], T]], until: float) -> dict[Any, T | None]:
    """Run tasks side by side; None for one that has not ended by `until` (time.monotonic()).

    Its thread is a daemon: it may end when it likes, the command does not wait for it.
    """
    found: dict[Any, T | None] = dict.fromkeys(tasks)

    def run(key: Any, task: Callable[[], T]) -> None:
        answer = task()
        if time.monotonic() < until:
            found[key] = answer

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in tasks.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return dict(found)


def has_gpu_signs(node: NodeFacts) -> bool:
    """Whether Kubernetes knows of a GPU, a driver or a GPU resource on this node."""
    names = (*node.capacity, *node.labels)
    return any(
        name.startswith(_GPU_DOMAINS) or ("extensions.talos.dev/" in name and "nvidia" in name) for name in names
    )


# ------------------------------------------------------------------ one endpoint each


def ssh_of(door: SshDoor) -> Ssh:
    """The door as lab.yaml would declare it."""
    return Ssh(address=door.address, port=door.port, user=door.user)


def _host(door: SshDoor) -> Reading[HostFacts]:
    return probe_host(Host(name=door.address, ssh=ssh_of(door)), TIMINGS)


def _pve(door: PveDoor) -> list[Reading[PveFacts]]:
    """Every node the API shows; where it shows none, the one its address is called after."""
    api = PveApi(url=door.url, token_id=door.token_id, token_secret=SecretStr(door.secret), ca=door.ca)
    try:
        with PveSession(pve_target(api, TIMINGS)) as session:
            nodes = node_names(session.get("/nodes"))
    except TransportFailure as failure:
        return [failed(f"GET {door.url}/api2/json/nodes", failure.text, failure.kind.value, now())]
    except (AttributeError, KeyError, TypeError, ValueError):
        return [failed(f"GET {door.url}/api2/json/nodes", "an answer of unexpected shape", "protocol", now())]
    names = nodes or (door.url.removeprefix("https://").split(".")[0].split(":")[0],)
    hosts = {name: Host(name=name, pve=api) for name in names}
    asked = {name: partial(probe_pve, _bare(), host) for name, host in hosts.items()}
    found = together(asked, time.monotonic() + FIRST_S)
    return [found[name] or failed(f"GET {door.url}", f"no answer about {name} in time", "timeout") for name in names]


def _talos(door: TalosDoor, node: str) -> TalosSeen:
    asked = asked_node(door, node)
    try:
        target = TalosTarget(door.path, door.context, node=asked, timeout_s=TIMINGS.request_s)
        with TalosSession(target) as session:
            name = session.hostname().split(".")[0]
            macs = _macs(session)
    except TransportFailure as failure:
        return TalosSeen(door, node, failed(f"talosctl -n {node} version", failure.text, failure.kind.value, now()))
    declared = Node(name=name, cluster="-", talos=Talos(talosconfig=door.path, context=door.context, node=asked))
    return TalosSeen(door, node, probe_talos(_bare(), declared), macs)


def asked_node(door: TalosDoor, node: str) -> str | None:
    """The node as metadata; none where it is the only endpoint itself, which needs no forwarding."""
    return None if [place.rpartition(":")[0] for place in door.endpoints] == [node] else node


def _macs(session: TalosSession) -> frozenset[str]:
    """Hardware addresses of the node's links; releases without that resource have none to join by."""
    try:
        rows = session.cosi_list("network", "LinkStatuses.network.talos.dev")
        return frozenset(str(row.spec.get("hardwareAddr") or "").upper() for row in rows) - {""}
    except (TransportFailure, AttributeError):  # a spec of another shape than today's
        return frozenset()


def _cluster(door: KubeDoor) -> ClusterSeen:
    # the operator's flavour asks for every NVIDIA role and the ClusterPolicy; `exec` asks for no dry run of a pod
    declared = Cluster(
        name=door.context or "-",
        kubeconfig=door.path,
        context=door.context or None,
        plugin=Plugin(flavour="gpu-operator"),
        probe=Probe(via="exec", pod="-/-"),
    )
    facts = probe_cluster(_bare(), declared)
    return ClusterSeen(facts, _slices(door) if facts.value is not None else NOT_ASKED)


def _slices(door: KubeDoor) -> Reading[tuple[Slices, ...]]:
    """ResourceSlices where the cluster serves them; the shipped role may not list them, which is told."""
    group, source = "/apis/resource.k8s.io", "GET /apis/resource.k8s.io"
    target = KubeTarget(door.path, door.context or None, TIMINGS.connect_s, TIMINGS.request_s)
    try:
        with KubeSession(target) as session:
            version = (session.get_json(group).get("preferredVersion") or {}).get("groupVersion")
            source = f"GET /apis/{version}/resourceslices"
            items = session.list_json(f"/apis/{version}/resourceslices")["items"]
    except TransportFailure as failure:
        if failure.kind is Kind.NOT_FOUND:
            return absent(source, "not served", now())
        return failed(source, failure.text, failure.kind.value, now())
    specs = [item.get("spec") or {} for item in items if isinstance(item, dict)]
    rows = (Slices(str(s.get("driver")), str(s.get("nodeName") or ""), len(s.get("devices") or ())) for s in specs)
    return value(tuple(rows), source, now())


def _further_talos_nodes(seen: Seen, until: float) -> None:
    """GPU nodes that Kubernetes names and the talosconfig did not: asked through its endpoints, by their address."""
    known = {t.facts.value.name for t in seen.talos if t.facts.value is not None}
    tasks: dict[tuple[str, str], Callable[[], TalosSeen]] = {}
    for _, cluster in seen.clusters:
        nodes = (cluster.facts.value.nodes.value or ()) if cluster.facts.value else ()
        ours = {n.name for n in nodes} & known
        doors = [t.door for t in seen.talos if t.facts.value is not None and t.facts.value.name in ours]
        for node in nodes:
            address = next((a for a in node.addresses if _is_ip(a)), None)
            if node.name in known or not doors or address is None or not node.os_image.startswith("Talos"):
                continue
            if has_gpu_signs(node):
                tasks[doors[0].path, address] = partial(_talos, doors[0], address)
    for found in together(tasks, until).values():
        if found is not None:
            seen.talos.append(found)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _bare() -> Lab:
    return Lab(lab="init", timings=TIMINGS)
