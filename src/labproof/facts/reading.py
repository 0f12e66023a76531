"""One reading of a real system and the ways in which it can fail to be a value.

"Could not read" must never look like "not there", so a reading is one of five states and carries the command or API
path that was really used.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class State(StrEnum):
    """How a reading ended."""

    VALUE = "value"
    ABSENT = "absent"  # read, and it is not there
    UNSUPPORTED = "unsupported"  # this version of the system cannot answer
    FAILED = "failed"  # no right, no route, unreadable: `why` says which
    NOT_ASKED = "not asked"


@dataclass(frozen=True)
class Reading(Generic[T]):
    """One thing read from one source.

    Attributes:
        state: how the reading ended; `value` is set only for `State.VALUE`.
        source: the command or API path really used, as it would be typed by hand.
        why: for every state but VALUE, one line an owner understands.
        at: Unix time in seconds (UTC) at which it was read, on the probing machine.
        kind: machine word for a failure (`forbidden`, `timeout`, `busy`, ...), empty otherwise.
    """

    state: State
    value: T | None = None
    source: str = ""
    why: str = ""
    at: float = 0.0
    kind: str = ""

    @property
    def known(self) -> bool:
        """Whether a value or its absence was established."""
        return self.state in (State.VALUE, State.ABSENT)


def value(what: T, source: str = "", at: float = 0.0) -> Reading[T]:
    """A reading that holds a value."""
    return Reading(State.VALUE, what, source, "", at)


def absent(source: str = "", why: str = "not there", at: float = 0.0) -> Reading[Any]:
    """A reading that established that the thing is not there."""
    return Reading(State.ABSENT, None, source, why, at)


def unsupported(source: str, why: str) -> Reading[Any]:
    """A reading that this version of the system does not offer."""
    return Reading(State.UNSUPPORTED, None, source, why)


def failed(source: str, why: str, kind: str = "unreadable", at: float = 0.0) -> Reading[Any]:
    """A reading that could not be taken; `why` is the owner's line, `kind` the machine's word."""
    return Reading(State.FAILED, None, source, why, at, kind)


NOT_ASKED: Reading[Any] = Reading(State.NOT_ASKED, why="not asked in this run")


class Unjudged(Exception):
    """Raised by `need` inside a check: the clause becomes `unchecked` with this reading as the reason."""

    def __init__(self, reading: Reading[Any], what: str = "") -> None:
        self.reading = reading
        self.what = what
        super().__init__(f"{what or reading.source}: {reading.why}")


def need(reading: Reading[T], what: str = "") -> T:
    """The value of a reading that a check cannot do without.

    Raises:
        Unjudged: for every state but VALUE. A check that has a verdict for ABSENT looks at `reading.state` first.
    """
    if reading.state is State.VALUE and reading.value is not None:
        return reading.value
    raise Unjudged(reading, what)
