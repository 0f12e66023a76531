"""`reports/history.jsonl`: a line a run, so that runs can be compared long after their folders are gone.

A line is appended in one write under a file lock. A crash, or a disk that fills up, can leave half a line at the end:
readers pass over it, and the next append takes it away.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from labproof.facts.atomic import write_bytes
from labproof.report.past import FILE

SCHEMA = 1
#: A run's folder without run.json belongs to a run that still goes on, unless it is older than this (seconds).
UNFINISHED_S = 86400.0
_LOCK_S = 30.0  # the longest another process may hold the file: it rewrites some hundred lines


class HistoryNotWritten(Exception):
    """The history could not be written (read-only folder, full disk); the run itself stands."""


def entry_of(result: dict[str, Any]) -> dict[str, Any]:
    """The line of a run.

    Args:
        result: content of run.json.
    """
    return {
        "schema": SCHEMA,
        "run_id": result["run_id"],
        "started": result["started"],
        "lab": result["lab"],
        "simulated": result["simulated"],
        "seconds": result["seconds"],
        "exit_status": result["exit_status"],
        "cut_off": result.get("cut_off"),
        "counts": dict(Counter(v["verdict"] for v in result["verdicts"])),
        "first_broken": result["first_broken"],
        "drift": [d["text"] for d in result.get("drift", ())],
        "versions": result["versions"],
        "measurements": [
            {key: m[key] for key in ("chain", "clause", "name", "value", "unit")} for m in result["measurements"]
        ],
        "verdicts": {f"{v['clause']}|{v['target']}": v["verdict"] for v in result["verdicts"]},
    }


def append(reports: Path, result: dict[str, Any]) -> None:
    """Add the line of a run.

    Args:
        reports: the folder that holds `runs/` and the history.
        result: content of run.json.

    Raises:
        HistoryNotWritten: no right, no room, or another process holds the file.
    """
    line = json.dumps(entry_of(result), separators=(",", ":")).encode() + b"\n"
    try:
        with _locked(reports):
            file = os.open(reports / FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                length = _repair(file)
                if os.write(file, line) != len(line):
                    os.ftruncate(file, length)  # a full disk takes part of a write; a torn line helps nobody
                    raise OSError(28, "no space left for the line")
                os.fsync(file)
            finally:
                os.close(file)
    except (OSError, TimeoutError) as failure:
        raise HistoryNotWritten(f"{reports / FILE}: {_reason(failure)}") from None


def _repair(file: int) -> int:
    """Take away half a line that a crash left at the end; returns the length of what stays."""
    length = os.fstat(file).st_size
    if length == 0 or os.pread(file, 1, length - 1) == b"\n":
        return length
    content = os.pread(file, length, 0)
    kept = content.rfind(b"\n") + 1
    if _parsed(content[kept:]) is not None:  # whole, only its line end is missing (an editor)
        os.write(file, b"\n")
        return length + 1
    os.ftruncate(file, kept)
    return kept


def read(reports: Path) -> list[dict[str, Any]]:
    """All lines that are whole, oldest first; the last line of a run id counts. No file is an empty history."""
    try:
        content = (reports / FILE).read_bytes()
    except OSError:
        return []
    found: dict[str, dict[str, Any]] = {}
    for line in content.splitlines():
        entry = _parsed(line)
        if entry is not None:
            found[entry["run_id"]] = entry
    return sorted(found.values(), key=lambda entry: (entry["started"], entry["run_id"]))


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("run_id", "started", "lab")):
        return None
    return entry


# ------------------------------------------------------------------ pruning


def prune(reports: Path, keep: int) -> list[str]:
    """Keep the newest `keep` runs of each lab, simulated and real ones apart; remove the rest.

    Never removed: the newest run of all, the run `latest` points at, the baseline's, and a folder whose run has not
    ended. Lines of the history that are no lines go too.

    Returns:
        Ids of the runs whose folders were removed.

    Raises:
        HistoryNotWritten: no right, or another process holds the file.
        ValueError: `keep` is below 1.
    """
    if keep < 1:
        raise ValueError(f"--keep {keep}: at least 1 run is kept")
    try:
        with _locked(reports):
            return _prune(reports, keep)
    except (OSError, TimeoutError) as failure:
        raise HistoryNotWritten(f"{reports}: {_reason(failure)}") from None


def _prune(reports: Path, keep: int) -> list[str]:
    entries = read(reports)
    known = {e["run_id"]: e for e in entries}
    folders = {folder.name: folder for folder in (reports / "runs").glob("*") if folder.is_dir()}
    for name, folder in folders.items():
        if name not in known:
            head = _head(folder)
            if head is not None:
                known[name] = head
    protected = protected_runs(reports, known.values())
    kept = set(protected)
    by_lab: dict[tuple[str, bool], list[str]] = {}
    for entry in sorted(known.values(), key=lambda e: (e["started"], e["run_id"]), reverse=True):
        by_lab.setdefault((entry["lab"], bool(entry.get("simulated"))), []).append(entry["run_id"])
    for runs in by_lab.values():
        kept |= set(runs[:keep])
    lines = [json.dumps(e, separators=(",", ":")) for e in entries if e["run_id"] in kept]
    if (reports / FILE).exists():
        write_bytes(reports / FILE, "".join(f"{line}\n" for line in lines).encode())
    removed = []
    for name, folder in folders.items():
        if name not in kept and (name in known or _abandoned(folder)):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(name)
    return sorted(removed)


def protected_runs(reports: Path, entries: Iterable[dict[str, Any]]) -> set[str]:
    """Runs that are never pruned: the newest, the one `latest` points at, the baseline's."""
    names = {newest for _, newest in sorted((e["started"], e["run_id"]) for e in entries)[-1:]}
    with suppress(OSError):
        names.add((reports / "latest").readlink().name)
    with suppress(OSError, ValueError, KeyError, TypeError):
        names.add(str(json.loads((reports / "baseline" / "baseline.json").read_text("utf-8"))["run_id"]))
    return names


def _head(folder: Path) -> dict[str, Any] | None:
    """What run.json of a folder says, for a run whose line is lost."""
    try:
        return _parsed((folder / "run.json").read_bytes())
    except OSError:
        return None


def _abandoned(folder: Path) -> bool:
    return not (folder / "run.json").exists() and time.time() - folder.stat().st_mtime > UNFINISHED_S


def _locked(reports: Path) -> Any:
    from filelock import FileLock

    (reports / "runs").mkdir(parents=True, exist_ok=True)
    return FileLock(str(reports / "runs" / ".history.lock"), timeout=_LOCK_S)


def _reason(failure: BaseException) -> str:
    return getattr(failure, "strerror", None) or "another process holds its lock"
