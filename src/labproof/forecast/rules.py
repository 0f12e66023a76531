"""What an upgrade breaks beyond versions and labels: a mapping whose group number moves, a directory that is no more.

Each rule returns the judgement of one clause for one target as it will be; the gate then decides what it blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

from labproof.catalogue.versions import does
from labproof.checks.judgement import Evidence, Fail, Problem
from labproof.facts.bundle import Facts
from labproof.facts.host import HostFacts
from labproof.forecast.steps import Plan
from labproof.inventory.chains import Chain, chains_of
from labproof.inventory.models import Lab

OLD_LIBRARIES = "/usr/local/glibc"
#: Clause and target -> judgement.
Foretold = dict[tuple[str, str], Fail]


def foretold(today: Facts, after: Facts, lab: Lab, plan: Plan) -> Foretold:
    """Judgements that follow from several facts at once.

    Args:
        today, after: facts as read, and as projected.
        lab: the declared lab.
        plan: what moves.
    """
    found: Foretold = {}
    for chain in chains_of(lab):
        for clause, target, fail in (*_stale_mapping(today, after, plan, chain), *_install_dir(today, plan, chain)):
            found.setdefault((clause, target), fail)
    return found


def _stale_mapping(today: Facts, after: Facts, plan: Plan, chain: Chain) -> Iterator[tuple[str, str, Fail]]:
    """A PCI mapping holds the group's number, and PVE refuses the start when it is another (facts proxmox P34)."""
    if chain.host is None or chain.vm is None or plan.of("kernel", chain.host.name) is None:
        return
    pve, wanted = today.pve(chain.host.name).value, chain.vm.mapping
    host, moved = today.host(chain.host.name).value, after.host(chain.host.name).value
    if pve is None or host is None or moved is None or wanted is None:
        return
    entries = [e for m in pve.mappings.value or () if m.id == wanted for e in m.entries if e.get("node") == pve.node]
    stale = [told for entry in entries for told in _moves(entry, host, moved)]
    if not stale:
        return
    where = f"GET /cluster/mapping/pci?check-node={pve.node}"
    held = ", ".join(f"{e.get('path')} iommugroup {e['iommugroup']}" for e in entries if "iommugroup" in e)
    told = (Evidence(where, f"{wanted}: {held}"), Evidence("forecast", "; ".join(stale)))
    vm = str(chain.vm.id or chain.vm.name)
    values = (("host", chain.host.name), ("vm", vm))
    yield "VM-MAPPING-001", chain.id, Fail((Problem("P34", f"mapping {wanted}", told, values),))
    if chain.vm.state == "always":
        yield "VM-START-001", chain.id, Fail((Problem("P34", f"VM {vm}", told, values),))


def _moves(entry: dict[str, str], host: HostFacts, moved: HostFacts) -> Iterator[str]:
    """Devices of a mapping's entry that fit it today and will be in another group."""
    number = entry.get("iommugroup")
    for path in (entry.get("path") or "").split(";"):
        device = next((d for d in host.pci.value or () if d.address in (path, f"{path}.0")), None)
        if device is None or number is None or str(device.iommu_group) != number:
            continue
        will = group_of(moved, device.address)
        if str(will) != number:
            group = f"in group {will}" if will is not None else "in no group"
            yield f"{device.address} is in group {number} today and will be {group}"


def group_of(host: HostFacts, address: str) -> int | None:
    """IOMMU group of a device, None without one."""
    return next((d.iommu_group for d in host.pci.value or () if d.address == address), None)


def _install_dir(today: Facts, plan: Plan, chain: Chain) -> Iterator[tuple[str, str, Fail]]:
    """From 1.13 the driver's libraries lie in /usr/local/lib: the operator's older path is a folder nobody can make."""
    node, cluster = chain.node, chain.cluster
    if node is None or cluster is None or cluster.plugin.flavour != "gpu-operator":
        return
    step = plan.of("talos", node.name)
    read = today.cluster(cluster.name).value
    if step is None or read is None:
        return
    if does(step.before, "flat_library_tree") or not does(step.after, "flat_library_tree"):
        return
    for policy in read.cluster_policy.value or ():
        held = policy.spec.get("hostPaths.driverInstallDir", "")
        if held.startswith(OLD_LIBRARIES):
            told = (
                Evidence(read.cluster_policy.source, f"{policy.name}: hostPaths.driverInstallDir {held}"),
                Evidence("forecast", f"{step.after} has the driver's libraries in /usr/local/lib and no {held}"),
            )
            values = (("node", node.name), ("namespace", cluster.plugin.namespace or "gpu-operator"))
            yield "K8S-OPER-001", node.name, Fail((Problem("K78", policy.name, told, values),))
