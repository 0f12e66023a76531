"""What an upgrade brings, as data: `upgrades.yaml`, beside the version tables that the suites' checks use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

#: How sure a fact is, in the facts' own marks.
SURENESS = ("verified", "read", "field report", "unverified")


@dataclass(frozen=True)
class Gate:
    """How an upgrade of `by` brings a cause about.

    Attributes:
        by: components whose upgrade can bring it.
        sure: one of SURENESS.
        source: where it stands in the facts.
    """

    cause: str
    by: tuple[str, ...]
    sure: str
    source: str


@cache
def _table() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "upgrades.yaml").read_text(encoding="utf-8"))
    return read


@cache
def gates() -> dict[str, Gate]:
    """All gates by cause.

    Raises:
        ValueError: a row is not as sure as a fact can be.
    """
    found = {}
    for cause, row in _table()["gates"].items():
        if row["sure"] not in SURENESS:
            raise ValueError(f"upgrades.yaml: {cause}: sure is {row['sure']!r}")
        by = row["by"] if isinstance(row["by"], list) else [row["by"]]
        found[cause] = Gate(cause, tuple(by), row["sure"], row["source"])
    return found


def newest(component: str) -> str:
    """The newest release of a component that the data knows (Talos: see `versions.newest_known`)."""
    return str(_table()["newest"][component])


def pve_release(version: str) -> tuple[str, str] | None:
    """Release and default kernel of a Proxmox VE version (`9`: the newest 9.x known); None when the table lacks it."""
    known = [key for key in _table()["pve"] if version == key or version.startswith(f"{key}.")]
    known = known or [key for key in _table()["pve"] if key.startswith(f"{version}.")]
    if not known:
        return None
    release = max(known, key=numbers)
    return release, str(_table()["pve"][release]["kernel"])


def kubelet_skew() -> int:
    """How many minors a kubelet may be older than its API server."""
    return int(_table()["kubelet_skew"])


def nvidia_image_mib() -> int:
    """What one Talos image with NVIDIA's driver takes on the boot partition at least, MiB."""
    return int(_table()["nvidia_image_mib"])


def numbers(version: str) -> tuple[int, ...]:
    """`6.8.12-9-pve` -> (6, 8, 12, 9); `v1.36.0+sim` -> (1, 36, 0); a Debian backport's suffix does not count."""
    plain = re.split(r"\+|-bpo|-rc|-alpha|-beta", version, maxsplit=1)[0]
    return tuple(int(part) for part in re.findall(r"\d+", plain))
