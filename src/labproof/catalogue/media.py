"""What Intel and AMD graphics can do through VA-API, as data: `media.yaml`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_name("media.yaml")
CODECS = ("h264", "hevc", "hevc10", "vp8", "vp9", "vp9_10", "av1", "mpeg2", "vc1", "mjpeg")
#: libva profiles by codec word; any of them will do.
PROFILES = {
    "h264": ("VAProfileH264High", "VAProfileH264Main"),
    "hevc": ("VAProfileHEVCMain",),
    "hevc10": ("VAProfileHEVCMain10",),
    "vp8": ("VAProfileVP8Version0_3",),
    "vp9": ("VAProfileVP9Profile0",),
    "vp9_10": ("VAProfileVP9Profile2",),
    "av1": ("VAProfileAV1Profile0",),
    "mpeg2": ("VAProfileMPEG2Main", "VAProfileMPEG2Simple"),
    "vc1": ("VAProfileVC1Advanced", "VAProfileVC1Main"),
    "mjpeg": ("VAProfileJPEGBaseline",),
}


@dataclass(frozen=True)
class MediaRow:
    """One generation of graphics.

    Attributes:
        name: the generation; vendor: PCI vendor, four hex digits.
        libva: libva drivers that work on it, best first.
        kernel: first kernel (major, minor) whose driver takes it.
        counters: first kernel that counts engine time in fdinfo, None for never; guc: from 6.5 only, in truth.
        encode, decode: codec words.
        low_power: of `encode`, those that only the low-power engine does; huc: those it does with HuC only.
        full: of `encode`, those that the free build of the driver lacks.
        tone_mapping: the video processor maps HDR10 to SDR.
    """

    name: str
    vendor: str
    libva: tuple[str, ...]
    kernel: tuple[int, int]
    counters: tuple[int, int] | None
    guc: bool
    encode: tuple[str, ...]
    decode: tuple[str, ...]
    low_power: tuple[str, ...] = ()
    huc: tuple[str, ...] = ()
    full: tuple[str, ...] = ()
    tone_mapping: bool = False

    def counts_engines(self, kernel: str, driver: str) -> bool:
        """Whether fdinfo of this kernel counts engine time for the generation under i915, xe or amdgpu."""
        if driver == "xe":
            return True
        numbers = version(kernel)
        if self.counters is None or numbers < self.counters:
            return False
        return not (self.guc and driver == "i915") or numbers >= (6, 5)


def version(text: str) -> tuple[int, int]:
    """(6, 12) of `6.12.62-talos`."""
    numbers = [int(n) for n in re.findall(r"\d+", text)[:2]]
    return (numbers[0], numbers[1] if len(numbers) > 1 else 0) if numbers else (0, 0)


def media_row(vendor_device: str) -> MediaRow | None:
    """The generation of a card, None for one the table does not know."""
    return _table().get(vendor_device.lower())


def media_rows() -> dict[str, MediaRow]:
    """All rows by vendor:device."""
    return dict(_table())


@cache
def _table() -> dict[str, MediaRow]:
    # the base loader leaves ids like 0402 and 9b41 alone, which YAML would take for numbers
    loaded: dict[str, Any] = yaml.load(TABLE.read_text("utf-8"), yaml.BaseLoader)  # noqa: S506 - builds plain strings
    found: dict[str, MediaRow] = {}
    for name, raw in loaded.items():
        counters = None if raw["counters"] == "never" else version(raw["counters"])
        row = MediaRow(
            name, raw["vendor"], tuple(raw["libva"]), version(raw["kernel"]), counters, raw.get("guc") == "true",
            tuple(raw["encode"]), tuple(raw["decode"]), tuple(raw.get("low_power", ())), tuple(raw.get("huc", ())),
            tuple(raw.get("full", ())), raw.get("tone_mapping") == "true",
        )  # fmt: skip
        for ident in raw["ids"]:
            key = f"{row.vendor}:{ident.lower()}"
            if key in found:
                raise ValueError(f"{TABLE.name}: {key} is listed twice")
            found[key] = row
    return found
