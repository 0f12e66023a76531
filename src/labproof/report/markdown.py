"""summary.md: one table a layer, for git wikis."""

from __future__ import annotations

from typing import Any

HEADINGS = {
    "host": "Host",
    "vm": "VM",
    "talos": "Talos",
    "kubernetes": "Kubernetes",
    "workload": "Workload",
    "transcode": "Transcode",
}
STATUS = {0: "green", 1: "red", 5: "nothing ran", 6: "incomplete", 7: "busy"}


def summary(result: dict[str, Any]) -> str:
    """Markdown of one run; anchors are the layers' names and stay the same from run to run."""
    status = STATUS.get(result["exit_status"], f"exit status {result['exit_status']}")
    lines = [f"# {_escape(result['lab'])}: {status}", ""]
    if result["simulated"]:
        lines += ["**SIMULATED LAB**: this says nothing about any real machine.", ""]
    lines += [f"labproof {result['labproof']}, {result['started']}, {result['seconds']:.1f} s", ""]
    for first in result["first_broken"]:
        verdict = next(
            v for v in result["verdicts"] if v["clause"] == first["clause"] and first["chain"] in v["chains"]
        )
        lines += _failure(verdict)
    for layer, heading in HEADINGS.items():
        verdicts = [v for v in result["verdicts"] if v["layer"] == layer]
        if verdicts:
            lines += [f"## {heading}", "", "| Verdict | Clause | On | What |", "| --- | --- | --- | --- |"]
            lines += [_row(v) for v in verdicts]
            lines.append("")
    return "\n".join(lines)


def _failure(verdict: dict[str, Any]) -> list[str]:
    problem = verdict["problems"][0]
    return [
        f"**First broken: {verdict['layer']}**, `{verdict['clause']}` on {_escape(verdict['target'])}: "
        f"{problem['cause']} {_escape(problem['title'])}",
        "",
        _escape(problem["impact"]),
        "",
        "```text",
        *problem["remedy"].splitlines(),
        "```",
        "",
    ]


def _row(verdict: dict[str, Any]) -> str:
    told = verdict["title"]
    if verdict["verdict"] in ("fail", "excepted"):
        told = "; ".join(f"{p['cause']} {p['title']} ({p['subject']})" for p in verdict["problems"])
    elif verdict["reason"]:
        told = f"{verdict['title']}: {verdict['reason']}"
    return f"| {verdict['verdict']} | `{verdict['clause']}` | {_escape(verdict['target'])} | {_escape(told)} |"


def _escape(text: str) -> str:
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
