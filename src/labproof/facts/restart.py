"""What was found after each of two restarts of a VM: the experiment behind the second start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Start:
    """One start and what stood afterwards.

    Attributes:
        number: 1 for the first.
        seconds: from the shutdown's begin until the node was Ready again.
        broken: blocking clauses that did not hold then, a line each: clause, cause, what was seen.
        ended: why this start was the last, empty when it was not: PVE's words, or that the node stayed away.
    """

    number: int
    seconds: float
    broken: tuple[str, ...] = ()
    ended: str = ""


@dataclass(frozen=True)
class RestartFacts:
    """Both starts, and what PVE said when another VM asked for the card meanwhile (empty: no VM to ask with)."""

    vm: str
    starts: tuple[Start, ...]
    rival: str = ""
    rival_refused: str = ""
