"""Facts of the talos layer: what one node's Talos API answered to the role `os:reader`.

Source of every field: facts talos 3.4 to 3.6. `at` of a reading and `now` of the run are Unix seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from labproof.facts.reading import NOT_ASKED, Reading


@dataclass(frozen=True)
class TalosVersion:
    """What `talosctl version` shows of the server."""

    tag: str  # v1.11.6
    sha: str  # `sim` on a simulated node
    platform: str  # metal | nocloud | ...
    arch: str = ""


@dataclass(frozen=True)
class Extension:
    """One ExtensionStatus, by the name inside it; its resource id says nothing."""

    name: str
    version: str


@dataclass(frozen=True)
class Schematic:
    """The entry named `schematic`: id and, where the release writes it, the canonical YAML."""

    id: str
    text: str = ""


@dataclass(frozen=True)
class Module:
    """A loaded kernel module. `state` in lower case: `live`, `loading`, `unloading`, `built-in`; empty: not told."""

    name: str
    state: str = ""


@dataclass(frozen=True)
class PciDevice:
    """One PCIDevice. `driver` is a snapshot of the boot: empty or stale when the module loaded later."""

    address: str  # 0000:01:00.0
    vendor_device: str  # 10de:1eb8
    class_code: str  # 0302: class and subclass, hex
    product: str = ""
    driver: str = ""


@dataclass(frozen=True)
class NodeFile:
    """One name in a folder of the node."""

    path: str
    permissions: int  # nine bits
    char_device: bool = False


@dataclass(frozen=True)
class Service:
    """One service with the last thing it said."""

    id: str
    state: str  # Running | Finished | Waiting | Failed | ...
    healthy: bool | None  # None: no health check
    message: str = ""


@dataclass(frozen=True)
class MachineStage:
    """MachineStatus: stage, readiness and what is still missing."""

    stage: str
    ready: bool
    unmet: tuple[str, ...] = ()


@dataclass(frozen=True)
class KernelLog:
    """The GPU's part of the kernel's ring buffer.

    Attributes:
        lines: records about NVIDIA, PCI trouble and Talos' module and service tasks, normalised (literal `\\x0a` is a
            blank, `\\x5c"` a quote), oldest first.
        from_boot: the buffer still holds the kernel's first records; otherwise a missing line proves nothing.
        records: how many records the whole buffer holds.
    """

    lines: tuple[str, ...]
    from_boot: bool
    records: int


@dataclass(frozen=True)
class CriTable:
    """One plugin table of the owner's containerd part."""

    name: str  # io.containerd.cri.v1.runtime
    sets_containerd: bool  # has a `containerd` table: runtimes or the default runtime
    default_runtime: str = ""


@dataclass(frozen=True)
class BootPartition:
    """Where the images lie that the node can boot: `EFI` of a systemd-boot node, `BOOT` of one with GRUB."""

    label: str
    size_mib: int


@dataclass(frozen=True)
class TalosFacts:
    """What was read of one node."""

    name: str
    at: float  # Unix seconds at which the probe began
    role: str  # roles of the client certificate, e.g. os:reader
    version: Reading[TalosVersion]
    boot_time: Reading[float]  # Unix seconds
    extensions: Reading[tuple[Extension, ...]]  # without the virtual entries `schematic` and `modules.dep`
    schematic: Reading[Schematic]  # absent: the image is not from a factory
    module_specs: Reading[tuple[str, ...]]  # machine.kernel.modules
    modules: Reading[tuple[Module, ...]]
    pci: Reading[tuple[PciDevice, ...]]
    drivers: Reading[tuple[tuple[str, str], ...]]  # address, driver that holds it now, from /sys/bus/pci/drivers
    rebound: Reading[tuple[tuple[str, str], ...]]  # PCIDriverRebindStatuses: address, driver
    device_nodes: Reading[tuple[NodeFile, ...]]  # /dev/nvidia* and /dev/dri/*
    services: Reading[tuple[Service, ...]]
    stage: Reading[MachineStage]
    cri_parts: Reading[tuple[str, ...]]  # names in /etc/cri/conf.d
    bpf_jit_harden: Reading[int]
    cmdline: Reading[str]
    kernel_log: Reading[KernelLog]
    cdi_specs: Reading[tuple[str, ...]] = NOT_ASKED  # names in /run/cdi
    dri_links: Reading[tuple[tuple[str, str], ...]] = NOT_ASKED  # names in /dev/dri/by-path, and the node of each
    host_tools: Reading[tuple[str, ...]] = NOT_ASKED  # nvidia-* names in /usr/bin
    firmware: Reading[tuple[str, ...]] = NOT_ASKED  # driver versions under /usr/lib/firmware/nvidia
    install_image: Reading[str] = NOT_ASKED  # machine.install.image; os:admin
    cri_customization: Reading[tuple[CriTable, ...]] = NOT_ASKED  # 20-customization.part; os:admin
    booted_with_uki: Reading[bool] = NOT_ASKED  # a unified kernel image; else GRUB with a command line of its own
    boot_partition: Reading[BootPartition] = NOT_ASKED
