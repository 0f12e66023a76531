"""Which things of the facts are compared, layer by layer: what is given first, what follows from it after.

The order is the causal one (firmware, then the kernel, its arguments and modules, then groups, devices and drivers), so
that "the lowest change" is the first of a list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from labproof.facts.kubernetes import holders
from labproof.report.compare_firmware import loaded_firmware
from labproof.report.compare_snapshot import Extract, Items, Thing, Where
from labproof.report.holders import app_of

_THERE = "there"
#: Written anew at every boot, or a copy of something else.
_VOLATILE_ARGUMENTS = ("BOOT_IMAGE=", "initrd=")
_VOLATILE_LABELS = ("nvidia.com/gfd.timestamp",)
_VOLATILE_ANNOTATIONS = (
    "nfd.node.kubernetes.io/", "volumes.kubernetes.io/", "node.alpha.kubernetes.io/", "csi.volume.kubernetes.io/",
)  # fmt: skip
#: Kernel modules of hosts and nodes that have to do with GPUs.
_GPU_MODULES = ("vfio", "nvidia", "nouveau", "i915", "xe", "amdgpu", "radeon", "snd_hda_intel", "iommufd")


def _one(value: Any, where: Where) -> Items:
    return {"": str(value)} if value not in (None, "") else {}


def _names(values: Iterable[Any], where: Where) -> Items:
    return {str(v): _THERE for v in values}


def _pairs(values: Any, where: Where) -> Items:
    return {str(k): str(v) for k, v in dict(values).items()}


def _arguments(values: Iterable[str], where: Where) -> Items:
    return _names((v for v in values if not v.startswith(_VOLATILE_ARGUMENTS)), where)


def _words(text: str, where: Where) -> Items:
    return _arguments(text.split(), where)


def _files(files: Iterable[Any], where: Where) -> Items:
    return {f.path: "; ".join(f.lines) or "empty" for f in files}


def _gpu_modules(modules: Iterable[Any], where: Where) -> Items:
    return {m.name: getattr(m, "state", "") or "loaded" for m in modules if m.name.startswith(_GPU_MODULES)}


def _attribute(name: str) -> Extract:
    return lambda value, where: _one(getattr(value, name), where)


# ------------------------------------------------------------------ host


def _groups(groups: Iterable[Any], where: Where) -> Items:
    found = {}
    for chain in where.chains:
        address = chain.gpu.address
        group = next((g for g in groups if address in g.devices), None)
        if address is not None:
            inside = f"group {group.number}: {', '.join(sorted(group.devices))}" if group else "in no group"
            found[chain.gpu.name] = inside
    return found


def _devices(devices: Iterable[Any], where: Where) -> Items:
    return {ids: f"{n} x" for ids, n in sorted(Counter(d.ids for d in devices).items())}


def _addresses(devices: Iterable[Any], where: Where) -> Items:
    declared = {c.gpu.device for c in where.chains}
    return {ids: ", ".join(sorted(d.address for d in devices if d.ids == ids)) or "nowhere" for ids in declared}


def _of_functions(tell: Any) -> Extract:
    """Of each function of the declared cards; keyed by the GPU's name, so that a new address is no other card."""

    def extract(devices: Iterable[Any], where: Where) -> Items:
        found = {}
        for chain in where.chains:
            slot = (chain.gpu.address or "-").rsplit(".", 1)[0]
            for device in devices:
                if device.slot == slot:
                    found[f"{chain.gpu.name} function {device.address[-1]}"] = str(tell(device))
        return found

    return extract


def _initramfs(value: Any, where: Where) -> Items:
    return {"path": value.path, **_names(value.entries or (), where)}


