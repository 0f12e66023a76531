"""What a card can encode and decode, as data: `gpus.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_name("gpus.yaml")


@dataclass(frozen=True)
class Capability:
    """One card's row.

    Attributes:
        vendor_device: `10de:1eb8`.
        name: product name as nvidia-smi says it.
        encode, decode: codec words; empty when the chip has no such engine.
        memory_mib: card memory as nvidia-smi totals it, ECC on where that is the default.
        limited_sessions: the driver limits encoder sessions.
    """

    vendor_device: str
    name: str
    architecture: str
    encode: tuple[str, ...]
    decode: tuple[str, ...]
    memory_mib: int
    limited_sessions: bool = False

    def session_limit(self, driver_version: str) -> int | None:
        """Encoder sessions the driver allows on this system; None for no limit or an unreadable version."""
        major = driver_version.split(".", 1)[0]
        if not self.limited_sessions or not major.isdigit():
            return None
        return next((limit for below, limit in _table()[2] if int(major) < below), None)


def capability(vendor_device: str) -> Capability | None:
    """The row of a card, None for a card the table does not know."""
    return _table()[0].get(vendor_device.lower())


def capabilities() -> dict[str, Capability]:
    """All rows by vendor:device."""
    return dict(_table()[0])


def architecture_encodes(architecture: str) -> tuple[str, ...] | None:
    """Codecs an architecture encodes, for a card without a row of its own; None for an unknown architecture."""
    row = _table()[1].get(architecture)
    return row[0] if row else None


_Rows = tuple[dict[str, Capability], dict[str, tuple[tuple[str, ...], tuple[str, ...]]], tuple[tuple[int, int], ...]]


@cache
def _table() -> _Rows:
    loaded: dict[str, Any] = yaml.safe_load(TABLE.read_text("utf-8"))
    families = {name: (tuple(row["encode"]), tuple(row["decode"])) for name, row in loaded["architectures"].items()}
    cards = {}
    for ident, row in loaded["cards"].items():
        encode, decode = families[row["architecture"]]
        cards[ident] = Capability(
            ident,
            row["name"],
            row["architecture"],
            tuple(row.get("encode", encode)),
            tuple(row.get("decode", decode)),
            int(row["memory_mib"]),
            bool(row.get("sessions", False)),
        )
    limits = tuple((int(row["driver_below"]), int(row["sessions"])) for row in loaded["session_limits"])
    return cards, families, limits
