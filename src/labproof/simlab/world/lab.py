"""One simulated world: cards, hosts, guests, nodes, clusters, built from the bottom up."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Mapping
from typing import Any

from labproof.simlab.host.machine import Host, boot
from labproof.simlab.pve.node import PveNode
from labproof.simlab.talos.installer import Factory
from labproof.simlab.world.states import Card, NodeState, VmState


class World:
    """The state of a simulated lab.

    Attributes:
        inputs: what it was built from; writes over SSH and the PVE API change it.
        cards: GPUs by key.
        hosts: booted hosts by name.
        pve: PVE on the hosts of kind proxmox, by name.
        nodes: operating systems of the nodes, by name.
        factory: the Image Factory that nodes install from.
        clusters: Kubernetes clusters (`labproof.simlab.kube.cluster.SimCluster`) by name.
        time: when it was built (Unix seconds).
    """

    def __init__(self, inputs: dict[str, Any]) -> None:
        """Boot everything, bottom up."""
        self.inputs = inputs
        self.time = time.time()
        self.cards = _cards(inputs)
        self.factory = Factory(inputs)
        self.hosts: dict[str, Host] = {}
        self.pve: dict[str, PveNode] = {}
        self._nodes: dict[str, NodeState] = {}
        self._clusters: dict[str, Any] = {}
        for name in inputs.get("hosts") or {}:
            self.boot_host(name)
        self._boot_nodes()
        self._start_clusters()
        self._built_for = self._power()

    @property
    def nodes(self) -> dict[str, NodeState]:
        """Nodes by name, as their machines stand now."""
        self._follow()
        return self._nodes

    @property
    def clusters(self) -> dict[str, Any]:
        """Clusters by name, of the nodes as they stand now."""
        self._follow()
        return self._clusters

    def _power(self) -> tuple[Any, ...]:
        """What changes when a guest starts, stops or restarts, its host reboots, or a node's own API changes it."""
        now = time.time()
        guests = tuple(
            (name, self.hosts[name].boot_id, tuple(sorted((q.vmid, q.pid) for q in node.host.qemus.values())))
            for name, node in sorted(self.pve.items())
        )
        nodes = tuple(
            (name, spec.get("rebooted_at", 0), spec.get("config_writes", 0), now >= spec.get("away_until", 0))
            for name, spec in sorted((self.inputs.get("nodes") or {}).items())
            if spec
        )
        return guests, nodes

    def _follow(self) -> None:
        """Nodes and clusters are derived from the guests: when those changed since, they start anew.

        A cluster that starts anew has what its inputs say and what was written through its API; pods are made anew.
        """
        power = self._power()
        if power == self._built_for:
            return
        self._built_for = power
        gone, self._clusters, self._nodes = self._clusters, {}, {}
        self.time = time.time()
        self._boot_nodes()
        self._start_clusters(gone)
        for cluster in gone.values():
            cluster.close()

    def boot_host(self, name: str, now: float | None = None) -> None:
        """(Re)boot one host and start its guests."""
        host = boot(name, self.inputs["hosts"][name], self.cards, self.time if now is None else now)
        self.hosts[name] = host
        if host.inputs.get("kind", "proxmox") == "proxmox":
            self.pve[name] = PveNode(host)
            if host.up and host.cluster_file_system:
                self.pve[name].start_guests()
        for card in self.cards.values():
            for address, device in host.devices.items():
                if device.get("card") == card.key:
                    card.host_address = address

    def vm_state(self, host: str, vmid: int) -> VmState:
        """A VM as its guest experiences it.

        Raises:
            Refused: there is no such VM.
        """
        self.pve[host].section(vmid)
        return self.pve[host].vm_state(vmid)

    def _vm_of(self, spec: Mapping[str, Any]) -> VmState | None:
        """The VM a node runs in: `vm: host/id`, or the id or name of a VM on any host. None: metal, or no such VM."""
        wanted = spec.get("vm")
        if wanted is None:
            return None
        host, slash, vmid = str(wanted).partition("/")
        if slash:
            known = host in self.pve and vmid in self.pve[host].vms
            return self.vm_state(host, int(vmid)) if known else None
        for name, node in self.pve.items():
            for text, entry in node.vms.items():
                if str(wanted) in (text, str(entry["config"].get("name"))):
                    return self.vm_state(name, int(text))
        return None

    def _boot_nodes(self) -> None:
        specs = self.inputs.get("nodes") or {}
        if not specs or not _exists("labproof.simlab.talos.node"):
            return
        for name, spec in specs.items():
            system = "linux" if spec.get("os") == "linux" else "talos"
            module = importlib.import_module(f"labproof.simlab.{system}.node")
            self._nodes[name] = module.boot_node(name, spec, self._vm_of(spec), self.cards)

    def _start_clusters(self, earlier: Mapping[str, Any] | None = None) -> None:
        specs = self.inputs.get("clusters") or {}
        if not specs or not _exists("labproof.simlab.kube.cluster"):
            return
        module = importlib.import_module("labproof.simlab.kube.cluster")
        for name, spec in specs.items():
            members = {
                node: state for node, state in self._nodes.items()
                if (self.inputs["nodes"][node] or {}).get("cluster", name) == name
            }  # fmt: skip
            self._clusters[name] = module.SimCluster(name, spec, members, self.time, earlier=(earlier or {}).get(name))


def _cards(inputs: Mapping[str, Any]) -> dict[str, Card]:
    placed = {
        str(device["card"]): address
        for host in (inputs.get("hosts") or {}).values()
        for address, device in host["pci"].items()
        if device and device.get("card")
    }
    specs = inputs.get("cards") or {}
    return {
        key: Card(key, specs.get(key) or {}, placed.get(key, str((specs.get(key) or {}).get("host_address", ""))))
        for key in {**specs, **placed}
    }


def _exists(module: str) -> bool:
    """Layers that are not part of this build are left out."""
    return importlib.util.find_spec(module) is not None
