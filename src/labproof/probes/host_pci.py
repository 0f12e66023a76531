"""The probe's PCI sections as devices, and which of them the host itself lives on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from labproof.facts.host import Bar, PciDevice
from labproof.probes.host_sections import Section

# Domains have four or more digits; functions are 0-7; everything is lower-case hexadecimal.
ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


@dataclass(frozen=True)
class Links:
    """What the symbolic links say: driver, group and physical function by address, and owners of net and block."""

    driver: dict[str, str] = field(default_factory=dict)
    group: dict[str, int] = field(default_factory=dict)
    physfn: dict[str, str] = field(default_factory=dict)
    owner: dict[str, str] = field(default_factory=dict)  # net/eth0, block/sda1 -> address of the PCI device


def links_of(section: Section) -> Links:
    """Parse the one `ls -ld` of the probe."""
    links = Links()
    for line in section.quoted:
        path, arrow, target = line.partition(" -> ")
        if not arrow:
            continue
        parts = path.split("/")
        last = target.rstrip("/").rsplit("/", 1)[-1]
        if path.startswith("/sys/class/"):
            owners = ADDRESS.findall(target)
            if owners:
                links.owner[f"{parts[-2]}/{parts[-1]}"] = owners[-1]
        elif parts[-1] == "driver":
            links.driver[parts[-2]] = last
        elif parts[-1] == "iommu_group" and last.isdigit():
            links.group[parts[-2]] = int(last)
        elif parts[-1] == "physfn":
            links.physfn[parts[-2]] = last
    return links


def mounted_blocks(section: Section) -> frozenset[str]:
    """Names of block devices the host uses, followed down through volume groups and RAID to the disks."""
    used: set[str] = set()
    alias: dict[str, str] = {}
    below: dict[str, list[str]] = {}
    paths: list[str] = []
    for key, rest in section.pairs():
        words = rest.split()
        if key == "alias" and len(words) == 2:
            alias[words[0]] = words[1]
        elif key == "slave" and len(words) == 2:
            below.setdefault(words[0], []).append(words[1])
        elif key == "used" and words:
            paths.append(words[0])
    pending = [alias.get(path, path).removeprefix("/dev/") for path in paths]
    while pending:
        name = pending.pop()
        if name not in used:
            used.add(name)
            pending += below.get(name, [])
    return frozenset(used)


def devices_of(pci: Section, links: Links, up: Iterable[str], mounted: Iterable[str]) -> tuple[PciDevice, ...]:
    """Devices in the order of the bus.

    Args:
        pci: attributes of every device.
        links: the parsed links.
        up: network interfaces that are up.
        mounted: block devices in use.
    """
    interfaces = _by_owner(links.owner, "net", up)
    blocks = _by_owner(links.owner, "block", mounted)
    found: list[PciDevice] = []
    for address, words, bars in _records(pci):
        found.append(
            PciDevice(
                address=address,
                ids=f"{_hex(words.get('vendor'), 4)}:{_hex(words.get('device'), 4)}",
                pci_class=_hex(words.get("class"), 6),
                subsystem=_pair(words.get("subsystem_vendor"), words.get("subsystem_device")),
                revision=_hex(words.get("revision"), 2) if "revision" in words else "",
                driver=links.driver.get(address),
                driver_override=_unless(words.get("driver_override"), ("", "(null)")),
                iommu_group=links.group.get(address),
                boot_vga=words["boot_vga"] == "1" if "boot_vga" in words else None,
                reset_method=tuple(words["reset_method"].split()) if "reset_method" in words else None,
                power_state=words.get("power_state"),
                config_head=_config(words.get("config")),
                bars=bars,
                numa_node=_number(words.get("numa_node")),
                link_width=_number(words.get("current_link_width")),
                max_link_width=_number(words.get("max_link_width")),
                physfn=links.physfn.get(address),
                numvfs=_number(words.get("sriov_numvfs")),
                interfaces=tuple(sorted(interfaces.get(address, ()))),
                mounted=tuple(sorted(blocks.get(address, ()))),
            )
        )
    return tuple(found)


def _records(section: Section) -> list[tuple[str, dict[str, str], tuple[Bar, ...]]]:
    records: list[tuple[str, dict[str, str], list[Bar]]] = []
    for key, rest in section.pairs():
        if key == "device" and ADDRESS.fullmatch(rest):
            records.append((rest, {}, []))
        elif records and key == "resource":
            start, end, flags = (int(word, 16) for word in rest.split())
            if flags:
                records[-1][2].append(Bar(start, end, flags))
        elif records:
            records[-1][1][key] = rest
    return [(address, words, tuple(bars)) for address, words, bars in records]


def _by_owner(owner: Mapping[str, str], kind: str, names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        address = owner.get(f"{kind}/{name}")
        if address:
            found.setdefault(address, []).append(name)
    return found


def _hex(text: str | None, digits: int) -> str:
    """`0x1eb8` as `1eb8`: the form of every declaration; an unread file gives `?`."""
    return text.removeprefix("0x").lower().zfill(digits) if text else "?"


def _pair(vendor: str | None, device: str | None) -> str:
    return f"{_hex(vendor, 4)}:{_hex(device, 4)}" if vendor and device else ""


def _config(text: str | None) -> str | None:
    joined = "".join(text.split()) if text else ""
    return joined if len(joined) == 8 else None


def _unless(text: str | None, nothing: tuple[str, ...]) -> str | None:
    return None if text is None or text in nothing else text


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:  # "Unknown" on links that are down
        return None
