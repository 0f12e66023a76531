"""summary.md: the run in plain Markdown, for git wikis, MkDocs, BookStack and Wiki.js.

No raw HTML: wikis strip or escape it. Headings say the same from run to run, so that links to their anchors last;
what changes stands below them.
"""

from __future__ import annotations

import re
from typing import Any

from labproof.report.charts import label, number
from labproof.report.compare_text import lines as compared
from labproof.report.page import accepted, grouped
from labproof.report.past import earlier_values
from labproof.report.wording import LAYERS, SIGNS, duration, ending, first_failures, on_chain, spoken, tally, worst

#: Longest text of a table cell, in characters.
CELL = 300


def summary(
    result: dict[str, Any], past: list[dict[str, Any]] | None = None, comparison: dict[str, Any] | None = None
) -> str:
    """Markdown of one run, to lie beside index.html, badge.svg and sparkline.svg."""
    word, colour, meaning = ending(result)
    lines = [
        f"# GPU proof of {plain(result['lab'])}",
        "",
        "[![status](badge.svg)](index.html) ![earlier runs](sparkline.svg)",
    ]
    if result["simulated"]:
        lines += ["", "**SIMULATED LAB**: this says nothing about any real machine."]
    lines += [
        "",
        f"**{SIGNS[colour]} {word}**: {meaning} {tally(result['verdicts']) or 'No clause was judged'}.",
        "",
        f"{result['started'][:16].replace('T', ' ')} UTC, {duration(result['seconds'])},"
        f" labproof {plain(result['labproof'])}, [whole page](index.html)",
        "",
    ]
    if result.get("cut_off"):
        lines += [f"**The run was cut off**: {plain(result['cut_off'])}", ""]
    lines += _stack(result) + _broken(result) + _changed(result, comparison) + _holders(result)
    lines += _measurements(result, past or [])
    for layer, heading in LAYERS.items():
        verdicts = [v for v in result["verdicts"] if v["layer"] == layer]
        if verdicts:
            lines += [f"## {heading}", "", "| Verdict | Clause | On | What |", "| --- | --- | --- | --- |"]
            lines += [_row(v) for v in verdicts]
            lines.append("")
    return "\n".join(lines + _unchecked(result) + _exceptions(result)).rstrip() + "\n"


def _changed(result: dict[str, Any], comparison: dict[str, Any] | None) -> list[str]:
    """Drift from the baseline and the comparison with another run; nothing where neither is there."""
    told = [
        f"- ✗ drift from baseline {plain(d['run_id'])}: {plain(d['text'])}. {plain(d.get('meaning', ''), 1000)}"
        f" {plain(d.get('remedy', ''), 1000)}".rstrip()
        for d in result.get("drift", ())
    ]
    if comparison:
        told += [f"- {plain(text.strip(), 2000)}" for text, _ in compared(comparison)]
    if comparison:
        told.append("- [the whole comparison](compare.md)")
    return ["## What changed", "", *told, ""] if told else []


def _stack(result: dict[str, Any]) -> list[str]:
    lines = ["## Stack", ""]
    for chain, content in result["chains"].items():
        lines += [
            f"**{plain(chain)}** {plain(content.get('card', ''))} {plain(content['gpu'])}",
            "",
            "| Layer | Name | Versions | Verdict |",
            "| --- | --- | --- | --- |",
        ]
        for layer in content["layers"]:
            verdicts = on_chain(result, chain, layer["layer"])
            state = worst(verdicts)
            told = f"{SIGNS[state]} {tally(verdicts)}" if state else "not selected"
            versions = plain(" · ".join(spoken(layer["versions"])))
            lines.append(
                f"| {LAYERS.get(layer['layer'], layer['layer'])} | {plain(layer['name'])} | {versions} | {told} |"
            )
        lines.append("")
    return lines


def _broken(result: dict[str, Any]) -> list[str]:
    failures = first_failures(result)
    lines = ["## First broken layer", ""]
    if not failures:
        return [*lines, "None.", ""]
    for v in failures:
        lines += [f"**{LAYERS[v['layer']]}**: `{v['clause']}` {plain(v['title'])}, on {plain(v['target'])}", ""]
        lines += [plain(v["statement"], 4000), ""] if v["statement"] else []
        for p in v["problems"]:
            lines += [f"{p['cause']} {plain(p['title'])} ({plain(p['subject'])}). {plain(p['impact'], 4000)}", ""]
            for e in p["evidence"][:4]:
                lines += ["Seen:", "", *fence(f"{e['source']}\n{e['text']}"), ""]
            lines += ["Fix:", "", *fence(p["remedy"]), "", f"Source: {plain(p['source'])}", ""]
    return lines


