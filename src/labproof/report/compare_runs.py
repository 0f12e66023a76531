"""Runs that can be compared: by id, folder, `last` or `baseline`; with their saved facts where they are still there."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labproof.facts.bundle import Facts
from labproof.inventory.models import Lab
from labproof.report import history

LAST, BASELINE, LATEST = "last", "baseline", "latest"
#: Runs that ended before they judged what they were asked for: no yardstick for `last`.
_NO_YARDSTICK = (2, 3, 4, 5)


class NoSuchRun(Exception):
    """What was named is no run; `str()` says what is there."""


@dataclass(frozen=True)
class SavedRun:
    """A run as it was saved.

    Attributes:
        result: run.json's content, or what the history's line holds of it (`verdicts` as a map then).
        facts, lab: its saved facts and the lab as it was declared then; None when they are gone or of another schema.
        why_no_facts: why they are None.
    """

    result: dict[str, Any]
    facts: Facts | None = None
    lab: Lab | None = None
    why_no_facts: str = ""

    @property
    def id(self) -> str:
        """Its run id."""
        return str(self.result["run_id"])

    @property
    def verdicts(self) -> dict[tuple[str, str], str]:
        """Verdict by clause and target."""
        held = self.result["verdicts"]
        if isinstance(held, dict):
            return {_pair(key): str(verdict) for key, verdict in held.items()}
        return {(v["clause"], v["target"]): v["verdict"] for v in held}

    @property
    def records(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Whole verdicts; none when only the history's line is left."""
        held = self.result["verdicts"]
        return {} if isinstance(held, dict) else {(v["clause"], v["target"]): v for v in held}


def find(reports: Path, name: str, like: dict[str, Any] | None = None) -> SavedRun:
    """The run that a person named.

    Args:
        reports: folder of the reports.
        name: `last`, `latest`, `baseline`, a run id or its beginning, or a folder (a run's, its facts, or reports/).
        like: run.json of the run it is compared with: `last` is then the run before it of the same lab.

    Raises:
        NoSuchRun: none is meant, or several.
    """
    if name == LAST:
        return last(reports, like)
    if name == BASELINE:
        return _load_named(reports, baseline_run(reports))
    given = Path(name)
    if name == LATEST or (given.is_dir() and _is_reports(given)):
        return load((given if given.is_dir() and _is_reports(given) else reports) / LATEST)
    if given.is_dir():
        return load(given)
    known = {e["run_id"] for e in history.read(reports)}
    known |= {folder.name for folder in (reports / "runs").glob("*") if (folder / "run.json").is_file()}
    meant = [name] if name in known else sorted(run for run in known if run.startswith(name))
    if len(meant) == 1:
        return _load_named(reports, meant[0])
    if meant:
        raise NoSuchRun(f"{name!r} begins {len(meant)} runs: {', '.join(meant[:5])}")
    near = difflib.get_close_matches(name, known, 1, 0.8)
    hint = f"did you mean {near[0]}? " if near else ""
    newest = ", ".join(sorted(known)[-3:]) or "none"
    raise NoSuchRun(f"no run or folder called {name!r}; {hint}newest runs in {reports}: {newest}")


def last(reports: Path, like: dict[str, Any] | None) -> SavedRun:
    """The newest run of the same lab (simulated or real) before `like` that was not cut off.

    Raises:
        NoSuchRun: there is none.
    """
    for entry in reversed(history.read(reports)):
        if like is not None:
            if entry["lab"] != like["lab"] or entry.get("simulated") != like["simulated"]:
                continue
            if (entry["started"], entry["run_id"]) >= (like["started"], like["run_id"]):
                continue
        if entry.get("cut_off") or entry.get("exit_status") in _NO_YARDSTICK:
            continue
        return _load_named(reports, entry["run_id"])
    of = f" of lab {like['lab']}" if like is not None else ""
    raise NoSuchRun(f"no earlier whole run{of} in {reports}")


def baseline_run(reports: Path) -> str:
    """Id of the run the owner trusts.

    Raises:
        NoSuchRun: no baseline is set.
    """
    try:
        return str(json.loads((reports / "baseline" / "baseline.json").read_text("utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        raise NoSuchRun(f"no baseline is set in {reports}: labproof baseline set RUN") from None


def _load_named(reports: Path, run_id: str) -> SavedRun:
    folder = reports / "runs" / run_id
    if (folder / "run.json").is_file():
        return load(folder)
    entry = next((e for e in history.read(reports) if e["run_id"] == run_id), None)
    if entry is None:
        raise NoSuchRun(f"run {run_id} is gone from {reports}")
    return SavedRun(entry, why_no_facts="its folder is gone, only its line in the history is left")


def load(folder: Path) -> SavedRun:
    """The run of a folder: the run's own, or that of its facts.

    Raises:
        NoSuchRun: it holds neither run.json nor facts.
    """
    if (folder / "run.facts.json").is_file() and not (folder / "run.json").is_file():
        folder = folder.parent if (folder.parent / "run.json").is_file() else folder
    facts, lab, why = load_facts(folder)
    try:
        result = json.loads((folder / "run.json").read_text("utf-8"))
        if not isinstance(result, dict) or not {"run_id", "started", "lab", "verdicts"} <= set(result):
            raise NoSuchRun(f"{folder / 'run.json'} is not a run.json of labproof")
    except OSError:
        if lab is None or facts is None:
            raise NoSuchRun(f"{folder}: neither run.json nor saved facts are there") from None
        result = _bare(folder, facts, lab)
    except ValueError:
        raise NoSuchRun(f"{folder / 'run.json'} is not whole") from None
    return SavedRun(result, facts, lab, why)


def load_facts(folder: Path) -> tuple[Facts | None, Lab | None, str]:
    """Saved facts and lab of a run's folder, or why there are none."""
    from labproof.facts import meta
    from labproof.facts.store import FactsStore

    held = folder / "facts" if (folder / "facts" / meta.FILE).is_file() else folder
    try:
        head = meta.read(held)
    except meta.NotFacts as missing:
        return None, None, str(missing)
    return Facts(FactsStore(held, frozen=True), head.now), head.lab, ""


def _bare(folder: Path, facts: Facts, lab: Lab) -> dict[str, Any]:
    """A head for a folder that holds facts only: a bundle somebody sent."""
    from datetime import UTC, datetime

    started = datetime.fromtimestamp(facts.now, UTC).isoformat(timespec="seconds")
    return {
        "run_id": folder.resolve().name, "started": started, "lab": lab.lab, "simulated": None, "exit_status": None,
        "versions": {}, "measurements": [], "verdicts": {},
    }  # fmt: skip


def _is_reports(folder: Path) -> bool:
    return (folder / LATEST / "run.json").is_file() and not (folder / "run.json").is_file()


def _pair(key: str) -> tuple[str, str]:
    clause, _, target = key.partition("|")
    return clause, target
