"""Who drives the card now, judged by what the VM is doing.

PVE binds the whole group itself when the VM starts (pve-common SysFSTools.pm), so a host driver on a stopped VM's
card is not always fatal: nouveau lets go, while i915, xe, amdgpu and a used nvidia driver do not, or crash.
"""

from __future__ import annotations

from labproof.checks.host_devices import describe, functions_of, seen, the_card
from labproof.checks.judgement import Evidence, Judgement, Problem, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.facts.host import HostFacts, PciDevice, QemuProcess
from labproof.facts.reading import need

VFIO = "vfio-pci"
#: Drivers that let go when PVE rebinds the group (facts proxmox 1.5, wild section 6).
LETS_GO = frozenset({"nouveau", "snd_hda_intel", "xhci_hcd", "xhci-pci", "nvidia-gpu", "nova_core"})


def holder(host: HostFacts, card: PciDevice) -> QemuProcess | None:
    """The running QEMU that was given the card."""
    return next((q for q in need(host.qemu, "QEMU processes") if q.holds(card.address)), None)


def _source(card: PciDevice) -> str:
    return f"readlink /sys/bus/pci/devices/{card.address}/driver"


def _users(subject: Subject) -> list[Evidence]:
    """Host processes and running containers that use a GPU of this host."""
    host = subject.host_facts
    found = []
    if host.gpu_file_holders.value:
        names = sorted({" ".join(line.split()[:2]) for line in host.gpu_file_holders.value})
        found.append(seen(subject, host.gpu_file_holders.source, ", ".join(names)))
    for use in host.lxc_gpu_use.value or ():
        if use.running:
            found.append(
                seen(subject, f"cat /etc/pve/lxc/{use.ctid}.conf", f"running container {use.ctid}: {use.line}")
            )
    return found


@clause_check(
    "HOST-DRIVER-001",
    title="No host driver keeps the GPU from the VM",
    severity=BLOCKING,
    scope="chain",
    reads=("host",),
    causes=("P30", "P57"),
    after=("HOST-DEVICE-001",),
)
def no_driver_keeps_the_gpu(subject: Subject) -> Judgement:
    """H13: vfio-pci, no driver, or one that PVE can take away; on a plain Linux host nothing takes it away."""
    host, card = subject.host_facts, the_card(subject)
    shown = seen(subject, _source(card), card.driver or "no driver")
    values = (("host", subject.host.name), ("address", card.address), ("device", card.ids))
    rebinds = subject.host.kind == "proxmox"
    if card.driver in (None, VFIO) or (rebinds and card.driver in LETS_GO):
        note = "" if card.driver else "; PVE binds it when the VM starts" if rebinds else ""
        return verdict_of((), (seen(subject, _source(card), f"{card.driver or 'no driver'}{note}"),))
    users = _users(subject)
    if users:
        return verdict_of((Problem("P30", card.address, (shown, *users), values),))
    if card.driver == "nvidia" and rebinds and not subject.host.bind_at_boot and _unused(host):
        return verdict_of((), (shown,))
    return verdict_of((Problem("P57", card.address, (shown,), values),))


def _unused(host: HostFacts) -> bool:
    """Whether nobody has the nvidia devices open; only then PVE's unbind is known not to hang."""
    return host.gpu_file_holders.value == ()


@clause_check(
    "HOST-DRIVER-002",
    title="vfio-pci holds the GPU from boot on",
    severity=DEGRADED,
    scope="chain",
    reads=("host",),
    causes=("P57",),
    after=("HOST-DEVICE-001", "HOST-GROUP-004", "HOST-DRIVER-001"),  # without a group vfio-pci cannot take it
)
def vfio_holds_the_gpu(subject: Subject) -> Judgement:
    """H13 under the policy `bind_at_boot`: a driver that lets go still had the card first."""
    card = the_card(subject)
    shown = seen(subject, _source(card), card.driver or "no driver")
    if card.driver in (None, VFIO) or not subject.host.bind_at_boot:
        return verdict_of((), (shown,))
    values = (("host", subject.host.name), ("address", card.address), ("device", card.ids))
    return verdict_of((Problem("P57", card.address, (shown,), values),))


@clause_check(
    "HOST-DRIVER-003",
    title="No other function of the card is on a host driver",
    severity=HYGIENE,
    scope="chain",
    reads=("host",),
    causes=("P23", "P24"),
    after=("HOST-DEVICE-001", "HOST-GROUP-004"),
)
def other_functions_are_free(subject: Subject) -> Judgement:
    """P23, P24: audio and USB functions; PVE rebinds them at start, other tools call the group not viable."""
    host, card = subject.host_facts, the_card(subject)
    others = [d for d in functions_of(host, card) if d.address != card.address]
    evidence = tuple(seen(subject, _source(d), describe(d)) for d in others)
    if not subject.host.bind_at_boot:
        return verdict_of((), evidence)
    problems = []
    for device in others:
        if device.driver in (None, VFIO) or device.is_pci_bridge:
            continue
        cause = "P23" if device.pci_class.startswith("0403") else "P24"
        values = (("host", subject.host.name), ("address", device.address), ("device", device.ids))
        problems.append(Problem(cause, device.address, (seen(subject, _source(device), describe(device)),), values))
    return verdict_of(problems, evidence or (seen(subject, _source(card), "the card has one function"),))


@clause_check(
    "HOST-DRIVER-004",
    title="vfio-pci took no twin of the GPU",
    severity=DEGRADED,
    scope="chain",
    reads=("host",),
    causes=("P25",),
    after=("HOST-DEVICE-001",),
)
def vfio_took_no_twin(subject: Subject) -> Judgement:
    """P25: `ids=` matches every device of that id; one that is neither declared nor passed to a VM was not meant."""
    host, card = subject.host_facts, the_card(subject)
    twins = [d for d in need(host.pci) if d.ids == card.ids and d.address != card.address and d.driver == VFIO]
    declared = sum(1 for g in subject.lab.gpus if g.host == subject.chain.gpu.host and g.device == card.ids)
    passed = [d for d in twins if holder(host, d) is not None]
    shown = seen(subject, "lspci -nnk", "; ".join(describe(d) for d in twins) or "no twin on vfio-pci")
    # a spare identical GPU on vfio-pci is harmless; the host's console, or a NIC or disk of that id, is a loss
    lost = [d for d in twins if d not in passed and (d.boot_vga or not d.pci_class.startswith(("03", "12")))]
    if lost and len(twins) + 1 > declared:
        values = (("host", subject.host.name), ("address", lost[0].address), ("device", card.ids))
        return verdict_of((Problem("P25", lost[0].address, (shown,), values),))
    return verdict_of((), (shown,))
