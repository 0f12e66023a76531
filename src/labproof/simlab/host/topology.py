"""IOMMU groups from the PCI topology, as the kernel's `pci_device_group` forms them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Devices = Mapping[str, Mapping[str, Any]]


def slot(address: str) -> str:
    """`0000:3b:00` of `0000:3b:00.0`."""
    return address.rsplit(".", 1)[0]


def is_bridge(device: Mapping[str, Any]) -> bool:
    """Whether the class is a PCI bridge (0x0604..)."""
    return str(device["class"]).startswith("0x0604")


def path_of(address: str, devices: Devices) -> list[str]:
    """Addresses from the root complex down to the device, itself last."""
    chain = [address]
    while parent := devices[chain[0]].get("parent"):
        if parent not in devices:
            break
        chain.insert(0, parent)
    return chain


def iommu_groups(
    devices: Devices, overrides: frozenset[str] = frozenset(), *, acs_lost: bool = False
) -> dict[int, tuple[str, ...]]:
    """Group number -> addresses, numbered in the order in which the bus is walked.

    Args:
        devices: PCI devices by address; `parent`, `acs` (bridges: default on; functions of one slot: default on),
            `conventional` (a bridge to conventional PCI: all behind it carries its requester id).
        acs_lost: the kernel does not switch ACS on in bridges (regression P11).
        overrides: words of `pcie_acs_override=` (downstream, multifunction, id:vvvv:dddd): isolation asserted.
    """
    leader = {address: address for address in devices}

    def root(address: str) -> str:
        while leader[address] != address:
            address = leader[address]
        return address

    def join(one: str, other: str) -> None:
        first, second = sorted((root(one), root(other)))
        leader[second] = first

    def isolates(address: str) -> bool:
        device = devices[address]
        if device.get("conventional"):
            return False
        asserted = f"id:{device['id']}" in overrides
        if is_bridge(device):
            asserted |= "downstream" in overrides
        return asserted or (bool(device.get("acs", True)) and not (acs_lost and is_bridge(device)))

    functions: dict[str, list[str]] = {}
    for address in sorted(devices):
        functions.setdefault(slot(address), []).append(address)
        parent = devices[address].get("parent")
        if isinstance(parent, str) and parent in devices and not isolates(parent):
            join(address, parent)
    for members in functions.values():
        if len(members) > 1 and "multifunction" not in overrides:
            shared = [m for m in members if not devices[m].get("acs", True)]
            for member in shared[1:]:
                join(shared[0], member)
    groups: dict[str, list[str]] = {}
    for address in sorted(devices):
        if not devices[address].get("uncovered"):  # no unit of firmware's table covers it
            groups.setdefault(root(address), []).append(address)
    return {number: tuple(members) for number, members in enumerate(groups.values())}
