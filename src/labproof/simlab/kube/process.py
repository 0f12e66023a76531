"""A container's process: its output, its time, and how it ends."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from labproof.simlab.world.states import PodWorld

KILLED = 137


@dataclass
class LogBook:
    """A container's log: (Unix seconds, stream, bytes) in order."""

    entries: list[tuple[float, str, bytes]] = field(default_factory=list)
    closed: bool = False
    _waiting: set[asyncio.Event] = field(default_factory=set)

    def write(self, at: float, stream: str, chunk: bytes) -> None:
        """Append output."""
        self.entries.append((at, stream, chunk))
        self.wake()

    def lines(self, at: float, text: str, stream: str = "stderr") -> None:
        """Append text, line by line."""
        for line in text.splitlines(keepends=True):
            self.entries.append((at, stream, line.encode()))
        self.wake()

    def close(self) -> None:
        """The process ended."""
        self.closed = True
        self.wake()

    def wake(self) -> None:
        """Tell followers that something changed."""
        for event in self._waiting:
            event.set()

    def follow(self) -> asyncio.Event:
        """An event that is set at every change."""
        event = asyncio.Event()
        self._waiting.add(event)
        return event

    def unfollow(self, event: asyncio.Event) -> None:
        """Stop following."""
        self._waiting.discard(event)


class ContainerIO:
    """What a simulated program writes to and waits with (the `ProcessIO` of labproof.simlab.pod)."""

    def __init__(self, speed: float, out: Callable[[bytes], None], err: Callable[[bytes], None]) -> None:
        self._speed = speed
        self._out = out
        self._err = err
        self.cancelled = False
        self.oom_killed = False

    def write_stdout(self, chunk: bytes) -> None:
        """Write to standard output."""
        if not self.cancelled:
            self._out(chunk)

    def write_stderr(self, chunk: bytes) -> None:
        """Write to standard error."""
        if not self.cancelled:
            self._err(chunk)

    async def sleep(self, seconds: float) -> None:
        """Let model time pass."""
        await asyncio.sleep(seconds / self._speed)

    def out_of_memory(self) -> None:
        """The kernel kills the process for its memory limit: exit 137, reason OOMKilled."""
        self.oom_killed = True


@runtime_checkable
class Programs(Protocol):
    """The programs containers can run (labproof.simlab.pod.programs)."""

    def exists(self, argv0: str, pod: PodWorld) -> bool:
        """Whether an executable of this name can be found in the container."""
        ...

    async def run(self, argv: list[str], pod: PodWorld, io: ContainerIO) -> int:
        """Run it to its exit status."""
        ...


class _LabPrograms:
    """The simulated lab's own programs, imported when the first container starts."""

    def exists(self, argv0: str, pod: PodWorld) -> bool:
        module = importlib.import_module("labproof.simlab.pod.programs")
        return bool(module.exists(argv0, pod))

    async def run(self, argv: list[str], pod: PodWorld, io: ContainerIO) -> int:
        module = importlib.import_module("labproof.simlab.pod.programs")
        return int(await module.run(argv, pod, io))


LAB_PROGRAMS: Programs = _LabPrograms()


def missing_executable(argv0: str) -> str:
    """runc's words for a command that does not exist."""
    if "/" in argv0:
        return f'exec: "{argv0}": stat {argv0}: no such file or directory'
    return f'exec: "{argv0}": executable file not found in $PATH'
