"""Our own files on a host: what vfio-pci takes at boot, by id or by address, and that it is loaded.

Source: facts proxmox 1.6, section 6.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from labproof.checks.host_devices import base_version, functions_of
from labproof.checks.host_persistence import RIVALS, XE_FAMILIES
from labproof.facts.host import HostFacts, PciDevice, TextFile
from labproof.facts.reading import need
from labproof.inventory.models import Gpu

MODPROBE = "/etc/modprobe.d/labproof-vfio.conf"
MODULES_LOAD = "/etc/modules-load.d/labproof-vfio.conf"
UDEV = "/etc/udev/rules.d/30-labproof-vfio.rules"
MARKER = "# Written by labproof; `pytest --undo` takes it back. Change lab.yaml, not this file.\n"
#: Drivers that take a card's further functions, by class (facts proxmox 1.6).
BY_CLASS = (("0403", "snd_hda_intel"), ("0c03", "xhci_pci"), ("0c80", "i2c_nvidia_gpu"))


def declared_functions(host: HostFacts, card: PciDevice, gpu: Gpu) -> tuple[PciDevice, ...]:
    """The card and those functions of its slot that lab.yaml declares."""
    others = (d for d in functions_of(host, card) if d.address != card.address and d.ids in gpu.functions)
    return (card, *others)


def drivers_of(device: PciDevice) -> tuple[str, ...]:
    """Host drivers that would take this function."""
    for prefix, driver in BY_CLASS:
        if device.pci_class.startswith(prefix):
            return (driver,)
    return ("xe",) if device.ids.startswith(XE_FAMILIES) else RIVALS.get(device.ids[:4], ())


def modprobe_text(by_id: Iterable[PciDevice], by_address: Iterable[PciDevice] = ()) -> str:
    """Content of the modprobe.d file: ids of what is told by its id, and vfio-pci before each driver that wants any."""
    told, addressed = list(by_id), list(by_address)
    ids = dict.fromkeys(device.ids for device in told)
    drivers = dict.fromkeys(driver for device in (*told, *addressed) for driver in drivers_of(device))
    softdeps = "".join(f"softdep {driver} pre: vfio-pci\n" for driver in drivers)
    options = f"options vfio-pci ids={','.join(ids)}\n" if ids else ""
    return f"{MARKER}{options}{softdeps}"


def udev_text(functions: Iterable[PciDevice]) -> str:
    """Content of the udev rules: these addresses are vfio-pci's, set before a module is loaded for them.

    An id would take the twin along that stays with the host (facts proxmox P25).
    """
    rule = 'ACTION=="add", SUBSYSTEM=="pci", KERNEL=="{}", ATTR{{driver_override}}="vfio-pci"\n'
    return MARKER + "".join(rule.format(device.address) for device in functions)


def modules_text(host: HostFacts) -> str:
    """Content of the modules-load.d file; vfio_virqfd is a module of its own only below kernel 6.2."""
    old = base_version(need(host.kernel, "kernel version"))[:2] < (6, 2)
    names = ("vfio", "vfio_iommu_type1", "vfio_pci", *(("vfio_virqfd",) if old else ()))
    return MARKER + "".join(f"{name}\n" for name in names)


def lists_vfio(files: Iterable[TextFile]) -> bool:
    """Whether some file already has vfio_pci loaded at boot."""
    words = (line.split() for file in files for line in file.lines)
    return any(line[:1] and line[0].replace("-", "_") == "vfio_pci" for line in words)


def others_ids(host: HostFacts) -> tuple[str, str] | None:
    """A file of somebody else that sets vfio-pci's ids, with its line: of two `ids=` only one counts."""
    for file in need(host.modprobe_files, "/etc/modprobe.d"):
        if file.path == MODPROBE or not file.path.endswith(".conf"):
            continue
        for line in file.lines:
            if re.match(r"\s*options\s+vfio[-_]pci\b.*\bids=", line):
                return file.path, line.strip()
    token = next((t for t in host.cmdline.value or () if re.match(r"vfio[-_]pci\.ids=", t)), None)
    return ("the kernel command line", token) if token else None


def strangers(host: HostFacts, wanted: Iterable[PciDevice]) -> tuple[PciDevice, ...]:
    """Devices that `ids=` would take although nobody means them: the same id elsewhere (facts proxmox P25)."""
    mine = {device.address for device in wanted}
    ids = {device.ids for device in wanted}
    devices = need(host.pci, "PCI devices")
    return tuple(d for d in devices if d.ids in ids and d.address not in mine and d.physfn is None)
