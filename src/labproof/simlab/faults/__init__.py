"""Faults: what can be wrong with the inputs of a simulated lab, and which finding must follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

Finding = Literal["blocking", "degraded", "hygiene"]


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        id: kebab-case name.
        title: one line for people.
        cause: id of the cause that the suite must name.
        clause: id of the clause that must fail.
        finding: severity of that clause.
        layer: file the fault is listed in (host, vm, talos, kubernetes, workload, transcode, variations).
        set: merge patch on the inputs tree; inputs only, symptoms follow.
        also: further clauses that must fail because they state the same fact at the same layer.
        also_causes: causes that those clauses must name, where it is another than `cause`.
        variation: variation the fault belongs to, None for the plain lab.
        layers: layers selected in the run that finds it, where a layer below would find another cause first (a pod
            meets a missing kernel module only under `-m workload`); empty: all.
    """

    id: str
    title: str
    cause: str
    clause: str
    finding: Finding
    layer: str
    set: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    also_causes: tuple[str, ...] = ()
    variation: str | None = None
    layers: tuple[str, ...] = ()


def load_faults() -> dict[str, Fault]:
    """All faults of all layers by id.

    Raises:
        ValueError: an id occurs twice, or an entry lacks a key or has a wrong one.
    """
    return dict(_faults(tuple((p, p.stat().st_mtime_ns) for p in sorted(Path(__file__).parent.glob("*.yaml")))))


@lru_cache(maxsize=2)
def _faults(files: tuple[tuple[Path, int], ...]) -> dict[str, Fault]:
    from labproof.simlab.world.inputs import WorldLoader

    found: dict[str, Fault] = {}
    for path, _ in files:
        entries = yaml.load(path.read_text(encoding="utf-8"), Loader=WorldLoader) or {}  # noqa: S506 - a SafeLoader
        for name, entry in entries.items():
            if name in found:
                raise ValueError(f"{path.name}: fault {name} is listed twice")
            try:
                lists = {key: tuple(entry.get(key, ())) for key in ("also", "also_causes", "layers")}
                fault = Fault(id=name, layer=path.stem, **{**entry, **lists})
            except TypeError as wrong:
                raise ValueError(f"{path.name}: fault {name}: {wrong}") from wrong
            if fault.finding not in get_args(Finding):
                raise ValueError(f"{path.name}: fault {name}: finding {fault.finding!r}")
            found[name] = fault
    return found
