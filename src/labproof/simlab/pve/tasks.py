"""Worker tasks: UPIDs, logs, exit status."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Task:
    """One worker task.

    Attributes:
        status: `OK`, `WARNINGS: n`, or the error text; None while it runs.
    """

    node: str
    pid: int
    pstart: int
    starttime: float
    type: str
    id: str
    user: str
    status: str | None = None
    endtime: float | None = None
    log: list[str] = field(default_factory=list)

    @property
    def upid(self) -> str:
        """`UPID:node:pid:pstart:starttime:type:id:user:`, numbers in hexadecimal."""
        numbers = f"{self.pid:08X}:{self.pstart:08X}:{int(self.starttime):08X}"
        return f"UPID:{self.node}:{numbers}:{self.type}:{self.id}:{self.user}:"

    def warn(self, text: str) -> None:
        """Log a warning; the task ends with `WARNINGS: n`."""
        self.log.append(f"WARN: {text}")

    def finish(self, error: str | None = None, at: float | None = None) -> None:
        """End the task, with PVE's last log line."""
        warnings = sum(line.startswith("WARN: ") for line in self.log)
        self.endtime = time.time() if at is None else at
        if error is not None:
            self.status = error
            self.log.append(f"TASK ERROR: {error}")
        elif warnings:
            self.status = f"WARNINGS: {warnings}"
            self.log.append(f"TASK WARNINGS: {warnings}")
        else:
            self.status = "OK"
            self.log.append("TASK OK")

    @property
    def owner(self) -> tuple[str, str | None]:
        """User and token name of whoever started it."""
        user, _, token = self.user.partition("!")
        return user, token or None

    def row(self) -> dict[str, Any]:
        """Element of GET /nodes/{n}/tasks."""
        user, token = self.owner
        row: dict[str, Any] = {
            "upid": self.upid, "node": self.node, "pid": self.pid, "pstart": self.pstart,
            "starttime": int(self.starttime), "type": self.type, "id": self.id, "user": user,
        }  # fmt: skip
        if token:
            row["tokenid"] = token
        if self.status is not None:
            row |= {"endtime": int(self.endtime or self.starttime), "status": self.status}
        return row

    def state(self) -> dict[str, Any]:
        """Answer of GET /nodes/{n}/tasks/{upid}/status."""
        state = {k: v for k, v in self.row().items() if k not in ("endtime", "status")}
        state["status"] = "running" if self.status is None else "stopped"
        if self.status is not None:
            state["exitstatus"] = self.status
        return state
