"""Inputs of a simulated lab: what an owner decides or hardware is, never what follows from it.

The tree has the top-level keys `hosts`, `nodes`, `clusters`, `cards`, each one file under `labs/<lab>/world/`.
Variations and faults are JSON merge patches (RFC 7386) on that tree.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from labproof.simlab.faults import load_faults
from labproof.simlab.world.bare import PARTS as BARE_PARTS
from labproof.simlab.world.bare import bare as make_bare

PARTS = ("hosts", "nodes", "clusters", "cards")


_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the libyaml one where PyYAML was built with it


class WorldLoader(_SafeLoader):  # type: ignore[misc]
    """Safe loader that leaves PCI addresses and classes alone (YAML 1.1 reads 0000:3b as base 60, 0300 as octal)."""


_PLAIN_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$")
_PLAIN_FLOAT = re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+)$")
WorldLoader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag not in {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
WorldLoader.add_implicit_resolver("tag:yaml.org,2002:int", _PLAIN_INT, list("-+0123456789"))
WorldLoader.add_implicit_resolver("tag:yaml.org,2002:float", _PLAIN_FLOAT, list("-+.0123456789"))


@dataclass(frozen=True)
class Variation:
    """One consistent tuple of versions and choices of a lab.

    Attributes:
        name: file name without `.yaml`.
        title: one line for people.
        versions: what the tuple is made of (Talos, Kubernetes, driver, plugin, PVE, kernel).
        set: merge patch on the world's inputs.
        lab: merge patch on lab.yaml (lists patched by `name`), for what the owner would declare differently.
    """

    name: str
    title: str
    versions: Mapping[str, str] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)
    lab: Mapping[str, Any] = field(default_factory=dict)


def labs_folder() -> Path:
    """The folder of the reference labs: in a clone beside `src`, in a wheel inside the package."""
    here = Path(__file__).resolve()
    for candidate in (here.parents[4] / "labs", here.parents[2] / "labs"):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError("the reference labs are not installed")


def lab_folder(lab: str | Path) -> Path:
    """The folder of a lab given by name, by folder or by its lab.yaml.

    Raises:
        FileNotFoundError: there is no such simulated lab.
    """
    path = Path(lab)
    for candidate in (path.parent if path.suffix in {".yaml", ".yml"} else path, labs_folder() / str(lab)):
        if (candidate / "world").is_dir():
            return candidate.resolve()
    raise FileNotFoundError(f"no simulated lab {str(lab)!r}; known: {', '.join(known_labs())}")


def known_labs() -> tuple[str, ...]:
    """Names of the shipped labs that can be simulated."""
    return tuple(sorted(p.parent.name for p in labs_folder().glob("*/world")))


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386) and return the result; neither argument is changed."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


@lru_cache(maxsize=64)
def _parsed(path: Path, _changed_ns: int) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=WorldLoader) or {}  # noqa: S506 - a SafeLoader


def read_yaml(path: Path) -> Any:
    """The parsed file; do not change the result, it is shared until the file changes."""
    return _parsed(path, path.stat().st_mtime_ns)


def variations(lab: str | Path) -> dict[str, Variation]:
    """All variations of a lab by name."""
    folder = lab_folder(lab) / "variations"
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        raw = _whole_variation(folder, path.stem)
        found[path.stem] = Variation(
            path.stem, raw.get("title", path.stem), raw.get("versions", {}), raw.get("set", {}), raw.get("lab", {})
        )
    return found


def _whole_variation(folder: Path, name: str) -> dict[str, Any]:
    """A variation's file; with `like: <another>` its `set` and `lab` come on top of that one's."""
    raw: dict[str, Any] = read_yaml(folder / f"{name}.yaml")
    if "like" not in raw:
        return raw
    base = _whole_variation(folder, str(raw["like"]))
    return {**raw, **{part: _stacked(base.get(part, {}), raw.get(part, {})) for part in ("versions", "set", "lab")}}


def _stacked(first: Any, second: Any) -> Any:
    """Two merge patches as one: like merging, but a null stays a null."""
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return second
    return {**first, **{key: _stacked(first.get(key), value) for key, value in second.items()}}


def load_inputs(
    lab: str | Path, variation: str | None = None, faults: Sequence[str] = (), *, bare: bool | Collection[str] = False
) -> dict[str, Any]:
    """The inputs tree of a lab with its variation and faults applied, in that order; `bare`: before any provisioning.

    `bare` may name the parts that are (`labproof.simlab.world.bare.PARTS`).

    Raises:
        FileNotFoundError: no such lab.
        KeyError: no such variation or fault (the message names the known ones).
    """
    inputs: dict[str, Any] = {part: {} for part in PARTS}
    for part in PARTS:
        path = lab_folder(lab) / "world" / f"{part}.yaml"
        if path.is_file():
            raw = read_yaml(path)
            inputs[part] = raw.get(part, raw)
    if variation:
        known = variations(lab)
        if variation not in known:
            raise KeyError(f"unknown variation {variation!r}; known: {', '.join(known) or 'none'}")
        inputs = _varied(inputs, known[variation].set)
    if bare:
        inputs = make_bare(copy.deepcopy(inputs), BARE_PARTS if bare is True else bare)
    catalogue = load_faults() if faults else {}
    for fault in faults:
        if fault not in catalogue:
            near = difflib.get_close_matches(fault, catalogue, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise KeyError(f"unknown fault {fault!r}; {hint}`labproof faults` lists them")
        folder, owner = lab_folder(lab), catalogue[fault].lab
        if folder.parent == labs_folder() and folder.name != owner:  # an owner's copy of a lab takes that lab's faults
            raise KeyError(f"fault {fault!r} is one of lab {owner}: --sim={owner}")
        inputs = _varied(inputs, catalogue[fault].set)
    return copy.deepcopy(inputs)


def _varied(inputs: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Apply a variation or a fault; an entry with `like: <another>` patches a copy of that one (a second host)."""
    copies: list[tuple[str, str, str]] = []
    plain: dict[str, Any] = {}
    for part, entries in patch.items():
        alike = {n: str(e["like"]) for n, e in entries.items() if isinstance(e, Mapping) and "like" in e}
        copies += [(part, name, model) for name, model in alike.items()]
        plain[part] = {name: entry for name, entry in entries.items() if name not in alike}
    varied: dict[str, Any] = merge_patch(inputs, plain)
    for part, name, model in copies:
        own = {key: value for key, value in patch[part][name].items() if key != "like"}
        varied[part][name] = merge_patch(varied[part][model], own)
    return varied
