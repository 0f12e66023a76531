"""Experiments with slots: one pod too many, and one pod that asks for two."""

from __future__ import annotations

import time

from labproof.facts.pod_outcome import Outcome, PodOutcome
from labproof.facts.reading import Reading, State, failed, value
from labproof.facts.workload import OverflowSeen, PodSeen
from labproof.probes.pods import OwnPods
from labproof.probes.pods_slots import read_slots


def over_request(pods: OwnPods, image: str, limit: int, busy: str) -> Reading[PodSeen]:
    """A pod that asks for two slots of a shared card.

    Only where two slots may be held, for it may be granted them (`failRequestsGreaterThanOne: false`).
    """
    if pods.cluster.sharing.strategy in ("none", "shared"):
        return Reading(State.NOT_ASKED, why="no plugin that could refuse a second slot shares the card")
    if limit < 2 and pods.cluster.probe.via == "exec":
        return Reading(State.NOT_ASKED, why=f"lab.yaml has us look into {pods.cluster.probe.pod}; {busy}")
    if limit < 2:
        return failed("slots", busy or "fewer than two slots may be held", "busy")
    seen = pods.settle(pods.make("probe", "over-request", image, 2))
    pods.remove(seen.name)
    return value(seen, f"pod {seen.namespace}/{seen.name}")


def overflow(pods: OwnPods, image: str) -> Reading[OverflowSeen]:
    """One pod more than there are free slots must wait, and run once a slot is free.

    The last free slot is taken only where lab.yaml allows it (`probe.max_slots`). Else a pod that asks for one slot
    more than are free shows the same limit without holding any, and waking it is not tried.
    """
    slots, _ = read_slots(pods.session, pods.cluster, pods.node)
    if not slots.allocatable:
        return failed("node.status.allocatable", f"{slots.resource} is not allocatable on {pods.node}")
    told = pods.cluster.probe.max_slots
    may_fill = told is not None and told >= slots.free
    fillers: list[PodSeen] = []
    if may_fill:
        made = [pods.make("probe", f"filler-{number}", image, 1) for number in range(slots.free)]
        fillers = [pods.settle(filler) for filler in made]
    asked = 1 if may_fill or slots.free == 0 else slots.free + 1
    waiting = pods.settle(pods.make("probe", "overflow", image, asked), _answered)
    held = [f for f in fillers if f.outcome is not None and f.outcome.outcome is Outcome.RUNNING]
    woke: Reading[float] = Reading(State.NOT_ASKED, why="waking it would have taken the last free slot")
    if held and waiting.outcome is not None and waiting.outcome.outcome is Outcome.UNSCHEDULABLE:
        pods.remove(held[0].name)
        started = time.monotonic()
        after = pods.settle(waiting)
        if after.outcome is not None and after.outcome.outcome is Outcome.RUNNING:
            woke = value(round(time.monotonic() - started, 2), f"pod {waiting.name} after a slot was freed")
        else:
            said = after.outcome.text if after.outcome is not None else "nothing"
            woke = failed(f"pod {waiting.name} after a slot was freed", f"it still does not run: {said}", "waiting")
    pods.remove(waiting.name, *(f.name for f in fillers))
    seen = OverflowSeen(slots.free, len(held), asked, waiting, woke, tuple(fillers))
    return value(seen, f"pod {waiting.namespace}/{waiting.name}")


def _answered(outcome: PodOutcome) -> bool:
    return outcome.outcome in (Outcome.UNSCHEDULABLE, Outcome.RUNNING)
