"""What a check returns: it held, it did not (and why), or it could not be judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from labproof.facts.reading import Reading


@dataclass(frozen=True)
class Evidence:
    """The command or API path really used, and what it answered (trimmed to what matters)."""

    source: str
    text: str


@dataclass(frozen=True)
class Problem:
    """One thing that does not hold.

    Attributes:
        cause: id of the catalogue (`P02`).
        subject: what it is about, in the owner's names (`pve5`, `0000:3b:00.0`, `VM 1105`).
        evidence: what showed it.
        values: placeholders for the catalogue's remedy (`host`, `address`, `vm`, `node`, ...).
        remedy: replaces the catalogue's remedy where the check can be more exact (values to type for this lab).
    """

    cause: str
    subject: str
    evidence: tuple[Evidence, ...] = ()
    values: tuple[tuple[str, str], ...] = ()
    remedy: str = ""


@dataclass(frozen=True)
class Pass:
    """It held; the evidence says what was seen."""

    evidence: tuple[Evidence, ...] = ()
    qualifier: str | None = None  # pending-reboot | pending-restart | asserted-only
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class Fail:
    """It did not hold."""

    problems: tuple[Problem, ...]
    evidence: tuple[Evidence, ...] = ()
    qualifier: str | None = None
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class Unchecked:
    """Expected, but it could not be judged; `busy` when only because the GPU is in use."""

    reason: str
    reading: Reading[Any] | None = None
    busy: bool = False


@dataclass(frozen=True)
class Measurement:
    """A number worth keeping: `encode_fps` in `frame/s`, with the samples behind it."""

    name: str
    value: float
    unit: str
    samples: tuple[float, ...] = field(default=())


Judgement = Pass | Fail | Unchecked


def verdict_of(
    problems: Iterable[Problem], evidence: Iterable[Evidence] = (), qualifier: str | None = None
) -> Pass | Fail:
    """Fail when there are problems, Pass with the evidence otherwise: the usual end of a check."""
    found = tuple(problems)
    seen = tuple(evidence)
    return Fail(found, seen, qualifier) if found else Pass(seen, qualifier)
