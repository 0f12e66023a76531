"""Versions of each layer, and whether the lab says of itself that it is simulated: from facts only."""

from __future__ import annotations

from labproof.facts.bundle import Facts
from labproof.inventory.chains import Chain
from labproof.inventory.models import Lab

#: How a simulated endpoint says so in-band (DESIGN section 1).
SIMULATED = "sim"


def versions_of(facts: Facts, chain: Chain) -> dict[str, dict[str, str]]:
    """Versions by layer and component, of what was read of this chain."""
    found = {
        "host": _host(facts, chain),
        "vm": _vm(facts, chain),
        "talos": _talos(facts, chain),
        "kubernetes": _kubernetes(facts, chain),
    }
    return {layer: {k: v for k, v in versions.items() if v} for layer, versions in found.items()}


def simulated(facts: Facts, lab: Lab) -> bool:
    """Whether any endpoint that answered says it is simulated."""
    said: list[str] = []
    for host in lab.hosts:
        here, pve = facts.host(host.name).value, facts.pve(host.name).value
        said += [SIMULATED] if here and f"labproof-{SIMULATED}" in (here.ssh_server.value or "") else []
        said += [pve.version.value.repoid] if pve and pve.version.value else []
    for node in lab.nodes:
        talos = facts.talos(node.name).value
        said += [talos.version.value.sha] if talos and talos.version.value else []
    for cluster in lab.clusters:
        kubernetes = facts.cluster(cluster.name).value
        said += [(kubernetes.version.value or "").rpartition("+")[2]] if kubernetes else []
    return SIMULATED in said


def _host(facts: Facts, chain: Chain) -> dict[str, str]:
    here = facts.host(chain.host.name).value if chain.host else None
    if here is None:
        return {}
    return {"pve": here.pve_version.value or "", "host_kernel": here.kernel.value or ""}


def _vm(facts: Facts, chain: Chain) -> dict[str, str]:
    pve = facts.pve(chain.host.name).value if chain.host else None
    return {"pve_api": pve.version.value.version} if pve is not None and pve.version.value is not None else {}


def _talos(facts: Facts, chain: Chain) -> dict[str, str]:
    here = facts.talos(chain.node.name).value if chain.node else None
    if here is None:
        return {}
    drivers = [x.version for x in here.extensions.value or () if "kmod" in x.name or "kernel-modules" in x.name]
    return {
        "talos": here.version.value.tag if here.version.value else "",
        "driver": drivers[0] if drivers else "",
        "schematic": here.schematic.value.id[:12] if here.schematic.value else "",
    }


def _kubernetes(facts: Facts, chain: Chain) -> dict[str, str]:
    here = facts.cluster(chain.cluster.name).value if chain.cluster else None
    if here is None or chain.node is None or chain.cluster is None:
        return {}
    node = next((n for n in here.nodes.value or () if n.name == chain.node.name), None)
    found = {"kubernetes": here.version.value or ""}
    if node is not None:
        resource = chain.cluster.plugin.resource_name
        found["containerd"] = node.runtime
        found["slots"] = f"{node.allocatable.get(resource, 0)} x {resource}"
    return found
