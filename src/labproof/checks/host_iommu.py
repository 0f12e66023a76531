"""The IOMMU: offered by firmware, live in the kernel, remapping interrupts.

Judged by sysfs. The line `DMAR: IOMMU enabled` proves nothing: it is printed when the argument is parsed, also with
VT-d off in firmware, and is missing on healthy hosts where the IOMMU is on by default (facts proxmox 0.2, 1.3).
"""

from __future__ import annotations

import re

from labproof.checks.host_boot_loader import (
    boot_configuration,
    intel_iommu_default_on,
    satisfied,
    switched_off,
)
from labproof.checks.host_devices import seen
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked
from labproof.checks.registry import BLOCKING, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.facts.host import HostFacts
from labproof.facts.reading import State, need

TABLES = ("DMAR", "IVRS")
REMAPPED = re.compile(r"Enabled IRQ remapping|Interrupt remapping enabled")
REFUSED = re.compile(r"No interrupt remapping support")
UNSAFE = "vfio_iommu_type1/allow_unsafe_interrupts"


def firmware_table(host: HostFacts) -> str | None:
    """The ACPI table that describes the IOMMU, None when firmware publishes none."""
    if host.firmware_tables.state is State.ABSENT:
        return None
    tables = need(host.firmware_tables, "ACPI tables")
    return next((name for name in TABLES if name in tables), None)


def iommu_is_live_on(host: HostFacts) -> bool:
    """PVE's own gate (/sys/class/iommu, pve-common check_iommu_support), and devices really in groups."""
    if host.iommus.state is State.ABSENT or host.iommu_groups.state is State.ABSENT:
        return False
    groups = need(host.iommu_groups, "IOMMU groups")
    return bool(need(host.iommus, "/sys/class/iommu")) and any(group.devices for group in groups)


def why_iommu_is_off(subject: Subject) -> Problem:
    """The one cause that explains an IOMMU that is not live; firmware first, then the command line's history."""
    host, name = subject.host_facts, subject.host.name
    table = firmware_table(host)
    nothing = seen(subject, "ls /sys/class/iommu", " ".join(host.iommus.value or ()) or "empty")
    values = (("host", name),)
    if table is None:
        shown = " ".join(host.firmware_tables.value or ()) or "no ACPI tables"
        tables = seen(subject, "ls /sys/firmware/acpi/tables", f"neither DMAR nor IVRS ({shown})")
        return Problem("P02", name, (tables, nothing), values)
    vendor = "GenuineIntel" if table == "DMAR" else "AuthenticAMD"
    live = need(host.cmdline, "kernel command line")
    boot = boot_configuration(host)
    line = seen(subject, "cat /proc/cmdline", " ".join(live))
    off = switched_off(live, vendor)
    if off is not None:
        if boot.active_file and switched_off(boot.active, vendor) is None:
            gone = seen(subject, f"cat {boot.active_file}", f"no {off} any more: {' '.join(boot.active)}")
            return Problem("P04", name, (nothing, line, gone), values)
        return Problem(
            "P01", name, (nothing, seen(subject, "cat /proc/cmdline", f"{off} in: {' '.join(live)}")), values
        )
    wanted = "intel_iommu=on"
    if vendor == "GenuineIntel" and not intel_iommu_default_on(host) and not satisfied(wanted, live):
        if satisfied(wanted, boot.active):
            text = f"{' '.join(boot.active)} ({boot.loader}: {boot.why}); {_since_boot(host, boot.active_mtime)}"
            return Problem("P04", name, (nothing, line, seen(subject, f"cat {boot.active_file}", text)), values)
        if satisfied(wanted, boot.inactive):
            text = f"{' '.join(boot.inactive)}; the host boots by {boot.loader} ({boot.why})"
            return Problem("P03", name, (nothing, line, seen(subject, f"cat {boot.inactive_file}", text)), values)
    kernel = seen(subject, "uname -r", host.kernel.value or "?")
    return Problem("P01", name, (nothing, line, kernel, seen(subject, "ACPI", f"table {table} is there")), values)


def reboot_pending(host: HostFacts, problem: Problem) -> bool:
    """Whether the arguments only wait for a reboot: the boot loader's file is right, and younger than the boot."""
    if problem.cause != "P04" or host.boot_time.value is None:
        return False
    mtime = boot_configuration(host).active_mtime
    return mtime is not None and mtime > host.boot_time.value


def _since_boot(host: HostFacts, mtime: float | None) -> str:
    """Whether the file was changed after the boot (a reboot is due) or before it (the refresh was forgotten)."""
    if mtime is None or host.boot_time.value is None:
        return "changed at an unknown time"
    if mtime > host.boot_time.value:
        return "changed after the last boot: refresh the boot loader and reboot"
    return "older than the last boot: the boot loader was not refreshed"


