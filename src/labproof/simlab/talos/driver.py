"""The NVIDIA driver in a booting kernel: which modules load, which functions it takes, what it logs.

Formats: facts/talos.md 4 and 6 (T10-T22), facts/transcode.md 4 (Xid numbers).
The lines "No NVIDIA GPU found" and "None of the NVIDIA devices were initialized" are from general knowledge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labproof.simlab.talos.image import driver_of, kmods
from labproof.simlab.talos.releases import Release, architecture
from labproof.simlab.talos.state import Extension, LogRecord, Module
from labproof.simlab.world.states import GuestPci

LOAD_S = 12.0  # when machine.kernel.modules are loaded; the PCI scan was before
NVIDIA_MODULES = ("nvidia", "nvidia_uvm", "nvidia_drm", "nvidia_modeset")
_SIZES = {"nvidia": 97419264, "nvidia_uvm": 1146880, "nvidia_drm": 139264, "nvidia_modeset": 1716224}
_NEEDS = {"nvidia_uvm": ("nvidia",), "nvidia_modeset": ("nvidia",), "nvidia_drm": ("nvidia_modeset", "nvidia")}

#: Text of an Xid record after its number, by number (NVIDIA nverror.h names; wording of the usual records).
XID_TEXTS = {
    13: "pid={pid}, name=ffmpeg, Graphics Exception: ESR 0x404490=0x80000001",
    31: "pid={pid}, name=ffmpeg, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted",
    48: "pid='<unknown>', name=<unknown>, An uncorrectable double bit error (DBE) has been detected on GPU",
    63: "pid='<unknown>', name=<unknown>, Dynamic Page Retirement: New page retired, reboot to activate",
    64: "pid='<unknown>', name=<unknown>, Dynamic Page Retirement: Fatal error, unable to retire page",
    79: "pid={pid}, name=ffmpeg, GPU has fallen off the bus.",
    94: "pid={pid}, name=ffmpeg, Contained: SM (0x1). RST: No, D-RST: No",
    95: "pid={pid}, name=ffmpeg, Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No",
    119: "pid={pid}, name=ffmpeg, Timeout after 6s of waiting for RPC response from GPU0 GSP! Expected function 76",
    120: "pid='<unknown>', name=<unknown>, GSP task exception: 0x7",
}


@dataclass
class DriverBoot:
    """How the NVIDIA driver came up."""

    version: str | None = None
    open_flavour: bool = False
    modules: list[Module] = field(default_factory=list)
    bound: list[GuestPci] = field(default_factory=list)  # functions the driver took
    ready: list[GuestPci] = field(default_factory=list)  # of those, the ones it could initialise
    lost: list[GuestPci] = field(default_factory=list)  # ready once, then fallen off the bus
    log: list[LogRecord] = field(default_factory=list)


def boot_driver(
    extensions: Sequence[Extension],
    release: Release,
    wanted: Mapping[str, Any],
    functions: Sequence[GuestPci],
    rebound: Mapping[str, str],
    missing_files: frozenset[str] = frozenset(),
) -> DriverBoot:
    """Load the modules of the machine configuration, in its order.

    Args:
        extensions: what is installed.
        release: the running Talos release.
        wanted: `machine.kernel.modules`, name -> parameters.
        functions: PCI functions of the guest.
        rebound: PCI address -> driver given by a PCIDriverRebindConfig document.
        missing_files: files that a defective extension build lacks.
    """
    boot = DriverBoot()
    asked = [name for name in wanted if name in NVIDIA_MODULES]
    flavours = kmods(extensions)
    if not asked:
        return boot  # the extension's modprobe.d blacklists every alias: nothing loads by itself
    if not flavours:
        for name in asked:
            boot.log.append(_controller(12.1, f'error loading module "{name}": module "{name}" not found'))
        return boot
    kmod = flavours[-1]  # the overlay mounted last wins
    if not kmod.version.endswith(f"-{release.tag}"):
        boot.log.append(LogRecord(12.0, "Loading of module with unavailable key is rejected", priority="err"))
        for name in asked:
            boot.log.append(
                _controller(12.1, f'error loading module "{name}": load {name} failed: key was rejected by service')
            )
        return boot
    order = [m for name in asked for m in (*_NEEDS.get(name, ()), name)]
    for name in dict.fromkeys(order):
        if name == "nvidia":
            if not _load_core(boot, kmod, functions, rebound, missing_files):
                boot.log.append(_controller(12.9, 'error loading module "nvidia": load nvidia failed: no such device'))
                return boot
        elif name == "nvidia_uvm":
            boot.log.append(LogRecord(14.6, "nvidia-uvm: Loaded the UVM driver, major device number 234."))
        elif name == "nvidia_modeset":
            kind = "Open Kernel" if boot.open_flavour else "Kernel"
            text = f"nvidia-modeset: Loading NVIDIA {kind} Mode Setting Driver for UNIX platforms  {boot.version}"
            boot.log.append(LogRecord(14.2, text))
        else:
            for number, pci in enumerate(boot.ready):
                head = f"[drm] [nvidia-drm] [GPU ID 0x{int(pci.address[5:7], 16) << 8:08x}] Loading driver"
                boot.log.append(LogRecord(14.4, head))
                minor = f"[drm] Initialized nvidia-drm 0.0.0 for {pci.address} on minor {number + 1}"
                boot.log.append(LogRecord(14.5, minor))
        boot.modules.append(Module(name, _SIZES[name], _NEEDS.get(name, ())))
    return boot


def add_incidents(boot: DriverBoot) -> None:
    """What happened to ready cards since the boot: Xid records, and loss of the card for Xid 79.

    A card's entry says so under `incidents`: Xid number -> seconds after the kernel started.
    """
    for pci in list(boot.ready):
        incidents = pci.card.inputs.get("incidents") or {} if pci.card else {}
        for number, after_s in sorted(incidents.items(), key=lambda item: float(item[1])):
            boot.log.append(LogRecord(float(after_s), xid_text(pci.address, int(number)), priority="warning"))
            if int(number) == 79:
                lost = f"NVRM: GPU {pci.address}: GPU has fallen off the bus."
                boot.log.append(LogRecord(float(after_s) + 0.001, lost, priority="warning"))
                boot.ready.remove(pci)
                boot.lost.append(pci)


def xid_text(pci_address: str, number: int) -> str:
    """A record of the kernel log for one Xid."""
    short = pci_address.rsplit(".", 1)[0]
    return f"NVRM: Xid (PCI:{short}): {number}, {XID_TEXTS[number].format(pid=41217)}"


def unload(boot: DriverBoot) -> None:
    """What `rmmod` leaves: no module, no device node, a line of the core's end."""
    boot.version, boot.bound, boot.ready, boot.lost, boot.modules = None, [], [], [], []
    boot.log.append(LogRecord(86400.0, "nvidia-nvlink: Unregistered Nvlink Core, major device number 239"))


