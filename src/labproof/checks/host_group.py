"""The IOMMU group of the card: who else is in it, and whether the isolation is real."""

from __future__ import annotations

from labproof.checks.host_devices import describe, full_address, group_of, seen, the_card
from labproof.checks.host_iommu import iommu_is_live_on, why_iommu_is_off
from labproof.checks.host_kernels import affected_by
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.facts.host import HostFacts, PciDevice
from labproof.facts.reading import need
from labproof.inventory.models import Gpu


def foreign_members(subject: Subject, card: PciDevice) -> tuple[PciDevice, ...]:
    """Members that are neither this card, nor a bridge, nor passed to the same VM.

    Bridges (0604) are skipped by PVE and VFIO alike. So is a host bridge (0600) without a driver, which many AMD
    boards put beside the slot: it has nothing to lose and does not stop VFIO.
    """
    host = subject.host_facts
    group = group_of(host, card)
    if group is None:
        return ()
    by_address = {d.address: d for d in need(host.pci, "PCI devices")}
    mine = {full_address(g.address).rsplit(".", 1)[0] for g in _cards_of_same_vm(subject) if g.address}
    passed = {q.pid for q in host.qemu.value or () if q.holds(card.address)}
    together = [q for q in host.qemu.value or () if q.pid in passed]
    found = []
    for address in group.devices:
        device = by_address.get(address, PciDevice(address, "?", "?"))
        if device.slot == card.slot or device.slot in mine or device.is_pci_bridge:
            continue
        if device.pci_class.startswith("0600") and device.driver is None:
            continue
        if not any(q.holds(address) for q in together):
            found.append(device)
    return tuple(found)


def _cards_of_same_vm(subject: Subject) -> tuple[Gpu, ...]:
    vm = subject.chain.vm
    return tuple(subject.lab.gpu(name) for name in vm.gpus) if vm is not None else (subject.chain.gpu,)


@clause_check(
    "HOST-GROUP-001",
    title="The GPU is alone in its IOMMU group",
    severity=DEGRADED,
    scope="chain",
    reads=("host",),
    causes=("P01", "P02", "P03", "P04", "P09", "P11", "P12", "P67"),
    after=("HOST-DEVICE-001",),
)
def gpu_is_alone_in_its_group(subject: Subject) -> Judgement:
    """H9: only functions of the same slot and bridges. Without a group the reason for that is the cause."""
    host, card = subject.host_facts, the_card(subject)
    group = group_of(host, card)
    values = (("host", subject.host.name), ("address", card.address))
    if group is None:
        return Fail((_why_no_group(subject, card),))
    where = f"ls /sys/kernel/iommu_groups/{group.number}/devices"
    members = seen(subject, where, " ".join(group.devices))
    foreign = foreign_members(subject, card)
    if not foreign:
        asserted = _acs_override(subject) is not None
        return Pass((members,), "asserted-only" if asserted else None)
    text = "; ".join(describe(d) for d in foreign)
    build = affected_by(host, "P11")
    evidence: tuple[Evidence, ...] = (members, seen(subject, f"lspci -nnk (group {group.number})", text))
    if build is not None:
        evidence = (*evidence, seen(subject, "uname -r", f"{host.kernel.value}: {build.why}"))
    return Fail((Problem("P11" if build else "P09", card.address, evidence, values),))


def _units(host: HostFacts) -> str:
    units: tuple[str, ...] = need(host.iommus, "/sys/class/iommu")
    return " ".join(units)


def _why_no_group(subject: Subject, card: PciDevice) -> Problem:
    host = subject.host_facts
    if not iommu_is_live_on(host):
        return why_iommu_is_off(subject)
    values = (("host", subject.host.name), ("address", card.address))
    missing = seen(subject, f"readlink /sys/bus/pci/devices/{card.address}/iommu_group", "not there")
    units = seen(subject, "ls /sys/class/iommu", _units(host))
    if card.address == "0000:00:02.0" and card.ids.startswith("8086:"):
        line = " ".join(host.cmdline.value or ())
        kernel = seen(subject, "uname -r; cat /proc/cmdline", f"{host.kernel.value}; {line}")
        remedy = ""
        if (host.kernel_config.value or {}).get("CONFIG_INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF") == "y":
            remedy = (
                "This kernel leaves the iGPU out by default: add intel_iommu=on to the kernel command line, reboot."
            )
        return Problem("P12", card.address, (missing, units, kernel), values, remedy)
    return Problem("P67", card.address, (missing, units), values)


