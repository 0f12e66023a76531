"""All steps of a run: planned, applied, verified, taken back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from labproof.checks.registry import LAYERS as ALL_LAYERS
from labproof.provision import drain, guests, hands, talos_hands
from labproof.provision.bench import Bench
from labproof.provision.failure import StepFailed
from labproof.provision.journal import Entry
from labproof.provision.plan import Plan, StepPlan
from labproof.provision.steps import STEPS, Step, step_of

#: Layers that have a step.
LAYERS = tuple(dict.fromkeys(step.layer for step in STEPS))
#: What makes other changes effective, in the order in which it is done, forwards and backwards.
EFFECTS = (
    "refresh", "initramfs", "node-drain", "drain", "reboot", "resume", "vm-restart", "node-reboot", "node-resume",
)  # fmt: skip
#: Things whose way back is a boot: taken back while their node is drained.
_BOOTING = "upgrade"
#: Facts of this layer and all above are read anew after a step: a VM that starts changes what its host shows.
_LOWEST = ALL_LAYERS[0]


@dataclass(frozen=True)
class Outcome:
    """How a run of steps ended.

    Attributes:
        lines: what was done, and what stopped it.
        changed: how many changes were made or taken back.
        complete: whether everything that was to be done was done and verified.
    """

    lines: tuple[str, ...]
    changed: int
    complete: bool


def make_plan(bench: Bench, layers: Collection[str] = LAYERS) -> Plan:
    """What would be done now. Reads only."""
    steps: list[StepPlan] = []
    waiting: set[tuple[str, str]] = set()  # (layer, target) of steps that have something to do
    for step in STEPS:
        for target in step.targets(bench) if step.layer in layers else ():
            below = step.rests_on(bench, target)
            found = step.plan(bench, target, bool(waiting & set(below)))
            if found.changes or waiting & set(below):
                waiting.add((step.layer, target))
            steps.append(found)
    return Plan(bench.lab.lab, tuple(steps), bench.allow)


def provision(bench: Bench, layers: Collection[str] = LAYERS) -> Outcome:
    """Bring every selected layer to what lab.yaml declares, lowest first; stop a chain at the first step that fails.

    A step is applied whole or not at all: with a refusal or a scope that nobody allowed it is not begun.
    """
    lines: list[str] = []
    changed = 0
    stopped: set[tuple[str, str]] = set()  # (layer, target) whose step did not end well
    for step in STEPS:
        for target in step.targets(bench) if step.layer in layers else ():
            lame = next((below for below in step.rests_on(bench, target) if below in stopped), None)
            if lame is not None:
                lines.append(
                    f"{step.name} {target}: not begun, since the step of its {lame[0]} {lame[1]} did not end well"
                )
                stopped.add((step.layer, target))
                continue
            done, well = _take(bench, step, step.plan(bench, target, False), lines)
            changed += done
            stopped |= set() if well else {(step.layer, target)}
    return Outcome(tuple(lines), changed, not stopped)


def _take(bench: Bench, kind: Step, step: StepPlan, lines: list[str]) -> tuple[int, bool]:
    """Apply and verify one step; returns how many changes were made, and whether all is well."""
    from labproof.clients.errors import TransportFailure, WaitFailed

    name = f"{step.step} {step.target}"
    for refusal in step.refusals:
        lines.append(f"{name}: refused ({refusal.cause}): {refusal.text}")
        lines += [f"    {line}" for line in (refusal.values or "").splitlines()]
    missing = step.missing(bench.allow)
    if missing and not step.refusals:
        words = " ".join(f"--allow {scope}" for scope in missing)
        lines.append(f"{name}: not begun, missing {words}; {len(step.changes)} changes wait (see --plan)")
    if step.refusals or missing:
        return 0, False
    made: list[str] = []
    try:
        for change in step.changes:
            bench.tell(f"{name}: {change.title}")
            number = bench.journal.intend(step.step, step.target, change)
            hands.perform(bench, change.record())
            bench.journal.done(number)
            made.append(change.title)
    except (StepFailed, TransportFailure, WaitFailed) as failed:
        bench.drop(_LOWEST)
        lines += [f"{name}: stopped at `{change.title}`: {failed}", *(f"{name}: was done: {title}" for title in made)]
        lines.append(f"{name}: run it again to go on, or --undo to go back")
        return len(made), False
    if not step.changes:
        return 0, True
    bench.drop(_LOWEST)
    red = bench.red(kind.verified, kind.chains(bench, step.target))
    lines.append(f"{name}: {len(made)} changes made" + ("" if red else " and verified"))
    lines += [f"{name}: still red: {text}" for text in red]
    if red:
        lines.append(f"{name}: what was done is in {bench.journal.path.name}; --undo takes it back")
    return len(made), not red


# ------------------------------------------------------------------ back


def undo(bench: Bench) -> Outcome:
    """Take back everything the journal holds, highest layer first; all of it or, with a refusal, nothing.

    Nothing is begun unless every recorded change is found as it was left (or as it was before), and every scope that
    going back needs is allowed.
    """
    from labproof.clients.errors import TransportFailure, WaitFailed

    standing = bench.journal.standing()
    if not standing:
        return Outcome(("nothing to undo: the journal holds no change that stands",), 0, True)
    try:
        refusals = [*_changed_since(bench, standing), *_not_allowed(bench, standing)]
        if refusals:
            return Outcome(tuple(refusals), 0, False)
        lines: list[str] = []
        for step, target in _groups(standing):
            lines += _undo_group(bench, [e for e in standing if (e.step, e.target) == (step, target)])
    except (StepFailed, TransportFailure, WaitFailed) as failed:
        bench.drop(_LOWEST)
        return Outcome((f"undo stopped: {failed}", "run --undo again to go on"), 0, False)
    bench.drop(_LOWEST)
    return Outcome(tuple(lines), len(lines), True)


def _groups(entries: list[Entry]) -> list[tuple[str, str]]:
    """Steps with their targets: the highest step first, of one step the newest."""
    order = [step.name for step in STEPS]
    found = list(dict.fromkeys((e.step, e.target) for e in reversed(entries)))
    return sorted(found, key=lambda group: -order.index(step_of(group[0]).name))


def _changed_since(bench: Bench, entries: list[Entry]) -> list[str]:
    """Things that are neither as we left nor as we found them; of several changes of one thing the newest tells."""
    refusals = []
    seen: set[str] = set()
    for entry in reversed(entries):
        if entry.action in EFFECTS:
            continue
        thing = _thing(entry)
        if thing in seen:
            continue
        seen.add(thing)
        if hands.state_of(bench, entry.change) == "other":
            refusals.append(f"refused: {thing} was changed by somebody else since labproof changed it; nothing undone")
    return refusals


def _thing(entry: Entry) -> str:
    """What a change is about, in words; two changes of one thing have the same."""
    change = entry.change
    return str(change.get("thing") or change.get("path") or f"{change['call']} {sorted(change['after'])}")


def _not_allowed(bench: Bench, entries: list[Entry]) -> list[str]:
    scopes = dict.fromkeys(str(e.change["scope"]) for e in entries)
    missing = [scope for scope in scopes if scope not in bench.allow]
    words = " ".join(f"--allow {scope}" for scope in missing)
    return [f"not begun, going back needs {words}"] if missing else []


def _undo_group(bench: Bench, entries: list[Entry]) -> list[str]:
    """Things first, the newest first; then what makes that effective; mappings last, which a running VM may still use.

    Entries are marked when all of it is done: a kill in between finds things as they were before and does the rest.
    """
    things = [e for e in reversed(entries) if e.action not in EFFECTS]
    late = ("mapping", _BOOTING)
    lines = [line for e in things if e.action not in late for line in _take_back(bench, e)]
    booting = [e for e in things if e.action == _BOOTING and hands.state_of(bench, e.change) == "after"]
    for change in _effects(bench, entries, {str(e.change["target"]) for e in booting}):
        if change["action"] == "node-resume":
            lines += [line for e in booting if e.change["target"] == change["target"] for line in _take_back(bench, e)]
        bench.tell(f"undo: {change['action']} {change['target']}")
        hands.effect(bench, change)
        lines.append(f"{change['target']}: {change['action']}")
    lines += [line for e in booting for line in _take_back(bench, e)]  # a node that nobody drained
    lines += [line for e in things if e.action == "mapping" for line in _take_back(bench, e)]
    for entry in entries:
        bench.journal.undone(entry.number)
    return lines


def _take_back(bench: Bench, entry: Entry) -> list[str]:
    title = entry.change.get("thing") or entry.change.get("path") or entry.change["call"]
    if hands.state_of(bench, entry.change) != "after":
        return []
    bench.tell(f"undo: {title}")
    hands.take_back(bench, entry.change)
    return [f"{entry.step} {entry.target}: took back {title}"]


def _effects(bench: Bench, entries: list[Entry], upgraded: Collection[str]) -> list[Mapping[str, Any]]:
    """Each recorded effect once, the newest record of it. Guests that were shut down run again at the end.

    Args:
        bench: for what is made anew.
        entries: of one step and target.
        upgraded: nodes whose upgrade is taken back, which boots them.
    """
    nodes = _node_effects(bench, entries, upgraded)
    newest: dict[str, Mapping[str, Any]] = {
        e.action: e.change for e in entries if e.action in EFFECTS and not e.action.startswith("node-")
    }
    shut = newest.get("drain")
    if shut is not None and "reboot" not in newest:  # killed before the reboot: nothing to go down for
        del newest["drain"]
    if shut is not None and ("resume" not in newest or "reboot" not in newest):
        again = guests.resume(bench, bench.lab.host(str(shut["target"])), shut["before"]).record()
        if "reboot" not in newest:
            again["detail"] = {**again["detail"], "onboot": []}  # no boot will start them
        newest["resume"] = again
    found = [newest[action] for action in EFFECTS if action in newest] + nodes
    return sorted(found, key=lambda change: EFFECTS.index(change["action"]))


def _node_effects(bench: Bench, entries: list[Entry], upgraded: Collection[str]) -> list[Mapping[str, Any]]:
    """Nodes that were drained are drained again where going back boots them, and let pods on them in any case."""
    found: list[Mapping[str, Any]] = []
    boots = any(e.action in ("reboot", "vm-restart", "node-reboot") for e in entries)
    for target in dict.fromkeys(str(e.change["target"]) for e in entries if e.action.startswith("node-")):
        own = {e.action: e.change for e in entries if e.change["target"] == target and e.action.startswith("node-")}
        first = next((e.change for e in entries if e.action == "node-drain" and e.change["target"] == target), None)
        waits = target not in upgraded and any(e.action == "machine-config" for e in entries)
        if waits and "node-reboot" not in own and talos_hands.waits_for_boot(bench, bench.lab.node(target)):
            own["node-reboot"] = talos_hands.boot_of(bench, bench.lab.node(target), "going back").record()
        if "node-reboot" in own:
            found.append(own["node-reboot"])
        going = boots or target in upgraded or "node-reboot" in own
        if first is not None and going:
            found.append(first)
        last = first or own.get("node-resume")
        if last is not None:
            cordoned = bool(last["detail"]["cordoned"])
            node = bench.lab.node(target)
            found.append(drain.resume(bench, node, str(last["scope"]), cordoned=cordoned, boots=going).record())
    return found
