"""Facts of the vm layer: what the Proxmox VE API answered for one host and the VMs declared on it.

An empty list is kept as it came: it usually means missing rights, never "no devices" (facts proxmox P51); a 403 is a
failed reading of kind `forbidden`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from labproof.facts.reading import NOT_ASKED, Reading

HOSTPCI = re.compile(r"hostpci(\d+)")


@dataclass(frozen=True)
class PveVersion:
    """GET /version."""

    version: str
    release: str = ""
    repoid: str = ""


@dataclass(frozen=True)
class NodeStatus:
    """GET /nodes/{node}/status, bytes."""

    kernel: str = ""
    pve: str = ""
    boot_mode: str = ""  # efi | legacy-bios
    secure_boot: bool | None = None
    memory_total: int = 0
    memory_available: int = 0


@dataclass(frozen=True)
class PvePci:
    """An element of hardware/pci. `iommu_group` None where PVE says -1."""

    address: str
    ids: str
    pci_class: str
    iommu_group: int | None
    subsystem: str = ""
    physfn: str | None = None


@dataclass(frozen=True)
class Guest:
    """An element of cluster/resources?type=vm. `memory` in bytes."""

    vmid: int
    node: str
    kind: str  # qemu | lxc
    name: str = ""
    status: str = ""
    template: bool = False
    memory: int = 0


@dataclass(frozen=True)
class HostPci:
    """One parsed hostpciN. `devices` are addresses as written (with domain), a whole slot without function."""

    index: int
    devices: tuple[str, ...]
    mapping: str | None
    options: tuple[tuple[str, str], ...]

    def option(self, key: str, default: str = "0") -> str:
        """An option as written, or PVE's default."""
        return dict(self.options).get(key, default)

    @property
    def pcie(self) -> bool:
        """Whether the device is put on a PCIe port (needs q35)."""
        return self.option("pcie") == "1"

    def covers(self, address: str) -> bool:
        """Whether a raw entry names the function at `address` (with domain), itself or by its whole slot."""
        return any(device in (address, address.rsplit(".", 1)[0]) for device in self.devices)


@dataclass(frozen=True)
class VmConfig:
    """Configuration of one VM: the keys this suite judges, as text."""

    vmid: int
    keys: dict[str, str]

    @property
    def hostpci(self) -> tuple[HostPci, ...]:
        """All hostpciN, parsed, by index."""
        found = []
        for key, text in self.keys.items():
            match = HOSTPCI.fullmatch(key)
            if match:
                found.append(parse_hostpci(int(match[1]), text))
        return tuple(sorted(found, key=lambda entry: entry.index))

    @property
    def is_q35(self) -> bool:
        """Whether the machine is q35 in any spelling (`q35`, `pc-q35-9.2+pve1`, `q35,viommu=intel`)."""
        return "q35" in self.keys.get("machine", "")

    @property
    def bios(self) -> str:
        """`seabios` (PVE's default) or `ovmf`."""
        return self.keys.get("bios", "seabios")

    @property
    def cpu_type(self) -> str:
        """CPU type without flags; PVE's default is kvm64."""
        words = self.keys.get("cpu", "kvm64").split(",")
        named = next((w.split("=", 1)[1] for w in words if w.startswith("cputype=")), None)
        return named or words[0]

    @property
    def memory_mib(self) -> int | None:
        """`memory` in MiB; newer PVE writes `current=N`."""
        match = re.match(r"(?:current=)?(\d+)", self.keys.get("memory", "512"))
        return int(match[1]) if match else None


@dataclass(frozen=True)
class PendingKey:
    """An element of /pending that is not applied yet; `pending` None for a deletion."""

    key: str
    value: str | None = None
    pending: str | None = None
    delete: bool = False


@dataclass(frozen=True)
class VmStatus:
    """GET status/current."""

    status: str
    pid: int | None = None
    uptime: int = 0
    lock: str | None = None
    template: bool = False
    running_machine: str = ""
    running_qemu: str = ""
    ha_managed: bool = False


@dataclass(frozen=True)
class StartTask:
    """The newest qmstart task of a VM; times are Unix seconds, `log` its last lines."""

    upid: str
    started: float
    ended: float | None
    exit_status: str
    user: str = ""
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class VmFacts:
    """One declared VM. `vmid` says which VM it was found to be, and its source how."""

    name: str
    vmid: Reading[int]
    config: Reading[VmConfig] = NOT_ASKED
    current: Reading[VmConfig] = NOT_ASKED
    pending: Reading[tuple[PendingKey, ...]] = NOT_ASKED
    status: Reading[VmStatus] = NOT_ASKED
    start_task: Reading[StartTask] = NOT_ASKED


@dataclass(frozen=True)
class Mapping:
    """A PCI resource mapping, checked against one node. `entries` are the map items of all nodes."""

    id: str
    entries: tuple[dict[str, str], ...]
    checks: tuple[tuple[str, str], ...] = ()  # (severity, message)


@dataclass(frozen=True)
class BackupJob:
    """A backup job: which VMs it covers (`all` with `exclude`, or `vmids`; a pool is not resolved)."""

    id: str
    enabled: bool
    all_guests: bool
    vmids: tuple[int, ...] = ()
    exclude: tuple[int, ...] = ()
    node: str = ""


@dataclass(frozen=True)
class PveFacts:
    """What the PVE API answered.

    Attributes:
        name: declared host; node: its PVE node name.
        identity: user or token the API was asked as (never the secret).
        configs: configurations of every VM of this node, for "who else names this card".
    """

    name: str
    node: str
    identity: str = ""
    version: Reading[PveVersion] = NOT_ASKED
    nodes: Reading[tuple[str, ...]] = NOT_ASKED
    node_status: Reading[NodeStatus] = NOT_ASKED
    pci: Reading[tuple[PvePci, ...]] = NOT_ASKED
    guests: Reading[tuple[Guest, ...]] = NOT_ASKED
    mappings: Reading[tuple[Mapping, ...]] = NOT_ASKED
    backup_jobs: Reading[tuple[BackupJob, ...]] = NOT_ASKED
    vms: tuple[VmFacts, ...] = field(default=())
    configs: Reading[tuple[VmConfig, ...]] = NOT_ASKED
    permissions: Reading[dict[str, tuple[str, ...]]] = NOT_ASKED


def parse_hostpci(index: int, text: str) -> HostPci:
    """Parse a hostpciN property string.

    `host=` is the default key, several devices are separated by `;`, the domain may be missing, a missing function
    means the whole slot (qemu-server src/PVE/QemuServer/PCI.pm; facts proxmox 2.3). Unknown keys are kept.
    """
    devices: tuple[str, ...] = ()
    mapping: str | None = None
    options: list[tuple[str, str]] = []
    for part in text.split(","):
        key, equals, rest = part.strip().partition("=")
        if not equals:
            key, rest = "host", key
        if key == "host":
            devices = tuple(_with_domain(d.strip()) for d in rest.split(";") if d.strip())
        elif key == "mapping":
            mapping = rest
        elif key:
            options.append((key, rest))
    return HostPci(index, devices, mapping, tuple(options))


def _with_domain(address: str) -> str:
    return address if address.count(":") == 2 else f"0000:{address}"
