"""What linting says: findings, places that were not judged, and input that could not be read."""

from __future__ import annotations

from dataclasses import dataclass, field

from labproof.catalogue.causes import Cause, causes


@dataclass(frozen=True, order=True)
class Finding:
    """One mistake: where it stands, which catalogued cause it becomes, and what is wrong here."""

    path: str
    line: int
    cause: str
    text: str

    @property
    def catalogued(self) -> Cause:
        """The catalogue's entry: title, severity, impact, remedy."""
        return causes()[self.cause]


@dataclass(frozen=True, order=True)
class NotJudged:
    """A place that may be right or wrong: a template that nobody rendered, an excerpt, an unknown file."""

    path: str
    line: int
    reason: str


@dataclass(frozen=True, order=True)
class Unreadable:
    """Input that is not what its name says."""

    path: str
    line: int
    reason: str


@dataclass
class Report:
    """The result of one call."""

    findings: list[Finding] = field(default_factory=list)
    not_judged: list[NotJudged] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    files: int = 0

    def exit_status(self) -> int:
        """4 for unreadable input, else 1 with findings, else 0."""
        if self.unreadable:
            return 4
        return 1 if self.findings else 0
