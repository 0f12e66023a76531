"""What changed between two runs, and what broke because of it: from saved facts and run.json only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from labproof.checks.registry import LAYERS
from labproof.inventory.chains import chains_of
from labproof.report.compare_noise import beyond_noise
from labproof.report.compare_runs import SavedRun
from labproof.report.compare_snapshot import Seen, Snapshot

SCHEMA = 1
#: Lower layers first; what is declared stands above all of them.
ORDER = (*LAYERS, "lab")
_GOOD = ("pass", "excepted")
BOOT = "boot"  # its value says nothing but that it is another one


@dataclass(frozen=True)
class Change:
    """One item of one thing that differs. `before`/`after` None: it was not there.

    Attributes:
        order: place among all things, lower layers and causes first.
        before_seen, after_seen: the thing in both runs.
    """

    item: str
    before: str | None
    after: str | None
    order: int
    before_seen: Seen
    after_seen: Seen

    @property
    def gpus(self) -> frozenset[str]:
        """GPUs whose chains it is on."""
        return self.after_seen.where.gpus | self.before_seen.where.gpus

    def text(self) -> str:
        """`pve5: firmware tables: DMAR is gone`."""
        where, thing = self.after_seen.where, self.after_seen.thing
        name = f"{where.subject}: {thing.name}"
        if thing.name == BOOT:
            return f"{where.subject}: rebooted"
        if "there" in (self.before, self.after) and None in (self.before, self.after):
            return f"{name}: {self.item} is {'gone' if self.after is None else 'new'}"
        item = f" {self.item}" if self.item else ""
        if self.before is None:
            return f"{name}{item} is new: {_short(self.after)}"
        if self.after is None:
            return f"{name}{item} is gone (was {_short(self.before)})"
        return f"{name}{item}: {_changed(self.before, self.after)}"

    def record(self) -> dict[str, Any]:
        """For compare.json."""
        where, thing = self.after_seen.where, self.after_seen.thing
        return {
            "layer": where.layer, "subject": where.subject, "what": thing.name, "item": self.item,
            "before": self.before, "after": self.after, "gpus": sorted(self.gpus), "pinned": thing.pinned,
            "text": self.text(),
        }  # fmt: skip


@dataclass(frozen=True)
class Unknown:
    """A thing that one of the runs did not read: it may have changed or not."""

    seen: Seen
    run: str

    def record(self) -> dict[str, Any]:
        """For compare.json."""
        where = self.seen.where
        return {
            "layer": where.layer, "subject": where.subject, "what": self.seen.thing.name, "run": self.run,
            "why": self.seen.why,
        }  # fmt: skip


def changes_between(before: Snapshot, after: Snapshot) -> tuple[list[Change], list[Unknown]]:
    """Everything that differs, lower layers and causes first; and what cannot be said."""
    found: list[Change] = []
    unknown: list[Unknown] = []
    keys = list(dict.fromkeys([*after.seen, *before.seen]))
    keys.sort(key=lambda key: ORDER.index(key[0]))  # stable: within a layer the causal order stays
    for order, key in enumerate(keys):
        old, new = before.seen.get(key), after.seen.get(key)
        if old is None or new is None:
            continue  # declared in one of the runs only: the declaration is told as changed
        if old.items is None or new.items is None:
            if (old.items is None) != (new.items is None):
                unknown.append(Unknown(old, "before") if old.items is None else Unknown(new, "after"))
            continue
        for item in dict.fromkeys([*old.items, *new.items]):
            was, now = old.items.get(item), new.items.get(item)
            if was != now:
                found.append(Change(item, was, now, order, old, new))
    return found, unknown


def compare(before: SavedRun, after: SavedRun, history: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
    """Compare two runs.

    Args:
        before, after: the runs; neither needs to have its facts left, what rests on them is unknown then.
        history: lines of the history, for the noise of measurements.

    Returns:
        Content of compare.json.
    """
    from labproof.report.compare_culprit import culprits_of

    changes: list[Change] = []
    unknown: list[dict[str, Any]] = []
    versions: list[dict[str, Any]]
    snapshots = None
    if before.facts is None or before.lab is None or after.facts is None or after.lab is None:
        why = before.why_no_facts or after.why_no_facts
        versions = list(_versions_of_reports(before.result, after.result))
        run = "before" if before.facts is None else "after"
        unknown = [{"layer": "", "subject": "", "what": "all facts", "run": run, "why": why}]
    else:
        snapshots = Snapshot(before.facts, before.lab), Snapshot(after.facts, after.lab)
        changes, not_known = changes_between(*snapshots)
        versions = [c.record() for c in changes if c.after_seen.thing.version]
        unknown = [u.record() for u in not_known]
    beyond, too_few = beyond_noise(history, after.result)
    verdicts = verdict_changes(before, after)
    return {
        "schema": SCHEMA,
        "before": _head(before),
        "after": _head(after),
        "versions": versions,
        "facts": [c.record() for c in changes if not c.after_seen.thing.version],
        "unknown": unknown,
        "verdicts": verdicts,
        "measurements": beyond,
        "measurements_without_history": too_few,
        "culprits": culprits_of(verdicts, changes, snapshots, after) if after.records else [],
    }


def verdict_changes(before: SavedRun, after: SavedRun) -> list[dict[str, Any]]:
    """Clauses whose verdict changed, in the order of the newer run; a card that moved is still the same chain."""
    names = _same_names(before)
    old = {(clause, names.get(target, target)): verdict for (clause, target), verdict in before.verdicts.items()}
    mine = _same_names(after)
    found = []
    for (clause, target), verdict in after.verdicts.items():
        was = old.pop((clause, mine.get(target, target)), None)
        if was == verdict or not before.verdicts:
            continue
        record = after.records.get((clause, target), {})
        problems = record.get("problems") or []
        found.append(
            {
                "clause": clause, "target": target, "title": record.get("title", ""), "layer": record.get("layer", ""),
                "severity": record.get("severity", ""), "before": was, "after": verdict, "is": _meaning(was, verdict),
                "cause": problems[0]["cause"] if problems else None,
                "cause_title": problems[0]["title"] if problems else None,
                "reason": record.get("reason"),
            }
        )  # fmt: skip
    for (clause, target), was in old.items() if after.verdicts else ():
        found.append(
            {
                "clause": clause, "target": target, "title": "", "layer": "", "severity": "", "before": was,
                "after": None, "is": "not run", "cause": None, "cause_title": None, "reason": None,
            }
        )  # fmt: skip
    return found


def _meaning(was: str | None, now: str) -> str:
    if was is None:
        return "new, failing" if now == "fail" else "new"
    if now == "fail":
        return "broken"
    if now in _GOOD:
        return "mended" if was not in _GOOD else "changed"
    return "lost" if was in _GOOD else "changed"


def _same_names(run: SavedRun) -> dict[str, str]:
    """Chains by GPU: an address is part of a chain's id, and addresses change."""
    if run.lab is None:
        return {}
    return {chain.id: f"GPU {chain.gpu.name}" for chain in chains_of(run.lab)}


