"""`labproof forecast`: what an upgrade will break, from the facts of the last run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

_TEXT = "say what an upgrade will break in this lab, from the facts of the last run; contacts nothing"
_EPILOG = """\
components: talos, kubernetes, kubelet, pve, kernel, plugin, operator
exit status: 0 nothing known breaks, 1 something breaks, 2 wrong usage, 4 bad input (unknown component or version,
a downgrade), 5 no facts, 6 nothing known breaks but something could not be told"""


def add_command(commands: Any) -> None:
    """Add the command to `labproof`."""
    parser = commands.add_parser(
        "forecast", help=_TEXT, description=_TEXT, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--to", action="append", required=True, metavar="COMPONENT=VERSION", help="talos=1.13.9; may be given again"
    )
    parser.add_argument(
        "--facts", metavar="DIR", help="a run's folder, its facts, or a run id (default: the last run under --reports)"
    )
    parser.add_argument("--reports", default="reports", metavar="DIR", help="where reports are (reports)")
    parser.add_argument("--json", action="store_true", help="for machines")


def run_forecast(given: argparse.Namespace) -> int:
    """Judge and print. Returns the exit status of the epilog."""
    from labproof.forecast import output
    from labproof.forecast.judge import forecast
    from labproof.forecast.target import BadTarget, parse_targets
    from labproof.report.compare_runs import LATEST, NoSuchRun, find

    try:
        targets = parse_targets(given.to)
    except BadTarget as bad:
        return _refuse(str(bad), output.BAD_INPUT)
    try:
        run = find(Path(given.reports), given.facts or LATEST)
    except NoSuchRun as missing:
        return _refuse(f"no facts: {missing}; run `pytest` first, or name a run with --facts", output.NO_FACTS)
    if run.facts is None or run.lab is None:
        return _refuse(f"no facts: {run.why_no_facts}", output.NO_FACTS)
    try:
        found = forecast(run.facts, run.lab, targets)
    except BadTarget as bad:
        return _refuse(str(bad), output.BAD_INPUT)
    sys.stdout.write(output.as_json(found) if given.json else output.text(found))
    return output.exit_status(found)


def _refuse(why: str, status: int) -> int:
    sys.stderr.write(f"labproof forecast: {why}\n")
    return status
