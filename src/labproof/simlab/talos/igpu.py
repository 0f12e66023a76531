"""Intel graphics in a booting kernel: i915 and xe take a function, load its firmware and make its DRM nodes.

Texts: facts/talos.md 4 (good i915 boot) and 6 (T25-T31), facts/transcode.md 3.2 (GuC, HuC, kernels).
The module's own refusal under `nomodeset` is silent; the line about force_probe is the driver's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from labproof.simlab.pod.chips import Chip, chip_of
from labproof.simlab.talos.state import LogRecord, Module
from labproof.simlab.world.states import DeviceNode, DrmDevice, GuestPci

_AT_S = 5.2  # udev loads both by PCI alias, long before machine.kernel.modules
_SIZES = {"i915": 4366336, "xe": 3252224}


@dataclass
class IgpuBoot:
    """How Intel graphics came up."""

    modules: list[Module] = field(default_factory=list)
    devices: list[DrmDevice] = field(default_factory=list)
    bound: dict[str, str] = field(default_factory=dict)  # PCI address -> driver
    log: list[LogRecord] = field(default_factory=list)


@dataclass(frozen=True)
class Udev:
    """What a udev rule of the owner makes of the DRM nodes; systemd's own default on Talos is 0666 root:root."""

    mode: int = 0o666
    gid: int = 0
    no_render: bool = False


def udev_of(rules: Mapping[str, object] | None) -> Udev:
    """Inputs `udev_dri: {mode: "0660", gid: 44, no_render: true}`."""
    rules = rules or {}
    return Udev(int(str(rules.get("mode", "0666")), 8), int(str(rules.get("gid", 0))), bool(rules.get("no_render")))


def boot_igpu(
    drivers: Mapping[str, bool],
    kernel: str,
    functions: Sequence[GuestPci],
    arguments: Sequence[str],
    rebound: Mapping[str, str],
    *,
    warm: bool = False,
    first_card: int = 0,
    missing_firmware: frozenset[str] = frozenset(),
) -> IgpuBoot:
    """Let i915 and xe probe the Intel display functions.

    Args:
        drivers: driver (`i915`, `xe`) -> whether its module and firmware are installed.
        kernel: kernel release, `6.12.62-talos`.
        functions: PCI functions of the machine.
        arguments: kernel command line words.
        rebound: PCI address -> another driver that was given it.
        warm: the kernel was started by kexec, the chip did not see a power cycle.
        first_card: how many /dev/dri/cardN there are already.
        missing_firmware: files that the image lacks, `i915/tgl_dmc` and the like.
    """
    boot = IgpuBoot()
    words = dict(word.partition("=")[::2] for word in arguments)
    blacklist = words.get("module_blacklist", "").split(",")
    shows = [f for f in functions if f.vendor_device.startswith("8086:") and f.pci_class.startswith("0x03") and f.card]
    usable = [name for name, there in drivers.items() if there and name not in blacklist]
    if not shows or "nomodeset" in words:
        return boot
    for function in shows:
        chip = chip_of(function.card.inputs) if function.card else None
        if chip is None or function.address in rebound or function.defect == "dead":
            continue
        driver = _driver_for(boot, function, chip, usable, words, kernel)
        if driver:
            _probe(boot, function, chip, driver, words, kernel, first_card, warm, missing_firmware)
    for name in usable:
        boot.modules.append(Module(name, _SIZES[name]))
    return boot


def _driver_for(
    boot: IgpuBoot, function: GuestPci, chip: Chip, usable: Sequence[str], words: Mapping[str, str], kernel: str
) -> str:
    """Which of the loaded drivers takes the function; xe takes older chips only when told to."""
    digits = function.vendor_device.partition(":")[2]
    forced = [name for name in ("xe", "i915") if digits in words.get(f"{name}.force_probe", "").split(",")]
    barred = [name for name in usable if f"!{digits}" in words.get(f"{name}.force_probe", "").split(",")]
    for name in usable:
        if name == "i915" and words.get("i915.modeset") == "0":
            barred.append(name)
    open_to = [name for name in usable if name not in barred]
    for name in open_to:
        if name in forced:
            return name
    old = _version(kernel) < chip.kernel
    for name in open_to:
        if name in chip.drivers and not old:
            return name
    refused = next((name for name in open_to if name in chip.drivers or name == "xe"), "")
    if refused:
        text = f"{refused} {function.address}: Your graphics device {digits} is not officially supported by "
        tail = f"{refused} driver in this kernel version. To force {refused} probe,"
        boot.log.append(LogRecord(_AT_S, text + tail, priority="notice"))
    return ""


