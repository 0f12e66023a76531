"""A host that has booted: everything a probe can see follows from firmware, boot files, kernel and topology."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labproof.simlab.host import bootfiles, kernel, modprobe
from labproof.simlab.host.binding import Drivers
from labproof.simlab.host.topology import iommu_groups
from labproof.simlab.world.states import Card

#: A udev rule that gives one device to one driver, by its address.
_OVERRIDE_RULE = re.compile(
    r'^ACTION=="add", SUBSYSTEM=="pci", KERNEL=="([0-9a-f:.]+)", ATTR\{driver_override\}="([\w-]+)"$', re.MULTILINE
)


@dataclass(frozen=True)
class JournalLine:
    """One line of the journal of this boot."""

    at: float  # Unix seconds
    source: str  # kernel, systemd-modules-load[412], ...
    text: str


@dataclass
class Qemu:
    """A running QEMU process."""

    vmid: int
    pid: int
    started_at: float
    argv: tuple[str, ...]
    config: dict[str, str]  # the configuration it was started with
    devices: tuple[tuple[str, str], ...]  # (hostpci key, host address) in guest order
    machine: str
    memory_mib: int


@dataclass
class Host:
    """A booted host. Built by `boot`; VM starts and writes over SSH or the API change it."""

    name: str
    inputs: dict[str, Any]
    cards: Mapping[str, Card]
    booted_at: float
    boot_id: str
    up: bool = True
    cmdline: str = ""
    iommu: str = ""  # "" | intel | amd: live
    firmware_table: str = ""  # "" | DMAR | IVRS
    remapping: bool = False
    groups: dict[int, tuple[str, ...]] = field(default_factory=dict)
    group_of: dict[str, int] = field(default_factory=dict)
    journal: list[JournalLine] = field(default_factory=list)
    qemus: dict[int, Qemu] = field(default_factory=dict)
    start_failures: dict[int, str] = field(default_factory=dict)
    modprobe_at_boot: modprobe.ModprobeConfig = field(default_factory=modprobe.ModprobeConfig)
    revision: int = 0  # rises with every change that a probe could see
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)  # PCI devices on the bus by address
    drivers: Drivers = field(init=False)

    # ------------------------------------------------------------- what the inputs say

    @property
    def kernel(self) -> str:
        """`uname -r`."""
        return str(self.inputs["kernel"]["version"])

    @property
    def cluster_file_system(self) -> bool:
        """Whether pmxcfs runs, so that /etc/pve is there."""
        return bool((self.inputs.get("services") or {}).get("pve-cluster", True))

    @property
    def hostname(self) -> str:
        """What the machine calls itself."""
        return str(self.inputs.get("hostname", self.name))

    @property
    def amd(self) -> bool:
        """Whether the CPU is AMD's."""
        return str(self.inputs["cpu"].get("vendor", "intel")) == "amd"

    @property
    def caching_mode(self) -> bool:
        """Whether the IOMMU is an emulated one, which the kernel then flushes strictly."""
        return bool(self.inputs["firmware"].get("caching_mode"))

    @property
    def files(self) -> dict[str, str]:
        """Current content of the files that the world knows."""
        return {
            path: entry["text"] for path, entry in self.inputs["files"].items()
            if entry and isinstance(entry.get("text"), str)
        }  # fmt: skip

    def files_then(self, *moments: str) -> dict[str, str]:
        """Content at an earlier moment: the first of the named keys that a file has, else its current text."""
        then: dict[str, str] = {}
        for path, entry in self.inputs["files"].items():
            value = next((entry[m] for m in moments if m in (entry or {})), (entry or {}).get("text"))
            if isinstance(value, str):
                then[path] = value
        return then

    def changed_at(self, path: str) -> float:
        """Modification time of a file (Unix seconds): 30 days before boot unless the inputs say otherwise."""
        entry = self.inputs["files"].get(path) or {}
        later = any(key in entry for key in ("at_refresh", "in_initramfs", "booted_with"))
        return self.booted_at + float(entry.get("changed", 3600.0 if later else -30 * 86400.0))

    @property
    def configured_cmdline(self) -> str:
        """The command line that the boot loader's menu holds now."""
        return bootfiles.configured_cmdline(self.inputs["boot"], self.kernel, self.files_then("at_refresh"))

    @property
    def modprobe_now(self) -> modprobe.ModprobeConfig:
        """modprobe.d as it is on disk."""
        return modprobe.parse(self.files)

    @property
    def unavailable_modules(self) -> frozenset[str]:
        """Modules that modprobe does not find: left out of the kernel, or all of a purged one."""
        missing = {str(m).replace("-", "_") for m in self.inputs["kernel"].get("without", ())}
        return frozenset(missing)

    def log(self, source: str, text: str, at: float | None = None) -> None:
        """Add a journal line, by default now."""
        self.journal.append(JournalLine(time.time() if at is None else at, source, text))
        self.revision += 1

    def dead(self, address: str) -> bool:
        """Whether the device no longer answers on the bus."""
        return self.devices[address].get("defect") == "dead"

    def reserved_regions(self, group: int) -> list[tuple[str, str, str]]:
        """(start, end, type) of a group's reserved regions."""
        regions = []
        relaxed = "relax_rmrr" in bootfiles.switch(self.cmdline, "intel_iommu")
        for address, region in (self.inputs["firmware"].get("rmrr") or {}).items():
            if self.group_of.get(address) == group:
                kind = "direct-relaxable" if relaxed else str(region.get("type", "direct"))
                regions.append((str(region["start"]), str(region["end"]), kind))
        members = self.groups.get(group, ())
        if self.iommu == "intel" and any(str(self.devices[a]["class"]).startswith("0x0601") for a in members):
            # CONFIG_INTEL_IOMMU_FLOPPY_WA: the first 16 MiB for the ISA bridge (recorded, captures/host/guest)
            regions.append(("0x0000000000000000", "0x0000000000ffffff", "direct-relaxable"))
        regions.append(("0x00000000fee00000", "0x00000000feefffff", "msi"))
        return regions


