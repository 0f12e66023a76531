"""A forecast as text for a terminal, and as JSON."""

from __future__ import annotations

import json
import textwrap
from datetime import UTC, datetime
from typing import Any

from labproof.forecast.judge import Break, Forecast
from labproof.report.verdict import WIDTH

#: Exit statuses; 2 is argparse's own for wrong usage.
NOTHING_BREAKS, BREAKS, BAD_INPUT, NO_FACTS, CANNOT_TELL = 0, 1, 4, 5, 6
SCHEMA = 1


def exit_status(forecast: Forecast) -> int:
    """1 when something of weight breaks, 6 when nothing known does but something could not be told, else 0.

    A hygiene finding is listed and does not count, as in a run.
    """
    if any(b.severity != "hygiene" for b in forecast.breaks):
        return BREAKS
    return CANNOT_TELL if forecast.unknown else NOTHING_BREAKS


def text(forecast: Forecast) -> str:
    """The forecast for a person."""
    when = datetime.fromtimestamp(forecast.read_at, UTC).strftime("%Y-%m-%d %H:%MZ")
    lines = [f"labproof forecast: {forecast.lab}, from facts of {when}"]
    lines += [f"  {step}" for step in forecast.plan.steps]
    lines += ["", _headline(forecast)]
    for item in forecast.breaks:
        lines += ["", *_told(item)]
    if forecast.behind:
        lines += ["", "Behind these, hidden until they are mended:"]
        lines += [f"  {b.clause} on {b.target}: {', '.join(b.causes)} (behind {b.blocked_by})" for b in forecast.behind]
    if forecast.unknown:
        lines += ["", "Cannot tell:"]
        for missing in forecast.unknown:
            lines += _folded("  ", f"{missing.what}: {missing.why}")
    if forecast.already:
        lines += ["", "Fails today already, and will then:"]
        lines += [f"  {clause} on {target}: {', '.join(causes)}" for clause, target, causes in forecast.already]
    if forecast.notes:
        lines.append("")
    for note in forecast.notes:
        lines += _folded("note: ", note)
    return "\n".join(lines) + "\n"


def _headline(forecast: Forecast) -> str:
    count = sum(1 for b in forecast.breaks if b.severity != "hygiene")
    known = f"{count} will break" if count else "Nothing known breaks"
    if forecast.unknown:
        return f"{known}; not everything could be told."
    return f"{known}."


def _told(item: Break) -> list[str]:
    lines = [f"{item.severity.upper()}  {item.clause} on {item.target}: {item.record['title']}"]
    for problem in item.record["problems"]:
        lines += _folded("  cause:  ", f"{problem['cause']} {problem['title']} ({problem['subject']})")
        for seen in problem["evidence"][:4]:
            lines += _folded("  seen:   ", f"{seen['source']}: {seen['text']}" if seen["text"] else seen["source"])
        lines += _folded("  so:     ", problem["impact"])
        for number, line in enumerate(problem["remedy"].splitlines()):
            lines += _folded("  do:     " if number == 0 else "          ", line)
        gate = next((g for g in item.gates if g.cause == problem["cause"]), None)
        lines += _folded("  source: ", f"{gate.source}; {gate.sure}" if gate else f"{problem['source']}; read")
    return lines


def _folded(label: str, words: str) -> list[str]:
    indent = " " * len(label)
    return textwrap.wrap(
        words, WIDTH, initial_indent=label, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [label.rstrip()]  # fmt: skip


def as_json(forecast: Forecast) -> str:
    """The forecast for a machine, schema 1."""
    body: dict[str, Any] = {
        "schema": SCHEMA,
        "lab": forecast.lab,
        "facts_read": datetime.fromtimestamp(forecast.read_at, UTC).isoformat(timespec="seconds"),
        "steps": [
            {"component": s.component, "subject": s.subject, "before": s.before, "after": s.after, "stays": s.stays}
            for s in forecast.plan.steps
        ],
        "breaks": [_break(b) for b in forecast.breaks],
        "behind": [_break(b) for b in forecast.behind],
        "cannot_tell": [{"what": m.what, "why": m.why} for m in forecast.unknown],
        "already": [{"clause": c, "target": t, "causes": list(causes)} for c, t, causes in forecast.already],
        "notes": list(forecast.notes),
        "exit_status": exit_status(forecast),
    }
    return json.dumps(body, indent=1) + "\n"


def _break(item: Break) -> dict[str, Any]:
    gate_of = {g.cause: g for g in item.gates}
    problems = []
    for problem in item.record["problems"]:
        gate = gate_of.get(problem["cause"])
        told = {"sure": gate.sure, "source": gate.source} if gate else {"sure": "read", "source": problem["source"]}
        problems.append({**problem, **told})
    return {
        "clause": item.clause,
        "title": item.record["title"],
        "severity": item.severity,
        "layer": item.record["layer"],
        "target": item.target,
        "chains": item.record["chains"],
        "blocked_by": item.blocked_by or None,
        "problems": problems,
    }
