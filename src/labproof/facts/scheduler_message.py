"""The scheduler's `0/N nodes are available: ...`, taken apart into counted reasons.

Whole strings are never compared: the tail about claims and preemption comes and goes with the release, the taint is
named up to about 1.33 and not in 1.36. Source: facts kubernetes-gpu 8.2, real-kubernetes table "Scheduling".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Why(StrEnum):
    """Classes of reason a node was not fit."""

    INSUFFICIENT = "insufficient"  # `name` is the resource
    AFFINITY = "affinity or selector"
    TAINT = "untolerated taint"  # `name` is `key: value` where the release tells it
    CORDONED = "unschedulable"
    TOPOLOGY = "topology or anti-affinity"
    VOLUME = "volume"
    OTHER = "other"


@dataclass(frozen=True)
class SchedulerReason:
    """One reason and the number of nodes it holds for (0 when the message does not count it)."""

    why: Why
    nodes: int
    name: str
    text: str


@dataclass(frozen=True)
class Unschedulable:
    """A scheduler's answer.

    Attributes:
        nodes: how many nodes were looked at, None when the message does not say.
        reasons: in the message's order (a node can be counted under several).
        preemption_helps: False when the message says that evicting others would not help ("not helpful"), True when
            it looked for victims and found none (a full node), None when it says nothing.
    """

    nodes: int | None
    reasons: tuple[SchedulerReason, ...]
    preemption_helps: bool | None

    def count(self, why: Why, name: str | None = None) -> int:
        """On how many nodes this reason holds, for one resource or taint when `name` is given."""
        return sum(r.nodes for r in self.reasons if r.why is why and name in (None, r.name))

    def lacks(self, resource: str) -> bool:
        """Whether some node lacked just this resource."""
        return self.count(Why.INSUFFICIENT, resource) > 0


_HEAD = re.compile(r"^(\d+)/(\d+) nodes are available: (.*)$", re.DOTALL)
_TAIL = re.compile(r"\.?\s*(?:no new claims to deallocate|still not schedulable|preemption:).*$", re.DOTALL)
_COUNTED = re.compile(r"^(\d+) (.*)$", re.DOTALL)
_KINDS: tuple[tuple[Why, re.Pattern[str]], ...] = (
    (Why.INSUFFICIENT, re.compile(r"^Insufficient (\S+)$")),
    (Why.TAINT, re.compile(r"had untolerated taint(?:\(s\))?(?: \{([^}]*)\})?")),
    (Why.TAINT, re.compile(r"had taint \{([^}]*)\}, that the pod didn't tolerate")),  # before 1.22
    (Why.AFFINITY, re.compile(r"didn't match (?:Pod's )?node (?:affinity/)?selector")),
    (Why.CORDONED, re.compile(r"were unschedulable")),
    (Why.TOPOLOGY, re.compile(r"pod (?:anti-)?affinity|topology spread")),
    (Why.VOLUME, re.compile(r"(?i)persistentvolumeclaim|volume")),
)


def parse_unschedulable(message: str) -> Unschedulable:
    """The counted reasons of a PodScheduled=False message (or of a FailedScheduling event, which is the same text)."""
    head = _HEAD.match(message)
    total, body = (int(head.group(2)), head.group(3)) if head else (None, message)
    reasons = _TAIL.sub("", body).strip().removesuffix(".")
    # A comma inside a taint `{a: b}` is never followed by a bare count, so this only cuts between reasons.
    parts = re.split(r", (?=\d+ )", reasons) if reasons else []
    return Unschedulable(total, tuple(_reason(part) for part in parts), _preemption(message))


def _reason(part: str) -> SchedulerReason:
    counted = _COUNTED.match(part)
    nodes, text = (int(counted.group(1)), counted.group(2)) if counted else (0, part)
    for why, pattern in _KINDS:
        match = pattern.search(text)
        if match:
            return SchedulerReason(why, nodes, (match.group(1) or "") if pattern.groups else "", text)
    return SchedulerReason(Why.OTHER, nodes, "", text)


def _preemption(message: str) -> bool | None:
    if "No preemption victims found" in message:
        return True
    if "Preemption is not helpful" in message:
        return False
    return None
