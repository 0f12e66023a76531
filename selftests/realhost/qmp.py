"""QEMU's machine protocol over a Unix socket: one command at a time, events ignored."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path


class QmpError(RuntimeError):
    """QEMU refused a command, or went away."""


class Qmp:
    """A connection to one QEMU.

    Args:
        path: its socket; waited for.
        limit_s: longest time for any answer. `savevm` of a gigabyte on a busy machine is the slowest.
    """

    def __init__(self, path: Path, limit_s: float = 300.0) -> None:
        deadline = time.monotonic() + 60
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(limit_s)
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self._stream = self._socket.makefile("rw", encoding="utf-8")
        self._answer("QMP")
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments):
        """Run a command; returns what it returns.

        Raises:
            QmpError: QEMU says that it failed, or closed the connection.
        """
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        return self._answer("return")

    def monitor(self, line: str) -> None:
        """A command of the human monitor, which says something only when it fails (savevm, loadvm)."""
        said = str(self.execute("human-monitor-command", **{"command-line": line})).strip()
        if said:
            raise QmpError(f"{line}: {said}")

    def close(self) -> None:
        """Close the connection; QEMU goes on."""
        self._stream.close()
        self._socket.close()

    def _answer(self, key: str):
        for line in self._stream:
            message = json.loads(line)
            if "error" in message:
                raise QmpError(message["error"].get("desc", line))
            if key in message:
                return message[key]
        raise QmpError("QEMU closed the connection")
