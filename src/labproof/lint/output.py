"""A report as text, JSON or SARIF 2.1.0."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from labproof import __version__
from labproof.lint.finding import Finding, Report

FORMATS = ("text", "json", "sarif")
_LEVELS = {"blocking": "error", "degraded": "warning", "hygiene": "note"}
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
_ADVICE: dict[str, str] = {}  # lint knows files, not a lab's names: placeholders stay as <node>


def render(report: Report, form: str) -> str:
    """The report in one of FORMATS, ending in a newline."""
    if form == "json":
        return json.dumps(_json(report), indent=1, ensure_ascii=False) + "\n"
    if form == "sarif":
        return json.dumps(_sarif(report), indent=1, ensure_ascii=False) + "\n"
    return _text(report)


def _text(report: Report) -> str:
    lines: list[str] = []
    explained: set[str] = set()
    for finding in report.findings:
        cause = finding.catalogued
        lines.append(f"{finding.path}:{finding.line}: {finding.cause} {cause.severity}: {finding.text}")
        if finding.cause not in explained:
            explained.add(finding.cause)
            lines += [f"    {line}" for line in cause.advice(_ADVICE).splitlines()]
    for place in report.not_judged:
        lines.append(f"{place.path}:{place.line}: not judged: {place.reason}")
    for broken in report.unreadable:
        lines.append(f"{broken.path}:{broken.line}: unreadable: {broken.reason}")
    lines.append(_summary(report))
    return "\n".join(lines) + "\n"


def _summary(report: Report) -> str:
    counts = [_count(report.files, "file"), _count(len(report.findings), "finding")]
    if report.not_judged:
        counts.append(f"{_count(len(report.not_judged), 'place')} not judged")
    if report.unreadable:
        counts.append(f"{len(report.unreadable)} unreadable")
    return ", ".join(counts)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _json(report: Report) -> dict[str, Any]:
    return {
        "schema": 1,
        "labproof": __version__,
        "exit_status": report.exit_status(),
        "files": report.files,
        "findings": [
            {
                "path": f.path,
                "line": f.line,
                "cause": f.cause,
                "severity": f.catalogued.severity,
                "title": f.catalogued.title,
                "text": f.text,
                "remedy": f.catalogued.advice(_ADVICE),
                "source": f.catalogued.source,
            }
            for f in report.findings
        ],
        "not_judged": [{"path": p.path, "line": p.line, "reason": p.reason} for p in report.not_judged],
        "unreadable": [{"path": u.path, "line": u.line, "reason": u.reason} for u in report.unreadable],
    }


def _sarif(report: Report) -> dict[str, Any]:
    used = sorted({finding.cause for finding in report.findings})
    about = {finding.cause: finding.catalogued for finding in report.findings}
    rules = [
        {
            "id": ident,
            "shortDescription": {"text": about[ident].title},
            "fullDescription": {"text": " ".join(about[ident].impact.split())},
            "help": {"text": about[ident].advice(_ADVICE)},
            "defaultConfiguration": {"level": _LEVELS[about[ident].severity]},
        }
        for ident in used
    ]
    notes = [
        {"level": "note", "message": {"text": f"not judged: {p.reason}"}, "locations": [_place(p.path, p.line)]}
        for p in report.not_judged
    ]
    notes += [
        {"level": "error", "message": {"text": f"unreadable: {u.reason}"}, "locations": [_place(u.path, u.line)]}
        for u in report.unreadable
    ]
    run = {
        "tool": {"driver": {"name": "labproof lint", "version": __version__, "rules": rules}},
        "columnKind": "utf16CodeUnits",
        "invocations": [{"executionSuccessful": not report.unreadable, "toolExecutionNotifications": notes}],
        "results": [_result(finding, used) for finding in report.findings],
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(finding: Finding, rules: list[str]) -> dict[str, Any]:
    return {
        "ruleId": finding.cause,
        "ruleIndex": rules.index(finding.cause),
        "level": _LEVELS[finding.catalogued.severity],
        "message": {"text": f"{finding.text}\n{finding.catalogued.advice(_ADVICE)}"},
        "locations": [_place(finding.path, finding.line)],
    }


def _place(path: str, line: int) -> dict[str, Any]:
    where = {"uri": quote(path.removeprefix("./"), safe="/")}
    return {"physicalLocation": {"artifactLocation": where, "region": {"startLine": max(1, line)}}}
