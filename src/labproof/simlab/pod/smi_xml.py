"""`nvidia-smi -q -x`: the report as XML, in the form of the driver's branch.

Element names and order follow reports of real drivers (facts/transcode.md 4): document type v11 for 515, v12 for 525 to
555, v13 from 560; `clocks_event_reasons` replaced `clocks_throttle_reasons` with v13, `gpu_power_readings` replaced
`power_readings` with 535, and drivers from 590 call some settings deprecated.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from labproof.simlab.pod.access import cuda_version, numbers
from labproof.simlab.pod.readings import Readings, read_card
from labproof.simlab.pod.smi_power import DEPRECATED, NA, Tree, clocks_of, heat_and_power, same
from labproof.simlab.world.states import NodeGpu, PodWorld

_REASONS = (
    "gpu_idle",
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "display_clocks_setting",
)


def report_xml(pod: PodWorld, gpus: Sequence[NodeGpu]) -> str:
    """The whole document.

    Args:
        pod: the container's world; its node gives driver and passthrough.
        gpus: the GPUs NVML lists in this container.
    """
    driver = pod.node.driver_version or ""
    major, minor = cuda_version(driver)
    lines = ['<?xml version="1.0" ?>', f'<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v{dtd(driver)}.dtd">']
    lines.append("<nvidia_smi_log>")
    head: Tree = [
        ("timestamp", time.strftime("%a %b %e %H:%M:%S %Y", time.gmtime())),
        ("driver_version", driver),
        ("cuda_version", f"{major}.{minor}"),
        ("attached_gpus", str(len(gpus))),
    ]
    _write(lines, head, 1)
    for gpu in gpus:
        lines.append(f'\t<gpu id="0000{gpu.address.upper()}">')
        _write(lines, _gpu(pod, gpu, read_card(gpu.card)), 2)
        lines.append("\t</gpu>")
        lines.append("")
    lines.append("</nvidia_smi_log>")
    return "\n".join(lines) + "\n"


def dtd(driver: str) -> int:
    """Document type number of a driver."""
    branch = (*numbers(driver), 0)[0]
    return 11 if branch < 525 else 12 if branch < 560 else 13


def _write(lines: list[str], tree: Tree, depth: int) -> None:
    indent = "\t" * depth
    for name, content in tree:
        if isinstance(content, list):
            lines.append(f"{indent}<{name}>")
            _write(lines, content, depth + 1)
            lines.append(f"{indent}</{name}>")
        elif name == "mig_devices":
            lines += [f"{indent}<{name}>", f"{indent}\t{content}", f"{indent}</{name}>"]
        else:
            lines.append(f"{indent}<{name}>{escape(str(content))}</{name}>")


def _gpu(pod: PodWorld, gpu: NodeGpu, now: Readings) -> Tree:
    card = gpu.card.inputs
    driver = pod.node.driver_version or ""
    branch = (*numbers(driver), 0)[0]
    new, deprecated = dtd(driver) >= 13, branch >= 590
    data_centre = card.get("ecc") is not None
    bus = gpu.address.split(":")
    inforom = card.get("inforom") or {}
    mig = NA if "mig" not in card else ("Enabled" if card["mig"] else "Disabled")
    in_vm = any(p.address == gpu.address for p in pod.node.pci) and _passed_through(pod, gpu)
    tree: Tree = [
        ("product_name", card["product"]),
        ("product_brand", card["brand"]),
        ("product_architecture", card["architecture"]),
        ("display_mode", DEPRECATED if deprecated else ("Enabled" if data_centre else "Disabled")),
    ]
    if branch >= 580:
        tree.append(("display_attached", "Yes" if data_centre else "No"))
    tree += [
        ("display_active", "Disabled"),
        ("persistence_mode", "Enabled" if card.get("persistence") else "Disabled"),
    ]
    if branch >= 535:
        tree.append(("addressing_mode", "HMM" if pod.node.driver_open or branch >= 590 else "None"))
    tree += [
        ("mig_mode", same(mig, "current_mig", "pending_mig")),
        ("mig_devices", "None"),
        ("accounting_mode", "Disabled"),
        ("accounting_mode_buffer_size", "4000"),
        ("driver_model", same(NA, "current_dm", "pending_dm")),
        ("serial", card.get("serial", NA)),
        ("uuid", gpu.uuid),
    ]
    if branch >= 580:
        tree.append(("pdi", f"0x{gpu.uuid.removeprefix('GPU-').replace('-', '')[:16]}"))
    tree += [
        ("minor_number", str(gpu.index)),
        ("vbios_version", card["vbios"]),
        ("multigpu_board", "No"),
        ("board_id", f"0x{int(bus[1], 16) * 256 + int(bus[2][:2], 16):x}"),
        ("board_part_number", card.get("part_number", NA)),
        ("gpu_part_number", card.get("gpu_part_number", NA)),
    ]
    if new:
        tree.append(("gpu_fru_part_number", NA))
        places = ("chassis_serial_number", "slot_number", "tray_index", "host_id", "peer_type")
        tree.append(("platformInfo", [*same(NA, *places), ("module_id", "1"), ("gpu_fabric_guid", NA)]))
    else:
        tree.append(("gpu_module_id", "1"))
    tree.append(
        (
            "inforom_version",
            [
                ("img_version", inforom.get("image", NA)),
                ("oem_object", inforom.get("oem", NA)),
                ("ecc_object", inforom.get("ecc", NA)),
                ("pwr_object", inforom.get("power", NA)),
            ],
        )
    )
    if branch >= 545:
        tree.append(("inforom_bbx_flush", same(NA, "latest_timestamp", "latest_duration")))
    tree.append(("gpu_operation_mode", same(NA, "current_gom", "pending_gom")))
    if new:
        tree.append(("c2c_mode", NA))
    virtualization = [("virtualization_mode", "Pass-Through" if in_vm else "None"), ("host_vgpu_mode", NA)]
    if branch >= 550:
        virtualization.append(("vgpu_heterogeneous_mode", NA))
    gsp = driver if card.get("gsp_firmware") else NA
    tree.append(("gpu_virtualization_mode", virtualization))
    if branch >= 570:
        tree.append(("gpu_recovery_action", "None"))
    tree += [
        ("gsp_firmware_version", gsp),
        ("ibmnpu", [("relaxed_ordering_mode", NA)]),
        ("pci", _pci(gpu, now, new)),
        ("fan_speed", NA if card.get("passive") else ("38 %" if now.busy else "0 %")),
        ("performance_state", now.pstate),
    ]
    tree += _reasons(now, new)
    tree += _memory(card, now, new)
    tree += _engines(now, branch, new)
    tree += _ecc(card)
    tree += heat_and_power(card, now, branch, deprecated)
    tree += clocks_of(card, now, new, deprecated)
    tree += [("processes", []), ("accounted_processes", [])]
    if new:
        tree.append(("capabilities", [("egm", "disabled")]))
    return tree


def _passed_through(pod: PodWorld, gpu: NodeGpu) -> bool:
    """Whether the node is a VM: the function's address is the guest's own, or the guest carries QEMU's agent."""
    mine = next(p for p in pod.node.pci if p.address == gpu.address)
    agent = any(name == "qemu-guest-agent" for name, _ in pod.node.extensions)
    return agent or mine.host_address != mine.address


