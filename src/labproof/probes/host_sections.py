"""The host probe's output cut into sections: which source answered what, and with which exit status.

A probe that was cut off (connection lost, command limit) has no `finished` section; whatever came before is used and
the rest is a failed reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from labproof.facts.reading import Reading, absent, failed, unsupported, value

T = TypeVar("T")

COMMAND_MISSING = 127
DENIED = 13


@dataclass(frozen=True)
class Section:
    """One section. `status` is None when the output ended inside it."""

    name: str
    source: str
    lines: tuple[str, ...]
    status: int | None

    @property
    def quoted(self) -> tuple[str, ...]:
        """The lines that are text of others, without their mark."""
        return tuple(line[1:] for line in self.lines if line.startswith("|"))

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Our own lines as (first word, rest)."""
        for line in self.lines:
            if line and not line.startswith("|"):
                key, _, rest = line.partition(" ")
                yield key, rest.strip()

    def words(self) -> dict[str, str]:
        """The same as a mapping; the first line of a word wins."""
        found: dict[str, str] = {}
        for key, rest in self.pairs():
            found.setdefault(key, rest)
        return found


def sections_of(text: str) -> dict[str, Section]:
    """Cut the probe's output. Text before the first section (a login banner) is ignored."""
    found: dict[str, Section] = {}
    name = source = ""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("@@ "):
            if name:  # a section that never ended: the script died in it
                found.setdefault(name, Section(name, source, tuple(lines), None))
            _, name, source = (*line.split(" ", 2), "")[:3]
            lines = []
        elif line.startswith("@@= ") and name:
            status = line[4:].strip()
            found.setdefault(name, Section(name, source, tuple(lines), int(status) if status.isdigit() else None))
            name = ""
        elif name:
            lines.append(line)
    if name:
        found.setdefault(name, Section(name, source, tuple(lines), None))
    return found


@dataclass(frozen=True)
class Output:
    """All sections of one probe run, read at `at` (Unix seconds)."""

    sections: Mapping[str, Section]
    at: float

    def reading(
        self, name: str, read: Callable[[Section], T | None], missing: str = "", source: str = ""
    ) -> Reading[T]:
        """A section as a reading.

        Args:
            name: the section.
            read: turns it into a value; None means "read, and not there".
            missing: the owner's line for "not there" (exit status 1 of a section).
            source: replaces the section's own source.
        """
        section = self.sections.get(name)
        if section is None:
            return failed(source or name, "the probe ended before it came to this", "truncated", self.at)
        where = source or section.source
        if section.status is None:
            return failed(where, "the probe ended while it read this", "truncated", self.at)
        if section.status == COMMAND_MISSING and not section.lines:
            return unsupported(where, f"`{where.split()[0]}` is not installed on this host")
        if section.status == 1 and not section.lines:
            return absent(where, missing or f"{where} is not there", self.at)
        if section.status == DENIED:
            return failed(where, "this account may not read it; root may", "forbidden", self.at)
        if section.status not in (0, COMMAND_MISSING):
            return failed(where, f"exit status {section.status}", "unreadable", self.at)
        try:
            read_value = read(section)
        except ValueError as odd:
            return failed(where, f"unexpected text: {odd}", "protocol", self.at)
        if read_value is None:
            return absent(where, missing or "not there", self.at)
        return value(read_value, where, self.at)

    def word(self, section: str, key: str, source: str, missing: str = "") -> Reading[str]:
        """One word of a section's own lines."""
        return self.reading(section, lambda s: s.words().get(key) or None, missing, source)
