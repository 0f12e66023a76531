"""Is a measurement beyond its noise? Only many runs can tell: the median and spread of the history, never one run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

#: Fewer earlier runs than this say nothing about noise.
FEWEST_RUNS = 4
#: Runs that count: older ones speak of another lab.
MOST_RUNS = 30
#: A normal distribution's standard deviation is 1.4826 x the median absolute deviation; three of them hold 99.7 %.
_BAND = 3 * 1.4826
#: A few equal runs have no spread at all; nobody calls less than this share of the median a change.
_LEAST_SHARE = 0.05
#: More is worse for these; for rates and qualities less is.
_COSTS = ("cpu_per_frame", "temperature", "vram", "seconds", "memory")
_GAINS = ("fps", "speed", "psnr", "ssim", "sessions", "util")


@dataclass(frozen=True)
class Band:
    """What earlier runs measured: `low` to `high` is noise. `runs` is how many there are."""

    median: float
    low: float
    high: float
    runs: int


def band_of(values: Sequence[float]) -> Band | None:
    """The noise band of earlier values, None when there are too few."""
    if len(values) < FEWEST_RUNS:
        return None
    middle = median(values)
    spread = _BAND * median(abs(v - middle) for v in values)
    width = max(spread, _LEAST_SHARE * abs(middle))
    return Band(middle, middle - width, middle + width, len(values))


def beyond_noise(history: Iterable[dict[str, Any]], run: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """Measurements of a run beyond the band of earlier runs of the same lab.

    Args:
        history: lines of the history, oldest first.
        run: content of run.json.

    Returns:
        A record per measurement beyond its band, and how many measurements have too few earlier runs to tell.
    """
    earlier = [
        e
        for e in history
        if e["lab"] == run["lab"]
        and e.get("simulated") == run["simulated"]
        and e["run_id"] != run["run_id"]
        and (e["started"], e["run_id"]) < (run["started"], run["run_id"])
    ]
    found, too_few = [], 0
    for measured in run["measurements"]:
        values = _values(earlier, measured)[-MOST_RUNS:]
        band = band_of(values)
        if band is None:
            too_few += 1
            continue
        value = float(measured["value"])
        if band.low <= value <= band.high:
            continue
        found.append(
            {
                "chain": measured["chain"], "clause": measured["clause"], "name": measured["name"],
                "unit": measured["unit"], "value": value, "median": band.median, "low": band.low, "high": band.high,
                "runs": band.runs, "is": _direction(str(measured["name"]), value > band.high),
            }
        )  # fmt: skip
    return found, too_few


def _values(earlier: Iterable[dict[str, Any]], measured: dict[str, Any]) -> list[float]:
    found = []
    for entry in earlier:
        for other in entry.get("measurements") or ():
            if isinstance(other, dict) and (other.get("chain"), other.get("name")) == (
                measured["chain"],
                measured["name"],
            ):
                value = other.get("value")
                if isinstance(value, int | float) and not isinstance(value, bool):
                    found.append(float(value))
                break
    return found


def _direction(name: str, more: bool) -> str:
    if any(word in name for word in _COSTS):
        return "worse" if more else "better"
    if any(word in name for word in _GAINS) and "util" not in name:
        return "better" if more else "worse"
    return "more" if more else "less"
