"""One Proxmox host after it booted another kernel: the kernel's name, and the IOMMU groups where a build changes them.

Addresses and configuration stay. Groups are numbered in the order in which the bus is walked, so groups that merge or
vanish lower the numbers of all that come after them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from labproof.checks.host_kernels import bad_builds
from labproof.facts.host import HostFacts, IommuGroup, PciDevice
from labproof.facts.reading import Reading

#: Integrated graphics of Skylake, Kaby Lake and Comet Lake, whose translation Ubuntu's patch switched off (facts
#: proxmox 1.1 and P12): device ids by their beginning.
UNTRANSLATED = ("8086:19", "8086:59", "8086:9bc")


def host_after(facts: HostFacts, release: str) -> HostFacts:
    """What the host's probe will read once it runs kernel `release`."""
    causes = {b.cause for b in bad_builds() if b.matches(release)}
    moved = replace(
        facts,
        kernel=replace(facts.kernel, value=release),
        installed_kernels=_installed(facts.installed_kernels, release),
    )
    if facts.iommu_groups.value is None or facts.pci.value is None or not facts.iommu_groups.value:
        return moved
    groups = [list(g.devices) for g in sorted(facts.iommu_groups.value, key=lambda g: g.number)]
    numbers = [g.number for g in sorted(facts.iommu_groups.value, key=lambda g: g.number)]
    if "P12" in causes:
        gone = {d.address for d in facts.pci.value if is_untranslated(d)}
        groups = [[a for a in members if a not in gone] for members in groups]
    if "P11" in causes:
        groups = _merged(groups, facts.pci.value)
    return _numbered(moved, groups, numbers)


def is_untranslated(device: PciDevice) -> bool:
    """Whether Ubuntu's patch takes this device off the IOMMU."""
    return device.address == "0000:00:02.0" and device.ids.startswith(UNTRANSLATED)


def _installed(reading: Reading[tuple[str, ...]], release: str) -> Reading[tuple[str, ...]]:
    if reading.value is None or release in reading.value:
        return reading
    return replace(reading, value=(release, *reading.value))


def _merged(groups: list[list[str]], devices: Collection[PciDevice]) -> list[list[str]]:
    """Without ACS in bridges everything shares the group of the bridge it is behind."""
    of = {address: number for number, members in enumerate(groups) for address in members}
    merged = [list(members) for members in groups]
    for address, bridge in sorted(bridges_of(devices).items()):
        if address not in of or bridge not in of or of[address] == of[bridge]:
            continue
        into, out = sorted((of[address], of[bridge]))
        for member in merged[out]:
            of[member] = into
        merged[into] += merged[out]
        merged[out] = []
    return merged


def bridges_of(devices: Collection[PciDevice]) -> dict[str, str]:
    """Which bridge each device is behind, as far as addresses tell.

    Firmware numbers buses depth first: a bus lies behind the first bridge seen before it that has no bus yet, the
    deepest ones first; a bus for which none is left is a root bus (several in a server). A slot that is empty takes a
    number too, so this is a good guess and no more: the probe does not read the tree.
    """
    found: dict[str, str] = {}
    free: list[str] = []
    buses: dict[str, list[PciDevice]] = {}
    for device in sorted(devices, key=lambda d: d.address):
        buses.setdefault(device.address.rsplit(":", 1)[0], []).append(device)
    for bus, here in sorted(buses.items()):
        if not bus.endswith(":00") and free:
            found.update(dict.fromkeys((d.address for d in here), free.pop()))
        free += [d.address for d in reversed(here) if d.is_pci_bridge]
    return found


def _numbered(facts: HostFacts, groups: list[list[str]], numbers: list[int]) -> HostFacts:
    """The groups that are left, with the numbers they get."""
    left = [members for members in groups if members]
    if len(left) == len(numbers) and [sorted(m) for m in left] == [sorted(m) for m in groups]:
        return facts
    before = {g.number: g for g in facts.iommu_groups.value or ()}
    of: dict[str, int] = {}
    found = []
    first = numbers[0]
    for index, members in enumerate(left):
        held = next((before[n] for n in numbers if members[0] in before[n].devices), None)
        found.append(replace(held or IommuGroup(first + index, ()), number=first + index, devices=tuple(members)))
        of |= dict.fromkeys(members, first + index)
    node_of = {f"/dev/vfio/{d.iommu_group}": f"/dev/vfio/{of.get(d.address)}" for d in facts.pci.value or ()}
    qemu = facts.qemu
    if qemu.value is not None:
        renamed = (replace(q, vfio_files=tuple(node_of.get(f, f) for f in q.vfio_files)) for q in qemu.value)
        qemu = replace(qemu, value=tuple(renamed))
    pci = tuple(replace(d, iommu_group=of.get(d.address)) for d in facts.pci.value or ())
    return replace(
        facts,
        iommu_groups=replace(facts.iommu_groups, value=tuple(found)),
        pci=replace(facts.pci, value=pci),
        qemu=qemu,  # its VM is started anew and opens the group it then has
    )
