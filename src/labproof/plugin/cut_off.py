"""A run that is cut off (SIGTERM, its deadline) ends as one that is interrupted by hand: pods removed, reports written.

The signal becomes an exception in the main thread, so every `with` on the way out does its work. It waits while our own
pods are being removed: an end in the middle of cleaning up would leave what it cleans.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from labproof.plugin.run import Run

CUT = pytest.StashKey["Cutter"]()
_AGAIN_S = 0.5  # how soon a signal that came at a bad moment is looked at again


class CutOff(KeyboardInterrupt):
    """The run ends here. A KeyboardInterrupt, because pytest then finishes the session, and no probe catches it."""


class Cutter:
    """Ends a run at its deadline or at SIGTERM, once.

    Args:
        deadline_s: seconds from now.
    """

    def __init__(self, deadline_s: float) -> None:
        self.why: str | None = None
        self._deadline_s = deadline_s
        self._main = threading.main_thread().ident
        self._timer = self._later(deadline_s)
        self._before: Any = signal.signal(signal.SIGTERM, self._on_signal)
        self._late = False
        self._timer.start()

    def _later(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self._at_deadline)
        timer.daemon = True
        return timer

    def _at_deadline(self) -> None:
        self._late = True
        self._poke()

    def _poke(self) -> None:
        if self._main is not None and self.why is None:
            signal.pthread_kill(self._main, signal.SIGTERM)  # a real signal: it also wakes a system call that waits

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.why is not None:
            return  # it is ending already
        if _cleans_up(frame):
            timer = threading.Timer(_AGAIN_S, self._poke)
            timer.daemon = True
            timer.start()
            return
        self.why = (
            f"its deadline of {self._deadline_s:g} s has passed" if self._late else "it was told to end (SIGTERM)"
        )
        raise CutOff(self.why)

    def stop(self) -> None:
        """The run has ended by itself; from now on SIGTERM does what it did before."""
        self._timer.cancel()
        self.why = self.why or ""
        signal.signal(signal.SIGTERM, self._before)


def _cleans_up(frame: FrameType | None) -> bool:
    pods = sys.modules.get("labproof.probes.pods")
    code = getattr(getattr(getattr(pods, "OwnPods", None), "__exit__", None), "__code__", None)
    while frame is not None and code is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False


def watch(run: Run) -> None:
    """Watch over a run from now on. Not where a person debugs it, nor outside of the main thread."""
    config = run.config
    debugging = config.getoption("usepdb", False) or "pydevd" in sys.modules
    if debugging or threading.current_thread() is not threading.main_thread() or os.name != "posix":
        return
    config.stash[CUT] = Cutter(run.lab.timings.deadline_s)


def ended(config: pytest.Config) -> str | None:
    """Stop watching; why the run was cut off, None when it was not."""
    cutter = config.stash.get(CUT, None)
    if cutter is None:
        return None
    cutter.stop()
    return cutter.why or None
