"""hostpci entries and PCI mappings, read and validated as PVE does (facts proxmox 2.3, 2.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labproof.simlab.host.machine import Host


class Refused(Exception):
    """PVE would end the task or the request with this text."""


@dataclass(frozen=True)
class Passthrough:
    """One hostpci entry with the devices it stands for.

    Attributes:
        key: hostpci0 ...
        options: the property string, `host` under its name.
        alternatives: lists of PCI addresses; the first list whose devices are free is taken.
    """

    key: str
    options: Mapping[str, str]
    alternatives: tuple[tuple[str, ...], ...]

    @property
    def pcie(self) -> bool:
        """`pcie=1`."""
        return self.options.get("pcie") == "1"


def properties(text: str, default_key: str = "host") -> dict[str, str]:
    """A PVE property string as a mapping; the first word may come without its key."""
    found: dict[str, str] = {}
    for word in str(text).split(","):
        key, separator, value = word.partition("=")
        if separator:
            found[key.strip()] = value.strip()
        elif word.strip():
            found[default_key] = word.strip()
    return found


def full_address(text: str) -> str:
    """An address with its domain."""
    return text if text.count(":") == 2 else f"0000:{text}"


def matching(host: Host, wanted: str) -> list[str]:
    """Devices on the bus for an address with or without function (prefix match on whole slots)."""
    address = full_address(wanted)
    if "." in address:
        return [address] if address in host.devices else []
    return sorted(d for d in host.devices if d.startswith(f"{address}."))


def mapping_problem(host: Host, name: str, entry: Mapping[str, Any]) -> str | None:
    """Why `assert_valid` of PVE::Mapping::PCI refuses an entry on its node; None when it holds."""
    for index, path in enumerate(str(entry.get("path", "")).split(";")):
        address = path if "." in path else f"{path}.0"
        if address not in host.devices:
            return f"pci device '{address}' not found"
        device = host.devices[address]
        there: dict[str, str | None] = {
            "id": str(device["id"]),
            "iommugroup": str(host.group_of.get(address, -1)),
            "subsystem-id": str(device["subsystem"]) if device.get("subsystem") else None,
        }
        for key in sorted(there):
            if key == "iommugroup" and index > 0:
                continue
            configured = None if entry.get(key) is None else str(entry[key]).replace("0x", "")
            expected = there[key]
            if expected == configured:
                continue
            if configured is None:
                return f"missing expected property '{key}' for device '{address}'"
            if expected is None:
                return f"unexpected property '{key}' configured for device '{address}'"
            return f"'{key}' does not match for '{name}' ({expected} != {configured})"
    return None


def entries_of(mapping: Mapping[str, Any], node: str) -> list[Mapping[str, Any]]:
    """A mapping's entries for one node."""
    return [entry for entry in mapping.get("map", ()) if entry.get("node") == node]


def parse_all(host: Host, config: Mapping[str, Any], mappings: Mapping[str, Any]) -> list[Passthrough]:
    """All hostpci entries of a VM configuration.

    Raises:
        Refused: with PVE's text, when an entry cannot be resolved on this host.
    """
    found = []
    keys = sorted((k for k in config if k.startswith("hostpci")), key=lambda k: int(k[7:]))
    for key in keys:
        options = properties(str(config[key]))
        target, name = options.get("host"), options.get("mapping")
        if target and name:
            raise Refused("Cannot set both 'host' and 'mapping'.")
        if name:
            found.append(Passthrough(key, options, _mapped(host, name, mappings)))
        elif target:
            found.append(Passthrough(key, options, (_raw(host, target),)))
        else:
            raise Refused("Either 'host' or 'mapping' must be set.")
    return found


def _mapped(host: Host, name: str, mappings: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    entries = entries_of(mappings.get(name) or {}, host.name)
    if not entries:
        raise Refused(f"PCI device mapping not found for '{name}'")
    alternatives = []
    for entry in entries:
        problem = mapping_problem(host, name, entry)
        if problem:
            raise Refused(f"PCI device mapping invalid (hardware probably changed): {problem}")
        alternatives.append(_raw(host, str(entry["path"])))
    return tuple(alternatives)


def _raw(host: Host, target: str) -> tuple[str, ...]:
    addresses: list[str] = []
    for part in target.split(";"):
        devices = matching(host, part)
        if not devices:
            raise Refused(f"no PCI device found for '{part}'")
        addresses += devices
    return tuple(addresses)
