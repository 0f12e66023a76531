"""`labproof compare A B`: what changed between two runs, and what broke because of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

NO_SUCH_RUN = 2


def compare_runs(before: str, after: str, reports: str, form: str) -> int:
    """Print a comparison. Returns 0, or 2 when a run is not there; what changed is no failure of this command.

    Args:
        before, after: run ids, folders, `last`, `latest` or `baseline`.
        form: text, markdown or json.
    """
    from labproof.report import history
    from labproof.report.baseline import drift
    from labproof.report.compare import compare
    from labproof.report.compare_runs import LAST, NoSuchRun, find
    from labproof.report.compare_snapshot import Snapshot
    from labproof.report.compare_text import lines, markdown

    folder = Path(reports)
    try:
        new = find(folder, after)
        old = find(folder, before, like=new.result if before == LAST else None)
    except NoSuchRun as missing:
        print(f"labproof compare: {missing}", file=sys.stderr)
        return NO_SUCH_RUN
    comparison = compare(old, new, history.read(folder))
    if new.facts is not None and new.lab is not None:
        comparison["drift"] = drift(folder, Snapshot(new.facts, new.lab), bool(new.result["simulated"]))
    if form == "json":
        print(json.dumps(comparison, indent=1))
    elif form == "markdown":
        print(markdown(comparison), end="")
    else:
        print("\n".join(line for line, _ in lines(comparison)))
        for moved in comparison.get("drift", ()):
            print(f"  drift     {moved['text']} (baseline {moved['run_id']})")
    return 0
