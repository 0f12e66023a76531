"""A comparison as a person reads it: compare.md, and the lines behind the tree in a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from labproof.facts.atomic import write_text

#: More changes of one thing than this are told by their number and first names (labels follow each other in dozens).
_MOST_ITEMS = 4
_SIGNS = {"broken": "✗", "new, failing": "✗", "lost": "?", "mended": "✓"}


def write_comparison(folder: Path, comparison: dict[str, Any]) -> None:
    """Write compare.json and compare.md into a run's folder."""
    write_text(folder / "compare.json", json.dumps(comparison, indent=1) + "\n")
    write_text(folder / "compare.md", markdown(comparison))


def headline(comparison: dict[str, Any]) -> str:
    """The comparison in one sentence."""
    broken = [v for v in comparison["verdicts"] if v["is"] in ("broken", "new, failing")]
    lost = [v for v in comparison["verdicts"] if v["is"] == "lost" and v["after"] != "blocked"]
    blocked = [v for v in comparison["verdicts"] if v["is"] == "lost" and v["after"] == "blocked"]
    mended = [v for v in comparison["verdicts"] if v["is"] == "mended"]
    parts = [
        _count(len(comparison["versions"]), "version"),
        _count(len(comparison["facts"]), "fact"),
    ]
    text = f"{' and '.join(parts)} changed"
    if broken:
        text += f"; {_count(len(broken), 'clause')} broke"
    if blocked:
        text += f", {len(blocked)} above are blocked"
    if lost:
        text += f"; {_count(len(lost), 'clause')} can no longer be judged"
    if mended:
        text += f"; {_count(len(mended), 'clause')} mended"
    slower = [m for m in comparison["measurements"] if m["is"] == "worse"]
    if slower:
        text += f"; {_count(len(slower), 'measurement')} worse than the noise of earlier runs"
    if not broken and not lost and not mended:
        text += "; no verdict changed" if not [v for v in comparison["verdicts"] if v["before"] and v["after"]] else ""
    return text


def lines(comparison: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines for a terminal with their colour (empty: none)."""
    before = comparison["before"]
    found = [(f"compared with {before['run_id']} ({_when(before)}): {headline(comparison)}", "")]
    found += [(f"  version   {text}", "") for text in told(comparison["versions"])]
    found += [(f"  fact      {text}", "") for text in told(comparison["facts"])]
    found += [(f"  measured  {measurement_text(m)}", _colour(m["is"])) for m in comparison["measurements"]]
    for verdict in _settled(comparison["verdicts"]):
        sign = _SIGNS.get(verdict["is"], " ")
        colour = {"✗": "red", "?": "yellow", "✓": "green"}.get(sign, "")
        found.append((f"  {verdict['is']:<9} {verdict_text(verdict)}", colour))
    found += [(f"  culprit   {c['sentence']}", "red") for c in comparison["culprits"]]
    found += [(f"  unknown   {text}", "") for text in unknown_text(comparison["unknown"])]
    return found


def markdown(comparison: dict[str, Any]) -> str:
    """compare.md."""
    before, after = comparison["before"], comparison["after"]
    out = [
        f"# What changed: {after['lab']}",
        "",
        f"{after['run_id']} ({_when(after)}) compared with {before['run_id']} ({_when(before)}).",
        "",
        f"**{headline(comparison)}.**",
    ]
    out += _section("Likely culprits", (_escaped(c["sentence"]) for c in comparison["culprits"]))
    out += _section("Verdicts", (_escaped(f"{v['is']}: {verdict_text(v)}") for v in _settled(comparison["verdicts"])))
    out += _section("Versions", (_escaped(text) for text in told(comparison["versions"])))
    out += _section("Facts, lower layers first", (_escaped(text) for text in told(comparison["facts"], len)))
    out += _section("Measurements beyond their noise", (measurement_text(m) for m in comparison["measurements"]))
    if comparison["measurements_without_history"]:
        few = _count(comparison["measurements_without_history"], "measurement")
        out += ["", f"Too few earlier runs to tell noise from change: {few} (4 runs are needed)."]
    out += _section("Unknown, because one run did not read it", unknown_text(comparison["unknown"]))
    return "\n".join(out) + "\n"


def told(changes: list[dict[str, Any]], most: Any = None) -> list[str]:
    """A line per change; many changes of one thing are one line, unless `most` is given (everything is told then)."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for change in changes:
        grouped.setdefault((change["subject"], change["what"]), []).append(change)
    found = []
    for (subject, what), alike in grouped.items():
        if most is not None or len(alike) <= _MOST_ITEMS:
            found += [c["text"] for c in alike]
            continue
        names = ", ".join(c["item"] for c in alike[:_MOST_ITEMS])
        found.append(f"{subject}: {what}: {len(alike)} changed: {names}, ... (all of them in compare.md)")
    return found


def verdict_text(verdict: dict[str, Any]) -> str:
    """`HOST-IOMMU-001 on pve5: pass -> fail (P02 VT-d is off)`."""
    cause = f" ({verdict['cause']} {verdict['cause_title']})" if verdict["cause"] else ""
    reason = f" ({verdict['reason']})" if not cause and verdict["reason"] else ""
    before, after = verdict["before"] or "not run", verdict["after"] or "not run"
    return f"{verdict['clause']} on {verdict['target']}: {before} -> {after}{cause or reason}"


def measurement_text(measured: dict[str, Any]) -> str:
    """One measurement beyond its band."""
    unit = f" {measured['unit']}" if measured["unit"] else ""
    band = f"{measured['low']:g} to {measured['high']:g} of {measured['runs']} earlier runs"
    return (
        f"{measured['name']} on {measured['chain']}: {measured['value']:g}{unit}, {measured['is']} than the {band}"
        f" (median {measured['median']:g})"
    )


def unknown_text(unknown: list[dict[str, Any]]) -> list[str]:
    """What cannot be compared, a line per run, layer and reason."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for item in unknown:
        grouped.setdefault((item["run"], item["subject"], item["why"]), []).append(item["what"])
    found = []
    for (run, subject, why), what in grouped.items():
        names = ", ".join(what[:_MOST_ITEMS]) + (f" and {len(what) - _MOST_ITEMS} more" if len(what) > 4 else "")
        found.append(f"{subject + ': ' if subject else ''}{names}: not read in the run {run} ({why})")
    return found


def _settled(verdicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Verdicts worth a line: what is blocked or new and holds is told by its number elsewhere."""
    order = ("broken", "new, failing", "lost", "mended", "changed", "new", "not run")
    worth = [
        v
        for v in verdicts
        if not (v["after"] == "blocked" or (v["is"] == "new" and v["after"] == "pass") or v["is"] == "not run")
        and not (v["before"] == "blocked" and v["after"] == "pass")
    ]
    return sorted(worth, key=lambda v: order.index(v["is"]))


def _section(title: str, items: Iterable[str]) -> list[str]:
    found = [f"- {text}" for text in items]
    return ["", f"## {title}", "", *found] if found else []


def _escaped(text: str) -> str:
    """What a lab says is text, not Markdown."""
    for sign in "\\`*_<>|[]":
        text = text.replace(sign, f"\\{sign}")
    return text


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _when(head: dict[str, Any]) -> str:
    return str(head["started"])[:16].replace("T", " ")


def _colour(word: str) -> str:
    return {"worse": "red", "better": "green"}.get(word, "")