HOST = (
    Thing("firmware tables", "firmware_tables", _names, given=True, pinned=True),
    Thing("Secure Boot", "secure_boot", _one, given=True),
    Thing("PCI devices", "pci", _devices, given=True),
    Thing("PVE", "pve_version", _one, version=True, given=True),
    Thing("kernel", "kernel", _one, version=True, given=True),
    Thing("distribution", "distribution", _one, version=True, given=True),
    Thing("SSH server", "ssh_server", _one),
    Thing("name of the machine", "hostname", _one, given=True),
    Thing("boot files", "boot_files", _files, given=True),
    Thing("kernel command line", "cmdline", _arguments, given=True),
    Thing("modprobe.d", "modprobe_files", _files, given=True),
    Thing("modules loaded at boot", "modules_load_files", _files, given=True),
    Thing("driverctl", "driverctl_files", _files, given=True),
    Thing("initramfs", "initramfs", _initramfs, given=True),
    Thing("available modules", "available_modules", _names),
    Thing("boot", "boot_id", _one),
    Thing("IOMMUs", "iommus", _names, pinned=True),
    Thing("interrupt remapping", "remapped_interrupts", lambda n, where: {"": "on" if n else "off"}),
    Thing("PCI address", "pci", _addresses, pinned=True),
    Thing("IOMMU group", "iommu_groups", _groups, pinned=True),
    Thing("loaded modules", "modules", _gpu_modules),
    Thing("module parameters", "module_parameters", _pairs),
    Thing("driver", "pci", _of_functions(lambda d: d.driver or "none")),
    Thing("firmware loaded", "kernel_log", loaded_firmware, version=True),
    Thing("reset methods", "pci", _of_functions(lambda d: " ".join(d.reset_method or ()) or "none")),
    Thing("link width", "pci", _of_functions(lambda d: f"x{d.link_width}" if d.link_width else "unknown")),
    Thing("console", "pci", _of_functions(lambda d: "the host's console" if d.boot_vga else "no")),
    Thing("hugepages", "hugepages", lambda pages, where: {f"{p.size_kib} KiB": str(p.total) for p in pages}),
    Thing("containers with a GPU", "lxc_gpu_use", lambda uses, where: {str(u.ctid): u.line for u in uses}),
)

# ------------------------------------------------------------------ vm


def _others(configs: Iterable[Any], where: Where) -> Items:
    """hostpci of the other VMs of the host."""
    own = {c.vm.id for c in where.chains if c.vm is not None}
    found: dict[str, str] = {}
    for config in configs:
        if config.vmid not in own:
            found |= {f"VM {config.vmid} {k}": v for k, v in config.keys.items() if k.startswith("hostpci")}
    return found


def _mappings(mappings: Iterable[Any], where: Where) -> Items:
    return {
        f"{m.id} {e.get('node', '')} {e.get('path', '')}".strip(): ",".join(f"{k}={v}" for k, v in sorted(e.items()))
        for m in mappings
        for e in m.entries
    }


def _less(values: dict[str, str], *volatile: str) -> Items:
    return {key: value for key, value in values.items() if key not in volatile}


def _pending(keys: Iterable[Any], where: Where) -> Items:
    return {k.key: "to be deleted" if k.delete else str(k.pending) for k in keys}


def _state(status: Any, where: Where) -> Items:
    return {"": status.status + (f", locked by {status.lock}" if status.lock else "")}


def _backups(jobs: Iterable[Any], where: Where) -> Items:
    found = {}
    for job in jobs:
        covers = "all but " + ",".join(map(str, job.exclude)) if job.all_guests else ",".join(map(str, job.vmids))
        found[job.id] = covers if job.enabled else f"off ({covers})"
    return found


VM = (
    Thing("PVE API", "version", _attribute("version"), version=True, given=True),
    Thing("rights of the token", "permissions", lambda p, where: {k: ", ".join(sorted(v)) for k, v in p.items()},
          given=True),
    Thing("PCI mapping", "mappings", _mappings, given=True, pinned=True),
    Thing("id", "vms", _one, part="vmid", given=True),
    Thing("configuration", "vms", lambda config, where: _less(config.keys, "digest"), part="config", given=True),
    Thing("pending changes", "vms", _pending, part="pending", given=True),
    Thing("cards of other VMs", "configs", _others, given=True),
    Thing("backup jobs", "backup_jobs", _backups, given=True),
    Thing("state", "vms", _state, part="status"),
    Thing("QEMU", "vms", _attribute("running_qemu"), part="status", version=True),
    Thing("QEMU machine", "vms", _attribute("running_machine"), part="status", version=True),
    Thing("last start", "vms", _attribute("exit_status"), part="start_task"),
)  # fmt: skip

