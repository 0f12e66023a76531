"""`python -m labproof.simlab LAB --overlay FILE`: run a simulated lab until standard input closes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from labproof.simlab.server import SimLab


def main(argv: list[str] | None = None) -> int:
    """Run the server process; exit status 0 after stdin closed, 4 for an unknown lab, variation or fault."""
    parser = argparse.ArgumentParser(prog="python -m labproof.simlab", description="Run a simulated lab.")
    parser.add_argument("lab")
    parser.add_argument("--variation")
    parser.add_argument("--fault", action="append", default=[], metavar="ID")
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--overlay", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(argv)
    lab = SimLab(options.lab, options.fault, options.variation, bare=options.bare)
    try:
        lab.start()
    except (FileNotFoundError, KeyError) as wrong:
        print(f"simlab: {wrong.args[0] if wrong.args else wrong}", file=sys.stderr)  # noqa: T201 - a command's answer
        return 4
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        lab.write_overlay(options.overlay)
        print(f"simlab: ready {options.overlay}", flush=True)  # noqa: T201 - the starter waits for this line
        while os.read(sys.stdin.fileno(), 4096):
            pass
    finally:
        lab.stop()
        options.overlay.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