def boot(name: str, inputs: dict[str, Any], cards: Mapping[str, Card], now: float | None = None) -> Host:
    """Boot a host from its inputs.

    Returns:
        The host with no guest started yet. `up` is False when its command line names no root file system.
    """
    present = time.time() if now is None else now
    booted_at = present - float(inputs.get("uptime_s", 604800))
    host = Host(name, inputs, cards, booted_at, str(uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {booted_at}")))
    inputs["files"] = {path: entry for path, entry in (inputs.get("files") or {}).items() if entry}
    host.devices = _on_the_bus(inputs["pci"])
    override = inputs["boot"].get("cmdline_at_boot")
    host.cmdline = str(override) if override else host.configured_cmdline
    host.up = "root=" in host.cmdline
    _start_iommu(host)
    _kernel_log(host)
    _load_drivers(host)
    host.journal.sort(key=lambda line: line.at)
    return host


def _on_the_bus(inventory: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """All devices, of virtual functions (`physfn`) as many as their parent's `sriov_numvfs` says."""
    found: dict[str, dict[str, Any]] = {}
    made: dict[str, int] = {}
    for address, device in sorted(inventory.items()):
        parent = device.get("physfn")
        if parent is not None:
            made[parent] = made.get(parent, 0) + 1
            if made[parent] > int(inventory.get(parent, {}).get("sriov_numvfs", 0)):
                continue
        found[address] = device
    return found


def _start_iommu(host: Host) -> None:
    firmware = host.inputs["firmware"]
    host.firmware_table = ("IVRS" if host.amd else "DMAR") if firmware.get("iommu") else ""
    live = bool(host.firmware_table) and "off" not in bootfiles.switch(host.cmdline, "iommu")
    words = bootfiles.switch(host.cmdline, "amd_iommu" if host.amd else "intel_iommu")
    state = [w for w in words if w in ("on", "off")]
    if host.amd:
        live = live and "off" not in state  # on by default, facts proxmox 1.1
    else:
        live = live and (state[-1] == "on" if state else kernel.intel_iommu_by_default(host.kernel))
    host.iommu = ("amd" if host.amd else "intel") if live else ""
    host.remapping = (
        bool(host.firmware_table)
        and bool(firmware.get("interrupt_remapping"))
        and "off" not in bootfiles.switch(host.cmdline, "intremap")
        and not (host.amd and "off" in bootfiles.switch(host.cmdline, "amd_iommu"))  # one driver does both there
    )
    if live:
        overrides = _acs_overrides(host)
        left_out = {"0000:00:02.0"} if "igfx_off" in bootfiles.switch(host.cmdline, "intel_iommu") else set()
        left_out |= {a for a, d in host.devices.items() if kernel.igpu_without_iommu(host.kernel, d, a)}
        devices = {a: {**d, "uncovered": True} if a in left_out else d for a, d in host.devices.items()}
        host.groups = iommu_groups(devices, overrides, acs_lost=kernel.loses_acs(host.kernel))
        host.group_of = {address: n for n, members in host.groups.items() for address in members}


def _acs_overrides(host: Host) -> frozenset[str]:
    """Words of pcie_acs_override= that this kernel obeys."""
    words = frozenset(bootfiles.switch(host.cmdline, "pcie_acs_override"))
    return words if kernel.has_acs_override(host.kernel) else frozenset()


def _kernel_log(host: Host) -> None:
    clock = host.booted_at

    def say(text: str, step: float = 0.004) -> None:
        nonlocal clock
        clock += step
        host.log("kernel", text, clock)

    say(
        f"Linux version {host.kernel} (build@proxmox) (gcc (Debian 12.2.0-14+deb12u1) 12.2.0, "
        "GNU ld (GNU Binutils for Debian) 2.40) #1 SMP PREEMPT_DYNAMIC PMX",
        0.0,
    )
    say(f"Command line: {host.cmdline}", 0.0)
    if host.firmware_table:
        say(
            f"ACPI: {host.firmware_table} 0x000000006BB2B000 000298 "
            f"(v01 {'AMD   ' if host.amd else 'ALASKA'} A M I    00000001 INTL 20091013)"
        )
    say(f"Kernel command line: {host.cmdline}")
    for word in bootfiles.switch(host.cmdline, "intel_iommu"):  # printed by the argument's parser, facts 0.2
        if word in ("on", "off"):
            say("DMAR: IOMMU enabled" if word == "on" else "DMAR: IOMMU disabled")
        if word == "relax_rmrr":
            say("DMAR: Intel-IOMMU: assuming all RMRRs are relaxable. This can lead to instability or data loss")
    if _acs_overrides(host):
        say("Warning: PCIe ACS overrides enabled; This may allow non-IOMMU protected peer-to-peer DMA")
    if host.firmware_table == "DMAR":
        say(f"DMAR: Host address width {host.inputs['cpu'].get('address_width', 46)}", 0.1)
        say("DMAR: DRHD base: 0x000000d37fc000 flags: 0x0")
        say("DMAR: dmar0: reg_base_addr d37fc000 ver 1:0 cap 8d2078c106f0466 ecap f020df")
        for address, region in (host.inputs["firmware"].get("rmrr") or {}).items():
            say(f"DMAR: RMRR base: {region['start']} end: {region['end']}" if address else "")
        if host.remapping:
            say("DMAR-IR: Enabled IRQ remapping in x2apic mode")
    passthrough = "pt" in bootfiles.switch(host.cmdline, "iommu")
    say(
        "iommu: Default domain type: " + ("Passthrough (set via kernel command line)" if passthrough else "Translated"),
        0.5,
    )
    if host.iommu == "intel" and host.caching_mode:
        say("DMAR: IOMMU batching disallowed due to virtualization")
    for address, device in sorted(host.devices.items()):
        kind = "01" if str(device["class"]).startswith("0x0604") else "00"
        say(f"pci {address}: [{device['id']}] type {kind} class {device['class']}", 0.001)
    for address in sorted(host.group_of):
        say(f"pci {address}: Adding to iommu group {host.group_of[address]}", 0.001)
    if host.iommu == "intel":
        say("DMAR: Intel(R) Virtualization Technology for Directed I/O")
    if host.firmware_table == "IVRS" and host.iommu:
        say("AMD-Vi: Extended features (0x58f77ef22294a5a, 0x0): PPR NX GT IA GA PC GA_vAPIC")
        if host.remapping:
            say("AMD-Vi: Interrupt remapping enabled")
    for address, device in sorted(host.devices.items()):
        if device.get("defect") == "dead":
            say(f"pci {address}: Unable to change power state from D3cold to D0, device inaccessible")
        if device.get("link_errors"):
            port = device.get("parent", address)
            say(f"pcieport {port}: AER: Uncorrected (Non-Fatal) error received: {address}", 30.0)
            say(f"vfio-pci {address}: PCIe Bus Error: severity=Uncorrected (Non-Fatal), type=Transaction Layer")
        if device.get("stray_dma") and host.iommu == "intel":
            say("DMAR: DRHD: handling fault status reg 2", 30.0)
            say(
                f"DMAR: [DMA Read] Request device [{address[5:]}] fault addr 0x7f3a1000 "
                "[fault reason 0x06] PTE Read access is not set"
            )
        if device.get("stray_dma") and host.iommu == "amd":
            say(
                f"vfio-pci {address}: AMD-Vi: Event logged "
                "[IO_PAGE_FAULT domain=0x000b address=0x7f3a1000 flags=0x0020]",
                30.0,
            )


def _load_drivers(host: Host) -> None:
    clock = host.booted_at + 4.0

    def log(source: str, text: str) -> None:
        nonlocal clock
        clock += 0.01
        host.log(source, text, clock)

    host.drivers = Drivers(
        host.devices, version=host.kernel, cmdline=host.cmdline, unavailable=host.unavailable_modules,
        extra=host.inputs.get("extra_modules") or {}, group_of=host.group_of, log=log,
    )  # fmt: skip
    for path, text in sorted(host.files_then("booted_with").items()):
        if path.startswith("/etc/udev/rules.d/") and path.endswith(".rules"):
            for address, driver in _OVERRIDE_RULE.findall(text):  # set by udev before it loads a module for the device
                host.drivers.overrides[address] = driver
    host.modprobe_at_boot = modprobe.parse(host.files_then("booted_with", "in_initramfs"))
    host.drivers.coldplug(host.modprobe_at_boot)
    files = host.files_then("booted_with")
    lists = sorted(p for p in files if p.startswith("/etc/modules-load.d/") and p.endswith(".conf"))
    for path in ("/etc/modules", *lists):
        for line in files.get(path, "").splitlines():
            words = line.split()
            if words and not words[0].startswith(("#", ";")):
                module = words[0].replace("-", "_")
                if host.drivers.load(module, modprobe.parse(files)):
                    log("systemd-modules-load[412]", f"Inserted module '{words[0]}'")
                else:
                    log("systemd-modules-load[412]", f"Failed to find module '{words[0]}'")
    for path, text in sorted(files.items()):
        address = path.removeprefix("/etc/driverctl.d/")
        if address != path and address in host.devices:
            host.drivers.set_override(address, text.strip())
    host.drivers.load("kvm_amd" if host.amd else "kvm_intel", host.modprobe_at_boot)
    for address, driver in host.drivers.bound.items():
        bar = framebuffer_overlap(host, address)
        if bar is not None and driver == "vfio-pci":
            start, end = bar_ranges(host, address)[bar]
            for _ in range(3):  # it repeats as long as somebody maps the BAR (facts proxmox 1.6)
                log(
                    "kernel", f"vfio-pci {address}: BAR {bar}: can't reserve [mem {start:#010x}-{end:#010x} 64bit pref]"
                )


def bar_ranges(host: Host, address: str) -> list[tuple[int, int]]:
    """(start, end) of a device's memory BARs; the layout is stable for one inventory."""
    base = 0xA0000000
    for other, device in sorted(host.devices.items()):
        ranges = []
        for size in device.get("bar_mib", [1]):
            length = int(size) << 20
            base = (base + length - 1) // length * length
            ranges.append((base, base + length - 1))
            base += length
        if other == address:
            return ranges
    return []


def framebuffer_overlap(host: Host, address: str) -> int | None:
    """Index of the BAR that the firmware's framebuffer lies in, None when it is not on this device."""
    firmware = host.inputs["firmware"]
    if firmware.get("primary_display") != address or firmware.get("text_console"):
        return None
    if "sysfb_init" in bootfiles.switch(host.cmdline, "initcall_blacklist"):
        return None
    return 1 if len(bar_ranges(host, address)) > 1 else 0
