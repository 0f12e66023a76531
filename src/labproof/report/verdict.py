"""One verdict as run.json holds it, and as a person reads it in a terminal."""

from __future__ import annotations

import textwrap
from typing import Any

from labproof.catalogue.causes import Cause, causes
from labproof.checks.gate import Ruling
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked
from labproof.checks.registry import Clause
from labproof.inventory.chains import Chain, Target

WIDTH = 116


def record_of(clause: Clause, target: Target, ruling: Ruling, statement: str) -> dict[str, Any]:
    """A verdict of run.json (DESIGN section 2)."""
    judgement, blocker = ruling.judgement, ruling.blocker
    problems = judgement.problems if isinstance(judgement, Fail) else ()
    evidence = judgement.evidence if isinstance(judgement, Pass | Fail) else ()
    reason = judgement.reason if isinstance(judgement, Unchecked) else None
    measured = judgement.measurements if isinstance(judgement, Pass | Fail) else ()
    return {
        "clause": clause.id,
        "title": clause.title,
        "statement": statement,
        "severity": str(clause.severity),
        "layer": clause.layer,
        "target": target.name,
        "chain": target.chains[0].id,
        "chains": [c.id for c in target.chains],
        "verdict": ruling.verdict,
        "qualifier": judgement.qualifier if isinstance(judgement, Pass | Fail) else None,
        "blocked_by": blocker.clause if blocker else None,
        "blocked_on": blocker.target if blocker else None,
        "busy": isinstance(judgement, Unchecked) and judgement.busy,
        "reason": reason or (f"blocked by {blocker.clause} ({blocker.cause})" if blocker else None),
        "exception": ruling.accepted_because or None,
        "seconds": 0.0,
        "evidence": [_evidence(e) for e in evidence] + _reading(judgement),
        "problems": [_problem(p, target) for p in problems],
        "measurements": [
            {"name": m.name, "value": m.value, "unit": m.unit, "samples": list(m.samples)} for m in measured
        ],
    }


def _reading(judgement: Judgement | None) -> list[dict[str, str]]:
    if isinstance(judgement, Unchecked) and judgement.reading is not None and judgement.reading.source:
        return [{"source": judgement.reading.source, "text": judgement.reading.why}]
    return []


def _evidence(evidence: Evidence) -> dict[str, str]:
    return {"source": evidence.source, "text": evidence.text}


def _problem(problem: Problem, target: Target) -> dict[str, Any]:
    cause = causes()[problem.cause]
    return {
        "cause": cause.id,
        "title": cause.title,
        "impact": cause.impact,
        "subject": problem.subject,
        "evidence": [_evidence(e) for e in problem.evidence],
        "remedy": problem.remedy.strip() or _remedy(cause, problem, target.chains[0]),
        "source": cause.source,
    }


def _remedy(cause: Cause, problem: Problem, chain: Chain) -> str:
    values = {"address": chain.gpu.address or chain.gpu.name, "device": chain.gpu.device}
    if chain.host is not None:
        values["host"] = chain.host.name
    if chain.vm is not None:
        values["vm"] = str(chain.vm.id or chain.vm.name)
    if chain.node is not None:
        values["node"] = chain.node.name
    if chain.cluster is not None:
        values["resource"] = chain.cluster.plugin.resource_name
        values["namespace"] = chain.cluster.plugin.namespace or chain.cluster.probe.namespace
    return cause.advice({**values, **dict(problem.values)})


def explain(record: dict[str, Any]) -> str:
    """A verdict that is not a pass, for the terminal: what must hold, what was seen, why, what to do."""
    lines = [f"{record['clause']} on {record['target']}: {record['title']}"]
    if record["statement"]:
        lines += _folded("must:  ", record["statement"])
    if record["verdict"] == "unchecked":
        lines += _folded("unchecked: ", record["reason"])
        lines += _seen(record["evidence"])
    for problem in record["problems"]:
        lines += _folded("cause: ", f"{problem['cause']} {problem['title']} ({problem['subject']})")
        lines += _seen(problem["evidence"])
        lines += _folded("so:    ", problem["impact"])
        lines += _folded("do:    ", problem["remedy"])
    return "\n".join(lines)


def _seen(evidence: list[dict[str, str]]) -> list[str]:
    lines = []
    for item in evidence[:4]:
        text = "\n".join(item["text"].splitlines()[:6])
        lines += _folded("seen:  ", f"{item['source']}\n{text}" if text else item["source"])
    return lines


def _folded(label: str, text: str) -> list[str]:
    indent = " " * (len(label) + 2)
    lines: list[str] = []
    for paragraph in text.splitlines() or [""]:
        lines += textwrap.wrap(
            paragraph, WIDTH, initial_indent=indent, subsequent_indent=indent,
            break_long_words=False, break_on_hyphens=False, replace_whitespace=False,
        ) or [indent]  # fmt: skip
    lines[0] = f"  {label}{lines[0].lstrip()}"
    return lines
