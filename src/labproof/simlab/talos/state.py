"""What a booted Talos node shows beyond the state that the layers above need: its own API's subjects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from labproof.simlab.world.states import NodeState


@dataclass(frozen=True)
class Extension:
    """One ExtensionStatus."""

    name: str
    version: str
    author: str = "Sidero Labs"
    description: str = ""
    extra_info: str = ""


@dataclass(frozen=True)
class Module:
    """A loaded kernel module."""

    name: str
    size: int
    dependencies: tuple[str, ...] = ()


@dataclass(frozen=True)
class PciRow:
    """One PCIDevice as the one-shot scan at boot saw it."""

    address: str
    vendor_device: str
    pci_class: str  # 0x030200
    vendor: str
    product: str
    driver: str


@dataclass(frozen=True)
class Service:
    """One service of machined."""

    id: str
    state: str  # Initialized Preparing Waiting Starting Running Stopping Finished Failed Skipped
    message: str
    healthy: bool | None = None  # None: the service has no health check
    log: tuple[str, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether the boot sequence takes it for up."""
        return self.state in ("Running", "Finished", "Skipped") and self.healthy is not False


@dataclass(frozen=True)
class LogRecord:
    """One kernel log record: seconds since the kernel started, syslog facility and priority, text."""

    offset_s: float
    text: str
    facility: str = "kern"
    priority: str = "info"
    trailer: tuple[str, ...] = ()  # SUBSYSTEM= and DEVICE= lines


@dataclass(frozen=True)
class TalosState(NodeState):
    """A Talos node: `NodeState` for the kubelet and its pods, and what the Talos API answers."""

    role: str = "worker"  # worker | controlplane
    cluster: str = ""
    platform: str = "metal"
    installed: tuple[Extension, ...] = ()
    module_specs: tuple[tuple[str, tuple[str, ...]], ...] = ()
    loaded: tuple[Module, ...] = ()
    pci_rows: tuple[PciRow, ...] = ()
    bound: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # PCI driver -> addresses
    rebound: Mapping[str, str] = field(default_factory=dict)  # by PCIDriverRebindConfig: address -> driver
    services: tuple[Service, ...] = ()
    log: tuple[LogRecord, ...] = ()
    log_rotated: bool = False  # the ring buffer no longer holds the boot
    cri_parts: Mapping[str, str] = field(default_factory=dict)  # file name -> content
    cmdline: str = ""
    machine_config: str = ""
    rebooting: bool = False  # by its own API, and not back yet
    staged_config: str | None = None  # applied with mode STAGED: what the next boot takes
    uki: bool = True
    boot_mib: int = 2048  # where the images lie: EFI of a unified image, BOOT of GRUB
    missing_files: frozenset[str] = frozenset()
    firmware: str | None = None  # driver version whose GSP firmware is installed
    never_boots: bool = False  # a service keeps the boot sequence from finishing: reboots every 70 minutes
    unmet: tuple[tuple[str, str], ...] = ()  # MachineStatus conditions: name, reason
    sysctls: Mapping[str, str] = field(default_factory=dict)
