"""Facts of the host layer: what one probe of a Linux or Proxmox VE host read.

Every field is a `Reading`, so that "could not read" never looks like "not there". The shapes keep what the kernel
said (sysfs words, hexadecimal as printed); what it means is judged in `labproof.checks.host_*`.
"""

from __future__ import annotations

from dataclasses import dataclass

from labproof.facts.reading import NOT_ASKED, Reading


@dataclass(frozen=True)
class TextFile:
    """A configuration file. `lines` are its lines without comments and blanks; `mtime` Unix seconds, None unread."""

    path: str
    lines: tuple[str, ...]
    mtime: float | None = None


@dataclass(frozen=True)
class Bar:
    """One line of a device's `resource` file: physical start and end (inclusive), and the kernel's flags."""

    start: int
    end: int
    flags: int

    @property
    def size(self) -> int:
        """Bytes, 0 for an unused line."""
        return self.end - self.start + 1 if self.end > self.start else 0


@dataclass(frozen=True)
class PciDevice:
    """One directory of /sys/bus/pci/devices.

    Attributes:
        address: full address with domain, lower-case hexadecimal (`0000:3b:00.0`).
        ids: `vendor:device`, four digits each, no 0x.
        subsystem: the same of the subsystem.
        pci_class: six digits, no 0x (`030200`).
        driver: name of the bound driver, None when unbound.
        driver_override: None when not set (the kernel prints `(null)`).
        iommu_group: None when the device is in no group.
        boot_vga: None where the file does not exist (it only does for VGA-class devices).
        reset_method: the kernel's ordered words; None where the file does not exist.
        config_head: first four bytes of configuration space as hexadecimal, None when not read (bridges, VFs).
        physfn: address of the physical function, None for devices that are no virtual function.
        interfaces: network interfaces of this device that are up.
        mounted: block devices of this device that the host uses (mounted, swap, volume group, pool).
    """

    address: str
    ids: str
    pci_class: str
    subsystem: str = ""
    revision: str = ""
    driver: str | None = None
    driver_override: str | None = None
    iommu_group: int | None = None
    boot_vga: bool | None = None
    reset_method: tuple[str, ...] | None = None
    power_state: str | None = None
    config_head: str | None = None
    bars: tuple[Bar, ...] = ()
    numa_node: int | None = None
    link_width: int | None = None
    max_link_width: int | None = None
    physfn: str | None = None
    numvfs: int | None = None
    interfaces: tuple[str, ...] = ()
    mounted: tuple[str, ...] = ()

    @property
    def slot(self) -> str:
        """`domain:bus:device`: equal for all functions of one card."""
        return self.address.rsplit(".", 1)[0]

    @property
    def is_pci_bridge(self) -> bool:
        """Class 0604: root ports and bridges, which VFIO and PVE leave alone."""
        return self.pci_class.startswith("0604")


@dataclass(frozen=True)
class IommuGroup:
    """One directory of /sys/kernel/iommu_groups.

    Attributes:
        type: `identity`, `DMA`, `DMA-FQ` ...; None on kernels that do not say.
        reserved: (start, end, type) as printed; type `direct` forbids an attach, `direct-relaxable` does not.
    """

    number: int
    devices: tuple[str, ...]
    type: str | None = None
    reserved: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Module:
    """A loaded kernel module: how often it is used, and by which modules."""

    name: str
    refcount: int = 0
    used_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Initramfs:
    """The initramfs of the running kernel. `entries` is the filtered listing, None when it could not be listed."""

    path: str
    mtime: float | None
    entries: tuple[str, ...] | None = None


@dataclass(frozen=True)
class MemoryRange:
    """A framebuffer range of /proc/iomem, inclusive."""

    start: int
    end: int
    name: str


@dataclass(frozen=True)
class KernelLog:
    """Filtered kernel messages of this boot.

    Attributes:
        complete: whether the log reaches back to the start of the boot, so that an absent line means something.
    """

    lines: tuple[str, ...]
    complete: bool


@dataclass(frozen=True)
class QemuProcess:
    """A running QEMU.

    Attributes:
        vmid: number from PVE's pid file or `-id`, None outside PVE.
        vfio_args: values of the arguments that name vfio.
        vfio_files: open files below /dev/vfio, and /dev/iommu.
    """

    pid: int
    vmid: int | None = None
    vm_name: str = ""
    vfio_args: tuple[str, ...] = ()
    vfio_files: tuple[str, ...] = ()

    def holds(self, address: str) -> bool:
        """Whether its command line passes the device at `address` (with domain)."""
        short = address.removeprefix("0000:")
        wanted = {f"host={address}", f"host={short}"}
        return any(wanted & set(arg.split(",")) or f"/{address}" in arg for arg in self.vfio_args)


