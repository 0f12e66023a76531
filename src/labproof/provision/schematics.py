"""Which schematic a node is to run: the declared one, or what it runs with the NVIDIA pair added.

The id is computed offline (catalogue/schematic.py); what the running schematic holds besides extensions is kept.
Source: facts/talos.md 1 (canonical form, list order) and 2 (pairs, branches, generations).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from labproof.catalogue.gpus import generation
from labproof.catalogue.schematic import NotComputable, canonical, id_of_text
from labproof.catalogue.versions import KMOD_FAMILIES, TOOLKIT_FAMILY, does, shipped_driver
from labproof.facts.talos import TalosFacts
from labproof.inventory.models import Node
from labproof.provision.failure import StepFailed


@dataclass(frozen=True)
class Wanted:
    """A schematic to run: its id; `text` is its canonical YAML, empty where only the id is declared."""

    id: str
    text: str
    names: tuple[str, ...]


def wanted_schematic(node: Node, facts: TalosFacts, devices: tuple[str, ...], tag: str) -> Wanted:
    """The schematic of a node.

    Args:
        node: with its declared `talos`.
        facts: what it runs.
        devices: `vendor:device` of its NVIDIA cards.
        tag: the Talos release it is to run.

    Raises:
        StepFailed: an extension would get lost, or the id cannot be told; the text says what to declare.
    """
    running = facts.schematic.value
    body = _parsed(running.text) if running is not None and running.text else {}
    have = _names(body)
    if not have and running is None:
        have = tuple(e.name for e in facts.extensions.value or ())
    declared = tuple(name.removeprefix("siderolabs/") for name in (node.talos.extensions if node.talos else ()))
    only_id = node.talos.schematic if node.talos is not None else None
    if declared:
        lost = [name for name in have if name not in declared and not _is_gpu(name)]
        if lost:
            text = (
                f"{node.name} has {', '.join(lost)}, which lab.yaml does not list: add it to `extensions`, or lose it"
            )
            raise StepFailed(text)
        names = declared
    elif only_id is not None:
        return Wanted(only_id, "", ())
    else:
        pair = _pair(devices, tag)
        names = (*(name for name in have if not _is_gpu(name)), *pair) if not _has_pair(have) else have
    try:
        text = canonical(_with(body, names))
    except NotComputable as unknown:
        raise StepFailed(
            f"the schematic's id cannot be told offline ({unknown}): declare `schematic` in lab.yaml"
        ) from None
    ident = id_of_text(text)
    if only_id is not None and only_id != ident:
        if running is not None and running.id == only_id:
            return Wanted(only_id, running.text, have)
        raise StepFailed(f"lab.yaml declares schematic {only_id}, but its extensions make {ident}: mend one of them")
    return Wanted(ident, text, names)


def _parsed(text: str) -> dict[str, Any]:
    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return read if isinstance(read, dict) else {}


def _names(body: dict[str, Any]) -> tuple[str, ...]:
    listed = ((body.get("customization") or {}).get("systemExtensions") or {}).get("officialExtensions") or ()
    return tuple(str(name).removeprefix("siderolabs/") for name in listed)


def _with(body: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    full = [name if "/" in name else f"siderolabs/{name}" for name in names]
    custom = {**(body.get("customization") or {}), "systemExtensions": {"officialExtensions": full}}
    return {**body, "customization": custom}


def _is_gpu(name: str) -> bool:
    return name.startswith((*KMOD_FAMILIES, TOOLKIT_FAMILY))


def _has_pair(names: tuple[str, ...]) -> bool:
    modules = [n for n in names if n.startswith(KMOD_FAMILIES)]
    return len(modules) == 1 and sum(n.startswith(TOOLKIT_FAMILY) for n in names) == 1


def _pair(devices: tuple[str, ...], tag: str) -> tuple[str, str]:
    """Module and toolkit extension for these cards: proprietary unless a chip has open modules only."""
    kinds = [g for d in devices if (g := generation(d)) is not None]
    module = KMOD_FAMILIES[1] if any(g.open_only for g in kinds) else KMOD_FAMILIES[0]
    if not does(tag, "branch_suffixes"):
        return module, TOOLKIT_FAMILY
    production = shipped_driver(tag, "production") or ""
    branch = "production"
    for kind in kinds:
        if kind.last_branch is not None and production and int(production.split(".")[0]) > kind.last_branch:
            branch = "lts"
    return f"{module}-{branch}", f"{TOOLKIT_FAMILY}-{branch}"
