"""What is expected of a Talos release, and what an Xid means: `talos_versions.yaml` and `xids.yaml`, read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

KMOD_FAMILIES = ("nonfree-kmod-nvidia", "nvidia-open-gpu-kernel-modules")
TOOLKIT_FAMILY = "nvidia-container-toolkit"


@dataclass(frozen=True)
class Xid:
    """An NVIDIA error number: `says` is one of lost, hung, memory, link, work."""

    number: int
    title: str
    says: str


@cache
def _table(name: str) -> dict[Any, Any]:
    read: dict[Any, Any] = yaml.safe_load((Path(__file__).parent / name).read_text(encoding="utf-8"))
    return read


def parse_tag(tag: str) -> tuple[int, int, int]:
    """`v1.11.6` or `v1.14.0-rc.1` as numbers.

    Raises:
        ValueError: not a Talos release tag.
    """
    found = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)(?:[-+].*)?", tag)
    if found is None:
        raise ValueError(f"{tag!r} is not a Talos version")
    return int(found[1]), int(found[2]), int(found[3])


def does(tag: str, behaviour: str) -> bool:
    """Whether release `tag` has a behaviour of the table.

    Raises:
        KeyError: the table has no such behaviour.
        ValueError: `tag` is no version.
    """
    row = _table("talos_versions.yaml")["behaviour"][behaviour]
    here = parse_tag(tag)
    since = "since" not in row or here >= parse_tag(row["since"])
    return since and ("until" not in row or here < parse_tag(row["until"]))


def shipped_driver(tag: str, branch: str) -> str | None:
    """Driver version that release `tag` ships in `branch` (`lts` or `production`); None when the table lacks it."""
    major, minor, patch = parse_tag(tag)
    rows = [r for r in _table("talos_versions.yaml")["drivers"].get(f"{major}.{minor}", ()) if r["from"] <= patch]
    return str(rows[-1][branch]) if rows else None


def shipped_toolkit(tag: str) -> str | None:
    """Version of the NVIDIA container toolkit that release `tag` ships; None when the table lacks it."""
    major, minor, patch = parse_tag(tag)
    rows = [r for r in _table("talos_versions.yaml")["drivers"].get(f"{major}.{minor}", ()) if r["from"] <= patch]
    return str(rows[-1]["toolkit"]) if rows else None


def kernel_of(tag: str) -> str | None:
    """`uname -r` of release `tag` (of its minor's last patch); None when the table lacks it."""
    major, minor, _ = parse_tag(tag)
    version = _table("talos_versions.yaml")["releases"].get(f"{major}.{minor}", {}).get("kernel")
    return f"{version}-talos" if version else None


def supported_kubernetes(tag: str) -> tuple[int, int] | None:
    """Oldest and newest Kubernetes minor that release `tag` supports; None when the table lacks it."""
    major, minor, _ = parse_tag(tag)
    newest = _table("talos_versions.yaml")["releases"].get(f"{major}.{minor}", {}).get("kubernetes")
    return (int(newest) - 5, int(newest)) if newest else None


def newest_known() -> tuple[int, int, int]:
    """The newest Talos release that the tables know."""
    rows = _table("talos_versions.yaml")["releases"]
    name = max(rows, key=lambda key: tuple(int(part) for part in key.split(".")))
    major, minor = name.split(".")
    return int(major), int(minor), int(rows[name]["newest_patch"])


def newest_patch(tag: str) -> int | None:
    """The newest patch of this minor that the tables know; None when they do not say."""
    major, minor, _ = parse_tag(tag)
    found = _table("talos_versions.yaml")["releases"].get(f"{major}.{minor}", {}).get("newest_patch")
    return None if found is None else int(found)


def installed_name(name: str, installed: frozenset[str]) -> str:
    """The name a node reports for an extension of the schematic: itself, or its alias where only that is installed."""
    bare = name.removeprefix("siderolabs/")
    alias = _table("talos_versions.yaml")["aliases"].get(bare)
    return str(alias) if bare not in installed and alias in installed else bare


def xid(number: int) -> Xid:
    """The meaning of an Xid; one the table does not know counts as a program's failure."""
    row = _table("xids.yaml").get(number, {"title": "not in the table", "says": "work"})
    return Xid(number, row["title"], row["says"])