@clause_check(
    "HOST-GROUP-002",
    title="The group holds nothing the host lives on",
    severity=BLOCKING,
    scope="chain",
    reads=("host",),
    causes=("P09", "P11"),
    after=("HOST-DEVICE-001",),
)
def group_spares_the_host(subject: Subject) -> Judgement:
    """H9 escalated: PVE binds the whole group at VM start, so a NIC or disk in it is torn from the host."""
    host, card = subject.host_facts, the_card(subject)
    values = (("host", subject.host.name), ("address", card.address))
    build = affected_by(host, "P11")
    problems = []
    for device in foreign_members(subject, card):
        used = [f"network interface {name} is up" for name in device.interfaces]
        used += [f"{name} is in use" for name in device.mounted]
        if used:
            shown = seen(subject, f"ls /sys/bus/pci/devices/{device.address}", f"{describe(device)}: {', '.join(used)}")
            problems.append(Problem("P11" if build else "P09", device.address, (shown,), values))
    group = group_of(host, card)
    where = f"ls /sys/kernel/iommu_groups/{group.number}/devices" if group else "ls /sys/kernel/iommu_groups"
    text = " ".join(group.devices) if group else f"{card.address} is in no group"
    return verdict_of(problems, (seen(subject, where, text),))


def _acs_override(subject: Subject) -> str | None:
    tokens = need(subject.host_facts.cmdline, "kernel command line")
    return next((token for token in tokens if token.startswith("pcie_acs_override=")), None)


@clause_check(
    "HOST-GROUP-003",
    title="The isolation is the hardware's, not asserted",
    severity=DEGRADED,
    scope="host",
    reads=("host",),
    causes=("P10",),
)
def isolation_is_real(subject: Subject) -> Judgement:
    """P10: with the ACS override the kernel assumes isolation it cannot prove."""
    token = _acs_override(subject)
    shown = seen(subject, "cat /proc/cmdline", token or "no pcie_acs_override=")
    if token is None:
        return Pass((shown,))
    values = (("host", subject.host.name), *((("address", a),) if (a := _address(subject)) else ()))
    return Fail((Problem("P10", subject.host.name, (shown,), values),))


def _address(subject: Subject) -> str:
    return full_address(subject.chain.gpu.address) if subject.chain.gpu.address else ""


@clause_check(
    "HOST-GROUP-004",
    title="The GPU has an IOMMU group",
    severity=BLOCKING,
    scope="chain",
    reads=("host",),
    causes=("P12", "P67"),
    after=("HOST-DEVICE-001", "HOST-IOMMU-001"),
)
def gpu_has_a_group(subject: Subject) -> Judgement:
    """P12: with a live IOMMU a device without a group is one that the kernel or firmware leaves out."""
    host, card = subject.host_facts, the_card(subject)
    group = group_of(host, card)
    if group is None and iommu_is_live_on(host):
        return Fail((_why_no_group(subject, card),))
    text = f"group {group.number}" if group is not None else "no group, since the IOMMU is not live"
    return Pass((seen(subject, f"readlink /sys/bus/pci/devices/{card.address}/iommu_group", text),))


@clause_check(
    "HOST-RMRR-001",
    title="Firmware reserves no memory for the GPU",
    severity=BLOCKING,
    scope="chain",
    reads=("host",),
    causes=("P08",),
    after=("HOST-DEVICE-001",),
)
def no_reserved_memory(subject: Subject) -> Judgement:
    """H10: no `direct` region; `direct-relaxable` and `msi` stop no attach (sysfs-kernel-iommu_groups)."""
    host, card = subject.host_facts, the_card(subject)
    group = group_of(host, card)
    if group is None:
        return Pass((seen(subject, "ls /sys/kernel/iommu_groups", f"{card.address} is in no group"),))
    where = f"cat /sys/kernel/iommu_groups/{group.number}/reserved_regions"
    direct = [" ".join(region) for region in group.reserved if region[2] == "direct"]
    if direct:
        values = (("host", subject.host.name), ("address", card.address))
        return Fail((Problem("P08", card.address, (seen(subject, where, "; ".join(direct)),), values),))
    return Pass((seen(subject, where, "; ".join(" ".join(r) for r in group.reserved) or "empty"),))