def _holders(result: dict[str, Any]) -> list[str]:
    if not result.get("holders"):
        return []
    lines = ["## Who holds what", "", "| Node | Resource | Slots | Pod | Since |", "| --- | --- | --- | --- | --- |"]
    for h in result["holders"]:
        for row in h["holders"]:
            since = row["since"][:16].replace("T", " ")
            pod = f"{plain(row['app'])} ({plain(row['pod'])})"
            lines.append(f"| {plain(h['node'])} | {plain(h['resource'])} | {row['slots']} | {pod} | {since} |")
        if h["allocatable"] is not None and h["pods_read"]:
            free = max(0, h["allocatable"] - sum(row["slots"] for row in h["holders"]))
            lines.append(f"| {plain(h['node'])} | {plain(h['resource'])} | {free} | free of {h['allocatable']} | |")
    return [*lines, ""]


def _measurements(result: dict[str, Any], past: list[dict[str, Any]]) -> list[str]:
    if not result["measurements"]:
        return []
    lines = ["## Measurements", "", "| What | Now | Before | GPU |", "| --- | --- | --- | --- |"]
    for m in result["measurements"]:
        before = ", ".join(number(v) for v in earlier_values(past, m["chain"], m["name"])[-5:])
        now = f"{number(m['value'])} {plain(m['unit'])}".strip()
        lines.append(f"| {plain(label(m['name']))} | {now} | {before or '-'} | {plain(m['chain'])} |")
    return [*lines, ""]


def _unchecked(result: dict[str, Any]) -> list[str]:
    lines = ["## Not checked", ""]
    for kind in ("unchecked", "blocked"):
        for reason, alike in grouped(v for v in result["verdicts"] if v["verdict"] == kind).items():
            names = ", ".join(sorted({f"`{v['clause']}`" for v in alike}))
            lines.append(f"- {kind}: {plain(reason)}: {names}")
    if result["missing"]:
        lines.append("- expected, but not run: " + ", ".join(sorted({f"`{m['clause']}`" for m in result["missing"]})))
    if result["deselected"]:
        lines.append(f"- left out by choice or not declared: {len(result['deselected'])}")
    return [*lines, ""] if len(lines) > 2 else [*lines, "Nothing was left out.", ""]


def _exceptions(result: dict[str, Any]) -> list[str]:
    rows = accepted(result)
    if not rows:
        return []
    lines = ["## Accepted exceptions", "", "| Clause | Reason | Until | Excuses now |", "| --- | --- | --- | --- |"]
    for x in rows:
        until = (x["until"] or "no date") + (" (expired)" if x["expired"] else "")
        excuses = plain(", ".join(v["target"] for v in x["excuses"])) or "nothing"
        lines.append(f"| `{x['clause']}` | {plain(x['reason'])} | {until} | {excuses} |")
    return [*lines, ""]


def _row(verdict: dict[str, Any]) -> str:
    told = verdict["title"]
    if verdict["verdict"] in ("fail", "excepted"):
        told = "; ".join(f"{p['cause']} {p['title']} ({p['subject']})" for p in verdict["problems"])
    elif verdict["reason"]:
        told = f"{verdict['title']}: {verdict['reason']}"
    sign = SIGNS[verdict["verdict"]]
    return f"| {sign} {verdict['verdict']} | `{verdict['clause']}` | {plain(verdict['target'])} | {plain(told)} |"


def fence(text: str) -> list[str]:
    """A code block that its own text cannot end."""
    text = text if len(text) <= 4000 else f"{text[:4000]} …"
    ticks = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`+", text))])
    return [f"{ticks}text", *text.splitlines(), ticks]


def plain(text: str, longest: int = CELL) -> str:
    """Text as itself: nothing in it is markup, a table cell or a link; cut after `longest` characters."""
    said = " ".join(str(text).split())
    said = said if len(said) <= longest else f"{said[:longest]} …"
    said = said.replace("&", "&amp;").replace("<", "&lt;").replace("://", "&#58;//")
    return re.sub(r"([\\|`*_\[\]#])", r"\\\1", said)
