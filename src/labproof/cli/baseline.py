"""`labproof baseline set RUN|show|clear`: the state an owner trusts."""

from __future__ import annotations

import sys
from pathlib import Path

NO_SUCH_RUN = 2


def baseline(action: str, run: str, reports: str) -> int:
    """Set, show or clear the baseline. Returns 0, or 2 when there is nothing to set or show.

    Args:
        action: `set`, `show` or `clear`.
        run: for `set`: a run id, a folder, or `latest`.
    """
    from labproof.report import baseline as pinned
    from labproof.report.compare_runs import NoSuchRun, baseline_run, find

    folder = Path(reports)
    if action == "clear":
        print("baseline cleared" if pinned.clear(folder) else "no baseline was set")
        return 0
    try:
        if action == "set":
            chosen = find(folder, run)
            content = pinned.pin(folder, chosen)
            if chosen.result.get("exit_status") not in (0, None):
                print(f"note: run {chosen.id} ended with status {chosen.result['exit_status']}", file=sys.stderr)
            print(f"baseline is run {content['run_id']} of lab {content['lab']} ({content['started']})")
            return 0
        baseline_run(folder)
        content = pinned.read(folder) or {}
    except NoSuchRun as missing:
        print(f"labproof baseline: {missing}", file=sys.stderr)
        return NO_SUCH_RUN
    print(f"baseline: run {content['run_id']} of lab {content['lab']} ({content['started']})")
    for entry in content["pinned"]:
        for item, value in (entry["items"] or {"": f"not read ({entry['why']})"}).items():
            name = f"{entry['subject']}: {entry['what']}{f' {item}' if item else ''}"
            print(f"  {name}" if value == "there" else f"  {name}: {value}")
    return 0
