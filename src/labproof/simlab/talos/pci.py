"""The PCI functions of a node: what the VM (or the metal) offers, and what the one-shot scan at boot wrote down.

Source: facts/talos.md 3.5 (PCIDevices: `driver` is a boot snapshot, empty when the module loads later), proxmox.md
on guest topology.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labproof.simlab.talos.state import PciRow
from labproof.simlab.world.states import Card, GuestPci, Inputs, VmState

_VENDORS = {
    "10de": "NVIDIA Corporation",
    "8086": "Intel Corporation",
    "1002": "Advanced Micro Devices, Inc. [AMD/ATI]",
    "1af4": "Red Hat, Inc.",
    "1b36": "Red Hat, Inc.",
    "1234": "",
}
#: What every q35 or i440fx guest of PVE has beside the passed functions: address, ids, class, product, driver.
_CHIPSET = (
    ("0000:00:01.0", "1234:1111", "0x030000", "", "bochs-drm"),
    ("0000:06:05.0", "1af4:1004", "0x010000", "Virtio SCSI", "virtio-pci"),
    ("0000:06:12.0", "1af4:1000", "0x020000", "Virtio network device", "virtio-pci"),
)
_BRIDGES = {
    "q35": ("0000:00:00.0", "8086:29c0", "0x060000", "82G33/G31/P35/P31 Express DRAM Controller", ""),
    "i440fx": ("0000:00:00.0", "8086:1237", "0x060000", "440FX - 82441FX PMC [Natoma]", ""),
}
CLASSES = {"01": "Mass storage controller", "02": "Network controller", "03": "Display controller",
           "04": "Multimedia controller", "06": "Bridge", "0c": "Serial bus controller"}  # fmt: skip
SUBCLASSES = {"0100": "SCSI storage controller", "0200": "Ethernet controller", "0300": "VGA compatible controller",
              "0302": "3D controller", "0403": "Audio device", "0600": "Host bridge", "0c03": "USB controller",
              "0c80": "Serial bus controller"}  # fmt: skip


def guest_devices(vm: VmState | None, node_inputs: Inputs, cards: Mapping[str, Card]) -> tuple[GuestPci, ...]:
    """Functions that were handed to the guest, or sit in the metal node's slots.

    A function whose configuration space reads ff is no function: the kernel does not list it.
    """
    if vm is not None:
        return tuple(f for f in vm.pci if f.defect != "dead") if vm.running else ()
    found = []
    for address, body in (node_inputs.get("pci") or {}).items():
        card = cards.get(str(body.get("card", "")))
        ids = str(body.get("id") or (card.inputs.get("vendor_device") if card else ""))
        kind = str(body.get("class") or (card.inputs.get("pci_class") if card else "0x030200"))
        found.append(GuestPci(address, address, ids, str(body.get("subsystem", "")), kind, card))
    return tuple(found)


def pci_rows(
    vm: VmState | None, functions: Sequence[GuestPci], early: Mapping[str, str] | None = None
) -> tuple[PciRow, ...]:
    """All PCIDevices; the NVIDIA ones with an empty driver, because their module loads after the scan.

    `early` names the drivers that udev had loaded before it, by address.
    """
    rows = []
    if vm is not None:
        bridge = _BRIDGES["q35" if "q35" in vm.machine else "i440fx"]
        for address, ids, kind, product, bound in (bridge, *_CHIPSET):
            rows.append(PciRow(address, ids, kind, _VENDORS[ids[:4]], product, bound))
    for function in functions:
        product = str(function.card.inputs.get("product", "")) if function.card else ""
        vendor = _VENDORS.get(function.vendor_device[:4], "")
        bound = (early or {}).get(function.address, "")
        rows.append(PciRow(function.address, function.vendor_device, function.pci_class, vendor, product, bound))
    return tuple(rows)


def driver_links(
    vm: VmState | None, bound: Sequence[GuestPci], rebound: Mapping[str, str], *, nvidia_loaded: bool
) -> dict[str, tuple[str, ...]]:
    """Folders of /sys/bus/pci/drivers and the devices linked in each."""
    links: dict[str, list[str]] = {"pcieport": [], "virtio-pci": [], "ahci": []}
    if vm is not None:
        for address, _, _, _, name in _CHIPSET:
            links.setdefault(name, []).append(address)
    if bound or nvidia_loaded:
        links["nvidia"] = [f.address for f in bound]
    for address, name in rebound.items():
        links.setdefault(name, []).append(address)
    return {name: tuple(addresses) for name, addresses in links.items()}