def _pci(gpu: NodeGpu, now: Readings, new: bool) -> Tree:
    card = gpu.card.inputs
    domain, bus, slot = gpu.address.split(":")
    best = card.get("link_max") or {}
    gens = {
        "max_link_gen": str(best.get("gen", 3)),
        "current_link_gen": str(now.link_gen),
        "device_current_link_gen": str(now.link_gen),
        "max_device_link_gen": str(best.get("gen", 3)),
        "max_host_link_gen": NA,
    }
    widths = {"max_link_width": f"{best.get('width', 16)}x", "current_link_width": f"{now.link_width}x"}
    tree: Tree = [
        ("pci_bus", bus.upper()),
        ("pci_device", slot.split(".")[0].upper()),
        ("pci_domain", domain),
    ]
    if new:
        pci_class = str(card.get("pci_class", "0x030200"))
        tree += [
            ("pci_base_class", str(int(pci_class[2:4], 16))),
            ("pci_sub_class", str(int(pci_class[4:6], 16))),
        ]
    tree += [
        ("pci_device_id", _swapped(card["vendor_device"])),
        ("pci_bus_id", f"0000{gpu.address.upper()}"),
        ("pci_sub_system_id", _swapped(card["subsystem"])),
        ("pci_gpu_link_info", [("pcie_gen", list(gens.items())), ("link_widths", list(widths.items()))]),
        ("pci_bridge_chip", same(NA, "bridge_chip_type", "bridge_chip_fw")),
        ("replay_counter", str(card.get("replays", 0))),
        ("replay_rollover_counter", "0"),
        ("tx_util", f"{52000 if now.sessions else 0} KB/s"),
        ("rx_util", f"{91000 if now.sessions else 0} KB/s"),
        *same(NA, "atomic_caps_outbound", "atomic_caps_inbound"),
    ]
    return tree


