"""Faults: what can be wrong with the inputs of a simulated lab, and which finding must follow.

A file named like a lab (`bare-metal-rtx2070.yaml`, `bare-metal-rtx2070.more.yaml`) holds faults of that lab; those of
the other files belong to the first reference lab unless an entry says `lab:`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

Finding = Literal["blocking", "degraded", "hygiene"]
DEFAULT_LAB = "t4-jellyfin"
#: Layer of a fault in a lab's own file, by the prefix of the clause it fails.
LAYERS: Mapping[str, str] = {
    "HOST": "host", "VM": "vm", "TALOS": "talos", "NODE": "node", "K8S": "kubernetes", "POD": "workload",
    "CODEC": "transcode", "APP": "apps", "METRIC": "metrics", "GITOPS": "gitops",
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        id: kebab-case name.
        title: one line for people.
        cause: id of the cause that the suite must name.
        clause: id of the clause that must fail.
        finding: severity of that clause.
        layer: file the fault is listed in (host, vm, talos, kubernetes, workload, transcode, variations); in a lab's
            own file the layer of its clause, or what the entry says.
        set: merge patch on the inputs tree; inputs only, symptoms follow.
        also: further clauses that must fail because they state the same fact at the same layer.
        also_causes: causes that those clauses must name, where it is another than `cause`.
        lab: lab the fault belongs to.
        variation: variation of that lab the fault belongs to, None for the plain lab.
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
    lab: str = DEFAULT_LAB
    variation: str | None = None
    layers: tuple[str, ...] = ()


def load_faults(lab: str | None = None) -> dict[str, Fault]:
    """All faults of all layers by id, or those of one lab.

    Raises:
        ValueError: an id occurs twice, or an entry lacks a key or has a wrong one.
    """
    known = _faults(tuple((p, p.stat().st_mtime_ns) for p in sorted(Path(__file__).parent.glob("*.yaml"))))
    return {name: fault for name, fault in known.items() if lab in (None, fault.lab)}


@lru_cache(maxsize=2)
def _faults(files: tuple[tuple[Path, int], ...]) -> dict[str, Fault]:
    from labproof.simlab.world.inputs import WorldLoader, known_labs

    labs = known_labs()
    found: dict[str, Fault] = {}
    for path, _ in files:
        stem = path.name.split(".", 1)[0]
        entries = yaml.load(path.read_text(encoding="utf-8"), Loader=WorldLoader) or {}  # noqa: S506 - a SafeLoader
        for name, entry in entries.items():
            if name in found:
                raise ValueError(f"{path.name}: fault {name} is listed twice")
            try:
                lists = {key: tuple(entry.get(key, ())) for key in ("also", "also_causes", "layers")}
                of_lab = {"lab": stem, "layer": _layer_of(entry.get("clause", ""))} if stem in labs else {"layer": stem}
                fault = Fault(id=name, **{**of_lab, **entry, **lists})
            except TypeError as wrong:
                raise ValueError(f"{path.name}: fault {name}: {wrong}") from wrong
            if fault.finding not in get_args(Finding):
                raise ValueError(f"{path.name}: fault {name}: finding {fault.finding!r}")
            if fault.lab not in labs:
                raise ValueError(f"{path.name}: fault {name}: no lab {fault.lab!r}")
            found[name] = fault
    return found


def _layer_of(clause: str) -> str:
    return LAYERS.get(clause.split("-", 1)[0], "")
