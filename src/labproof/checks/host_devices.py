"""Finding things in host facts: the declared card among the devices, its group, its kernel version."""

from __future__ import annotations

import re

from labproof.checks.judgement import Evidence
from labproof.checks.subject import Subject
from labproof.facts.host import HostFacts, IommuGroup, PciDevice
from labproof.facts.reading import Unjudged, absent, need
from labproof.inventory.chains import Chain


def full_address(address: str) -> str:
    """`3b:00.0` as `0000:3b:00.0`: sysfs always prints the domain."""
    return address if address.count(":") == 2 else f"0000:{address}"


def card_of(subject: Subject) -> PciDevice | None:
    """The chain's GPU (its first function), None when it is not where it is declared.

    Without a declared address the cards of that id are taken in bus order, one for each GPU the lab declares; when
    their numbers differ nobody can say which is which.
    """
    devices = need(subject.host_facts.pci, "PCI devices")
    gpu = subject.chain.gpu
    if gpu.address is not None:
        wanted = full_address(gpu.address)
        return next((d for d in devices if d.address == wanted and d.ids == gpu.device), None)
    rivals = [g for g in subject.lab.gpus if g.host == gpu.host and g.device == gpu.device]
    taken = {full_address(g.address) for g in rivals if g.address is not None}
    unnamed = [g.name for g in rivals if g.address is None]
    free = [d for d in devices if d.ids == gpu.device and d.address not in taken and d.physfn is None]
    return free[unnamed.index(gpu.name)] if len(free) == len(unnamed) else None


def the_card(subject: Subject) -> PciDevice:
    """The chain's GPU; a clause that comes after HOST-DEVICE-001 is only judged when it is there."""
    card = card_of(subject)
    if card is None:
        gpu = subject.chain.gpu
        raise Unjudged(absent(subject.host_facts.pci.source, f"{gpu.device} is not where it is declared"), gpu.name)
    return card


def functions_of(host: HostFacts, card: PciDevice) -> tuple[PciDevice, ...]:
    """All functions of the card's slot, in order. Virtual functions are cards of their own."""
    if card.physfn is not None:
        return (card,)
    return tuple(d for d in need(host.pci, "PCI devices") if d.slot == card.slot and d.physfn is None)


def group_of(host: HostFacts, card: PciDevice) -> IommuGroup | None:
    """The IOMMU group of a device."""
    groups = need(host.iommu_groups, "IOMMU groups")
    by_member = next((g for g in groups if card.address in g.devices), None)
    return by_member or next((g for g in groups if g.number == card.iommu_group), None)


def describe(device: PciDevice) -> str:
    """One line an owner recognises: address, ids, class, driver."""
    return f"{device.address} {device.ids} class {device.pci_class[:4]} driver {device.driver or 'none'}"


def base_version(release: str) -> tuple[int, ...]:
    """`6.8.12-4-pve` as (6, 8, 12, 4): numbers up to the first word."""
    return tuple(int(n) for n in re.findall(r"\d+", re.split(r"[-.+](?=[a-zA-Z])", release, maxsplit=1)[0]))


def seen(subject: Subject, source: str, text: str) -> Evidence:
    """Evidence of this host: the command as it would be typed there."""
    return Evidence(f"{subject.host.name}: {source}", text)


def cards_on(subject: Subject) -> tuple[Chain, ...]:
    """All chains that pass through the subject's host."""
    return subject.target.chains
