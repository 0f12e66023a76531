"""`labproof accept CLAUSE --reason TEXT`: live with a finding, in writing."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, date, datetime
from pathlib import Path

REFUSED = 2


def accept_clause(given: argparse.Namespace) -> int:
    """Write the exception. Returns 0, or 2 when it was refused; the file is then as it was."""
    from labproof.inventory.load import LabError
    from labproof.report.accept import Refused, Wanted, accept

    file = Path(given.lab or os.environ.get("LABPROOF_LAB") or "lab.yaml")
    file = file / "lab.yaml" if file.is_dir() else file
    try:
        if not file.is_file():
            raise Refused(f"no lab at {file}: name it with --lab FILE")
        until = date.fromisoformat(given.until) if given.until else None
        wanted = Wanted(given.clause, given.reason, until, given.cause, given.chain, given.subject)
        print(accept(file, wanted, datetime.now(UTC).date()))
    except ValueError:
        print(f"labproof accept: --until {given.until}: a date such as 2027-01-31 is expected", file=sys.stderr)
        return REFUSED
    except (Refused, LabError, OSError) as refused:
        print(f"labproof accept: {refused}", file=sys.stderr)
        return REFUSED
    return 0