@clause_check(
    "HOST-FIRMWARE-001",
    title="Firmware offers an IOMMU",
    severity=BLOCKING,
    scope="host",
    reads=("host",),
    causes=("P02",),
)
def firmware_offers_iommu(subject: Subject) -> Judgement:
    """H3: the DMAR (Intel) or IVRS (AMD) table is published."""
    table = firmware_table(subject.host_facts)
    if table is None:
        return Fail((why_iommu_is_off(subject),))
    return Pass((seen(subject, "ls /sys/firmware/acpi/tables", table),))


@clause_check(
    "HOST-IOMMU-001",
    title="The IOMMU is live",
    severity=BLOCKING,
    scope="host",
    reads=("host",),
    causes=("P01", "P02", "P03", "P04"),
)
def iommu_is_live(subject: Subject) -> Judgement:
    """H4: /sys/class/iommu and the groups are not empty."""
    host = subject.host_facts
    if not iommu_is_live_on(host):
        problem = why_iommu_is_off(subject)
        return Fail((problem,), qualifier="pending-reboot" if reboot_pending(host, problem) else None)
    groups = need(host.iommu_groups)
    names: tuple[str, ...] = need(host.iommus, "/sys/class/iommu")
    units = " ".join(names)
    members = sum(len(group.devices) for group in groups)
    return Pass(
        (
            seen(subject, "ls /sys/class/iommu", units),
            seen(subject, "ls /sys/kernel/iommu_groups", f"{len(groups)} groups with {members} devices"),
        )
    )


def remapping(subject: Subject) -> Evidence | None:
    """What proves that interrupts are remapped, None when nothing does. Two witnesses; either is enough."""
    host = subject.host_facts
    if host.remapped_interrupts.value:
        return seen(subject, host.remapped_interrupts.source, f"{host.remapped_interrupts.value} interrupts remapped")
    log = host.kernel_log.value
    line = next((text for text in (log.lines if log else ()) if REMAPPED.search(text)), None)
    return seen(subject, host.kernel_log.source, line) if line else None


@clause_check(
    "HOST-IRQ-001",
    title="Interrupts are remapped",
    severity=BLOCKING,
    scope="host",
    reads=("host",),
    causes=("P01", "P02", "P06"),
)
def interrupts_are_remapped(subject: Subject) -> Judgement:
    """H5: a remapped chip in /proc/interrupts or the kernel's line; else only the owner's own override lets VFIO on."""
    host = subject.host_facts
    proof = remapping(subject)
    if proof is not None:
        return Pass((proof,))
    if not iommu_is_live_on(host):
        # AMD-Vi switched off takes remapping with it; VT-d's remapping does not depend on intel_iommu=
        off = why_iommu_is_off(subject)
        if off.cause in ("P01", "P02"):
            return Fail((off,))
    parameters = host.module_parameters.value or {}
    unsafe = parameters.get(UNSAFE)
    override = seen(subject, f"cat /sys/module/{UNSAFE.replace('/', '/parameters/')}", unsafe or "module not loaded")
    if unsafe == "Y":
        return Pass((override,), qualifier="asserted-only")
    values = (("host", subject.host.name),)
    log = need(host.kernel_log, "kernel log")
    warning = next((line for line in log.lines if REFUSED.search(line)), None)
    if warning is not None:
        return Fail(
            (
                Problem(
                    "P06",
                    subject.host.name,
                    (seen(subject, host.kernel_log.source, warning), override),
                    values,
                ),
            )
        )
    if log.complete:
        text = "no line says that interrupt remapping is enabled, and the log reaches back to the boot"
        return Fail(
            (Problem("P06", subject.host.name, (seen(subject, host.kernel_log.source, text), override), values),)
        )
    attached = next((q for q in host.qemu.value or () if q.vfio_files), None)
    if attached is not None and unsafe == "N":
        held = f"pid {attached.pid} holds {' '.join(attached.vfio_files)} with unsafe interrupts refused"
        return Pass((seen(subject, "ls -l /proc/PID/fd", held),))
    return Unchecked("the kernel log does not reach back to the boot and nothing else tells", host.kernel_log)


@clause_check(
    "HOST-IRQ-002",
    title="Unsafe interrupts are not allowed without need",
    severity=HYGIENE,
    scope="host",
    reads=("host",),
    causes=("P07",),
)
def unsafe_interrupts_are_off(subject: Subject) -> Judgement:
    """P07: the override is on although remapping works."""
    host = subject.host_facts
    setting = need(host.module_parameters, "module parameters").get(UNSAFE, "not loaded")
    shown = seen(subject, f"cat /sys/module/{UNSAFE.replace('/', '/parameters/')}", setting)
    proof = remapping(subject)
    if setting == "Y" and proof is not None:
        return Fail((Problem("P07", subject.host.name, (shown, proof), (("host", subject.host.name),)),))
    return Pass((shown,))
