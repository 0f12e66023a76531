"""`labproof faults`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict


def print_faults(as_json: bool) -> int:
    """List every fault with its lab, the clause that finds it and the cause it names."""
    from labproof.simlab.faults import load_faults

    known = load_faults()
    if as_json:
        sys.stdout.write(json.dumps([asdict(f) for f in known.values()], indent=1) + "\n")
        return 0
    wide, labs = (
        max(len(word) for word in words) for words in ((f.id for f in known.values()), (f.lab for f in known.values()))
    )
    for fault in known.values():
        line = f"{fault.id:<{wide}}  {fault.lab:<{labs}} {fault.cause:<4} {fault.clause:<18} {fault.title}"
        sys.stdout.write(line + "\n")
    return 0
