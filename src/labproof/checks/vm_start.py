"""The VM runs, its last start ended well, and the running QEMU really holds the card."""

from __future__ import annotations

import re

from labproof.checks.host_devices import the_card
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked
from labproof.checks.registry import BLOCKING, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.checks.vm_devices import config_path, hostpci_text, is_running, names_of, vm_config, vm_facts, vm_label
from labproof.facts.reading import State, need
from labproof.facts.vm import StartTask

#: Texts of a failed start, the most telling first (facts proxmox 2.6 and section 5; qemu-server, pve-common).
START_TEXTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(text, re.IGNORECASE), cause)
    for text, cause in (
        (r"IOMMU not present", "P02"),
        (r"Cannot find vfio-pci module", "P26"),
        (r"q35 machine model is not enabled", "P21"),
        (r"already in use by VMID|currently reserved for use by VMID|could not find a free device for", "P31"),
        (r"PCI device mapping not found for", "P35"),
        (r"PCI device mapping invalid|hardware probably changed", "P34"),
        (r"no PCI device found for", "P16"),
        (r"legacy IGD assignment", "P43"),
        (r"is ineligible for IOMMU domain attach|platform RMRR requirement", "P08"),
        (r"error getting device (from group|info).*(Permission denied|Input/output error)", "P13"),
        (r"failed to set iommu for container|No interrupt remapping support", "P06"),
        (r"group \d+ is not viable", "P09"),
        (r"stuck in D3|Unable to power on device|not ready \d+ms after|device inaccessible", "P18"),
        (r"hugepage allocation failed|doesn't support hugepages|to use hugepages", "P38"),
        (r"Cannot allocate memory|-12 \(Cannot allocate|Out of memory", "P37"),
        (r"VM is locked", "P46"),
        (r"Cannot bind .* to vfio|can't unbind/bind PCI group", "P57"),
        (r"got timeout", "P36"),
    )
)
START_CAUSES = tuple(sorted({cause for _, cause in START_TEXTS} | {"P65"}))
NO_RESET = re.compile(r"failed to reset PCI device")


def start_cause(task: StartTask) -> tuple[str, str] | None:
    """Cause of a failed start and the line that says so; the log is more telling than the exit status."""
    lines = (*task.log, task.exit_status)
    for pattern, cause in START_TEXTS:
        line = next((text for text in lines if pattern.search(text)), None)
        if line is not None:
            return cause, line.strip()
    return None


def ended_well(task: StartTask) -> bool:
    """`WARNINGS: n` is a start that worked; a running task is none that failed."""
    return task.exit_status in ("OK", "running") or task.exit_status.startswith("WARNINGS")


@clause_check(
    "VM-START-001",
    title="The VM runs",
    severity=BLOCKING,
    scope="chain",
    reads=("vm",),
    causes=START_CAUSES,
    after=("VM-EXISTS-001",),
)
def vm_runs(subject: Subject) -> Judgement:
    """V9: running, or off as declared; when not, what the last start's log says is the cause."""
    vm, label, values = vm_facts(subject), vm_label(subject), names_of(subject)
    status = need(vm.status, f"status of {subject.vm.name}")
    state = Evidence(config_path(subject, "status/current"), status.status)
    task = vm.start_task.value
    if status.status == "running" or subject.vm.state != "always":
        tail = (Evidence(vm.start_task.source, task.exit_status),) if task is not None else ()
        return Pass((state, *tail))
    if task is not None and task.exit_status == "running":
        return Unchecked(f"{label} is being started right now ({task.upid})", vm.start_task)
    if task is not None and not ended_well(task):
        found = start_cause(task)
        if found is not None:
            cause, line = found
            return Fail((Problem(cause, label, (state, Evidence(vm.start_task.source, line)), values),))
        said = Evidence(vm.start_task.source, " / ".join((*task.log[-5:], task.exit_status)))
        return Fail((Problem("P65", label, (state, said), values, "The start failed; its log is the evidence."),))
    if status.lock:
        lock = Evidence(config_path(subject, "status/current"), f"lock: {status.lock}")
        return Fail((Problem("P46", label, (state, lock), values),))
    if vm.start_task.state is State.FAILED:
        return Unchecked(f"{label} is {status.status}, and its last start: {vm.start_task.why}", vm.start_task)
    last = task.exit_status if task is not None else "no start on record"
    return Fail((Problem("P65", label, (state, Evidence(vm.start_task.source, f"last start: {last}")), values),))


