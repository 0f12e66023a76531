"""Graphics chips with VA-API: what each generation's media engines and its kernel driver can do (chips.yaml)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

_TABLE = Path(__file__).with_name("chips.yaml")
_ENTRYPOINTS = {
    "VLD": "VAEntrypointVLD",
    "Enc": "VAEntrypointEncSlice",
    "LP": "VAEntrypointEncSliceLP",
    "Pic": "VAEntrypointEncPicture",
    "FEI": "VAEntrypointFEI",
    "Stats": "VAEntrypointStats",
    "Proc": "VAEntrypointVideoProc",
}


@dataclass(frozen=True)
class Chip:
    """One generation.

    Attributes:
        name: key of the table; codename: as the kernel driver says it; display: its display version.
        generation: graphics version (7.5, 12 ...).
        drivers: kernel drivers that take it without being forced; kernel: first release that does.
        libva: libva drivers that work on it, best first.
        firmware: beginning of its firmware files' names.
        default_guc: what i915 uses when `enable_guc` is not given; needs_guc: nothing works without it.
        profiles: (profile, entry point, needs HuC, needs the full driver build), in vainfo's order.
        tone_mapping: the video processor maps HDR10.
    """

    name: str
    codename: str
    display: str
    generation: float
    drivers: tuple[str, ...]
    kernel: tuple[int, int]
    libva: tuple[str, ...]
    firmware: str
    default_guc: int
    needs_guc: bool
    has_huc: bool
    tone_mapping: bool
    libva_name: str
    profiles: tuple[tuple[str, str, bool, bool], ...]


@lru_cache(maxsize=1)
def chips() -> Mapping[str, Chip]:
    """All generations by name."""
    raw: dict[str, Any] = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    return {name: _chip(name, _resolved(name, raw)) for name in raw}


def chip_of(card: Mapping[str, Any]) -> Chip | None:
    """The generation of a card's inputs (`chip`), None for a card without VA-API."""
    return chips().get(str(card.get("chip", "")))


def _resolved(name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with everything it takes over from the one it is `like`; a null takes a profile away."""
    entry = dict(table[name])
    if "like" not in entry:
        return entry
    base = _resolved(str(entry["like"]), table)
    profiles = {**base["profiles"], **entry.get("profiles", {})}
    return {**base, **entry, "profiles": {k: v for k, v in profiles.items() if v is not None}}


def _chip(name: str, entry: Mapping[str, Any]) -> Chip:
    rows = []
    for profile, words in entry["profiles"].items():
        for word in words.split():
            plain, *needs = word.split("+")
            rows.append((f"VAProfile{profile}", _ENTRYPOINTS[plain], "huc" in needs, "full" in needs))
    major, _, minor = str(entry["kernel"]).partition(".")
    return Chip(
        name, str(entry["codename"]), str(entry["display"]), float(entry["generation"]), tuple(entry["drivers"]),
        (int(major), int(minor)), tuple(entry["libva"]), str(entry["firmware"]), int(entry["default_guc"]),
        bool(entry.get("needs_guc")), bool(entry.get("huc", True)), bool(entry.get("tone_mapping")),
        str(entry["libva_name"]), tuple(rows),
    )  # fmt: skip
