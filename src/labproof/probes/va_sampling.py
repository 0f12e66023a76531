"""Counters of an Intel or AMD GPU while a run lasts: engine time of the run's own process, frequency, idle residency.

fdinfo belongs to the process that opened the device, so nobody else's work is counted; it is there only while the
process lives. Frequency and residency are the whole GPU's and work on every generation (facts transcode 2.6).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait

from labproof.facts.pod_command import Ran
from labproof.facts.reading import Reading, failed, value
from labproof.facts.transcode import Sample

Run = Callable[[Sequence[str]], Ran]
_ENGINE = re.compile(r"drm-(?:engine|cycles)-([a-z-]+):\s*(\d+)")
#: Where i915 and xe tell the actual frequency (MHz) and the idle state's residency (ms), below /sys/class/drm/cardN.
_CLOCK = ("gt_act_freq_mhz", "gt/gt0/rps_act_freq_mhz", "device/tile0/gt0/freq0/act_freq")
_IDLE = ("power/rc6_residency_ms", "gt/gt0/rc6_residency_ms", "device/tile0/gt0/gtidle/idle_residency_ms")


class EngineSampler:
    """Reads the counters through one container.

    Args:
        run: runs one argv in it.
        mark: a word of the command line that only our run has (the prefix of the files it writes).
        card: name of the card's primary node, `card1`.
    """

    def __init__(self, run: Run, mark: str, card: str) -> None:
        self._run = run
        self._mark = mark
        self._card = f"/sys/class/drm/{card}"

    def once(self) -> Reading[Sample]:
        """Frequency and residency now, engine time of our run if it is there."""
        engines = self._engines()
        clock, idle = self._number(_CLOCK), self._number(_IDLE)
        if clock is None and idle is None and not engines:
            return failed(f"cat {self._card}/{_CLOCK[0]}", "neither fdinfo nor sysfs tells anything", "counters")
        return value(
            Sample(time.time(), None, None, None, None, None, engines=engines, clock_mhz=clock, idle_ms=idle),
            "/proc/<pid>/fdinfo, sysfs of the card",
        )

    def _engines(self) -> tuple[tuple[str, int], ...]:
        listed = self._run(("ls", "/proc"))
        numbers = [name for name in listed.stdout.split() if name.isdigit()] if listed.ok else []
        if not numbers:
            return ()
        found = self._run(("grep", "-ls", self._mark, *(f"/proc/{n}/cmdline" for n in numbers)))
        most: dict[str, int] = {}
        for path in found.stdout.split():
            told = self._run(("grep", "-rs", "drm-", path.replace("/cmdline", "/fdinfo")))
            for name, number in _ENGINE.findall(told.stdout):
                if not name.startswith(("capacity", "total")):
                    most[name] = max(most.get(name, 0), int(number))
        return tuple(sorted(most.items()))

    def _number(self, places: Sequence[str]) -> int | None:
        ran = self._run(("cat", *(f"{self._card}/{place}" for place in places)))
        found = [int(word) for word in ran.stdout.split() if word.isdigit()]
        return found[0] if found else None

    def until_done(self, running: Sequence[Future[Ran]], every_s: float) -> Reading[tuple[Sample, ...]]:
        """Samples until all of `running` are done, `every_s` seconds apart."""
        samples: list[Sample] = []
        last: Reading[Sample] | None = None
        while not all(future.done() for future in running):
            last = self.once()
            if last.value is not None:
                samples.append(last.value)
            wait(running, timeout=every_s)
        if not samples:
            why = last.why if last is not None else "it was over before a sample could be taken"
            return failed("/proc/<pid>/fdinfo", why, "counters")
        return value(tuple(samples), "/proc/<pid>/fdinfo, sysfs of the card")
