"""The likely culprit of a clause that broke between two runs.

Checks are pure functions of facts, so the question "what decided it?" can be asked of them: the clause is judged again
on the new facts with one reading put back as it was. Where that makes it hold, this reading decided. If it is something
given (a version, a firmware table, a configuration) it is the culprit; if it only follows from others (a group, a
driver, a slot), the culprit is the lowest given change on the same chain, at or below it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from labproof.checks.gate import expected_targets
from labproof.checks.judgement import Fail, Unchecked
from labproof.checks.registry import LAYERS, Clause, clauses
from labproof.checks.subject import Subject
from labproof.facts.bundle import Facts
from labproof.facts.reading import Reading
from labproof.facts.store import FactsStore
from labproof.inventory.chains import Target
from labproof.report.compare import BOOT, Change
from labproof.report.compare_runs import SavedRun
from labproof.report.compare_snapshot import Snapshot

#: Section of facts behind each layer.
SECTION_OF = {
    "host": "host", "vm": "pve", "talos": "talos", "kubernetes": "cluster", "workload": "workload",
    "transcode": "transcode", "metrics": "metrics", "apps": "apps", "gitops": "gitops",
}  # fmt: skip
#: Fields whose value is a tuple of named parts: one attribute of one part is put back at a time.
_PARTED = ("nodes", "vms")


@dataclass(frozen=True)
class Spot:
    """One reading that can be put back: a field of a section, or an attribute of one of its parts."""

    section: tuple[str, str]
    old_section: tuple[str, str]
    field: str
    part: str = ""
    attribute: str = ""

    def is_of(self, change: Change) -> bool:
        """Whether a change was seen in this reading."""
        where, thing = change.after_seen.where, change.after_seen.thing
        return (where.section, thing.field, thing.part) == (self.section, self.field, self.attribute)

    def words(self) -> str:
        """For a reading that has no name of its own in a comparison."""
        field = self.attribute or self.field
        return f"{field.replace('_', ' ')} of {self.part or self.section[1]}"


class _PutBack(FactsStore):
    """Facts of one run with some sections replaced."""

    def __init__(self, facts: Facts, replaced: dict[tuple[str, str], Reading[Any]]) -> None:
        super().__init__(facts._store.folder, frozen=True)
        self._facts, self._replaced = facts, replaced

    def section(self, kind: str, name: str, shape: type[Any]) -> Reading[Any]:
        """The replaced section, else the run's own."""
        return self._replaced.get((kind, name)) or self._facts._store.section(kind, name, shape)


def culprits_of(
    verdicts: list[dict[str, Any]],
    changes: list[Change],
    snapshots: tuple[Snapshot, Snapshot] | None,
    after: SavedRun,
) -> list[dict[str, Any]]:
    """A record for each clause that broke or can no longer be judged: what decided it, what changed on its chain.

    Clauses that are blocked have none: what blocks them has. Those unchecked for one reason share a record.
    """
    broken: list[_Broken] = []
    reasons: set[tuple[str, str]] = set()
    for verdict in verdicts:
        if verdict["is"] not in ("broken", "new, failing", "lost") or verdict["after"] not in ("fail", "unchecked"):
            continue
        record = after.records[verdict["clause"], verdict["target"]]
        if verdict["after"] == "unchecked":
            reason = (record["layer"], str(record["reason"]))
            if record["busy"] or reason in reasons:
                continue
            reasons.add(reason)
        broken.append(_broken(verdict, record, changes, snapshots))
    of_cause: dict[str, Change] = {}
    for one in broken:
        given = next((c for c in one.decided if c.after_seen.thing.given), None)
        if given is not None and one.verdict["cause"]:
            of_cause.setdefault(one.verdict["cause"], given)
    return [_told(one, of_cause.get(one.verdict["cause"]), snapshots is not None) for one in broken]


@dataclass(frozen=True)
class _Broken:
    """A clause that broke: what changed on its chain, and which of that decided it."""

    verdict: dict[str, Any]
    layer: str
    on_chain: list[Change]
    decided: list[Change]
    spots: list[Spot]