def _load_core(
    boot: DriverBoot,
    kmod: Extension,
    functions: Sequence[GuestPci],
    rebound: Mapping[str, str],
    missing_files: frozenset[str],
) -> bool:
    version = driver_of(kmod)
    open_flavour = kmod.name.startswith("nvidia-open")
    displays = [f for f in functions if f.vendor_device.startswith("10de:") and f.pci_class.startswith("0x03")]
    free = [f for f in displays if f.address not in rebound and lost_after(f) > LOAD_S]
    boot.log.append(LogRecord(12.4, "nvidia: loading out-of-tree module taints kernel.", priority="warning"))
    boot.log.append(LogRecord(12.5, "nvidia-nvlink: Nvlink Core is being initialized, major device number 239"))
    if not free:
        boot.log.append(LogRecord(12.7, "NVRM: No NVIDIA GPU found.", priority="warning"))
        boot.log.append(LogRecord(12.8, "nvidia-nvlink: Unregistered Nvlink Core, major device number 239"))
        return False
    taken = [f for f in free if not _refused(boot, f, version, open_flavour)]
    if not taken:
        boot.log.append(LogRecord(12.75, "NVRM: None of the NVIDIA devices were initialized.", priority="warning"))
        boot.log.append(LogRecord(12.8, "nvidia-nvlink: Unregistered Nvlink Core, major device number 239"))
        return False
    boot.version, boot.open_flavour = version, open_flavour
    boot.bound = taken
    if open_flavour:
        line = (
            f"NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build  "
            "(root@buildkitsandbox)  Tue Jul 15 10:33:23 UTC 2025"
        )
    else:
        line = f"NVRM: loading NVIDIA UNIX x86_64 Kernel Module  {version}  Tue Jul 15 10:33:23 UTC 2025"
    boot.log.append(LogRecord(13.0, line))
    for pci in taken:
        if _initialises(boot, pci, open_flavour, missing_files):
            boot.ready.append(pci)
    return True


