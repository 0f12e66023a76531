"""What is kept of a run when it has ended: its line in the history, its comparison; and what is thrown away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from labproof.plugin.run import Run

KEPT = pytest.StashKey[list[tuple[str, str]]]()
YARDSTICK = pytest.StashKey[Any]()


def add_options(group: pytest.OptionGroup) -> None:
    """Register `--compare` and `--keep`."""
    group.addoption(
        "--compare", metavar="RUN", help="say what changed since: last, baseline, a run id, or a folder of a run"
    )
    group.addoption(
        "--keep", metavar="N", type=int, help="keep the newest N runs of each lab in the reports folder (default: all)"
    )


def refuse_early(config: pytest.Config) -> None:
    """Find the run to compare with before anything is contacted.

    Raises:
        pytest.UsageError: no such run, or a number of runs that cannot be kept (exit status 4).
    """
    keep, name = config.getoption("keep"), config.getoption("compare")
    if keep is not None and keep < 1:
        raise pytest.UsageError(f"--keep {keep}: at least 1 run is kept")
    if not name:
        return
    from labproof.report.compare_runs import LAST, NoSuchRun, find

    if name == LAST:
        return  # the newest of the same lab, which is known only when the run has ended
    try:
        config.stash[YARDSTICK] = find(reports_of(config), str(name))
    except NoSuchRun as missing:
        raise pytest.UsageError(f"--compare: {missing}") from None


def reports_of(config: pytest.Config) -> Path:
    """Folder of the reports."""
    return Path(config.invocation_params.dir) / str(config.getoption("reports"))


def keep(run: Run, result: dict[str, Any]) -> None:
    """Compare, add the run to the history, prune. What cannot be written is told and changes no verdict.

    Saved facts judged again are no run of the lab: they are compared, not added.
    """
    from labproof.report import history

    assert run.folder is not None
    reports = run.folder.parent.parent
    told: list[tuple[str, str]] = []
    if result.get("cut_off"):
        told.append((f"cut off: {result['cut_off']}; what was read so far is kept", "red"))
    told += _drifted(reports, result)
    if run.config.getoption("compare"):
        told += _compared(run, reports, result)
    try:
        if run.choice.kind != "facts":
            history.append(reports, result)
        if run.config.getoption("keep") is not None:
            gone = history.prune(reports, run.config.getoption("keep"))
            told += [(f"pruned: {len(gone)} of the oldest runs", "")] if gone else []
    except history.HistoryNotWritten as failure:
        told.append((f"history not written: {failure}", "red"))
    run.config.stash[KEPT] = told


def _drifted(reports: Path, result: dict[str, Any]) -> list[tuple[str, str]]:
    """A finding in three lines: what drifted, what that usually comes from, what to do."""
    from labproof.report.baseline import ANEW, trouble

    torn = trouble(reports)
    told = [(f"baseline: {torn}", "red")] if torn else []
    for d in result["drift"]:
        told.append((f"{d['severity']} finding: drift from baseline {d['run_id']}: {d['text']}", "red"))
        told.append((f"  so:    {d['meaning']}", ""))
        told.append((f"  do:    {d['remedy'].removesuffix(ANEW).rstrip()}", ""))
    return [*told, (f"  {ANEW}", "")] if result["drift"] else told


def _compared(run: Run, reports: Path, result: dict[str, Any]) -> list[tuple[str, str]]:
    from labproof.report import history
    from labproof.report.compare import compare
    from labproof.report.compare_runs import LAST, NoSuchRun, SavedRun, find
    from labproof.report.compare_text import lines, write_comparison

    assert run.folder is not None
    before = run.config.stash.get(YARDSTICK, None)
    try:
        before = before or find(reports, LAST, like=result)
    except NoSuchRun as missing:
        return [(f"nothing to compare with: {missing}", "")]
    comparison = compare(before, SavedRun(result, run.recorded_facts(), run.lab), history.read(reports))
    write_comparison(run.folder, comparison)
    return lines(comparison)


def tell(terminal: TerminalReporter, config: pytest.Config) -> None:
    """Behind the tree: drift, the comparison, what could not be kept."""
    for line, colour in config.stash.get(KEPT, []):
        terminal.write_line(line, **({colour: True} if colour else {}))
