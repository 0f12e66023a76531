"""The part of nvidia-smi's XML report about temperature, power and clocks, where drivers differ most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labproof.simlab.pod.readings import Readings

NA = "N/A"
DEPRECATED = "Requested functionality has been deprecated"

# A tree is a list of (element name, text | tree); a name may occur twice.
Tree = list[tuple[str, Any]]


def same(value: str, *names: str) -> Tree:
    """Several elements with one text."""
    return [(name, value) for name in names]


def heat_and_power(card: Mapping[str, Any], now: Readings, branch: int, deprecated: bool) -> Tree:
    """Temperatures, thresholds, and power readings in the branch\'s own names."""
    limits, power = card["thresholds_c"], card["power"]
    watts = {key: f"{float(power[key]):.2f} W" for key in ("limit", "min", "max")}
    tree: Tree = [
        (
            "temperature",
            [
                ("gpu_temp", f"{now.temperature_c} C"),
                ("gpu_temp_tlimit", NA),
                ("gpu_temp_max_threshold", f"{limits['shutdown']} C"),
                ("gpu_temp_slow_threshold", f"{limits['slowdown']} C"),
                ("gpu_temp_max_gpu_threshold", f"{limits['max_operating']} C"),
                *same(NA, "gpu_target_temperature", "memory_temp", "gpu_temp_max_mem_threshold"),
            ],
        ),
        ("supported_gpu_target_temp", same(NA, "gpu_target_temp_min", "gpu_target_temp_max")),
    ]
    draw = f"{now.power_w:.2f} W"
    state = DEPRECATED if deprecated else now.pstate
    bounds: Tree = [("min_power_limit", watts["min"]), ("max_power_limit", watts["max"])]
    if branch < 535:
        old: Tree = [("power_state", now.pstate), ("power_management", "Supported"), ("power_draw", draw)]
        old += same(watts["limit"], "power_limit", "default_power_limit", "enforced_power_limit")
        return [*tree, ("power_readings", old + bounds)]
    given = same(watts["limit"], "current_power_limit", "requested_power_limit", "default_power_limit")
    drawn: Tree = [("power_draw", draw)] if branch < 560 else [("average_power_draw", NA), ("instant_power_draw", draw)]
    nothing = same(NA, *(name for name, _ in drawn))
    tree.append(("gpu_power_readings", [("power_state", state), *drawn, *given, *bounds]))
    if branch >= 545:
        tree.append(("gpu_memory_power_readings", nothing))
    none = same(NA, *(name for name, _ in [*given, *bounds]))
    tree.append(("module_power_readings", [("power_state", state), *nothing, *none]))
    if branch >= 570:
        profiles = same(NA, "power_profile_requested_profiles", "power_profile_enforced_profiles")
        tree += [("power_smoothing", NA), ("power_profiles", profiles)]
    if branch >= 590:
        tree.append(("edpp_multiplier", NA))
    return tree


def clocks_of(card: Mapping[str, Any], now: Readings, new: bool, deprecated: bool) -> Tree:
    """Clocks now, set, most, and supported; voltage and fabric lie between them in the report."""
    clocks = card["clocks"]
    top = f"{clocks['graphics']} MHz"
    applied = same(DEPRECATED, "graphics_clock", "mem_clock")
    if not deprecated:
        applied = [("graphics_clock", f"{clocks['base']} MHz"), ("mem_clock", f"{clocks['memory']} MHz")]
    fabric: Tree = same(NA, "state", "status")
    if new:
        health = [
            "summary",
            "bandwidth",
            "route_recovery_in_progress",
            "route_unhealthy",
            "access_timeout_recovery",
        ]
        health += ["incorrect_configuration"] + (["partition_assigned"] if deprecated else [])
        fabric += [*same(NA, "cliqueId", "clusterUuid"), ("health", same(NA, *health))]
    running = {
        "graphics": now.graphics_mhz,
        "sm": now.graphics_mhz,
        "mem": now.memory_mhz,
        "video": now.video_mhz,
    }
    most = {
        "graphics": clocks["graphics"],
        "sm": clocks["graphics"],
        "mem": clocks["memory"],
        "video": clocks["video"],
    }
    tree: Tree = [
        ("clocks", [(f"{name}_clock", f"{mhz} MHz") for name, mhz in running.items()]),
        ("applications_clocks", applied),
        ("default_applications_clocks", applied),
        ("deferred_clocks", [("mem_clock", NA)]),
        ("max_clocks", [(f"{name}_clock", f"{mhz} MHz") for name, mhz in most.items()]),
        ("max_customer_boost_clocks", [("graphics_clock", top)]),
        ("clock_policy", same(NA, "auto_boost", "auto_boost_default")),
    ]
    if not deprecated:
        tree.append(("voltage", [("graphics_volt", NA)]))
    tree.append(("fabric", fabric))
    steps = range(int(clocks["graphics"]), int(clocks["idle_graphics"]) - 1, -15)
    supported: Tree = []
    for memory, ceiling in ((clocks["memory"], clocks["graphics"]), (clocks["idle_memory"], 645)):
        values = [("supported_graphics_clock", f"{mhz} MHz") for mhz in steps if mhz <= ceiling]
        supported.append(("supported_mem_clock", [("value", f"{memory} MHz"), *values]))
    tree.append(("supported_clocks", supported))
    return tree