def _probe(
    boot: IgpuBoot,
    function: GuestPci,
    chip: Chip,
    driver: str,
    words: Mapping[str, str],
    kernel: str,
    first_card: int,
    warm: bool,
    missing: frozenset[str],
) -> None:
    where = f"{driver} {function.address}:"
    digits = function.vendor_device.partition(":")[2]
    say = boot.log.append
    say(LogRecord(_AT_S, f"{where} [drm] Found {chip.codename} (device ID {digits}) display version {chip.display}"))
    card = function.card
    assert card is not None, "functions without a card were left out"
    # both appear in good logs of passed iGPUs (facts/talos.md 6, T27)
    say(LogRecord(_AT_S + 0.02, f"{where} Invalid PCI ROM header signature: expecting 0xaa55, got 0x0000"))
    say(LogRecord(_AT_S + 0.03, f"{where} [drm] Failed to find VBIOS tables (VBT)"))
    if warm and card.inputs.get("needs_power_cycle"):
        say(LogRecord(_AT_S + 0.1, f"{where} [drm] *ERROR* GT0: GuC initialization failed -ETIMEDOUT", priority="err"))
        say(LogRecord(_AT_S + 0.11, f"{where} Device initialization failed (-110)", priority="err"))
        return
    broken = card.inputs.get("breaks_from_kernel")
    if broken and _version(kernel) >= _version(str(broken)):
        text = f"{where} [drm] *ERROR* Failed to initialize GPU, declaring it wedged!"
        say(LogRecord(_AT_S + 0.1, text, priority="err"))
        say(LogRecord(_AT_S + 0.11, f"{where} Device initialization failed (-19)", priority="err"))
        return
    dmc = f"i915/{chip.firmware}_dmc.bin"
    if dmc in missing:
        text = f"{where} Direct firmware load for {dmc} failed with error -2"
        say(LogRecord(_AT_S + 0.05, text, priority="warning"))
    else:
        say(LogRecord(_AT_S + 0.05, f"{where} [drm] Finished loading DMC firmware {dmc} (v2.16)"))
    guc, huc = firmware_of(chip, driver, words)
    if guc or huc:
        name = f"{'xe' if driver == 'xe' else 'i915'}/{chip.firmware}_guc_70.bin"
        if name in missing:
            text = f"{where} [drm] *ERROR* GT0: GuC firmware {name}: fetch failed -ENOENT"
            say(LogRecord(_AT_S + 0.06, text, priority="err"))
            if chip.needs_guc:
                say(LogRecord(_AT_S + 0.07, f"{where} Device initialization failed (-2)", priority="err"))
                return
            guc = huc = False
        elif guc:
            say(LogRecord(_AT_S + 0.06, f"{where} [drm] GT0: GuC firmware {name} version 70.36.0"))
    media = f"i915/{chip.firmware}_huc.bin"
    if huc and media in missing:
        text = f"{where} [drm] GT0: HuC firmware {media}: fetch failed -ENOENT"
        say(LogRecord(_AT_S + 0.08, text, priority="warning"))
        huc = False
    elif huc:
        say(LogRecord(_AT_S + 0.08, f"{where} [drm] GT0: HuC firmware {media} version 7.9.3"))
        say(LogRecord(_AT_S + 0.09, f"{where} [drm] GT0: HuC: authenticated for all workloads"))
    number = len(boot.devices)
    boot.bound[function.address] = driver
    minor = first_card + number
    say(LogRecord(_AT_S + 0.2, f"[drm] Initialized {driver} 1.6.0 for {function.address} on minor {minor}"))
    for after, engine in sorted((card.inputs.get("hangs") or {}).items(), key=lambda item: float(item[0])):
        for text in _hang(where, driver, str(engine)):
            say(LogRecord(float(after), text, priority="warning"))
    boot.devices.append(
        DrmDevice(
            card, function.address, function.vendor_device, driver, f"/dev/dri/card{minor}",
            f"/dev/dri/renderD{128 + number}", guc, huc,
        )
    )  # fmt: skip


def _hang(where: str, driver: str, engine: str) -> tuple[str, ...]:
    """The records of a GPU hang (facts/transcode.md W43, wild W63)."""
    if driver == "xe":
        return (
            f"{where} [drm] GT0: Engine reset: engine_class={engine}, logical_mask: 0x1, guc_id=2",
            f"{where} [drm] GT0: trying reset from guc_exec_queue_timedout_job",
        )
    return (
        f"{where} [drm] GPU HANG: ecode 12:4:28fffffd, in ffmpeg [41217]",
        f"{where} [drm] Resetting {engine} for CS error",
    )


def firmware_of(chip: Chip, driver: str, words: Mapping[str, str]) -> tuple[bool, bool]:
    """(GuC submission, HuC): xe uses both; i915 by `enable_guc` (bit 0 submission, bit 1 HuC; -1: its default)."""
    if driver == "xe":
        return True, chip.has_huc
    given = words.get("i915.enable_guc", "-1")
    bits = chip.default_guc if given in ("", "-1") else int(given)
    return bool(bits & 1) and chip.generation >= 11, bool(bits & 2) and chip.has_huc


def nodes_of(boot: IgpuBoot, udev: Udev) -> tuple[DeviceNode, ...]:
    """The DRM nodes of the driven devices."""
    found = []
    for device in boot.devices:
        card = int(device.card_node.removeprefix("/dev/dri/card"))
        render = int(device.render_node.removeprefix("/dev/dri/renderD"))
        found.append(DeviceNode(device.card_node, udev.mode, gid=udev.gid, major=226, minor=card))
        if not udev.no_render:
            found.append(DeviceNode(device.render_node, udev.mode, gid=udev.gid, major=226, minor=render))
    return tuple(found)


def _version(text: str) -> tuple[int, int]:
    first, _, rest = text.partition(".")
    digits = "".join(c for c in rest.split(".")[0].split("-")[0] if c.isdigit())
    return int(first), int(digits or 0)