@dataclass(frozen=True)
class Reservation:
    """A line of PVE's pci-id-reservations: `pid` once the VM runs, `until` (Unix seconds) while it starts."""

    address: str
    vmid: int
    pid: int | None = None
    until: float | None = None


@dataclass(frozen=True)
class LxcGpuUse:
    """A container whose configuration names a GPU device node."""

    ctid: int
    line: str
    running: bool


@dataclass(frozen=True)
class HugePages:
    """One hugepage size: page size in KiB, pages reserved and free."""

    size_kib: int
    total: int
    free: int


@dataclass(frozen=True)
class HostFacts:
    """What the host probe read.

    Attributes:
        ssh_server: identification of the SSH server, e.g. `SSH-2.0-OpenSSH_10.0p2 Debian-7`.
        cmdline: tokens of /proc/cmdline in order.
        boot_evidence: what tells the boot loader (`efi`, `efibootmgr` lines, `loader` EFI variable), in words.
        boot_files: boot loader configuration files that exist.
        firmware_tables: names below /sys/firmware/acpi/tables.
        iommus: names below /sys/class/iommu.
        remapped_interrupts: lines of /proc/interrupts whose chip is remapped (`IR-...`).
        available_modules: which modules the probe looks for exist (file or built in) for the running kernel.
        modprobe_config: filtered lines of `modprobe -c` (module names normalised with underscores).
        module_parameters: `module/parameter` -> value as printed.
    """

    name: str
    ssh_server: Reading[str] = NOT_ASKED
    hostname: Reading[str] = NOT_ASKED
    kernel: Reading[str] = NOT_ASKED
    boot_id: Reading[str] = NOT_ASKED
    boot_time: Reading[float] = NOT_ASKED
    clock: Reading[float] = NOT_ASKED
    uid: Reading[int] = NOT_ASKED
    distribution: Reading[str] = NOT_ASKED
    cpu_vendor: Reading[str] = NOT_ASKED
    pve_mounted: Reading[bool] = NOT_ASKED
    pve_version: Reading[str] = NOT_ASKED
    cmdline: Reading[tuple[str, ...]] = NOT_ASKED
    boot_evidence: Reading[dict[str, str]] = NOT_ASKED
    boot_files: Reading[tuple[TextFile, ...]] = NOT_ASKED
    secure_boot: Reading[bool] = NOT_ASKED
    lockdown: Reading[str] = NOT_ASKED
    kernel_config: Reading[dict[str, str]] = NOT_ASKED
    installed_kernels: Reading[tuple[str, ...]] = NOT_ASKED
    firmware_tables: Reading[tuple[str, ...]] = NOT_ASKED
    iommus: Reading[tuple[str, ...]] = NOT_ASKED
    iommu_groups: Reading[tuple[IommuGroup, ...]] = NOT_ASKED
    remapped_interrupts: Reading[int] = NOT_ASKED
    pci: Reading[tuple[PciDevice, ...]] = NOT_ASKED
    pci_drivers: Reading[tuple[str, ...]] = NOT_ASKED
    modules: Reading[tuple[Module, ...]] = NOT_ASKED
    module_parameters: Reading[dict[str, str]] = NOT_ASKED
    kernel_modules_dir: Reading[bool] = NOT_ASKED
    available_modules: Reading[tuple[str, ...]] = NOT_ASKED
    modprobe_config: Reading[tuple[str, ...]] = NOT_ASKED
    modprobe_files: Reading[tuple[TextFile, ...]] = NOT_ASKED
    modules_load_files: Reading[tuple[TextFile, ...]] = NOT_ASKED
    driverctl_files: Reading[tuple[TextFile, ...]] = NOT_ASKED
    initramfs: Reading[Initramfs] = NOT_ASKED
    kernel_log: Reading[KernelLog] = NOT_ASKED
    framebuffers: Reading[tuple[MemoryRange, ...]] = NOT_ASKED
    vfio_nodes: Reading[tuple[str, ...]] = NOT_ASKED
    qemu: Reading[tuple[QemuProcess, ...]] = NOT_ASKED
    reservations: Reading[tuple[Reservation, ...]] = NOT_ASKED
    lxc_gpu_use: Reading[tuple[LxcGpuUse, ...]] = NOT_ASKED
    gpu_file_holders: Reading[tuple[str, ...]] = NOT_ASKED
    hugepages: Reading[tuple[HugePages, ...]] = NOT_ASKED
