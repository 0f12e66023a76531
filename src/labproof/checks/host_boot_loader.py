"""Which boot loader started this host, and which kernel arguments its configuration holds.

The running kernel's own command line is the best witness: GRUB always passes `BOOT_IMAGE=`, systemd-boot an `initrd=`
with backslashes. Only then firmware's words. Source: pve-docs system-booting.adoc; GRUB's loader/i386/linux.c.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from labproof.facts.host import HostFacts, TextFile
from labproof.facts.reading import State, need

GRUB_FILE = "/etc/default/grub"
SYSTEMD_BOOT_FILE = "/etc/kernel/cmdline"


@dataclass(frozen=True)
class BootConfiguration:
    """The boot loader and both candidate files.

    Attributes:
        loader: `grub`, `systemd-boot` or `unknown`.
        why: what told it.
        active: tokens of the file that the loader reads; `inactive` those of the other one.
        active_file: its path, empty when it is not there.
        active_mtime: Unix seconds, None unread.
    """

    loader: str
    why: str
    active: tuple[str, ...]
    inactive: tuple[str, ...]
    active_file: str
    inactive_file: str
    active_mtime: float | None


def boot_configuration(host: HostFacts) -> BootConfiguration:
    """Read the boot loader's configuration out of the facts; raises Unjudged when the files could not be read."""
    files = {file.path: file for file in need(host.boot_files, "boot loader files")}
    grub = grub_tokens([f for path, f in sorted(files.items()) if path.startswith(GRUB_FILE)])
    kernel_cmdline = files.get(SYSTEMD_BOOT_FILE)
    plain = tuple(kernel_cmdline.lines[0].split()) if kernel_cmdline and kernel_cmdline.lines else ()
    loader, why = _loader(host, files)
    grub_mtimes = [f.mtime for path, f in files.items() if path.startswith(GRUB_FILE) and f.mtime is not None]
    grub_side = (grub, GRUB_FILE if GRUB_FILE in files else "", max(grub_mtimes, default=None))
    plain_side = (
        plain,
        SYSTEMD_BOOT_FILE if kernel_cmdline else "",
        kernel_cmdline.mtime if kernel_cmdline else None,
    )
    active, other = (plain_side, grub_side) if loader == "systemd-boot" else (grub_side, plain_side)
    return BootConfiguration(loader, why, active[0], other[0], active[1], other[1], active[2])


def _loader(host: HostFacts, files: dict[str, TextFile]) -> tuple[str, str]:
    cmdline = host.cmdline.value or ()
    if any(token.startswith("BOOT_IMAGE=") for token in cmdline):
        return "grub", "BOOT_IMAGE= in /proc/cmdline"
    if any(token.startswith("initrd=\\") for token in cmdline):
        return "systemd-boot", "initrd=\\... in /proc/cmdline"
    evidence = host.boot_evidence.value or {}
    loader = evidence.get("loader", "") + evidence.get("boot_entry", "")
    if "systemd-boot" in loader:
        return "systemd-boot", "firmware booted systemd-boot"
    if "grub" in loader.lower() or "shim" in loader.lower():
        return "grub", "firmware booted GRUB"
    if evidence.get("efi") == "no":
        return ("grub", "legacy BIOS") if GRUB_FILE in files else ("unknown", "legacy BIOS, no /etc/default/grub")
    if SYSTEMD_BOOT_FILE in files and "/etc/kernel/proxmox-boot-uuids" in files:
        return "systemd-boot", "UEFI with ESPs managed by proxmox-boot-tool"
    if GRUB_FILE in files:
        return "grub", f"{GRUB_FILE} is there"
    if SYSTEMD_BOOT_FILE in files:
        return "systemd-boot", f"{SYSTEMD_BOOT_FILE} is there"
    return "unknown", "no boot loader file was found"


def grub_tokens(files: list[TextFile]) -> tuple[str, ...]:
    """Kernel arguments GRUB's files make: GRUB_CMDLINE_LINUX, then GRUB_CMDLINE_LINUX_DEFAULT; later files win."""
    settings: dict[str, str] = {}
    for file in files:
        for line in file.lines:
            match = re.match(r"\s*(?:export\s+)?(GRUB_CMDLINE_LINUX(?:_DEFAULT)?)(\+?)=(.*)$", line)
            if match is None:
                continue
            key, append, raw = match.groups()
            known = dict(settings)
            text = re.sub(r"\$\{?(\w+)\}?", lambda m: known.get(m[1], ""), _unquoted(raw))  # noqa: B023 - used at once
            settings[key] = settings.get(key, "") + text if append else text
    joined = f"{settings.get('GRUB_CMDLINE_LINUX', '')} {settings.get('GRUB_CMDLINE_LINUX_DEFAULT', '')}"
    return tuple(joined.split())


def _unquoted(raw: str) -> str:
    try:
        return " ".join(shlex.split(raw, comments=True))
    except ValueError:  # an open quote: what is there is still what the shell would complain about
        return raw.strip("\"'")


def switched_off(tokens: tuple[str, ...], vendor: str) -> str | None:
    """The token that turns the IOMMU off, None when none does.

    Args:
        vendor: `GenuineIntel` or `AuthenticAMD`; the other vendor's switch has no effect.

    `iommu=off` cannot be taken back; of `intel_iommu=on` and `=off` the last one counts
    (kernel drivers/iommu/intel/iommu.c, arch/x86/kernel/pci-dma.c).
    """
    off: str | None = None
    for token in tokens:
        key, _, text = token.partition("=")
        words = text.split(",")
        if key == "iommu" and "off" in words:
            return token
        if (key == "intel_iommu" and vendor != "AuthenticAMD") or (key == "amd_iommu" and vendor != "GenuineIntel"):
            if "off" in words:
                off = token
            elif "on" in words:
                off = None
    return off


def intel_iommu_default_on(host: HostFacts) -> bool:
    """Whether this kernel starts VT-d without being told.

    Decided by the kernel's own configuration where it can be read; else by its version: Proxmox kernels from 6.8 on
    (facts proxmox 1.1).
    """
    if host.kernel_config.state is State.VALUE and host.kernel_config.value:
        settings = host.kernel_config.value
        return "y" in (
            settings.get("CONFIG_INTEL_IOMMU_DEFAULT_ON"),
            settings.get("CONFIG_INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF"),
        )
    numbers = [int(n) for n in re.findall(r"\d+", host.kernel.value or "")[:2]]
    return numbers >= [6, 8]


def satisfied(token: str, tokens: tuple[str, ...]) -> bool:
    """Whether a wanted token is among the tokens, `intel_iommu=on` also by `intel_iommu=on,sm_on`."""
    if token in tokens:
        return True
    key, equals, words = token.partition("=")
    if not equals:
        return False
    present = {word for t in tokens if t.startswith(f"{key}=") for word in t.removeprefix(f"{key}=").split(",")}
    return set(words.split(",")) <= present
