"""Pieces from which host faults are put together."""

from __future__ import annotations

from dataclasses import replace

from labproof.facts.host import IommuGroup, KernelLog, PciDevice, TextFile
from labproof.facts.reading import absent
from selftests.host.world import BOOT, CARD, HOST, LIVE, T4, lab

OFF = {"iommus": (), "iommu_groups": (), "pci": (replace(CARD, iommu_group=None, driver=None),)}
OLD = {"kernel": "6.5.13-6-pve", "kernel_config": absent("/boot/config")}
GRUB = "/etc/default/grub"
PLAIN = "/etc/kernel/cmdline"


def grub(text: str, mtime: float = BOOT - 9) -> TextFile:
    return TextFile(GRUB, (f'GRUB_CMDLINE_LINUX_DEFAULT="{text}"',), mtime)


def shares(*others: PciDevice) -> dict:
    """The card's group with other members."""
    members = tuple(d.address for d in others)
    return {"iommu_groups": (IommuGroup(45, (T4, *members)),), "pci": (*others, CARD)}


def log(*lines: str, complete: bool = True) -> KernelLog:
    return KernelLog(lines, complete)


REMAP = HOST.kernel_log.value.lines
IGPU = replace(CARD, address="0000:00:02.0", ids="8086:9a49", pci_class="030000", iommu_group=None, boot_vga=True)
IGPU_LAB = lab(gpu={"device": "8086:9a49", "address": "0000:00:02.0"})
VF_LAB = lab(gpu={"device": "8086:9a49", "address": "0000:00:02.1"})
VF = replace(CARD, physfn="0000:3b:00.1", config_head=None)
AUDIO = replace(CARD, address="0000:3b:00.1", ids="10de:10f8", pci_class="040300", driver="snd_hda_intel")
USB = replace(CARD, address="0000:3b:00.2", ids="10de:1ad8", pci_class="0c0330", driver="xhci_hcd")
FUNCTIONS = lab(gpu={"functions": ["10de:10f8", "10de:1ad8"]})
LATE = {"cmdline": LIVE[:-1], "boot_files": (grub("quiet"),)}
WANTED = lab(host={"kernel": {"wanted": ["iommu=pt"]}})
