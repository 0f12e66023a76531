"""The VM's machine around the card: chipset, firmware, CPU model, memory behaviour."""

from __future__ import annotations

from labproof.checks.host_devices import the_card
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.checks.vm_devices import card_entry, config_path, names_of, shown, vm_config, vm_label

#: CPU models without 1 GiB pages, with which OVMF caps the guest's addresses (qemu-server commit 980ee163).
NARROW = ("kvm64", "kvm32", "qemu64", "qemu32", "x86-64-v")
GIB = 1024**3


@clause_check(
    "VM-MACHINE-001",
    title="A PCIe entry has the q35 machine",
    severity=BLOCKING,
    scope="chain",
    reads=("vm",),
    causes=("P21",),
    after=("VM-EXISTS-001",),
)
def pcie_has_q35(subject: Subject) -> Judgement:
    """V3: pcie=1 on i440fx (PVE's default machine) does not start."""
    config = vm_config(subject)
    evidence = shown(subject, config, "machine", *(f"hostpci{e.index}" for e in config.hostpci))
    if any(entry.pcie for entry in config.hostpci) and not config.is_q35:
        return Fail((Problem("P21", vm_label(subject), (evidence,), names_of(subject)),))
    return Pass((evidence,))


@clause_check(
    "VM-MACHINE-002",
    title="The VM's settings are the declared ones",
    severity=DEGRADED,
    scope="chain",
    reads=("vm",),
    causes=("P69",),
    after=("VM-EXISTS-001",),
)
def settings_are_as_declared(subject: Subject) -> Judgement:
    """V3: machine, bios, cpu, memory and mapping, each only where lab.yaml declares it."""
    config, vm = vm_config(subject), subject.vm
    entry = card_entry(subject, config)
    machine = "q35" if config.is_q35 else "i440fx"
    wanted: tuple[tuple[str, object, object], ...] = (
        ("machine", vm.machine, machine),
        ("bios", vm.bios, config.bios),
        ("cpu", vm.cpu, config.cpu_type),
        ("memory", vm.memory_mib, config.memory_mib),
        ("mapping", vm.mapping if entry is not None else None, entry.mapping if entry is not None else None),
    )
    problems = []
    for key, declared, found in wanted:
        if declared is not None and declared != found:
            text = f"{key}: {found if found is not None else 'none'}, declared {declared}"
            evidence = Evidence(config_path(subject), text)
            problems.append(Problem("P69", f"{vm_label(subject)} {key}", (evidence,), names_of(subject)))
    return verdict_of(problems, (shown(subject, config, "machine", "bios", "cpu", "memory"),))


@clause_check(
    "VM-CPU-001",
    title="The CPU model leaves OVMF room for the card",
    severity=HYGIENE,
    scope="chain",
    reads=("vm",),
    causes=("P40",),
    after=("VM-EXISTS-001",),
)
def cpu_leaves_room(subject: Subject) -> Judgement:
    """V3, P40: only under OVMF; a note, since small VMs with small BARs work all the same."""
    config = vm_config(subject)
    evidence = shown(subject, config, "bios", "cpu", "memory")
    narrow = config.cpu_type.startswith(NARROW) and "+pdpe1gb" not in config.keys.get("cpu", "")
    if config.bios == "ovmf" and narrow:
        return Fail((Problem("P40", vm_label(subject), (evidence,), names_of(subject)),))
    return Pass((evidence,))


@clause_check(
    "VM-FIRMWARE-001",
    title="The VM's firmware can place the card's memory",
    severity=HYGIENE,
    scope="chain",
    reads=("host", "vm"),
    causes=("P41",),
    after=("VM-EXISTS-001",),
)
def firmware_places_the_memory(subject: Subject) -> Judgement:
    """V3, P41: SeaBIOS places nothing of 4 GiB and more well; smaller cards work, so this is a note."""
    config, card = vm_config(subject), the_card(subject)
    largest = max((bar.size for bar in card.bars), default=0)
    size = Evidence(f"cat /sys/bus/pci/devices/{card.address}/resource", f"largest BAR {largest // 1024**2} MiB")
    evidence = (shown(subject, config, "bios"), size)
    if config.bios == "seabios" and largest >= 4 * GIB:
        return Fail((Problem("P41", vm_label(subject), evidence, names_of(subject)),))
    return Pass(evidence)


@clause_check(
    "VM-BALLOON-001",
    title="Ballooning promises no memory it cannot give",
    severity=HYGIENE,
    scope="chain",
    reads=("vm",),
    causes=("P69",),
    after=("VM-EXISTS-001",),
)
def balloon_is_off(subject: Subject) -> Judgement:
    """V3: QEMU pins all memory for VFIO and inhibits the balloon, so a lower minimum only misleads."""
    config = vm_config(subject)
    evidence = shown(subject, config, "balloon", "memory")
    balloon = config.keys.get("balloon", "0")
    if config.hostpci and balloon.isdigit() and 0 < int(balloon) < (config.memory_mib or 0):
        remedy = f"`qm set {dict(names_of(subject))['vm']} --balloon 0`; it takes effect at the next full start."
        return Fail((Problem("P69", f"{vm_label(subject)} balloon", (evidence,), names_of(subject), remedy),))
    return Pass((evidence,))
