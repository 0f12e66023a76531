"""What a card can encode and decode, and which drivers support it, as data: `gpus.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_name("gpus.yaml")
#: What an owner of a card that no row covers is told.
ADD_A_ROW = (
    "no capability data for {device}: add a row under `cards` of src/labproof/catalogue/gpus.yaml (name, architecture, "
    "memory_mib), or declare transcode.encode and transcode.decode in lab.yaml"
)

Depths = Mapping[str, tuple[int, ...]]  # codec -> sample depths in bits


@dataclass(frozen=True)
class Generation:
    """An architecture of NVIDIA's. `last_branch` is the newest driver branch that supports it, None: all of today.

    Attributes:
        gsp: has the processor that the open kernel modules need.
        open_only: there is no proprietary kernel module for it.
    """

    name: str
    gsp: bool
    last_branch: int | None = None
    open_only: bool = False
    encode: Depths = field(default_factory=dict)
    decode: Depths = field(default_factory=dict)


@dataclass(frozen=True)
class Capability:
    """One card's row, or its architecture's.

    Attributes:
        vendor_device: `10de:1eb8`.
        name: product name as nvidia-smi says it; for an architecture's row `NVIDIA card of Turing (10de:1e99)`.
        own_row: the table names this very card.
        encode_depths, decode_depths: codec -> bits per sample; empty when the chip has no such engine.
        memory_mib: card memory as nvidia-smi totals it, ECC on where that is the default; None where only the
            architecture is known.
        limited_sessions: the driver limits encoder sessions; None where only the architecture is known.
    """

    vendor_device: str
    name: str
    architecture: str
    own_row: bool
    encode_depths: Depths
    decode_depths: Depths
    memory_mib: int | None
    limited_sessions: bool | None = False

    @property
    def encode(self) -> tuple[str, ...]:
        """Codec words it encodes: `h264`, `hevc`, `hevc10` (10 bit), `av1` ..."""
        return _words(self.encode_depths)

    @property
    def decode(self) -> tuple[str, ...]:
        """Codec words it decodes."""
        return _words(self.decode_depths)

    def session_limit(self, driver_version: str, product: str = "") -> int | None:
        """Encoder sessions the driver allows on this system; None for no limit or an unreadable version.

        Args:
            driver_version: `535.247.01`.
            product: what nvidia-smi calls the card; decides where only the architecture is known.
        """
        limited = "GeForce" in product if self.limited_sessions is None else self.limited_sessions
        major = driver_version.split(".", 1)[0]
        if not limited or not major.isdigit():
            return None
        return next((limit for below, limit in _table().limits if int(major) < below), None)


def capability(vendor_device: str) -> Capability | None:
    """The row of a card, else that of its architecture by PCI id; None for a card the table does not cover."""
    ident = vendor_device.lower()
    own = _table().cards.get(ident)
    if own is not None:
        return own
    chip = generation(ident)
    if chip is None:
        return None
    name = f"NVIDIA card of {chip.name} ({ident})"
    return Capability(ident, name, chip.name, False, chip.encode, chip.decode, None, None)


def capabilities() -> dict[str, Capability]:
    """All cards with a row of their own, by vendor:device."""
    return dict(_table().cards)


def generation(vendor_device: str) -> Generation | None:
    """Architecture of an NVIDIA GPU, `10de:1eb8`; None when the table does not cover the chip."""
    vendor, _, device = vendor_device.lower().partition(":")
    if vendor != "10de":
        return None
    own = _table().cards.get(f"{vendor}:{device}")
    if own is not None:
        return _table().architectures[own.architecture]
    try:
        number = int(device, 16)
    except ValueError:
        return None
    return next((_table().architectures[name] for first, last, name in _table().ids if first <= number <= last), None)


def architecture_encodes(architecture: str) -> tuple[str, ...] | None:
    """Codecs an architecture encodes; None for an unknown architecture."""
    row = _table().architectures.get(architecture)
    return _words(row.encode) if row else None


def _words(depths: Depths) -> tuple[str, ...]:
    """`hevc: [8, 10]` as `hevc`, `hevc10`; the other codecs' words say nothing of depth, as lab.yaml writes them."""
    words = []
    for codec, bits in depths.items():
        words.append(codec)
        if codec == "hevc" and 10 in bits:
            words.append("hevc10")
    return tuple(words)


@dataclass(frozen=True)
class _Table:
    cards: dict[str, Capability]
    architectures: dict[str, Generation]
    ids: tuple[tuple[int, int, str], ...]
    limits: tuple[tuple[int, int], ...]


@cache
def _table() -> _Table:
    loaded: dict[str, Any] = yaml.safe_load(TABLE.read_text("utf-8"))
    architectures, ids = {}, []
    for name, row in loaded["architectures"].items():
        architectures[name] = Generation(
            name, bool(row["gsp"]), row.get("last_branch"), bool(row.get("open_only", False)),
            _depths(row["encode"]), _depths(row["decode"]),
        )  # fmt: skip
        ids += [(int(first, 16), int(last, 16), name) for first, last in row["ids"]]
    cards = {}
    for ident, row in loaded["cards"].items():
        chip = architectures[row["architecture"]]
        encode = _depths(row["encode"]) if "encode" in row else chip.encode
        decode = _depths(row["decode"]) if "decode" in row else chip.decode
        cards[ident] = Capability(
            ident, row["name"], chip.name, True, encode, decode, int(row["memory_mib"]), bool(row.get("sessions"))
        )
    limits = tuple((int(row["driver_below"]), int(row["sessions"])) for row in loaded["session_limits"])
    return _Table(cards, architectures, tuple(sorted(ids)), limits)


def _depths(row: Mapping[str, Any]) -> Depths:
    return {codec: tuple(int(bits) for bits in depths) for codec, depths in row.items()}
