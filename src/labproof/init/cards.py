"""GPUs, VMs and nodes as they were seen: what is a GPU, who passes it, what it is called."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from labproof.catalogue.gpus import capabilities, capability
from labproof.facts.host import HostFacts
from labproof.facts.vm import Mapping, PveFacts, VmConfig
from labproof.init.endpoints import PveDoor, SshDoor
from labproof.init.look import Seen
from labproof.probes.vm_parse import smbios_uuid

#: Vendors whose cards people pass to VMs; other display devices are consoles (BMC) or emulated.
VENDORS = {"10de": "nvidia", "1002": "amd", "8086": "intel"}
#: Names of extended resources by vendor (facts kubernetes-gpu 5 and 10).
RESOURCES = {"nvidia.com/": "10de", "amd.com/": "1002", "gpu.intel.com/": "8086"}
_MAC = re.compile(r"(?i)[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


@dataclass
class Card:
    """One GPU. `how` is what told of it; `address` is the host's, or the node's own on bare metal."""

    host: str | None
    device: str
    address: str | None
    how: str
    functions: tuple[str, ...] = ()
    group: int | None = None
    driver: str | None = None
    console: bool = False
    mapped: str | None = None
    passed: bool = False
    product: str = ""
    name: str = ""


@dataclass
class Machine:
    """A VM that is given a GPU. `config` is None where only its QEMU process was seen."""

    host: str
    name: str
    vmid: int | None
    how: str
    cards: list[Card] = field(default_factory=list)
    config: VmConfig | None = None
    mapping: str | None = None
    running: bool = True

    @property
    def uuid(self) -> str | None:
        """SMBIOS UUID, lower case."""
        return smbios_uuid(self.config) if self.config is not None else None

    @property
    def mac(self) -> str | None:
        """Hardware address of its first network card."""
        nets = sorted(k for k in self.config.keys if re.fullmatch(r"net\d+", k)) if self.config else ()
        found = _MAC.search(self.config.keys[nets[0]]) if nets and self.config else None
        return found[0] if found else None


@dataclass
class HostSeen:
    """One host, by SSH, by its PVE API, or both."""

    name: str
    ssh: SshDoor | None = None
    facts: HostFacts | None = None
    door: PveDoor | None = None
    pve: PveFacts | None = None
    cards: list[Card] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    machines: list[Machine] = field(default_factory=list)


def hosts_seen(seen: Seen) -> list[HostSeen]:
    """Hosts with their GPUs and the VMs that get them; SSH and PVE are one host where the names are one."""
    hosts: dict[str, HostSeen] = {}
    for ssh, host_reading in seen.hosts:
        facts = host_reading.value
        if facts is not None:
            name = (facts.hostname.value or ssh.address).split(".")[0]
            hosts.setdefault(name, HostSeen(name, ssh, facts))
    for door, pve_reading in seen.pves:
        pve = pve_reading.value
        if pve is not None:
            host = hosts.setdefault(pve.node, HostSeen(pve.node))
            host.door, host.pve = door, pve
    for host in hosts.values():
        _find_cards(host)
        _find_machines(host)
    return list(hosts.values())


def _find_cards(host: HostSeen) -> None:
    rows: list[tuple[str, str, str, int | None, str | None, bool]] = []
    if host.facts is not None and host.facts.pci.value is not None:
        how = "lspci over SSH"
        rows = [
            (d.address, d.ids, d.pci_class, d.iommu_group, d.driver, bool(d.boot_vga)) for d in host.facts.pci.value
        ]
    elif host.pve is not None:
        how = "PVE hardware/pci"
        rows = [(d.address, d.ids, d.pci_class, d.iommu_group, None, False) for d in host.pve.pci.value or ()]
    for address, ids, kind, group, driver, console in rows:
        if not kind.startswith("03"):
            continue
        vendor = ids.partition(":")[0]
        if vendor not in VENDORS:
            host.left_out.append(f"{address} {ids}: a display device that is no GPU (a BMC's or an emulated console)")
            continue
        host.cards.append(Card(host.name, ids, address, how, (), group, driver, console))
    slots = {a: ids for a, ids, *_ in rows}
    for card in host.cards:
        base = _slot(card.address or "")
        card.functions = tuple(ids for a, ids in sorted(slots.items()) if _slot(a) == base and a != card.address)
        card.mapped = next((m.id for m in _mappings(host) if _covers(m, host.pve, card)), None)


def _find_machines(host: HostSeen) -> None:
    pve = host.pve
    statuses = {g.vmid: g.status for g in (pve.guests.value or () if pve else ())}
    for config in (pve.configs.value or ()) if pve else ():
        if not config.hostpci or config.keys.get("template") == "1":
            continue
        name = config.keys.get("name") or f"vm-{config.vmid}"
        machine = Machine(host.name, name, config.vmid, f"hostpci of VM {config.vmid} in PVE", config=config)
        machine.running = statuses.get(config.vmid, "running") == "running"
        for entry in config.hostpci:
            mapping = next((m for m in _mappings(host) if m.id == entry.mapping), None)
            for card in host.cards:
                # identical entries of one mapping are handed out in the mapping's order (facts proxmox 2.4)
                if card in machine.cards or (mapping is None and not entry.covers(card.address or "")):
                    continue
                if mapping is not None and not _covers(mapping, pve, card):
                    continue
                machine.cards.append(card)
                card.passed = True
                whole = _slot(card.address or "") in (entry.devices or _paths(mapping, pve))
                card.functions = card.functions if whole else ()
                if mapping is not None:
                    machine.mapping = mapping.id
                    break
        if machine.cards:
            host.machines.append(machine)
    known = {m.vmid for m in host.machines}
    for process in (host.facts.qemu.value or ()) if host.facts else ():
        held = [c for c in host.cards if process.holds(c.address or "")]
        if held and process.vmid not in known and not any(c.passed for c in held):
            name = process.vm_name or f"vm-{process.vmid or process.pid}"
            how = f"its running QEMU passes {', '.join(c.address or '' for c in held)}"
            host.machines.append(Machine(host.name, name, process.vmid, how, held))
            for card in held:
                card.passed, card.functions = True, ()
    listed = _vfio_ids(host)
    for card in host.cards:
        if not card.passed and card.driver != "vfio-pci":
            card.functions = ()
        if card.device in listed:
            # who lists the card's ids says which functions he wants bound at boot; PVE takes the others along
            card.functions = tuple(ids for ids in card.functions if ids in listed)


def _vfio_ids(host: HostSeen) -> frozenset[str]:
    """vendor:device that modprobe options or the kernel command line give to vfio-pci."""
    lines = (host.facts.modprobe_config.value or ()) if host.facts is not None else ()
    lines += tuple(
        re.sub(r"^vfio[-_]pci\.ids=", "options vfio-pci ids=", t)
        for t in ((host.facts.cmdline.value or ()) if host.facts is not None else ())
    )
    found = [m[1] for m in (re.search(r"^options vfio[-_]pci .*?ids=(\S+)", line) for line in lines) if m]
    return frozenset(":".join(word.lower().split(":")[:2]) for text in found for word in text.split(","))


def _mappings(host: HostSeen) -> tuple[Mapping, ...]:
    return (host.pve.mappings.value or ()) if host.pve is not None else ()


def _paths(mapping: Mapping | None, pve: PveFacts | None) -> tuple[str, ...]:
    """Addresses a mapping holds on this node."""
    entries = mapping.entries if mapping is not None else ()
    here = [e.get("path", "") for e in entries if pve is None or e.get("node") == pve.node]
    return tuple(address for path in here for address in path.split(";"))


def _covers(mapping: Mapping, pve: PveFacts | None, card: Card) -> bool:
    return bool({card.address, _slot(card.address or "")} & set(_paths(mapping, pve)))


def _slot(address: str) -> str:
    return address.rsplit(".", 1)[0]


def wanted_cards(hosts: list[HostSeen]) -> list[Card]:
    """The GPUs a lab is about: passed, mapped or held for VFIO; else those that are no console; else all.

    The others are told in `left_out`, so that the owner can add what was meant for a VM to come.
    """
    every = [card for host in hosts for card in host.cards]
    chosen = [c for c in every if c.passed or c.mapped or c.driver == "vfio-pci"]
    chosen = chosen or [c for c in every if not c.console] or every
    for host in hosts:
        for card in host.cards:
            if not any(card is c for c in chosen):
                kept = f", driver {card.driver}" if card.driver else ""
                host.left_out.append(f"{card.address} {card.device}: no VM gets it{kept}; add it if one shall")
    return chosen


def product_of(card: Card) -> str:
    """The card's name, from the capability table or from what a node said."""
    row = capability(card.device)
    return row.name if row is not None and (row.own_row or not card.product) else card.product


def name_cards(cards: list[Card]) -> None:
    """Give each card a short name of its own: `t4`, `rtx-2070-super`, `t4-2`."""
    taken: set[str] = set()
    for card in cards:
        words = re.findall(r"[a-z0-9]+", product_of(card).lower())
        brand = {"nvidia", "geforce", "tesla", "quadro", "intel", "amd", "corporation", "graphics", "shared"}
        short = "-".join(w for w in words if w not in brand)[:40]
        base = short or VENDORS.get(card.device.partition(":")[0], "gpu")
        name, number = base, 2
        while name in taken:
            name, number = f"{base}-{number}", number + 1
        card.name = name
        taken.add(name)


def device_of_product(product: str) -> str | None:
    """vendor:device of a product as GFD labels it (`Tesla-T4-SHARED`); None for a card the table does not know."""

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower().removesuffix("-shared").removeprefix("nvidia"))

    return next((ids for ids, row in capabilities().items() if plain(row.name) == plain(product)), None)