@clause_check(
    "VM-START-002",
    title="The last start reset the card",
    severity=HYGIENE,
    scope="chain",
    reads=("vm",),
    causes=("P19",),
    after=("VM-EXISTS-001",),
)
def last_start_reset_the_card(subject: Subject) -> Judgement:
    """P19: PVE warns and goes on; usually benign, worth knowing when a second start fails."""
    reading = vm_facts(subject).start_task
    if reading.state is State.ABSENT:
        return Pass((Evidence(reading.source, reading.why),))
    task = need(reading, "last start")
    line = next((text for text in task.log if NO_RESET.search(text)), None)
    if line is not None:
        evidence = Evidence(reading.source, f"{task.exit_status}: {line.strip()}")
        return Fail((Problem("P19", vm_label(subject), (evidence,), names_of(subject)),))
    return Pass((Evidence(reading.source, task.exit_status),))


@clause_check(
    "VM-HOLDS-001",
    title="The running QEMU holds the GPU",
    severity=BLOCKING,
    scope="chain",
    reads=("host", "vm"),
    causes=("P31", "P32"),
    after=("VM-HOSTPCI-001", "VM-START-001"),
)
def qemu_holds_the_gpu(subject: Subject) -> Judgement:
    """V8: three witnesses beside the configuration: QEMU's arguments, its open files, PVE's reservation."""
    host, card, label = subject.host_facts, the_card(subject), vm_label(subject)
    values = names_of(subject)
    if not is_running(subject):
        return Pass((Evidence(config_path(subject, "status/current"), "off as declared"),))
    vmid = need(vm_facts(subject).vmid)
    processes = need(host.qemu, "QEMU processes")
    mine = next((q for q in processes if q.vmid == vmid), None)
    if mine is None:
        return Unchecked(
            f"PVE says that {label} runs, but the host shows no such QEMU: read at different moments?", host.qemu
        )
    arguments = Evidence(f"/proc/{mine.pid}/cmdline", "; ".join(mine.vfio_args) or "no vfio-pci device")
    if not mine.holds(card.address):
        configured = Evidence(config_path(subject), hostpci_text(vm_config(subject)))
        thief = next((q for q in processes if q.holds(card.address)), None)
        if thief is not None:
            held = Evidence(f"/proc/{thief.pid}/cmdline", f"VM {thief.vmid} has {card.address}")
            return Fail((Problem("P31", label, (arguments, held), values),))
        return Fail((Problem("P32", label, (arguments, configured), values),), qualifier="pending-restart")
    evidence = [arguments]
    files = Evidence(f"ls -l /proc/{mine.pid}/fd", " ".join(mine.vfio_files) or "no file below /dev/vfio")
    if host.uid.value == 0:
        evidence.append(files)
        if not _has_group_open(mine.vfio_files, card.iommu_group):
            return Fail((Problem("P32", label, (arguments, files), values),))
    reserved = next((r for r in host.reservations.value or () if r.address == card.address), None)
    if reserved is not None:
        source = host.reservations.source
        line = Evidence(f"cat {source}", f"{reserved.address} {reserved.vmid} pid:{reserved.pid}")
        evidence.append(line)
        if reserved.vmid != vmid and any(q.pid == reserved.pid for q in processes):
            return Fail((Problem("P31", label, (arguments, line), values),))
    return Pass(tuple(evidence))


def _has_group_open(files: tuple[str, ...], group: int | None) -> bool:
    """The group's file, or the device file that newer QEMU opens through iommufd (its name has no group number)."""
    return f"/dev/vfio/{group}" in files or any(f.startswith("/dev/vfio/devices/") for f in files)
