"""Where a finished run goes besides its own folder: a git checkout, a message; only where the owner asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labproof.report.notify import NotNotified, check_address, notify
from labproof.report.past import past_runs
from labproof.report.publish import NotPublished, checkout, publish


def refuse_early(into: Path | None, address: str | None) -> str:
    """Why this run could not be delivered, empty when it can: told before anything is judged, not minutes later."""
    try:
        if into is not None:
            checkout(into)
        if address is not None:
            check_address(address)
    except (NotPublished, NotNotified) as wrong:
        return str(wrong)
    return ""


def deliver(run: Path, result: dict[str, Any], into: Path | None, address: str | None) -> list[tuple[str, bool]]:
    """Publish and notify as declared.

    Args:
        run: the run's folder, `reports/runs/<id>`.
        into: folder of a git work tree, or None.
        address: webhook or ntfy address, or None.

    Returns:
        A line for each thing done, and whether it worked. Nothing here changes the run's verdict.
    """
    told: list[tuple[str, bool]] = []
    if into is not None:
        try:
            told.append((publish(run, into, result), True))
        except (NotPublished, OSError) as failure:
            told.append((str(failure), False))
    if address is not None:
        try:
            told.append((notify(address, result, past_runs(run.parent.parent, result)), True))
        except NotNotified as failure:
            told.append((str(failure), False))
    return told
