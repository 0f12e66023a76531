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
        "workload": _workload(facts, chain),
        "transcode": _transcode(facts, chain),
        "metrics": _metrics(facts, chain),
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
    if pve is None:
        return {}
    vm = next((v for v in pve.vms if chain.vm is not None and v.name == chain.vm.name), None)
    status = vm.status.value if vm is not None else None
    return {
        "pve_api": pve.version.value.version if pve.version.value is not None else "",
        "qemu_machine": status.running_machine if status is not None else "",
    }


def _talos(facts: Facts, chain: Chain) -> dict[str, str]:
    here = facts.talos(chain.node.name).value if chain.node else None
    if here is None:
        return {}
    drivers = [x.version for x in here.extensions.value or () if "kmod" in x.name or "kernel-modules" in x.name]
    return {
        "talos": here.version.value.tag if here.version.value else "",
        "driver": drivers[0] if drivers else "",
        "schematic": here.schematic.value.id[:12] if here.schematic.value else "",
        "extensions": ", ".join(sorted(f"{x.name} {x.version}" for x in here.extensions.value or ())),
    }


def _kubernetes(facts: Facts, chain: Chain) -> dict[str, str]:
    here = facts.cluster(chain.cluster.name).value if chain.cluster else None
    if here is None or chain.node is None or chain.cluster is None:
        return {}
    node = next((n for n in here.nodes.value or () if n.name == chain.node.name), None)
    found = {"kubernetes": here.version.value or ""}
    if node is not None:
        resource = chain.cluster.plugin.resource_name
        found["kubelet"] = node.kubelet
        found["containerd"] = node.runtime
        found["slots"] = f"{node.allocatable.get(resource, 0)} x {resource}"
    plugin = next((d for d in here.daemonsets.value or () if d.role == "plugin" and d.images), None)
    if plugin is not None:
        found["plugin"] = _tag(plugin.images[0])
    return found


def _workload(facts: Facts, chain: Chain) -> dict[str, str]:
    here = facts.workload(chain.id).value
    if here is None:
        return {}
    smi = here.nvidia_smi.value
    report = smi.report.value if smi is not None else None
    found = {"image": here.image.reference.rpartition("/")[2]}
    if report is not None:
        found["gpu_driver"] = report.driver_version.value or ""
        found["cuda"] = report.cuda_version.value or ""
    return found


def _transcode(facts: Facts, chain: Chain) -> dict[str, str]:
    here = facts.transcode(chain.id).value
    return {"ffmpeg": here.ffmpeg_version.value or ""} if here is not None else {}


def _metrics(facts: Facts, chain: Chain) -> dict[str, str]:
    here = facts.metrics(chain.cluster.name).value if chain.cluster else None
    images = [e.image for e in (here.exporters.value or ()) if e.image] if here is not None else []
    return {"exporter": _tag(images[0])} if images else {}


def _tag(image: str) -> str:
    """Tag of an image reference, the digest's beginning where there is no tag."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag or digest[:19]
