"""The journal of one lab: what is about to be done, what was done, what was taken back. Append-only.

Every line is on the disk before the change it announces begins, so a process that is killed anywhere leaves either
an announced change whose state on the system tells whether it happened, or none.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labproof.provision.changes import Change

INTEND, DONE, UNDONE = "intend", "done", "undone"


@dataclass(frozen=True)
class Entry:
    """An announced change and what became of it. `number` counts the journal's announcements."""

    number: int
    step: str
    target: str
    change: dict[str, Any]
    done: bool
    undone: bool

    @property
    def action(self) -> str:
        """The change's action."""
        return str(self.change["action"])


class Journal:
    """`journal.jsonl` in one folder, private to its owner (it holds what files contained)."""

    def __init__(self, folder: Path) -> None:
        """Nothing is written before the first announcement."""
        self.path = folder / "journal.jsonl"

    def intend(self, step: str, target: str, change: Change) -> int:
        """Announce a change; returns its number. Call it before the change begins."""
        number = max((e.number for e in self.entries()), default=0) + 1
        self._append({"event": INTEND, "number": number, "step": step, "target": target, "change": change.record()})
        return number

    def done(self, number: int) -> None:
        """The announced change was made."""
        self._append({"event": DONE, "number": number})

    def undone(self, number: int) -> None:
        """The announced change was taken back (or is found never to have happened)."""
        self._append({"event": UNDONE, "number": number})

    def entries(self) -> list[Entry]:
        """All announced changes in order. A last line cut short by a kill is one that was never announced."""
        announced: dict[int, dict[str, Any]] = {}
        events: dict[int, set[str]] = {}
        for row in self._rows():
            if row["event"] == INTEND:
                announced[row["number"]] = row
            events.setdefault(row["number"], set()).add(row["event"])
        return [
            Entry(n, row["step"], row["target"], row["change"], DONE in events[n], UNDONE in events[n])
            for n, row in sorted(announced.items())
        ]

    def standing(self) -> list[Entry]:
        """Changes that were not taken back."""
        return [entry for entry in self.entries() if not entry.undone]

    def _rows(self) -> Iterable[dict[str, Any]]:
        if not self.path.is_file():
            return
        for line in self.path.read_text("utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue  # cut short by a kill: what it would have announced did not begin

    def _append(self, row: dict[str, Any]) -> None:
        fresh = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            text = json.dumps({"at": round(time.time(), 3), **row}, sort_keys=True)
            os.write(descriptor, (("\n" if torn else "") + text + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if fresh:  # the name of the file is on the disk too
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
