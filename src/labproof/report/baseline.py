"""The state an owner trusts: pinned facts of one run, and what has drifted from them since.

Drift is a finding of its own and no verdict: run.json lists it under `drift`, the exit status is not touched. A card
that moved to another group or address often still works; what does not work is failed by its own clause.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from labproof.facts.atomic import write_text
from labproof.report.compare_runs import BASELINE, NoSuchRun, SavedRun
from labproof.report.compare_snapshot import Snapshot

SCHEMA = 1
FILE = "baseline.json"


def pin(reports: Path, run: SavedRun) -> dict[str, Any]:
    """Make a run the baseline; returns the content of baseline.json.

    Raises:
        NoSuchRun: the run's facts are gone, or none of what is pinned was read in it.
    """
    if run.facts is None or run.lab is None:
        raise NoSuchRun(f"run {run.id} cannot be a baseline: {run.why_no_facts}")
    pinned = pinned_facts(Snapshot(run.facts, run.lab))
    if not any(entry["items"] is not None for entry in pinned):
        raise NoSuchRun(f"run {run.id} cannot be a baseline: nothing that is pinned was read in it (host, VM, Talos)")
    head = {key: run.result.get(key) for key in ("run_id", "started", "lab", "simulated", "exit_status", "versions")}
    content = {"schema": SCHEMA, **head, "pinned": pinned}
    folder = reports / BASELINE
    folder.mkdir(parents=True, exist_ok=True)
    saved = reports / "runs" / run.id / "facts" / "run.facts.json"
    if saved.is_file():
        write_text(folder / saved.name, saved.read_text("utf-8"))
    write_text(folder / FILE, json.dumps(content, indent=1) + "\n")
    return content


def pinned_facts(snapshot: Snapshot) -> list[dict[str, Any]]:
    """What a baseline holds: group membership, firmware tables and IOMMUs, PCI addresses, mapping, schematic."""
    return [
        {
            "layer": seen.where.layer, "subject": seen.where.subject, "what": seen.thing.name,
            "items": None if seen.items is None else dict(seen.items), "why": seen.why,
        }
        for seen in snapshot.seen.values()
        if seen.thing.pinned
    ]  # fmt: skip


def read(reports: Path) -> dict[str, Any] | None:
    """Content of baseline.json, None when no baseline is set.

    Raises:
        NoSuchRun: it is there and not whole, or of another schema.
    """
    try:
        content = json.loads((reports / BASELINE / FILE).read_text("utf-8"))
        if content["schema"] != SCHEMA:
            raise NoSuchRun(f"{reports / BASELINE}: schema {content['schema']}, this labproof reads {SCHEMA}")
        return dict(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise NoSuchRun(f"{reports / BASELINE / FILE} is not whole; set the baseline again") from None


def clear(reports: Path) -> bool:
    """Forget the baseline; whether there was one."""
    there = (reports / BASELINE / FILE).exists()
    shutil.rmtree(reports / BASELINE, ignore_errors=True)
    return there


def drift(reports: Path, snapshot: Snapshot, simulated: bool) -> list[dict[str, Any]]:
    """How the pinned facts of a run differ from the baseline of the same lab.

    A thing that one of the two did not read has not drifted: it is left out.

    Returns:
        Records with `layer`, `subject`, `what`, `item`, `before`, `after`, `text` and the baseline's `run_id`.
    """
    try:
        trusted = read(reports)
    except NoSuchRun:
        return []  # `labproof baseline show` tells; a run is no place to fail for it
    if trusted is None or trusted["lab"] != snapshot.lab.lab or bool(trusted["simulated"]) != simulated:
        return []
    now = {(p["layer"], p["subject"], p["what"]): p["items"] for p in pinned_facts(snapshot)}
    found = []
    for pinned in trusted["pinned"]:
        seen = now.get((pinned["layer"], pinned["subject"], pinned["what"]))
        if seen is None or pinned["items"] is None:
            continue
        for item in dict.fromkeys([*pinned["items"], *seen]):
            was, is_now = pinned["items"].get(item), seen.get(item)
            if was != is_now:
                found.append(_record(trusted["run_id"], pinned, item, was, is_now))
    return found


def _record(run_id: str, pinned: dict[str, Any], item: str, was: str | None, now: str | None) -> dict[str, Any]:
    name = f"{pinned['subject']}: {pinned['what']}{f' {item}' if item else ''}"
    if "there" in (was, now):
        text = f"{name} is {'gone' if now is None else 'new'}"
    else:
        text = f"{name}: {was or 'nothing'} -> {now or 'nothing'}"
    return {
        "layer": pinned["layer"], "subject": pinned["subject"], "what": pinned["what"], "item": item, "before": was,
        "after": now, "text": text, "run_id": run_id,
    }  # fmt: skip