def lost_after(pci: GuestPci) -> float:
    """Seconds after the kernel's start at which the card fell off the bus; never, for a sound one."""
    incidents = pci.card.inputs.get("incidents") or {} if pci.card else {}
    return min((float(at) for number, at in incidents.items() if int(number) == 79), default=float("inf"))


def _refused(boot: DriverBoot, pci: GuestPci, version: str, open_flavour: bool) -> bool:
    """Whether the module turns the chip down at probe time, saying why."""
    if pci.defect == "bar":
        region = "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:\\x0aNVRM: BAR1 is 0M @ 0x0 "
        boot.log.append(LogRecord(12.6, f"{region}(PCI:{pci.address})", priority="warning"))
        return True
    generation = _generation(pci)
    device = pci.vendor_device
    head = f"NVRM: The NVIDIA GPU {pci.address} (PCI ID: {device})\\x0aNVRM: installed in this system is "
    head += "not supported by "
    if open_flavour and generation in ("maxwell", "pascal", "volta"):
        tail = "open\\x0aNVRM: nvidia.ko because it does not include the required GPU\\x0aNVRM: System Processor (GSP)."
    elif generation in ("maxwell", "pascal", "volta") and int(version.split(".", maxsplit=1)[0]) > 580:
        tail = f"the\\x0aNVRM: NVIDIA {version} driver release."
    else:
        return False
    boot.log.append(LogRecord(12.6, head + tail, priority="warning"))
    return True


def _initialises(boot: DriverBoot, pci: GuestPci, open_flavour: bool, missing_files: frozenset[str]) -> bool:
    """Whether the adapter comes up; the open modules need the GSP's firmware for it."""
    generation = _generation(pci)
    firmware = f"/usr/lib/firmware/nvidia/{boot.version}/{'gsp_tu10x' if generation == 'turing' else 'gsp_ga10x'}.bin"
    if open_flavour and firmware in missing_files:
        name = firmware.removeprefix("/usr/lib/firmware/")
        text = f"nvidia {pci.address}: Direct firmware load for {name} failed with error -2"
        boot.log.append(LogRecord(14.9, text, priority="warning"))
        text = f"NVRM: GPU {pci.address}: Cannot initialize GSP firmware RM"
        boot.log.append(LogRecord(14.95, text, priority="err"))
    elif pci.defect != "no-reset" and not (generation == "blackwell" and not open_flavour):
        return True
    code = "0x22:0x56:894" if generation == "blackwell" else "0x24:0xffff:1220"
    boot.log.append(LogRecord(15.0, f"NVRM: GPU {pci.address}: RmInitAdapter failed! ({code})", priority="err"))
    boot.log.append(
        LogRecord(15.1, f"NVRM: GPU {pci.address}: rm_init_adapter failed, device minor number 0", priority="err")
    )
    return False


def _generation(pci: GuestPci) -> str:
    said = pci.card.inputs.get("architecture") if pci.card else None
    return str(said or architecture(pci.vendor_device)).lower()


def _controller(offset_s: float, error: str) -> LogRecord:
    """Talos' own log line in the kernel log; quotes arrive escaped (facts/talos.md 4, dmesg traps)."""
    quoted = error.replace('"', '\\x5c"')
    text = (
        '[talos] controller failed {"component": "controller-runtime", '
        f'"controller": "runtime.KernelModuleSpecController", "error": "{quoted}"}}'
    )
    return LogRecord(offset_s, text, facility="user", priority="warning")
