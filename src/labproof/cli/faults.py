"""`labproof faults`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict


def print_faults(as_json: bool) -> int:
    """List every fault with the clause that finds it and the cause it names."""
    from labproof.simlab.faults import load_faults

    known = load_faults()
    if as_json:
        sys.stdout.write(json.dumps([asdict(f) for f in known.values()], indent=1) + "\n")
        return 0
    wide = max(len(f.id) for f in known.values())
    for fault in known.values():
        sys.stdout.write(f"{fault.id:<{wide}}  {fault.cause:<4} {fault.clause:<18} {fault.title}\n")
    return 0
