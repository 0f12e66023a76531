"""`labproof`: what is not a pytest run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `labproof` command. Returns the exit status; usage errors are 2."""
    parser = argparse.ArgumentParser(
        prog="labproof",
        description="Prove that a GPU reaches a pod. The suite itself is `pytest`; these are its tools.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    commands.add_parser("catalogue", help="print clauses and causes as Markdown")
    commands.add_parser("schema", help="print the JSON Schema of lab.yaml")
    faults = commands.add_parser("faults", help="list the faults of the simulated lab")
    faults.add_argument("--json", action="store_true", help="for machines")
    sim = commands.add_parser("sim", help="run a simulated lab for kubectl, talosctl, curl and ssh")
    sim.add_argument("lab", nargs="?", default="t4-jellyfin", help="name of a shipped lab, or its folder")
    sim.add_argument("--fault", action="append", default=[], metavar="ID", help="break it (see `labproof faults`)")
    sim.add_argument("--variation", metavar="NAME", help="a variation of the lab")
    bench = commands.add_parser("bench", help="measure the suite on this machine; writes docs/benchmarks.md")
    bench.add_argument("--output", default="docs/benchmarks.md", metavar="FILE")
    bench.add_argument("--repeat", type=int, default=5, metavar="N")

    given = parser.parse_args(argv)
    try:
        return _run(given)
    except BrokenPipeError:  # `labproof catalogue | head`
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130


def _run(given: argparse.Namespace) -> int:
    if given.command == "catalogue":
        from labproof.cli.catalogue_page import catalogue_page

        sys.stdout.write(catalogue_page())
        return 0
    if given.command == "schema":
        from labproof.inventory.schema import schema_text

        sys.stdout.write(schema_text())
        return 0
    if given.command == "faults":
        from labproof.cli.faults import print_faults

        return print_faults(as_json=given.json)
    if given.command == "bench":
        from labproof.cli.bench import bench

        return bench(given.output, given.repeat)
    from labproof.cli.sim import run_lab

    return run_lab(given.lab, given.variation, given.fault)
