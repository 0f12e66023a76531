"""Runs before this one, as the reports show them: lines of `reports/history.jsonl`, none where it is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = "history.jsonl"
#: How many earlier runs a chart shows.
SHOWN = 30


def past_runs(reports: Path, result: dict[str, Any], shown: int = SHOWN) -> list[dict[str, Any]]:
    """Earlier runs of the same lab, oldest first; a line that is not whole (a crash, a full disk) is passed over.

    Args:
        reports: the folder that holds `runs/` and the history.
        result: the run that is rendered; simulated runs are compared with simulated runs only.
    """
    try:
        text = (reports / FILE).read_text("utf-8", errors="replace")
    except OSError:
        return []
    found: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and _before(entry, result):
            found[str(entry["run_id"])] = entry
    return sorted(found.values(), key=lambda entry: (entry["started"], entry["run_id"]))[-shown:]


def _before(entry: dict[str, Any], result: dict[str, Any]) -> bool:
    same_lab = entry.get("lab") == result["lab"]
    same_world = entry.get("simulated", result["simulated"]) == result["simulated"]
    told = isinstance(entry.get("started"), str) and isinstance(entry.get("run_id"), str)
    if not (same_lab and same_world and told) or entry["run_id"] == result["run_id"]:
        return False
    return (entry["started"], entry["run_id"]) < (result["started"], result["run_id"])


def earlier_values(past: list[dict[str, Any]], chain: str, name: str) -> list[float]:
    """Values of one measurement on one chain in earlier runs, oldest first."""
    found = []
    for entry in past:
        for measured in entry.get("measurements") or ():
            if not isinstance(measured, dict) or measured.get("name") != name or measured.get("chain") != chain:
                continue
            value = measured.get("value")
            if isinstance(value, int | float) and not isinstance(value, bool):
                found.append(float(value))
    return found
