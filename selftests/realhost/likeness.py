"""Whether the simulated host is like the real one: their facts compared field by field.

Every field of HostFacts is compared as it is, unless this file says what of it is compared and why not the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from labproof.facts.host import HostFacts, TextFile
from labproof.facts.reading import Reading, State

#: Modules that passing a GPU to a VM is about; a real host loads eighty more.
MODULES = frozenset({
    "vfio", "vfio_pci", "vfio_pci_core", "vfio_iommu_type1", "vfio_virqfd", "nouveau", "nvidia", "nvidia_drm",
    "snd_hda_intel", "xhci_pci", "ahci", "lpc_ich", "i2c_i801",
})  # fmt: skip
#: Drivers of PCI devices that the simulated kernel knows.
DRIVERS = frozenset({"vfio-pci", "nouveau", "nvidia", "snd_hda_intel", "xhci_hcd", "ahci", "pcieport", "virtio-pci",
                     "i801_smbus", "lpc_ich"})  # fmt: skip
#: Lines of the kernel log that checks read or people look for; the rest is hardware of one board.
LOG = re.compile(
    r"Adding to iommu group|DMAR: IOMMU (dis|en)abled|Default domain type|batching disallowed|ACS overrides"
    r"|can't reserve|vfio_pci: add|VFIO - User|unknown chipset|unknown parameter|^Command line|^Kernel command line"
)


def differences(real: HostFacts, simulated: HostFacts) -> dict[str, tuple[Any, Any]]:
    """Fields in which the two are not alike: name -> (real, simulated), as compared."""
    found = {}
    for field in fields(HostFacts):
        if field.name in ("name", "ssh_server"):
            continue
        one, other = (_view(facts, field.name) for facts in (real, simulated))
        if one != other:
            found[field.name] = (one, other)
    return found


def _view(facts: HostFacts, name: str) -> Any:
    reading: Reading[Any] = getattr(facts, name)
    if reading.state is not State.VALUE:
        return reading.state
    return VIEWS[name](facts) if name in VIEWS else reading.value


def _there(facts: HostFacts) -> str:
    return "there"


def _newer(facts: HostFacts, mtime: float | None) -> str:
    """Whether something was changed since the boot: what decides is the order, not the second."""
    booted = facts.boot_time.value
    return "unread" if mtime is None or booted is None else "after boot" if mtime > booted else "before boot"


def _files(facts: HostFacts, files: tuple[TextFile, ...]) -> list[tuple[Any, ...]]:
    return sorted((file.path, file.lines, _newer(facts, file.mtime)) for file in files)


def _stale(facts: HostFacts) -> list[tuple[Any, ...]]:
    """modprobe.d's files, and whether each is younger than the initramfs."""
    image = facts.initramfs.value
    made = image.mtime if image is not None and image.mtime is not None else 0.0
    files = facts.modprobe_files.value or ()
    return [*_files(facts, files), *sorted((f.path, f.mtime is not None and f.mtime > made) for f in files)]


def _listed(facts: HostFacts) -> list[tuple[Any, ...]]:
    """What is listed for loading; Debian's modules-load.d/modules.conf is a link to /etc/modules."""
    files = facts.modules_load_files.value or ()
    return sorted((f.path, f.lines) for f in files if f.lines and not f.path.endswith("/modules.conf"))


def _devices(facts: HostFacts) -> list[Any]:
    """Devices but for the addresses of their BARs, which firmware chooses."""
    return [replace(device, bars=()) for device in facts.pci.value or ()]


def _modprobe(facts: HostFacts) -> list[str]:
    """Lines about modules that matter; kmod and the kernel bring a hundred others."""
    lines = facts.modprobe_config.value or ()
    return sorted(line for line in lines if line.split()[1].replace("-", "_") in MODULES)


def _kernel_config(facts: HostFacts) -> dict[str, str]:
    """Settings that checks read."""
    config = facts.kernel_config.value or {}
    wanted = ("CONFIG_INTEL_IOMMU", "CONFIG_INTEL_IOMMU_DEFAULT_ON", "CONFIG_INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF",
              "CONFIG_AMD_IOMMU", "CONFIG_VFIO", "CONFIG_VFIO_PCI", "CONFIG_VFIO_IOMMU_TYPE1",
              "CONFIG_VFIO_VIRQFD")  # fmt: skip
    return {key: config[key] for key in wanted if config.get(key, "n") != "n"}


def _initramfs(facts: HostFacts) -> tuple[Any, ...]:
    image = facts.initramfs.value
    entries = sorted(e for e in image.entries or () if e.startswith("etc/modprobe.d/") or "vfio" in e)
    return image.path, entries, _newer(facts, image.mtime)


def _log(facts: HostFacts) -> tuple[Any, ...]:
    log = facts.kernel_log.value
    # the order of drivers' lines is the order of udev's workers
    remapped = any(re.search("Enabled IRQ remapping|Interrupt remapping enabled", line) for line in log.lines)
    return log.complete, remapped, sorted({line for line in log.lines if LOG.search(line)})


VIEWS: dict[str, Callable[[HostFacts], Any]] = {
    "boot_id": _there, "boot_time": _there, "clock": _there,
    "boot_files": lambda facts: _files(facts, facts.boot_files.value or ()),
    "modprobe_files": _stale,
    "modules_load_files": _listed,
    "kernel_config": _kernel_config,
    "remapped_interrupts": lambda facts: bool(facts.remapped_interrupts.value),
    "pci": _devices,
    "pci_drivers": lambda facts: sorted(DRIVERS & set(facts.pci_drivers.value or ())),
    "modules": lambda facts: sorted({m.name for m in facts.modules.value or ()} & MODULES),
    "modprobe_config": _modprobe,
    "initramfs": _initramfs,
    "kernel_log": _log,
}  # fmt: skip
