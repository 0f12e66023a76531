"""`labproof report`: render a run again from its run.json, or Allure results as one file."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def render_run(given: str, reports: str) -> int:
    """Render page, summary and pictures of a run again; 4 when there is no such run.

    Args:
        given: a run's folder, its run.json, its id, or `latest`.
        reports: the folder that holds `runs/`.
    """
    from labproof.report.write import render

    folder = _folder(given, Path(reports))
    if folder is None:
        print(f"labproof report: no run {given!r}: give a folder with a run.json, a run id, or latest", file=sys.stderr)
        return 4
    try:
        result = json.loads((folder / "run.json").read_text("utf-8"))
        schema = result["schema"]
    except (OSError, ValueError, KeyError, TypeError) as broken:
        print(f"labproof report: {folder / 'run.json'} cannot be read ({type(broken).__name__})", file=sys.stderr)
        return 4
    if schema != 1:
        print(f"labproof report: {folder / 'run.json'} has schema {schema}, this labproof reads 1", file=sys.stderr)
        return 4
    render(folder, result)
    print(folder / "index.html")
    return 0


def render_allure(results: str, output: str | None) -> int:
    """Make the single Allure file; 0 with a loud line when Allure 3 is not installed, 1 when it fails."""
    from labproof.report.allure_page import NoAllure, NotRendered, single_file

    target = Path(output) if output else Path(results).resolve().parent / "allure.html"
    try:
        print(single_file(Path(results), target))
    except NoAllure as missing:
        print(f"labproof report --allure: SKIPPED: {missing}", file=sys.stderr)
    except NotRendered as failure:
        print(f"labproof report --allure: {failure}", file=sys.stderr)
        return 1
    return 0


def _folder(given: str, reports: Path) -> Path | None:
    path = Path(given)
    if path.name == "run.json" and path.is_file():
        return path.parent
    for folder in (path, reports / given, reports / "runs" / given):
        if (folder / "run.json").is_file():
            return folder.resolve()
    return None
