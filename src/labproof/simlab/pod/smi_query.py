"""`nvidia-smi --query-gpu`: field names, values and units (facts/transcode.md 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from labproof.simlab.pod.access import numbers
from labproof.simlab.pod.readings import Readings, read_card
from labproof.simlab.world.states import NodeGpu, PodWorld

#: NVML's bits of clock event reasons.
REASON_BITS = {
    "gpu_idle": 0x1,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
}


class UnknownField(Exception):
    """A field this driver's nvidia-smi does not know."""


Reader = Callable[[PodWorld, NodeGpu, Readings], str]


def _input(*path: str) -> Reader:
    def read(_pod: PodWorld, gpu: NodeGpu, _now: Readings) -> str:
        found: Any = gpu.card.inputs
        for key in path:
            found = found.get(key, "[N/A]") if isinstance(found, dict) else "[N/A]"
        return "[N/A]" if found in (None, "N/A") else str(found)

    return read


def _ecc(key: str) -> Reader:
    def read(_pod: PodWorld, gpu: NodeGpu, _now: Readings) -> str:
        if gpu.card.inputs.get("ecc") is None:
            return "[N/A]"
        return str((gpu.card.inputs.get("ecc_errors") or {}).get(key, 0))

    return read


def _mode(_pod: PodWorld, gpu: NodeGpu, _now: Readings) -> str:
    ecc = gpu.card.inputs.get("ecc")
    return "[N/A]" if ecc is None else ("Enabled" if ecc else "Disabled")


def _reasons(_pod: PodWorld, _gpu: NodeGpu, now: Readings) -> str:
    return f"0x{sum(REASON_BITS[name] for name in now.slowdown):016x}"


def _pci(value: str) -> str:
    vendor, device = value.split(":")
    return f"0x{device}{vendor}".upper().replace("0X", "0x")


#: field -> (unit, reader)
FIELDS: dict[str, tuple[str, Reader]] = {
    "name": ("", _input("product")),
    "gpu_name": ("", _input("product")),
    "count": ("", lambda pod, _g, _n: str(len(pod.gpus))),
    "index": ("", lambda pod, gpu, _n: str(pod.gpus.index(gpu))),
    "uuid": ("", lambda _p, gpu, _n: gpu.uuid),
    "gpu_uuid": ("", lambda _p, gpu, _n: gpu.uuid),
    "serial": ("", _input("serial")),
    "vbios_version": ("", _input("vbios")),
    "driver_version": ("", lambda pod, _g, _n: pod.node.driver_version or "[N/A]"),
    "pci.bus_id": ("", lambda _p, gpu, _n: f"0000{gpu.address}".upper()),
    "pci.device_id": ("", lambda _p, gpu, _n: _pci(gpu.card.inputs["vendor_device"])),
    "pci.sub_device_id": ("", lambda _p, gpu, _n: _pci(gpu.card.inputs["subsystem"])),
    "pstate": ("", lambda _p, _g, now: now.pstate),
    "persistence_mode": (
        "",
        lambda _p, gpu, _n: "Enabled" if gpu.card.inputs.get("persistence") else "Disabled",
    ),
    "compute_mode": ("", _input("compute_mode")),
    "compute_cap": ("", _input("compute_capability")),
    "memory.total": ("MiB", lambda _p, _g, now: str(now.total_mib)),
    "memory.used": ("MiB", lambda _p, _g, now: str(now.used_mib)),
    "memory.free": ("MiB", lambda _p, _g, now: str(now.free_mib)),
    "memory.reserved": ("MiB", lambda _p, _g, now: str(now.reserved_mib)),
    "utilization.gpu": ("%", lambda _p, _g, now: str(now.gpu_percent)),
    "utilization.memory": ("%", lambda _p, _g, now: str(now.memory_percent)),
    "utilization.encoder": ("%", lambda _p, _g, now: str(now.encoder_percent)),
    "utilization.decoder": ("%", lambda _p, _g, now: str(now.decoder_percent)),
    "encoder.stats.sessionCount": ("", lambda _p, _g, now: str(now.sessions)),
    "encoder.stats.averageFps": ("", lambda _p, _g, now: str(now.average_fps)),
    "encoder.stats.averageLatency": ("", lambda _p, _g, now: str(now.average_latency_us)),
    "temperature.gpu": ("", lambda _p, _g, now: str(now.temperature_c)),
    "power.draw": ("W", lambda _p, _g, now: f"{now.power_w:.2f}"),
    "power.limit": ("W", lambda _p, gpu, _n: f"{float(gpu.card.inputs['power']['limit']):.2f}"),
    "enforced.power.limit": ("W", lambda _p, gpu, _n: f"{float(gpu.card.inputs['power']['limit']):.2f}"),
    "clocks.sm": ("MHz", lambda _p, _g, now: str(now.graphics_mhz)),
    "clocks.gr": ("MHz", lambda _p, _g, now: str(now.graphics_mhz)),
    "clocks.mem": ("MHz", lambda _p, _g, now: str(now.memory_mhz)),
    "clocks.video": ("MHz", lambda _p, _g, now: str(now.video_mhz)),
    "clocks.max.sm": ("MHz", _input("clocks", "graphics")),
    "clocks.max.mem": ("MHz", _input("clocks", "memory")),
    "pcie.link.gen.current": ("", lambda _p, _g, now: str(now.link_gen)),
    "pcie.link.gen.gpucurrent": ("", lambda _p, _g, now: str(now.link_gen)),
    "pcie.link.gen.max": ("", _input("link_max", "gen")),
    "pcie.link.gen.gpumax": ("", _input("link_max", "gen")),
    "pcie.link.width.current": ("", lambda _p, _g, now: str(now.link_width)),
    "pcie.link.width.max": ("", _input("link_max", "width")),
    "ecc.mode.current": ("", _mode),
    "ecc.mode.pending": ("", _mode),
    "ecc.errors.corrected.volatile.total": ("", _ecc("volatile_corrected")),
    "ecc.errors.uncorrected.volatile.total": ("", _ecc("volatile_uncorrected")),
    "ecc.errors.corrected.aggregate.total": ("", _ecc("aggregate_corrected")),
    "ecc.errors.uncorrected.aggregate.total": ("", _ecc("aggregate_uncorrected")),
    "clocks_throttle_reasons.active": ("", _reasons),
    "clocks_event_reasons.active": ("", _reasons),
}

#: Fields by the first driver branch that knows them.
_SINCE = {"clocks_event_reasons.active": 535, "utilization.encoder": 510, "utilization.decoder": 510}


def query_csv(pod: PodWorld, gpus: Sequence[NodeGpu], fields: Sequence[str], form: frozenset[str]) -> str:
    """The CSV answer.

    Raises:
        UnknownField: one field is not known; the whole query fails then.
    """
    branch = (*numbers(pod.node.driver_version), 0)[0]
    for name in fields:
        if name not in FIELDS or branch < _SINCE.get(name, 0):
            raise UnknownField(name)
    lines = []
    if "noheader" not in form:
        lines.append(", ".join(f"{f} [{FIELDS[f][0]}]" if FIELDS[f][0] else f for f in fields))
    for gpu in gpus:
        now = read_card(gpu.card)
        cells = []
        for name in fields:
            unit, read = FIELDS[name]
            value = read(pod, gpu, now)
            bare = "nounits" in form or not unit or value.startswith("[")
            cells.append(value if bare else f"{value} {unit}")
        lines.append(", ".join(cells))
    return "".join(f"{line}\n" for line in lines)
