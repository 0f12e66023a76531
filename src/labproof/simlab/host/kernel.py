"""What a kernel version brings: IOMMU defaults, drivers by device, modules and what they need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: module -> name of the PCI driver it registers, where they differ (facts proxmox 1.5).
DRIVER_OF_MODULE = {
    "vfio_pci": "vfio-pci", "xhci_pci": "xhci_hcd", "i2c_nvidia_gpu": "nvidia-gpu", "i2c_i801": "i801_smbus",
}  # fmt: skip

#: vendor:device, vendor/class prefix or class prefix -> modules whose alias matches, in the order udev would load them.
_ALIASES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("10de", "0x0300", ("nouveau", "nvidiafb")),
    ("10de", "0x0302", ("nouveau",)),
    ("10de", "0x0c80", ("i2c_nvidia_gpu",)),
    ("1002", "0x03", ("amdgpu",)),
    ("8086", "0x03", ("i915",)),
    ("1a03", "0x0300", ("ast",)),
    ("8086", "0x0c05", ("i2c_i801",)),
    ("8086", "0x0601", ("lpc_ich",)),
    ("", "0x0403", ("snd_hda_intel",)),
    ("", "0x0c0330", ("xhci_pci",)),
    ("", "0x0106", ("ahci",)),
    ("", "0x0108", ("nvme",)),
)
_BY_ID = {"8086:1563": ("ixgbe",), "8086:1533": ("igb",), "8086:1521": ("igb",), "8086:2021": ("ioatdma",)}

#: Modules a module needs; loading one loads these first.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "vfio_pci": ("vfio_pci_core", "vfio_iommu_type1"), "vfio_pci_core": ("vfio", "irqbypass"),
    "vfio_iommu_type1": ("vfio",),
    "kvm_intel": ("kvm",), "kvm_amd": ("kvm",), "kvm": ("irqbypass",), "nouveau": ("drm_ttm_helper", "video"),
    "drm_ttm_helper": ("ttm", "drm_kms_helper"), "ast": ("drm_shmem_helper", "i2c_algo_bit"), "nvidia_uvm": ("nvidia",),
    "nvidia_modeset": ("nvidia",), "nvidia_drm": ("nvidia_modeset",), "xhci_pci": ("xhci_hcd",), "ixgbe": ("mdio",),
}  # fmt: skip

#: module -> size as /proc/modules prints it (facts real-host, kernel 6.12; others plausible).
SIZES = {"vfio_pci": 16384, "vfio_pci_core": 94208, "vfio_iommu_type1": 45056, "vfio": 61440, "irqbypass": 12288,
         "nouveau": 2433024, "nvidia": 60710912, "kvm": 1404928, "kvm_intel": 487424}  # fmt: skip


def version_key(version: str) -> tuple[int, ...]:
    """`6.8.12-9-pve` -> (6, 8, 12, 9)."""
    return tuple(int(n) for n in re.findall(r"\d+", version.split("-pve", maxsplit=1)[0].split("-bpo", maxsplit=1)[0]))


def intel_iommu_by_default(version: str) -> bool:
    """Whether the kernel starts the Intel IOMMU without a token."""
    return intel_iommu_default(version) != "OFF"


def intel_iommu_default(version: str) -> str:
    """End of the CONFIG_INTEL_IOMMU_DEFAULT_* that is set: PVE kernels from 6.8 on ON (facts proxmox 1.1), Debian's own
    at all times on but for integrated graphics (facts real-host, pitfall 3)."""
    if version.endswith("-amd64"):
        return "ON_INTGPU_OFF"
    return "ON" if version_key(version)[:2] >= (6, 8) else "OFF"


def loses_acs(version: str) -> bool:
    """Builds that enable ACS too late, so that groups merge (facts proxmox P11; lower bound not verified there)."""
    key = version_key(version)
    return key[:3] == (6, 8, 12) and len(key) > 3 and 25 <= key[3] <= 29


#: Integrated graphics of Skylake, Kaby Lake and Comet Lake (device id prefixes) that Ubuntu's patch took off the IOMMU.
_PATCHED_IGPUS = ("8086:19", "8086:59", "8086:9bc")


def igpu_without_iommu(version: str, device: Mapping[str, Any], address: str) -> bool:
    """Whether this build leaves the iGPU untranslated, so that it gets no group (facts proxmox P12)."""
    key = version_key(version)
    hit = (key[:3] == (6, 8, 12) and key[3:4] <= (4,)) or (key[:3] == (6, 11, 0) and key[3:4] <= (1,))
    return hit and address == "0000:00:02.0" and str(device["id"]).startswith(_PATCHED_IGPUS)


def has_acs_override(version: str) -> bool:
    """The patch is in Proxmox's kernels, not in Debian's: there the token changes nothing (captures/host/guest)."""
    return not version.endswith("-amd64")


def has_virqfd_module(version: str) -> bool:
    """vfio_virqfd is a module of its own below 6.2 only (facts proxmox 0.1)."""
    return version_key(version)[:2] < (6, 2)


def modules_for(device: Mapping[str, Any], extra: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Modules whose alias matches the device, in the order they would be tried."""
    vendor = str(device["id"]).split(":", maxsplit=1)[0]
    pci_class = str(device["class"])
    out_of_tree = tuple(
        name for name, module in extra.items()
        if {vendor, str(device["id"])} & set(module.get("drives", ())) and pci_class.startswith("0x03")
    )  # fmt: skip
    if device["id"] in _BY_ID:
        return out_of_tree + _BY_ID[str(device["id"])]
    for wanted_vendor, prefix, modules in _ALIASES:
        if wanted_vendor in ("", vendor) and pci_class.startswith(prefix):
            return out_of_tree + modules
    return out_of_tree


def driver_of(module: str) -> str:
    """Name of the PCI driver that a module registers."""
    return DRIVER_OF_MODULE.get(module, module)


def is_pci_driver(module: str) -> bool:
    """Whether the module registers a PCI driver, which then has a folder in sysfs whether it holds a device or not."""
    by_alias = {name for _, _, modules in _ALIASES for name in modules} | {m for ms in _BY_ID.values() for m in ms}
    return module in by_alias


def closure(modules: Iterable[str]) -> list[str]:
    """The modules with everything they need, needed ones first."""
    ordered: list[str] = []

    def add(module: str) -> None:
        for needed in NEEDS.get(module, ()):
            add(needed)
        if module not in ordered:
            ordered.append(module)

    for module in modules:
        add(module)
    return ordered
