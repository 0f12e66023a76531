"""A run's facts as named things that can be set side by side: the IOMMU group of a card, a label, a driver's version.

A thing that was not read is `unknown` in its run, whatever the reason (an older bundle, a right that is missing, a
layer that was not selected), and is never told as changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from labproof.facts.bundle import Facts
from labproof.facts.reading import Reading, State
from labproof.inventory.chains import Chain, chains_of
from labproof.inventory.models import Lab

#: What happened to be read of one thing: its items by name; "" is the only item of a single value.
Items = Mapping[str, str]
Extract = Callable[[Any, "Where"], Items | None]


@dataclass(frozen=True)
class Where:
    """What a section speaks of.

    Attributes:
        layer: its layer; subject: the owner's name of what it speaks of.
        section: kind and name of the facts section.
        chains: chains of the lab that pass through it.
    """

    layer: str
    subject: str
    section: tuple[str, str]
    chains: tuple[Chain, ...]

    @property
    def gpus(self) -> frozenset[str]:
        """Names of the GPUs whose chains pass through it."""
        return frozenset(c.gpu.name for c in self.chains)


@dataclass(frozen=True)
class Thing:
    """How one thing is taken from a section of facts.

    Attributes:
        name: what it is called in a comparison.
        field: field of the section's value; a tuple of named parts is narrowed to the subject by `part`.
        extract: items of the field's value; None when the value does not tell.
        part: attribute of the subject's own part (`labels` of the node among `nodes`).
        version: belongs to "versions that changed".
        given: set by an owner, an upgrade, a firmware or a machine, so that it can be what something else came from;
            the rest follows from what is given.
        pinned: a baseline holds it.
    """

    name: str
    field: str
    extract: Extract
    part: str = ""
    version: bool = False
    given: bool = False
    pinned: bool = False


@dataclass(frozen=True)
class Seen:
    """One thing as one run saw it. `items` is None when unknown, and `why` says why."""

    where: Where
    thing: Thing
    items: Items | None
    why: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Layer, subject and name: the same in every run of the lab."""
        return self.where.layer, self.where.subject, self.thing.name


class Snapshot:
    """All things of one run, lower layers first, causes before what follows from them.

    Args:
        facts, lab: the run's facts, and the lab as it was declared then.
    """

    def __init__(self, facts: Facts, lab: Lab) -> None:
        self.facts = facts
        self.lab = lab
        self.chains = chains_of(lab)

    @cached_property
    def seen(self) -> dict[tuple[str, str, str], Seen]:
        """By key, in order."""
        from labproof.report.compare_things import THINGS

        found: dict[tuple[str, str, str], Seen] = {}
        for where in self._places():
            section = self.section(where)
            for thing in THINGS[where.layer if where.section[0] != "cluster" else _cluster_part(where)]:
                seen = _see(section, where, thing)
                found[seen.key] = seen
        declared = Seen(Where("lab", "lab.yaml", ("", ""), self.chains), DECLARED, declared_items(self.lab))
        found[declared.key] = declared
        return found

    def section(self, where: Where) -> Reading[Any]:
        """The section of facts a place is told by."""
        kind, name = where.section
        reading: Reading[Any] = getattr(self.facts, kind)(name)
        return reading

    def _places(self) -> Iterator[Where]:
        lab, chains = self.lab, self.chains
        for host in lab.hosts:
            through = tuple(c for c in chains if c.host is not None and c.host.name == host.name)
            if host.ssh is not None:
                yield Where("host", host.name, ("host", host.name), through)
        for host in lab.hosts:
            for vm in lab.vms if host.pve is not None else ():
                if vm.host == host.name:
                    through = tuple(c for c in chains if c.vm is not None and c.vm.name == vm.name)
                    yield Where("vm", vm.name, ("pve", host.name), through)
        for node in lab.nodes:
            through = tuple(c for c in chains if c.node is not None and c.node.name == node.name)
            if node.talos is not None:
                yield Where("talos", node.name, ("talos", node.name), through)
        for cluster in lab.clusters:
            through = tuple(c for c in chains if c.cluster is not None and c.cluster.name == cluster.name)
            yield Where("kubernetes", f"cluster {cluster.name}", ("cluster", cluster.name), through)
            for name in dict.fromkeys(c.node.name for c in through if c.node is not None):
                own = tuple(c for c in through if c.node is not None and c.node.name == name)
                yield Where("kubernetes", f"node {name}", ("cluster", cluster.name), own)
        for layer in ("workload", "transcode"):
            for chain in chains:
                if chain.cluster is not None:
                    yield Where(layer, f"GPU {chain.gpu.name}", (layer, chain.id), (chain,))


def _cluster_part(where: Where) -> str:
    return "node" if where.subject.startswith("node ") else "cluster"


def _see(section: Reading[Any], where: Where, thing: Thing) -> Seen:
    if section.state is not State.VALUE or section.value is None:
        return Seen(where, thing, None, section.why or "not read")
    held = getattr(section.value, thing.field)
    reading = held if isinstance(held, Reading) else Reading(State.VALUE, held)
    if reading.state is State.VALUE and thing.part:
        reading = _part_of(reading, where, thing.part)
    if reading.state is State.ABSENT:
        return Seen(where, thing, {})
    if reading.state is not State.VALUE:
        return Seen(where, thing, None, reading.why or str(reading.state))
    items = thing.extract(reading.value, where)
    return Seen(where, thing, items, "" if items is not None else "the facts do not tell")


def part_name(where: Where) -> str:
    """How the subject is called among its section's parts."""
    return where.subject.removeprefix("node ")


def _part_of(reading: Reading[Any], where: Where, part: str) -> Reading[Any]:
    own = next((p for p in reading.value or () if p.name == part_name(where)), None)
    if own is None:
        return Reading(State.FAILED, why=f"{where.subject} was not there")
    held = getattr(own, part)
    return held if isinstance(held, Reading) else Reading(State.VALUE, held)


# ------------------------------------------------------------------ what is declared

#: Where things are reached and how long one waits: they say nothing about the stack.
_NOT_DECLARED = frozenset(
    {
        "ssh",
        "url",
        "token_id",
        "token_secret",
        "user",
        "password",
        "ca",
        "talosconfig",
        "admin_talosconfig",
        "factory",
        "context",
    }
)
_NOT_DECLARED_AT_ALL = frozenset({"timings", "kubeconfig"})


def declared_items(lab: Lab) -> Items:
    """lab.yaml flattened to `clusters.moody.sharing.replicas` -> `4`, without endpoints, credentials and durations."""
    return dict(_flat(lab.model_dump(mode="json", exclude_defaults=True), ""))


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, below in value.items():
            if key not in _NOT_DECLARED | _NOT_DECLARED_AT_ALL:
                yield from _flat(below, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _flat(item, f"{path}.{item.get('name') or item.get('clause') or index}")
    elif isinstance(value, list):
        yield path, ", ".join(str(item) for item in value)
    else:
        yield path, str(value)


DECLARED = Thing("declared", "", lambda value, where: value, given=True)
