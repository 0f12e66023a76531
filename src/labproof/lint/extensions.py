"""Lists of Talos system extensions: names, halves, flavours and branches, and the list behind a schematic id."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from labproof.catalogue.schematic import DEFAULT_ID
from labproof.catalogue.versions import KMOD_FAMILIES, TOOLKIT_FAMILY, installed_name, parse_tag

Named = Sequence[tuple[str, int]]
_HEAD = "customization:\n    systemExtensions:\n        officialExtensions:\n"


@cache
def _table() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("extensions.yaml").read_text("utf-8"))
    return read


def bare(name: str) -> str:
    """A name without `siderolabs/`."""
    return name.strip().removeprefix("siderolabs/")


def is_kmod(name: str) -> bool:
    """Whether an extension carries NVIDIA's kernel modules."""
    return bare(name).startswith(KMOD_FAMILIES)


def is_toolkit(name: str) -> bool:
    """Whether an extension carries NVIDIA's container runtime."""
    return bare(name).startswith(TOOLKIT_FAMILY)


def has_graphics(names: Sequence[str]) -> bool:
    """Whether a list serves a GPU of any vendor."""
    return any(
        is_kmod(name) or bare(name) in ("i915", "xe", "amdgpu", "i915-ucode", "amdgpu-firmware") for name in names
    )


def unavailable(name: str, tag: str | None) -> str | None:
    """Why the factory cannot build this name, or None; unknown names without a GPU word are not judged."""
    known, word = _table()["known"], bare(name)
    row = known.get(word)
    if row is None:
        if any(gpu in word for gpu in _table()["gpu_words"]) and not word.endswith(("-wrapper", "-pcc")):
            return f"no Talos release has an extension `{word}`"
        return None
    if tag is None:
        return None
    here = parse_tag(tag)
    if "since" in row and here < parse_tag(row["since"]):
        return f"`{word}` exists from Talos {row['since'].removesuffix('.0')} on, this is {tag}"
    if "until" in row and here >= parse_tag(row["until"]):
        there = frozenset(
            n for n, r in known.items() if here >= parse_tag(r.get("since", "0.0.0")) and "until" not in r
        )
        if installed_name(word, there) == word:
            return f"`{word}` is gone since Talos {row['until'].removesuffix('.0')}, this is {tag}"
    return None


def flaws(names: Named, tag: str | None) -> Iterator[tuple[int, str, str]]:
    """Line, cause and text of what is wrong with one list."""
    for name, line in names:
        why = unavailable(name, tag)
        if why is not None:
            yield line, "T05", why
    kmods = [(bare(n), line) for n, line in names if is_kmod(n)]
    toolkits = [(bare(n), line) for n, line in names if is_toolkit(n)]
    families = {family for n, _ in kmods for family in KMOD_FAMILIES if n.startswith(family)}
    if len(kmods) > 1:
        kind = "open and proprietary kernel modules" if len(families) > 1 else "two branches of the kernel modules"
        yield kmods[1][1], "T09", f"{kind} in one image: {', '.join(n for n, _ in kmods)}"
        return
    if kmods and toolkits:
        branch, other = _branch(kmods[0][0]), _branch(toolkits[0][0])
        if branch != other and not any(unavailable(n, tag) for n, _ in (*kmods, *toolkits)):
            yield (
                toolkits[0][1],
                "T07",
                f"{kmods[0][0]} is of the {branch} branch, {toolkits[0][0]} of the {other} branch",
            )
    elif kmods and (tag is None or parse_tag(tag) < (1, 14, 0)):
        yield kmods[0][1], "T08", f"{kmods[0][0]} without nvidia-container-toolkit{_suffix(kmods[0][0])}"
    elif toolkits and not any("nvidia" in n and unavailable(n, tag) for n, _ in names):
        yield toolkits[0][1], "T08", f"{toolkits[0][0]} without a kernel module extension of the same branch"


def _suffix(name: str) -> str:
    found = re.search(r"-(lts|production)$", name)
    return found[0] if found else ""


def _branch(name: str) -> str:
    return _suffix(name).removeprefix("-") or "lts"  # the factory's alias for names without a branch


def list_behind(ident: str) -> tuple[str, ...] | None:
    """The extension list with this schematic id, for lists that labs commonly have; None when it is another."""
    if ident == DEFAULT_ID:
        return ()
    return _lists().get(ident)


@cache
def _lists() -> dict[str, tuple[str, ...]]:
    kmods = [f"{family}-{branch}" for family in KMOD_FAMILIES for branch in ("lts", "production")]
    toolkits = [f"{TOOLKIT_FAMILY}-{branch}" for branch in ("lts", "production")]
    graphics: list[tuple[str, ...]] = [(), *((k,) for k in kmods), *((t,) for t in toolkits)]
    graphics += [(k, t) for k in kmods for t in toolkits]
    extras: list[str] = _table()["companions"]
    found = {}
    for count in range(len(extras) + 1):
        for beside in combinations(extras, count):
            for nvidia in graphics:
                names = tuple(sorted((*beside, *nvidia)))
                text = _HEAD + "".join(f"            - siderolabs/{name}\n" for name in names)
                found[hashlib.sha256(text.encode()).hexdigest()] = names
    return found