def _broken(
    verdict: dict[str, Any],
    record: dict[str, Any],
    changes: list[Change],
    snapshots: tuple[Snapshot, Snapshot] | None,
) -> _Broken:
    gpus = _gpus_of(record, snapshots)
    height = LAYERS.index(record["layer"])
    on_chain = [
        c
        for c in changes
        if c.gpus & gpus
        and c.after_seen.where.layer != "lab"
        and LAYERS.index(c.after_seen.where.layer) <= height
        and c.after_seen.thing.name != BOOT
    ]
    declared = [c for c in changes if c.after_seen.where.layer == "lab"]
    spots: list[Spot] = []
    declaration = False
    clause = clauses().get(verdict["clause"])
    target = _target(snapshots[1], clause, verdict["target"]) if snapshots is not None and clause is not None else None
    if snapshots is not None and clause is not None and target is not None and verdict["after"] == "fail":
        spots = deciding(*snapshots, clause, target)
        old_target = _target(snapshots[0], clause, target.name) if declared else None
        if old_target is not None:
            declaration = _holds(clause, Subject(snapshots[1].facts, snapshots[0].lab, old_target))
    decided = [c for c in on_chain if any(spot.is_of(c) for spot in spots)]
    if declaration and not decided:
        decided = declared
    return _Broken(verdict, record["layer"], on_chain, decided, spots)


def _told(one: _Broken, of_cause: Change | None, have_facts: bool) -> dict[str, Any]:
    """The record of a clause.

    Args:
        of_cause: what decided another clause that broke for the same cause, where that is given.
    """
    culprit = _choose(one.on_chain, one.decided)
    if of_cause is not None and of_cause in one.on_chain and culprit not in one.decided:
        culprit = of_cause
    return {
        "clause": one.verdict["clause"],
        "target": one.verdict["target"],
        "layer": one.layer,
        "cause": one.verdict["cause"],
        "culprit": culprit.record() if culprit is not None else None,
        "decided_by": [c.record() for c in one.decided] or [{"text": spot.words()} for spot in one.spots],
        "changes": [c.record() for c in one.on_chain],
        "sentence": _sentence(one, culprit, have_facts),
    }


def deciding(before: Snapshot, after: Snapshot, clause: Clause, target: Target) -> list[Spot]:
    """Readings that decide: with any of them as it was before, the clause holds again.

    Empty when it does not fail on the saved facts, or when no single reading decides.
    """
    if not isinstance(clause.judge(Subject(after.facts, after.lab, target)), Fail):
        return []
    found = []
    for spot in _spots(before, after, clause, target):
        put_back = _with(before, after, spot)
        if put_back is not None and _holds(clause, Subject(put_back, after.lab, target)):
            found.append(spot)
    return found


def _spots(before: Snapshot, after: Snapshot, clause: Clause, target: Target) -> Iterator[Spot]:
    """Readings of the layers the clause reads that differ between the runs, lower layers first."""
    old_ids = {c.gpu.name: c.id for c in before.chains}
    for layer in sorted(clause.reads, key=LAYERS.index):
        kind = SECTION_OF[layer]
        names = {_section_name(kind, chain): chain.gpu.name for chain in target.chains}
        for name, gpu in names.items():
            old_name = old_ids.get(gpu, name) if kind in ("workload", "transcode") else name
            new, old = getattr(after.facts, kind)(name).value, getattr(before.facts, kind)(old_name).value
            if new is None or old is None:
                continue
            for field in dataclasses.fields(new):
                now, was = getattr(new, field.name), getattr(old, field.name)
                if _value(now) == _value(was) or not _known(was):
                    continue
                base = Spot((kind, name), (kind, old_name), field.name)
                yield from _parts(base, now, was) if field.name in _PARTED else (base,)


def _parts(spot: Spot, now: Any, was: Any) -> Iterator[Spot]:
    old = {p.name: p for p in _value(was) or ()}
    for part in _value(now) or ():
        before = old.get(part.name)
        for field in dataclasses.fields(part) if before is not None else ():
            if _value(getattr(part, field.name)) != _value(getattr(before, field.name)):
                yield dataclasses.replace(spot, part=part.name, attribute=field.name)