# ------------------------------------------------------------------ talos


def _driver(extensions: Iterable[Any], where: Where) -> Items:
    return {"": next((x.version for x in extensions if "kmod" in x.name or "kernel-modules" in x.name), "none")}


def _services(services: Iterable[Any], where: Where) -> Items:
    health = {True: ", healthy", False: ", unhealthy", None: ""}
    return {s.id: s.state + health[s.healthy] for s in services}


TALOS = (
    Thing("Talos", "version", _attribute("tag"), version=True, given=True),
    Thing("schematic", "schematic", _attribute("id"), version=True, given=True, pinned=True),
    Thing("extensions", "extensions", lambda all_, where: {x.name: x.version for x in all_}, version=True),
    Thing("driver", "extensions", _driver, version=True),
    Thing("kernel arguments", "cmdline", _words, given=True),
    Thing("machine.kernel.modules", "module_specs", _names, given=True),
    Thing("machine.install.image", "install_image", _one, given=True),
    Thing("bpf_jit_harden", "bpf_jit_harden", _one, given=True),
    Thing("parts of containerd's configuration", "cri_parts", _names, given=True),
    Thing("PCI devices in the guest", "pci", lambda all_, where: {d.address: d.vendor_device for d in all_}),
    Thing("loaded modules", "modules", _gpu_modules),
    Thing("drivers in the guest", "drivers", _pairs),
    Thing("rebound devices", "rebound", _pairs),
    Thing("device nodes", "device_nodes", lambda nodes, where: {n.path: f"{n.permissions:o}" for n in nodes}),
    Thing("services", "services", _services),
    Thing("stage", "stage", lambda s, where: {"": s.stage + ("" if s.ready else ", not ready")}),
    Thing("CDI specifications", "cdi_specs", _names),
    Thing("NVIDIA's tools", "host_tools", _names),
    Thing("firmware of the driver", "firmware", _names),
    Thing("firmware loaded", "kernel_log", loaded_firmware, version=True),
)

# ------------------------------------------------------------------ kubernetes


def _labels(labels: dict[str, str], where: Where) -> Items:
    return {k: v for k, v in labels.items() if not k.startswith(_VOLATILE_LABELS)}


def _annotations(annotations: dict[str, str], where: Where) -> Items:
    return {k: v for k, v in annotations.items() if not k.startswith(_VOLATILE_ANNOTATIONS)}


def _ready(conditions: Iterable[Any], where: Where) -> Items:
    return {c.type: c.status for c in conditions if c.type == "Ready"}


NODE = (
    Thing("kubelet", "nodes", _one, part="kubelet", version=True, given=True),
    Thing("containerd", "nodes", _one, part="runtime", version=True, given=True),
    Thing("node kernel", "nodes", _one, part="kernel", version=True, given=True),
    Thing("node OS", "nodes", _one, part="os_image", version=True, given=True),
    Thing("machine (SMBIOS UUID)", "nodes", _one, part="system_uuid", given=True),
    Thing("taints", "nodes", _names, part="taints", given=True),
    Thing("cordoned", "nodes", _one, part="unschedulable", given=True),
    Thing("boot", "nodes", _one, part="boot_id"),
    Thing("runtime handlers", "nodes", lambda names, where: _names(filter(None, names or ()), where),
          part="runtime_handlers"),
    Thing("Ready", "nodes", _ready, part="conditions"),
    Thing("label", "nodes", _labels, part="labels"),
    Thing("annotation", "nodes", _annotations, part="annotations"),
    Thing("capacity", "nodes", _pairs, part="capacity"),
    Thing("allocatable", "nodes", _pairs, part="allocatable"),
)  # fmt: skip


def _images(sets: Iterable[Any], where: Where) -> Items:
    return {d.full_name: ", ".join(dict.fromkeys(d.images)) for d in sets}


def _charts(sets: Iterable[Any], where: Where) -> Items | None:
    """Helm charts that brought the GPU stack; runs of before this was read do not tell."""
    return {d.full_name: d.chart for d in sets if d.chart} or None


