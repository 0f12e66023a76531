"""`labproof lint`."""

from __future__ import annotations

import argparse
import sys

from labproof.lint.image import version_of
from labproof.lint.judge import lint
from labproof.lint.output import render


def run_lint(given: argparse.Namespace) -> int:
    """Judge and print. Returns 0 clean, 1 with findings, 2 for wrong usage, 4 for unreadable input."""
    talos = version_of(given.talos) if given.talos else None
    if given.talos and talos is None:
        sys.stderr.write(f"labproof lint: --talos wants a version such as 1.11.6, not {given.talos!r}\n")
        return 2
    if not given.paths and not given.plan:
        sys.stderr.write("labproof lint: give files, folders, - or --plan FILE\n")
        return 2
    stdin = None
    if "-" in given.paths:
        try:
            stdin = sys.stdin.buffer.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            sys.stderr.write("labproof lint: standard input is not UTF-8 text\n")
            return 4
    report = lint(given.paths, given.plan, stdin, talos)
    sys.stdout.write(render(report, given.format))
    return report.exit_status()
