"""Time in a simulated cluster: history before the world starts, real time afterwards."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime

Action = Callable[[], None]


def rfc3339(seconds: float) -> str:
    """`2026-11-20T18:25:45Z`, the form of metav1.Time."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(seconds: float) -> str:
    """`2026-11-20T18:25:45.587661Z`, the form of metav1.MicroTime."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> float:
    """Unix seconds of an RFC 3339 time."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Clock:
    """A cluster's clock and its timers.

    Until `live()` is called, time is virtual: `run_history` plays every timer that is due before the world's
    start, so a crash loop has crashed as often as it would have. Then an event loop takes over, and delays are
    divided by `speed`; timestamps go on in real time, because the suite compares them with its own clock.
    """

    def __init__(self, start: float, speed: float) -> None:
        self.speed = max(speed, 0.001)
        self._virtual = start
        self._heap: list[tuple[float, int, Action]] = []
        self._order = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._anchor: float | None = None  # time.monotonic() when history ended
        self._handles: set[asyncio.TimerHandle] = set()
        self._closed = False

    def now(self) -> float:
        """Unix seconds."""
        if self._anchor is None:
            return self._virtual
        return self._virtual + (time.monotonic() - self._anchor)

    def stamp(self) -> str:
        """Now, as metav1.Time."""
        return rfc3339(self.now())

    def after(self, seconds: float, action: Action) -> None:
        """Run `action` in so many model seconds."""
        if self._closed:
            return
        if self._loop is None:
            heapq.heappush(self._heap, (self.now() + seconds, next(self._order), action))
            return
        self._call_later(seconds / self.speed, action)

    def after_real(self, seconds: float, action: Action) -> None:
        """Run `action` in so many real seconds: for promises made in API fields (activeDeadlineSeconds)."""
        if self._loop is None:
            self.after(seconds, action)
        else:
            self._call_later(seconds, action)

    def _call_later(self, seconds: float, action: Action) -> None:
        if self._loop is None or self._closed:
            return

        def fire() -> None:
            self._handles.discard(handle)
            if not self._closed:
                action()

        handle = self._loop.call_later(seconds, fire)
        self._handles.add(handle)

    def run_history(self, until: float) -> None:
        """Play all timers due up to `until`, then stop the virtual clock there."""
        while self._heap and self._heap[0][0] <= until:
            due, _, action = heapq.heappop(self._heap)
            self._virtual = max(self._virtual, due)
            action()
        self._virtual = until
        self._anchor = time.monotonic()

    @property
    def is_live(self) -> bool:
        """Whether an event loop drives the timers."""
        return self._loop is not None

    def live(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand the timers over to an event loop (idempotent)."""
        if self._loop is not None or self._closed:
            return
        self._loop = loop
        now = self.now()
        pending, self._heap = sorted(self._heap), []
        for due, _, action in pending:
            self._call_later(max(0.0, due - now) / self.speed, action)

    def close(self) -> None:
        """Cancel every timer."""
        self._closed = True
        self._heap = []
        for handle in self._handles:
            handle.cancel()
        self._handles.clear()