def _environment(sets: Iterable[Any], where: Where) -> Items:
    found: dict[str, str] = {}
    for daemon in sets:
        found |= {f"{daemon.full_name} {k}": v for k, v in daemon.env.items()}
        found[f"{daemon.full_name} runtimeClassName"] = daemon.runtime_class or "none"
        found[f"{daemon.full_name} nodeSelector"] = ",".join(
            f"{k}={v}" for k, v in sorted(daemon.node_selector.items())
        )
        found[f"{daemon.full_name} tolerations"] = ", ".join(
            f"{t.key or 'everything'}:{t.effect or 'every effect'}" for t in daemon.tolerations
        )
    return found


def _placed(sets: Iterable[Any], where: Where) -> Items:
    return {d.full_name: f"{d.ready} of {d.desired} ready" for d in sets}


def _held(pods: Any, where: Where) -> Items:
    slots: Counter[str] = Counter()
    for row in holders(pods):
        slots[f"{row.namespace}/{app_of(row.owner, row.pod)} ({row.resource} on {row.node})"] += row.slots
    return {who: str(n) for who, n in slots.items()}


CLUSTER = (
    Thing("Kubernetes", "version", _one, version=True, given=True),
    Thing("chart", "daemonsets", _charts, version=True, given=True),
    Thing("images of the GPU stack", "daemonsets", _images, version=True, given=True),
    Thing("settings of the GPU stack", "daemonsets", _environment, given=True),
    Thing("plugin configuration", "config_maps",
          lambda maps, where: {f"{m.namespace}/{m.name} {k}": v for m in maps for k, v in m.data.items()}, given=True),
    Thing("RuntimeClass", "runtime_classes", lambda all_, where: {r.name: f"handler {r.handler}" for r in all_},
          given=True),
    Thing("Pod Security", "namespaces",
          lambda all_, where: {f"{n.name} {k}": v for n in all_ for k, v in n.pod_security.items()}, given=True),
    Thing("ClusterPolicy", "cluster_policy",
          lambda all_, where: {f"{p.name} {k}": v for p in all_ for k, v in p.spec.items()}, given=True),
    Thing("pods of the GPU stack", "daemonsets", _placed),
    Thing("holders of slots", "pods", _held),
)  # fmt: skip

# ------------------------------------------------------------------ in the pod


def _smi(name: str) -> Extract:
    def extract(seen: Any, where: Where) -> Items | None:
        report = seen.report.value
        reading = getattr(report, name) if report is not None else None
        return _one(reading.value, where) if reading is not None and reading.known else None

    return extract


def _gsp(seen: Any, where: Where) -> Items | None:
    report = seen.report.value
    versions = {g.gsp_firmware.value for g in report.gpus if g.gsp_firmware.value} if report is not None else set()
    return {"": ", ".join(sorted(versions))} if versions else None


def _cards(seen: Any, where: Where) -> Items | None:
    report = seen.report.value
    if report is None:
        return None
    return {g.uuid.value or g.bus_id.value or "?": g.product_name.value or "?" for g in report.gpus}


WORKLOAD = (
    Thing("probe image", "image", _attribute("reference"), version=True, given=True),
    Thing("driver in the pod", "nvidia_smi", _smi("driver_version"), version=True),
    Thing("CUDA of the driver", "nvidia_smi", _smi("cuda_version"), version=True),
    Thing("GSP firmware", "nvidia_smi", _gsp, version=True),
    Thing("cards in the pod", "nvidia_smi", _cards),
    Thing("environment of the pod", "env", _pairs),
    Thing("user of the pod", "uid", _one),
    Thing("libraries in the pod", "libraries", _names),
    Thing("device nodes in the pod", "devices", lambda all_, where: {d.path: d.mode for d in all_}),
)
TRANSCODE = (Thing("ffmpeg", "ffmpeg_version", _one, version=True, given=True),)

THINGS: dict[str, tuple[Thing, ...]] = {
    "host": HOST,
    "vm": VM,
    "talos": TALOS,
    "cluster": CLUSTER,
    "node": NODE,
    "workload": WORKLOAD,
    "transcode": TRANSCODE,
}
