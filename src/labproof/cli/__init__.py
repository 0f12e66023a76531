"""`labproof`: what is not a pytest run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `labproof` command. Returns the exit status; usage errors are 2."""
    parser = argparse.ArgumentParser(
        prog="labproof",
        description="Prove that a GPU reaches a pod. The suite itself is `pytest`; these are its tools.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    catalogue = commands.add_parser("catalogue", help="print clauses and causes as Markdown")
    catalogue.add_argument("--pages", metavar="DIR", help="write them as pages instead: one a cause, one a layer")
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
    report = commands.add_parser("report", help="render a run again, or Allure results as one file")
    report.add_argument("run", nargs="?", default="latest", help="a run's folder or id (default: the latest)")
    report.add_argument("--reports", default="reports", metavar="DIR", help="where reports are (reports)")
    report.add_argument("--allure", metavar="FOLDER", help="make one HTML file of these Allure results instead")
    report.add_argument("--output", metavar="FILE", help="with --allure: the file (allure.html beside the results)")

    lint = commands.add_parser("lint", help="judge manifests, Talos and Terraform files before they are applied")
    lint.add_argument("paths", nargs="*", metavar="PATH", help="files and folders; - is a stream on standard input")
    lint.add_argument("--plan", action="append", default=[], metavar="FILE", help="output of `terraform show -json`")
    lint.add_argument("--talos", metavar="VERSION", help="Talos version to assume where the files name none")
    lint.add_argument("--format", choices=("text", "json", "sarif"), default="text")

    add_keeping_commands(commands)
    add_init(commands)
    add_forecast(commands)

    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["nightly"] and not {"-h", "--help"} & set(words):
            from labproof.cli.nightly import nightly

            return nightly(words[1:])  # they are pytest's
        return _run(parser.parse_args(words))
    except BrokenPipeError:  # `labproof catalogue | head`
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130


def add_init(commands: Any) -> None:
    """The command that finds a lab and writes its lab.yaml."""
    from labproof.cli.init import add_arguments

    text = "find the GPUs of a lab, read-only, and write a commented lab.yaml"
    add_arguments(commands.add_parser("init", help=text, description=text))


def add_forecast(commands: Any) -> None:
    """The command that judges an upgrade before it is done."""
    from labproof.cli.forecast import add_command

    add_command(commands)


def add_keeping_commands(commands: Any) -> None:
    """Commands about runs that have been: compare, baseline, accept; and the nightly run that makes them."""
    compare = commands.add_parser("compare", help="say what changed between two runs, and what broke because of it")
    compare.add_argument("before", help="a run id or its beginning, a folder, last, latest or baseline")
    compare.add_argument("after", nargs="?", default="latest", help="the same (default: latest)")
    compare.add_argument("--reports", default="reports", metavar="DIR", help="where reports are (reports)")
    compare.add_argument("--format", choices=("text", "markdown", "json"), default="text")
    baseline = commands.add_parser("baseline", help="pin the state you trust: drift from it is told in every run")
    baseline.add_argument("action", choices=("set", "show", "clear"))
    baseline.add_argument("run", nargs="?", default="latest", help="for set: a run id or folder (default: latest)")
    baseline.add_argument("--reports", default="reports", metavar="DIR", help="where reports are (reports)")
    accept = commands.add_parser("accept", help="write an exception into lab.yaml, its comments untouched")
    accept.add_argument("clause", help="the clause that fails, e.g. HOST-GROUP-001")
    accept.add_argument("--reason", required=True, metavar="TEXT", help="why you live with it")
    accept.add_argument("--until", metavar="DATE", help="from the day after this date on it is red again (2027-01-31)")
    accept.add_argument("--cause", metavar="ID", help="accept this cause only, e.g. P09")
    accept.add_argument("--chain", metavar="ID", help="accept it on this chain (or host, node, cluster) only")
    accept.add_argument("--subject", metavar="NAME", help="accept it for this subject only")
    accept.add_argument("--lab", metavar="FILE", help="lab.yaml to write (default: $LABPROOF_LAB, ./lab.yaml)")
    commands.add_parser(
        "nightly",
        help="run unattended: a real lab required, compared, kept, pruned; further arguments are pytest's",
        description="pytest --require-lab --compare=last --keep=60 with a lock; ends with 75 while another one runs.",
    )


def _run(given: argparse.Namespace) -> int:
    if given.command == "init":
        from labproof.cli.init import run_init

        return run_init(given)
    if given.command == "forecast":
        from labproof.cli.forecast import run_forecast

        return run_forecast(given)
    if given.command == "catalogue":
        from labproof.cli.catalogue_page import catalogue_page
        from labproof.cli.site_pages import write_pages

        if given.pages:
            print(f"{write_pages(Path(given.pages))} pages in {given.pages}")
            return 0
        sys.stdout.write(catalogue_page())
        return 0
    if given.command == "schema":
        from labproof.inventory.schema import schema_text

        sys.stdout.write(schema_text())
        return 0
    if given.command == "faults":
        from labproof.cli.faults import print_faults

        return print_faults(as_json=given.json)
    if given.command == "report":
        from labproof.cli.report import render_allure, render_run

        return render_allure(given.allure, given.output) if given.allure else render_run(given.run, given.reports)
    if given.command == "bench":
        from labproof.cli.bench import bench

        return bench(given.output, given.repeat)
    if given.command == "compare":
        from labproof.cli.compare import compare_runs

        return compare_runs(given.before, given.after, given.reports, given.format)
    if given.command == "baseline":
        from labproof.cli.baseline import baseline

        return baseline(given.action, given.run, given.reports)
    if given.command == "accept":
        from labproof.cli.accept import accept_clause

        return accept_clause(given)
    if given.command == "lint":
        from labproof.cli.lint import run_lint

        return run_lint(given)
    from labproof.cli.sim import run_lab

    return run_lab(given.lab, given.variation, given.fault)