def _versions_of_reports(before: dict[str, Any], after: dict[str, Any]) -> Iterator[dict[str, Any]]:
    old, new = before.get("versions") or {}, after.get("versions") or {}
    for name in dict.fromkeys([*new, *old]):
        if name in old and name in new and old[name] != new[name]:
            yield {
                "layer": "", "subject": "", "what": name, "item": "", "before": old[name], "after": new[name],
                "gpus": [], "pinned": False, "text": f"{name}: {_changed(old[name], new[name])}",
            }  # fmt: skip


def _head(run: SavedRun) -> dict[str, Any]:
    head = {key: run.result.get(key) for key in ("run_id", "started", "lab", "simulated", "exit_status", "cut_off")}
    return {**head, "facts": run.facts is not None}


_LONGEST = 160
_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")  # a schematic, a digest: its beginning tells


def _short(text: str | None) -> str:
    line = _HASH.sub(r"\1", " ".join((text or "nothing").split()))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"


def _changed(before: str, after: str) -> str:
    """Both texts; of long ones only the lines that differ."""
    if max(len(before), len(after)) <= _LONGEST and "\n" not in before + after:
        return f"{_short(before)} -> {_short(after)}"
    old, new = before.splitlines(), after.splitlines()
    gone = [line.strip() for line in old if line not in new]
    come = [line.strip() for line in new if line not in old]
    if not gone and not come:
        return "the same lines in another order"
    return f"{_short(' / '.join(gone)) if gone else 'nothing'} -> {_short(' / '.join(come)) if come else 'nothing'}"
