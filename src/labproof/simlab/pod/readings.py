"""What a card's sensors and counters say now, derived from its inputs and the work running on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labproof.simlab.pod.access import open_sessions, used_mib
from labproof.simlab.world.states import Card


@dataclass(frozen=True)
class Readings:
    """One sample. Percent, MiB, Celsius, watt, MHz.

    Attributes:
        slowdown: names of active clock event reasons: gpu_idle, sw_power_cap, hw_slowdown, hw_thermal_slowdown,
            hw_power_brake_slowdown, sw_thermal_slowdown.
    """

    busy: bool
    gpu_percent: int
    memory_percent: int
    encoder_percent: int
    decoder_percent: int
    sessions: int
    average_fps: int
    average_latency_us: int
    used_mib: int
    free_mib: int
    total_mib: int
    reserved_mib: int
    temperature_c: int
    power_w: float
    pstate: str
    graphics_mhz: int
    memory_mhz: int
    video_mhz: int
    link_gen: int
    link_width: int
    slowdown: frozenset[str]


def slow_by_heat(card: Card) -> bool:
    """Whether the card slows itself down while it works: over its slowdown temperature, or by a power brake."""
    return bool(_slowdown(card, busy=True) & {"hw_thermal_slowdown", "hw_power_brake_slowdown"})


def _temperature(card: Card, load: float, *, busy: bool) -> float:
    heat = card.inputs.get("heat") or {}
    return float(heat.get("ambient_c", 35)) + float(heat.get("per_load_c", 18)) * (0.4 + 0.6 * load if busy else 0.0)


def _slowdown(card: Card, *, busy: bool) -> frozenset[str]:
    load = min(1.0, sum(card.sessions.values()) + sum(card.decoding.values()))
    limits = card.inputs.get("thresholds_c") or {}
    temperature = _temperature(card, load, busy=busy)
    reasons: set[str] = set()
    if temperature >= float(limits.get("slowdown", 93)):
        reasons |= {"hw_slowdown", "hw_thermal_slowdown"}
    elif temperature >= float(limits.get("max_operating", 85)):
        reasons.add("sw_thermal_slowdown")
    if card.inputs.get("power_brake"):
        reasons |= {"hw_slowdown", "hw_power_brake_slowdown"}
    if not busy and not reasons:
        reasons.add("gpu_idle")
    return frozenset(reasons)


def read_card(card: Card) -> Readings:
    """Sample a card now.

    `Card.sessions` and `Card.decoding` hold each stream's share of the engine (0..1), `Card.vram` MiB.
    """
    inputs = card.inputs
    encoding, decoding = min(1.0, sum(card.sessions.values())), min(1.0, sum(card.decoding.values()))
    neighbours = inputs.get("neighbours") or {}
    others = sum(int(n.get("sessions", 0)) for n in neighbours.values())
    busy = bool(card.sessions or card.decoding or card.vram or others)
    load = min(1.0, max(encoding, decoding) + 0.1 * others)
    sessions = open_sessions(card)
    row: dict[str, Any] = dict((inputs.get("encode") or {}).get("h264") or {})
    speed = float(row.get("fps", 0))
    average = int(sum(card.sessions.values()) * speed / len(card.sessions)) if card.sessions else (30 if others else 0)
    slowdown = _slowdown(card, busy=busy)
    clocks, power = inputs["clocks"], inputs["power"]
    top = int(clocks["graphics"])
    if slowdown & {"hw_slowdown", "sw_thermal_slowdown"}:
        top = int(clocks["base"]) // (2 if "hw_slowdown" in slowdown else 1)
    drawn = float(power["idle"])
    if busy:
        drawn = min(float(power["limit"]), float(power["active_idle"]) + 0.35 * load * float(power["limit"]))
    link, best = inputs.get("link") or {}, inputs.get("link_max") or {}
    gen = int(link.get("gen", best.get("gen", 3)))
    return Readings(
        busy=busy,
        gpu_percent=min(100, int(100 * (0.12 * encoding + 0.08 * decoding)) + (2 if card.sessions else 0)),
        memory_percent=min(100, int(100 * (0.08 * encoding + 0.05 * decoding)) + (1 if card.sessions else 0)),
        encoder_percent=min(100, _percent(encoding) + 7 * others),
        decoder_percent=_percent(decoding),
        sessions=sessions,
        average_fps=average,
        average_latency_us=int(2_000_000 / speed * max(1, sessions)) if speed and sessions else 0,
        used_mib=used_mib(card),
        free_mib=max(0, int(inputs["memory_mib"]) - int(inputs.get("reserved_mib", 0)) - used_mib(card)),
        total_mib=int(inputs["memory_mib"]),
        reserved_mib=int(inputs.get("reserved_mib", 0)),
        temperature_c=round(_temperature(card, load, busy=busy)),
        power_w=drawn,
        pstate="P0" if busy else "P8",
        graphics_mhz=top if busy else int(clocks["idle_graphics"]),
        memory_mhz=int(clocks["memory"]) if busy else int(clocks["idle_memory"]),
        video_mhz=int(clocks["video"]) if busy else int(clocks["idle_video"]),
        # the driver lowers the link's generation, not its width, while the card idles (nvidia-smi's own manual)
        link_gen=gen if busy else 1,
        link_width=int(link.get("width", best.get("width", 16))),
        slowdown=slowdown,
    )


def _percent(share: float) -> int:
    """A share of an engine as the driver shows it: work that runs is never 0 %."""
    return max(1, round(100 * share)) if share > 0 else 0