def _with(before: Snapshot, after: Snapshot, spot: Spot) -> Facts | None:
    """The new facts with one reading as it was."""
    section: Reading[Any] = getattr(after.facts, spot.section[0])(spot.section[1])
    old: Reading[Any] = getattr(before.facts, spot.old_section[0])(spot.old_section[1])
    was, now = getattr(old.value, spot.field), getattr(section.value, spot.field)
    if spot.attribute:
        was = _with_part(now, _value(was), spot)
    if not dataclasses.is_dataclass(section.value) or isinstance(section.value, type):
        return None
    changed = dataclasses.replace(section, value=dataclasses.replace(section.value, **{spot.field: was}))
    return Facts(_PutBack(after.facts, {spot.section: changed}), after.facts.now)


def _with_part(now: Any, was: Any, spot: Spot) -> Any:
    old = next(p for p in was if p.name == spot.part)
    parts = tuple(
        dataclasses.replace(p, **{spot.attribute: getattr(old, spot.attribute)}) if p.name == spot.part else p
        for p in _value(now)
    )
    return dataclasses.replace(now, value=parts) if isinstance(now, Reading) else parts


def _holds(clause: Clause, subject: Subject) -> bool:
    """Whether the clause does not fail. A patchwork of two runs may be something a check never sees in one."""
    try:
        return not isinstance(clause.judge(subject), Fail | Unchecked)
    except Exception:  # whatever an impossible combination of facts makes a check do: it decides nothing then
        return False


def _value(held: Any) -> Any:
    return held.value if isinstance(held, Reading) else held


def _known(held: Any) -> bool:
    return held.known if isinstance(held, Reading) else True


def _section_name(kind: str, chain: Any) -> str:
    if kind in ("host", "pve"):
        return str(chain.host.name)
    if kind == "talos":
        return str(chain.node.name)
    of_cluster = ("cluster", "metrics", "apps", "gitops")
    return str(chain.cluster.name) if kind in of_cluster else str(chain.id)


def _target(after: Snapshot, clause: Clause | None, name: str) -> Target | None:
    if clause is None:
        return None
    return next((t for t in expected_targets(after.lab, clause) if t.name == name), None)


def _gpus_of(record: dict[str, Any], snapshots: tuple[Snapshot, Snapshot] | None) -> frozenset[str]:
    if snapshots is None:
        return frozenset()
    return frozenset(c.gpu.name for c in snapshots[1].chains if c.id in record["chains"])


def _choose(on_chain: list[Change], decided: list[Change]) -> Change | None:
    """The culprit: what decided it if that is given, else the lowest given change at or below what decided it."""
    given = next((c for c in decided if c.after_seen.thing.given), None)
    if given is not None:
        return given
    top = max((c.order for c in decided), default=None)
    below = [c for c in on_chain if c.after_seen.thing.given and (top is None or c.order <= top)]
    return below[0] if below else (decided[0] if decided else None)


def _sentence(one: _Broken, culprit: Change | None, have_facts: bool) -> str:
    verdict, on_chain, decided, spots = one.verdict, one.on_chain, one.decided, one.spots
    what = f"{verdict['clause']} on {verdict['target']}"
    if not have_facts:
        return f"{what}: what changed is unknown, the facts of one run are gone."
    if culprit is None and spots:
        return f"{what}: decided by {spots[0].words()}; nothing given changed below it."
    if culprit is None:
        return f"{what}: nothing that was read on its chain changed; look at what labproof does not read."
    if culprit in decided and culprit.after_seen.thing.given:
        return f"{what}: most likely because of {culprit.text()}; with it as before, the clause holds."
    others = [c for c in on_chain if c.after_seen.thing.given and c is not culprit]
    tail = f" ({len(others)} more given changes at or below it)" if others else ""
    if decided and culprit not in decided:
        return f"{what}: decided by {decided[0].text()}; most likely because of {culprit.text()}{tail}."
    if decided:
        return f"{what}: decided by {decided[0].text()}; nothing given changed below it."
    return f"{what}: most likely because of {culprit.text()}, the lowest change on its chain{tail}."
