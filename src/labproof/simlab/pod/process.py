"""What a simulated program is given by whoever runs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from labproof.simlab.world.states import PodWorld

#: Exit status of a process killed by SIGKILL, as a container runtime reports it.
KILLED = 137


class ProcessIO(Protocol):
    """Standard streams and clock of one process in a container."""

    @property
    def cancelled(self) -> bool:
        """True once the process was killed (deadline, deleted pod, closed exec)."""

    def write_stdout(self, data: bytes) -> None:
        """Append to standard output."""

    def write_stderr(self, data: bytes) -> None:
        """Append to standard error."""

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` of the world's time pass; shorter in real time by the world's speed."""


Program = Callable[[list[str], PodWorld, ProcessIO], Awaitable[int]]


class NotSimulatedError(Exception):
    """An argument vector asks for something the model does not know.

    The program says so on stderr and ends with 1, so that a gap of the simulator is never taken for a finding.
    """


class ProcessKilled(Exception):
    """The process was killed while it worked."""
