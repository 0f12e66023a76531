"""The kernel command line: what the owner wants, what the boot loader's file says, what the kernel got."""

from __future__ import annotations

from labproof.checks.host_boot_loader import (
    SYSTEMD_BOOT_FILE,
    BootConfiguration,
    boot_configuration,
    intel_iommu_default_on,
    satisfied,
    switched_off,
)
from labproof.checks.host_devices import seen
from labproof.checks.host_iommu import firmware_table, iommu_is_live_on, reboot_pending
from labproof.checks.judgement import Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.registry import DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.facts.reading import need


def wanted_tokens(subject: Subject) -> tuple[str, ...]:
    """Tokens lab.yaml wants; without any, what this CPU and kernel need. An IOMMU that is live needs nothing."""
    if subject.host.kernel.wanted:
        return subject.host.kernel.wanted
    host = subject.host_facts
    if iommu_is_live_on(host) or firmware_table(host) != "DMAR" or intel_iommu_default_on(host):
        return ()
    return ("intel_iommu=on",)


def _missing(subject: Subject, token: str, boot: BootConfiguration, where: str, found: str) -> Problem:
    """Why a wanted token is missing in `where`."""
    name = subject.host.name
    shown = seen(subject, where, f"no {token} in: {found}")
    values = (("host", name),)
    if where == "cat /proc/cmdline" and satisfied(token, boot.active):
        configured = seen(subject, f"cat {boot.active_file}", " ".join(boot.active))
        return Problem("P04", f"{name}: {token}", (shown, configured), values)
    if satisfied(token, boot.inactive):
        text = f"{' '.join(boot.inactive)}; the host boots by {boot.loader} ({boot.why})"
        return Problem("P03", f"{name}: {token}", (shown, seen(subject, f"cat {boot.inactive_file}", text)), values)
    switch = token.startswith("intel_iommu=") and not iommu_is_live_on(subject.host_facts)
    cause = "P01" if switch else "P69"
    return Problem(cause, f"{name}: {token}", (shown,), values, _how_to_add(token, boot) if cause == "P69" else "")


def _how_to_add(token: str, boot: BootConfiguration) -> str:
    if boot.loader == "systemd-boot":
        return f"Add {token} to the one line of {SYSTEMD_BOOT_FILE}, run `proxmox-boot-tool refresh`, reboot."
    return f"Add {token} to GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, run `update-grub`, reboot."


@clause_check(
    "HOST-CMDLINE-001",
    title="The running kernel has the wanted arguments",
    severity=DEGRADED,
    scope="host",
    reads=("host",),
    causes=("P01", "P03", "P04", "P69"),
)
def wanted_arguments_are_live(subject: Subject) -> Judgement:
    """H6, live half: wanted tokens are in /proc/cmdline."""
    host = subject.host_facts
    live = need(host.cmdline, "kernel command line")
    wanted = wanted_tokens(subject)
    missing = [token for token in wanted if not satisfied(token, live)]
    if not missing:
        return Pass((seen(subject, "cat /proc/cmdline", f"{_words(wanted)} in: {' '.join(live)}"),))
    boot = boot_configuration(host)
    problems = tuple(_missing(subject, t, boot, "cat /proc/cmdline", " ".join(live)) for t in missing)
    pending = all(reboot_pending(host, problem) for problem in problems)
    return Fail(problems, qualifier="pending-reboot" if pending else None)


@clause_check(
    "HOST-CMDLINE-002",
    title="The next boot keeps the arguments",
    severity=DEGRADED,
    scope="host",
    reads=("host",),
    causes=("P01", "P03", "P69"),
)
def next_boot_keeps_the_arguments(subject: Subject) -> Judgement:
    """H6, configured half: the file of the boot loader in use has the wanted tokens, and none that switches off."""
    host = subject.host_facts
    boot = boot_configuration(host)
    wanted = wanted_tokens(subject)
    where = f"cat {boot.active_file}" if boot.active_file else "boot loader files"
    text = " ".join(boot.active)
    problems = [_missing(subject, t, boot, where, text) for t in wanted if not satisfied(t, boot.active)]
    vendor = "AuthenticAMD" if firmware_table(host) == "IVRS" else "GenuineIntel"
    off = switched_off(boot.active, vendor)
    if off is not None:
        name = subject.host.name
        problems.append(Problem("P01", f"{name}: {off}", (seen(subject, where, text),), (("host", name),)))
    return verdict_of(problems, (seen(subject, where, f"{_words(wanted)} ({boot.loader}: {boot.why}): {text}"),))


@clause_check(
    "HOST-CMDLINE-003",
    title="/etc/kernel/cmdline is one line with root=",
    severity=DEGRADED,
    scope="host",
    reads=("host",),
    causes=("P05",),
)
def kernel_cmdline_is_well_formed(subject: Subject) -> Judgement:
    """P05: systemd-boot uses the first line only, and it must name the root file system."""
    host = subject.host_facts
    boot = boot_configuration(host)
    file = next((f for f in need(host.boot_files) if f.path == SYSTEMD_BOOT_FILE), None)
    if boot.loader != "systemd-boot" or file is None:
        return Pass((seen(subject, "boot loader", f"{boot.loader} ({boot.why}) does not read {SYSTEMD_BOOT_FILE}"),))
    lines = [line for line in file.lines if line.strip()]
    rooted = bool(lines) and any(token.startswith("root=") for token in lines[0].split())
    shown = seen(subject, f"cat {SYSTEMD_BOOT_FILE}", " / ".join(lines) or "empty")
    if len(lines) == 1 and rooted:
        return Pass((shown,))
    return Fail((Problem("P05", subject.host.name, (shown,), (("host", subject.host.name),)),))


def _words(tokens: tuple[str, ...]) -> str:
    return " ".join(tokens) or "nothing wanted"
