"""Finding things in PVE facts: the declared VM, its entry for the card, and what an entry really names."""

from __future__ import annotations

from labproof.checks.host_devices import full_address
from labproof.checks.judgement import Evidence
from labproof.checks.subject import Subject
from labproof.facts.reading import State, Unjudged, absent, need
from labproof.facts.vm import HostPci, PveFacts, VmConfig, VmFacts


def vm_facts(subject: Subject) -> VmFacts:
    """What was read of the chain's VM."""
    found = next((vm for vm in subject.pve_facts.vms if vm.name == subject.vm.name), None)
    if found is None:
        raise Unjudged(absent("facts", f"no facts of VM {subject.vm.name} in this run"), subject.vm.name)
    return found


def vm_config(subject: Subject) -> VmConfig:
    """Its configuration, pending changes applied."""
    return need(vm_facts(subject).config, f"configuration of {subject.vm.name}")


def vm_label(subject: Subject) -> str:
    """`VM 1105`, or the declared name while nobody knows the id."""
    vmid = vm_facts(subject).vmid.value
    return f"VM {vmid}" if vmid is not None else f"VM {subject.vm.name}"


def names_of(subject: Subject) -> tuple[tuple[str, str], ...]:
    """Placeholders for remedies."""
    gpu = subject.chain.gpu
    vmid = vm_facts(subject).vmid.value
    return (
        ("host", subject.host.name),
        ("vm", str(vmid) if vmid is not None else subject.vm.name),
        ("device", gpu.device),
        *((("address", full_address(gpu.address)),) if gpu.address else ()),
    )


def config_path(subject: Subject, end: str = "config") -> str:
    """The API path that was read for the VM."""
    return f"GET /nodes/{subject.pve_facts.node}/qemu/{vm_facts(subject).vmid.value}/{end}"


def shown(subject: Subject, config: VmConfig, *keys: str) -> Evidence:
    """Evidence from the configuration: the named keys as PVE prints them."""
    text = "; ".join(f"{key}: {config.keys[key]}" if key in config.keys else f"no {key}" for key in keys)
    return Evidence(config_path(subject), text)


def hostpci_text(config: VmConfig) -> str:
    """All hostpci entries as written."""
    lines = [f"hostpci{entry.index}: {config.keys[f'hostpci{entry.index}']}" for entry in config.hostpci]
    return "; ".join(lines) or "no hostpci"


def devices_of_entry(pve: PveFacts, entry: HostPci) -> tuple[str, ...]:
    """Addresses an entry can mean on this node, whole slots without a function; a mapping may offer several."""
    if entry.mapping is None:
        return entry.devices
    mapping = next((m for m in pve.mappings.value or () if m.id == entry.mapping), None)
    if mapping is None:
        return ()
    paths = [e.get("path", "") for e in mapping.entries if e.get("node") == pve.node]
    return tuple(full_address(p) for path in paths for p in path.split(";") if p)


def same_device(one: str, other: str) -> bool:
    """Whether two addresses, of which either may be a whole slot, mean a common function."""
    return one == other or one == other.rsplit(".", 1)[0] or other == one.rsplit(".", 1)[0]


def names_card(subject: Subject, entry: HostPci) -> bool:
    """Whether an entry stands for the chain's GPU: by the declared mapping, by address, else by vendor:device."""
    pve, gpu = subject.pve_facts, subject.chain.gpu
    if subject.vm.mapping is not None and entry.mapping is not None:
        return entry.mapping == subject.vm.mapping
    devices = devices_of_entry(pve, entry)
    if gpu.address is not None:
        return any(same_device(device, full_address(gpu.address)) for device in devices)
    known = {d.address: d.ids for d in pve.pci.value or ()}
    return any(same_device(device, a) and ids == gpu.device for device in devices for a, ids in known.items())


def card_entry(subject: Subject, config: VmConfig) -> HostPci | None:
    """The VM's entry for the chain's GPU. Entries that all fit (one mapping, several cards) go in declared order."""
    fitting = [entry for entry in config.hostpci if names_card(subject, entry)]
    gpu = subject.chain.gpu
    rivals = [g for g in subject.vm.gpus if g == gpu.name or not _told_apart(subject, g)]
    place = rivals.index(gpu.name) if gpu.name in rivals else 0
    return fitting[place] if place < len(fitting) else None


def _told_apart(subject: Subject, other: str) -> bool:
    """Whether another GPU of the VM has an address of its own, so that raw entries tell the two apart."""
    by_mapping = subject.vm.mapping is not None
    return not by_mapping and subject.lab.gpu(other).address is not None and subject.chain.gpu.address is not None


def is_running(subject: Subject) -> bool:
    """Whether PVE says the VM runs."""
    return need(vm_facts(subject).status, f"status of {subject.vm.name}").status == "running"


def mapping_rights(pve: PveFacts) -> bool | None:
    """Whether the account may see mappings at all; None when its permissions were not read."""
    if pve.permissions.state is not State.VALUE:
        return None
    wanted = {"Mapping.Audit", "Mapping.Use", "Mapping.Modify"}
    granted = pve.permissions.value or {}
    return any(wanted & set(held) for path, held in granted.items() if path == "/" or path.startswith("/mapping"))
