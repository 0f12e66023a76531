"""Typed changes: a file, a command, an API call; each with before and after, its reason, its clause and its scope."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

#: Stands in a plan for what only the reboot before it will tell.
LATER = "(known after the reboot)"


@dataclass(frozen=True)
class FileState:
    """A regular file at one moment; `content` None where it is not there. `mode` are its permission bits."""

    content: bytes | None
    mode: int = 0o644

    @property
    def digest(self) -> str:
        """SHA-256 of the content in hexadecimal, `absent` where there is none."""
        return "absent" if self.content is None else sha256(self.content).hexdigest()

    @property
    def text(self) -> str:
        """The content as text."""
        return (self.content or b"").decode("utf-8", "replace")


@dataclass(frozen=True, kw_only=True)
class Change:
    """What all changes have.

    Attributes:
        target: the declared host that is changed.
        scope: the write scope that must be allowed.
        reason: why, in words of the finding.
        clause: id of the clause that demands it.
        seconds: how long it may take (0: moments).
    """

    target: str
    scope: str
    reason: str
    clause: str
    seconds: float = 0.0

    @property
    def action(self) -> str:
        """Which hand performs it."""
        raise LookupError(f"{type(self).__name__} is no change of its own")

    @property
    def title(self) -> str:
        """One line of a plan."""
        return self.action

    def difference(self) -> tuple[str, ...]:
        """Lines of before and after, marked - and +."""
        return ()

    def record(self) -> dict[str, Any]:
        """What the journal keeps of it: enough to take it back."""
        return {"action": self.action, "target": self.target, "scope": self.scope, "clause": self.clause}


@dataclass(frozen=True, kw_only=True)
class FileChange(Change):
    """A file of the host is written or removed."""

    path: str
    before: FileState
    after: FileState

    @property
    def action(self) -> str:
        """A file."""
        return "file"

    @property
    def title(self) -> str:
        """Its path, and what happens to it."""
        verb = "create" if self.before.content is None else "remove" if self.after.content is None else "change"
        return f"{verb} {self.path}"

    def difference(self) -> tuple[str, ...]:
        """The lines that go and come."""
        old, new = self.before.text.splitlines(), self.after.text.splitlines()
        gone = [f"- {line}" for line in old if line not in new]
        return (*gone, *(f"+ {line}" for line in new if line not in old))

    def record(self) -> dict[str, Any]:
        """With both contents: the backup is in the journal."""
        return {
            **super().record(),
            "path": self.path,
            "before": _file_record(self.before),
            "after": _file_record(self.after),
        }


def _file_record(state: FileState) -> dict[str, Any]:
    content = None if state.content is None else base64.b64encode(state.content).decode("ascii")
    return {"content": content, "mode": state.mode, "sha256": state.digest}


def file_state(record: Mapping[str, Any]) -> FileState:
    """A recorded file."""
    content = record["content"]
    return FileState(None if content is None else base64.b64decode(content), int(record["mode"]))


@dataclass(frozen=True, kw_only=True)
class CommandChange(Change):
    """A command on the host whose effect is no single file: `refresh`, `initramfs` or `reboot`."""

    name: str
    command: str

    @property
    def action(self) -> str:
        """Its name."""
        return self.name

    @property
    def title(self) -> str:
        """The command as it would be typed."""
        return f"run `{self.command}`"

    def record(self) -> dict[str, Any]:
        """With the command."""
        return {**super().record(), "command": self.command}


@dataclass(frozen=True, kw_only=True)
class CallChange(Change):
    """Calls of the PVE API: `mapping`, `vm-config`, `vm-restart`, `drain` or `resume`.

    Attributes:
        call: the API call, as a person would type it.
        before: values that are replaced; None where the key was not there.
        after: values that are set; None where the key is deleted.
        detail: what the hand needs beside them.
    """

    name: str
    call: str
    before: Mapping[str, str | None] = field(default_factory=dict)
    after: Mapping[str, str | None] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def action(self) -> str:
        """Its name."""
        return self.name

    @property
    def title(self) -> str:
        """The call."""
        return self.call

    def difference(self) -> tuple[str, ...]:
        """Keys with their old and new values."""
        lines = []
        for key, new in self.after.items():
            old = self.before.get(key)
            lines += [f"- {key}: {old}"] if old is not None else []
            lines += [f"+ {key}: {new}"] if new is not None else []
        return tuple(lines)

    def record(self) -> dict[str, Any]:
        """With both sides."""
        return {
            **super().record(),
            "call": self.call,
            "before": dict(self.before),
            "after": dict(self.after),
            "detail": dict(self.detail),
        }