def _swapped(identity: str) -> str:
    """10de:1eb8 -> 1EB810DE, as the report writes device and vendor."""
    vendor, device = identity.upper().split(":")
    return f"{device}{vendor}"


def _reasons(now: Readings, new: bool) -> Tree:
    word = "event" if new else "throttle"
    states: Tree = [(f"clocks_{word}_reason_{r}", "Active" if r in now.slowdown else "Not Active") for r in _REASONS]
    tree: Tree = [(f"clocks_{word}_reasons", states)]
    if new:
        waits = dict.fromkeys(
            ("sw_power_cap", "sync_boost", "sw_therm_slowdown", "hw_therm_slowdown", "hw_power_brake"), 0
        )
        if "hw_thermal_slowdown" in now.slowdown:
            waits["hw_therm_slowdown"] = 41_816_220
        if "hw_power_brake_slowdown" in now.slowdown:
            waits["hw_power_brake"] = 9_002_114
        counters = [(f"clocks_event_reasons_counters_{name}", f"{us} us") for name, us in waits.items()]
        tree += [("clocks_event_reasons_counters", counters), ("sparse_operation_mode", NA)]
    return tree


def _memory(card: Mapping[str, Any], now: Readings, new: bool) -> Tree:
    frame = {"total": now.total_mib, "reserved": now.reserved_mib, "used": now.used_mib, "free": now.free_mib}
    bar = int(card["bar1_mib"])
    tree: Tree = [
        ("fb_memory_usage", [(key, f"{value} MiB") for key, value in frame.items()]),
        ("bar1_memory_usage", [("total", f"{bar} MiB"), ("used", "2 MiB"), ("free", f"{bar - 2} MiB")]),
    ]
    if new:
        tree.append(("cc_protected_memory_usage", same("0 MiB", "total", "used", "free")))
    tree.append(("compute_mode", card.get("compute_mode", "Default")))
    return tree


def _engines(now: Readings, branch: int, new: bool) -> Tree:
    use = {
        "gpu_util": now.gpu_percent,
        "memory_util": now.memory_percent,
        "encoder_util": now.encoder_percent,
        "decoder_util": now.decoder_percent,
    }
    if branch >= 535:
        use |= {"jpeg_util": 0, "ofa_util": 0}
    stats = ("session_count", "average_fps", "average_latency")
    values = (now.sessions, now.average_fps, now.average_latency_us)
    tree: Tree = [
        ("utilization", [(key, f"{value} %") for key, value in use.items()]),
        ("encoder_stats", [(key, str(value)) for key, value in zip(stats, values, strict=True)]),
        ("fbc_stats", same("0", *stats)),
    ]
    if new:
        tree.append(("dram_encryption_mode", same(NA, "current_dram_encryption", "pending_dram_encryption")))
    return tree


def _ecc(card: Mapping[str, Any]) -> Tree:
    ecc = card.get("ecc")
    mode = NA if ecc is None else ("Enabled" if ecc else "Disabled")
    errors = card.get("ecc_errors") or {}

    def block(kind: str) -> Tree:
        names = ("sram_correctable", "sram_uncorrectable", "dram_correctable", "dram_uncorrectable")
        if not ecc:
            return same(NA, *names)
        counts = (
            "0",
            "0",
            str(errors.get(f"{kind}_corrected", 0)),
            str(errors.get(f"{kind}_uncorrected", 0)),
        )
        return list(zip(names, counts, strict=True))

    pages = card.get("retired_pages")
    if pages is None:
        lists: tuple[Any, Any, str] = (NA, NA, NA)
        numbers_of = (NA, NA)
    else:
        lists = ([], [], "Yes" if pages.get("pending") else "No")
        numbers_of = (str(pages.get("single_bit", 0)), str(pages.get("double_bit", 0)))
    retired: Tree = [
        (
            "multiple_single_bit_retirement",
            [("retired_count", numbers_of[0]), ("retired_pagelist", lists[0])],
        ),
        ("double_bit_retirement", [("retired_count", numbers_of[1]), ("retired_pagelist", lists[1])]),
        *same(lists[2], "pending_blacklist", "pending_retirement"),
    ]
    return [
        ("ecc_mode", same(mode, "current_ecc", "pending_ecc")),
        ("ecc_errors", [("volatile", block("volatile")), ("aggregate", block("aggregate"))]),
        ("retired_pages", retired),
        ("remapped_rows", NA),
    ]
