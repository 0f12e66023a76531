"""index.html: one self-contained file, no script, nothing from outside."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from labproof import places
from labproof.report import wording
from labproof.report.charts import charts
from labproof.report.compare_text import lines
from labproof.report.stack import stack_svg

#: What the evidence of all passes, and of everything else, may weigh together in bytes, so that a page of 500 clauses
#: stays below 1.5 MB however talkative a host is. run.json holds every text whole.
PASSES_WEIGH, OTHERS_WEIGH = 350_000, 450_000
_LONGEST = {"pass": 1500, "other": 8000}


def page(
    result: dict[str, Any], past: list[dict[str, Any]] | None = None, comparison: dict[str, Any] | None = None
) -> str:
    """HTML of one run.

    Args:
        result: content of run.json.
        past: earlier runs of the same lab, oldest first (lines of history.jsonl).
        comparison: content of compare.json, where the run was compared with another.
    """
    result = {
        "holders": [],
        "exceptions": [],
        "cut_off": None,
        "drift": [],
        **result,
    }  # a run.json of before these were recorded
    verdicts = result["verdicts"]
    first = wording.first_failures(result)
    shown = {(v["clause"], v["target"]) for v in first}
    by_layer = {
        layer: [v for v in verdicts if v["layer"] == layer]
        for layer in wording.LAYERS
        if any(v["layer"] == layer for v in verdicts)
    }
    word, colour, meaning = wording.ending(result)
    return _template().render(
        run=result,
        word=word,
        colour=colour,
        meaning=meaning,
        counts=wording.tally(verdicts),
        started=result["started"][:16].replace("T", " "),
        lasted=wording.duration(result["seconds"]),
        stacks={chain: stack_svg(result, chain) for chain in result["chains"]},
        first=first,
        also=[v for v in verdicts if v["verdict"] == "fail" and (v["clause"], v["target"]) not in shown],
        by_layer=by_layer,
        layers=wording.LAYERS,
        signs=wording.SIGNS,
        tally=wording.tally,
        worst=wording.worst,
        worst_first=lambda some: sorted(some, key=lambda v: wording.ORDER.index(v["verdict"])),
        anchors=anchors(verdicts),
        charts=charts(result, past or []),
        unchecked=grouped(v for v in verdicts if v["verdict"] == "unchecked"),
        blocked=grouped(v for v in verdicts if v["verdict"] == "blocked"),
        deselected=_by_reason(result["deselected"]),
        accepted=accepted(result),
        timings=_timings(by_layer),
        compared=lines(comparison) if comparison else [],
        culprits=[c["sentence"] for c in comparison["culprits"]] if comparison else [],
        cut=_cutter(verdicts),
    )


def anchors(verdicts: Iterable[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """Anchor of each verdict: the clause's id, with the target behind it where an earlier target has that."""
    found: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    for v in verdicts:
        name = (
            v["clause"] if v["clause"] not in taken else f"{v['clause']}-{re.sub(r'[^A-Za-z0-9.]+', '-', v['target'])}"
        )
        taken.add(name)
        found[v["clause"], v["target"]] = name
    return found


def grouped(verdicts: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Verdicts by the end of their reason, for a page that does not say the same thing twenty times.

    `nvidia-smi: all 4 slots are held` and `probe pod: all 4 slots are held` are one reason.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for v in verdicts:
        whole = v["reason"] or "no reason was given"
        what, colon, why = whole.partition(": ")
        found.setdefault(why if colon and len(what) < 60 and len(why) > 20 else whole, []).append(v)
    return found


def accepted(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Exceptions of lab.yaml with what they excuse now; an exception that excuses nothing is listed too."""
    rows = []
    for exception in result.get("exceptions", ()):
        excuses = [
            v
            for v in result["verdicts"]
            if v["verdict"] == "excepted"
            and v["clause"] == exception["clause"]
            and str(v["exception"]).startswith(exception["reason"])
        ]
        until = exception.get("until")
        rows.append({**exception, "excuses": excuses, "expired": bool(until) and until < result["started"][:10]})
    return rows


def steps(remedy: str) -> Markup:
    """A remedy with what is to be copied set apart: commands in backquotes, and indented blocks with their first line.

    A click on such a piece selects the whole of it, so it can be copied without a script.
    """
    parts: list[Markup] = []
    lines = remedy.splitlines()
    at = 0
    while at < len(lines):
        end = at + 1 if _begins_block(lines, at) else at
        while end < len(lines) and lines[end].startswith("  "):
            end += 1
        if end > at:
            block = "\n".join(lines[at:end])
            parts.append(Markup('<pre class="do">{}</pre>').format(textwrap.dedent(block)))
            at = end
            continue
        said = re.split(r"`([^`]+)`", lines[at])
        words = [Markup('<code class="do">{}</code>').format(w) if i % 2 else escape(w) for i, w in enumerate(said)]
        parts.append(Markup("<p>{}</p>").format(Markup("").join(words)))
        at += 1
    return Markup("\n").join(parts)


def _begins_block(lines: list[str], at: int) -> bool:
    """A line such as `machine:` right above an indented one belongs to the block."""
    following = lines[at + 1] if at + 1 < len(lines) else ""
    return bool(re.fullmatch(r"[\w.-]+:", lines[at])) and following.startswith("  ")


def _by_reason(deselected: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for d in deselected:
        found.setdefault(d["reason"], []).append(d)
    return found


def _timings(by_layer: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    rows = [
        {"layer": layer, "clauses": len(verdicts), "seconds": sum(v["seconds"] for v in verdicts)}
        for layer, verdicts in by_layer.items()
    ]
    longest = max((r["seconds"] for r in rows), default=0.0) or 1.0
    slow = sorted((v for vs in by_layer.values() for v in vs), key=lambda v: -v["seconds"])
    return {
        "rows": [{**r, "share": round(100 * r["seconds"] / longest)} for r in rows],
        "slow": [v for v in slow[:5] if v["seconds"] >= 0.05],
    }


def _cutter(verdicts: Iterable[dict[str, Any]]) -> Callable[[str, str], str]:
    """A function that cuts a text of evidence to its share of what the page may weigh."""
    weight = {"pass": PASSES_WEIGH, "other": OTHERS_WEIGH}
    texts: dict[str, list[int]] = {"pass": [], "other": []}
    for v in verdicts:
        kind = "pass" if v["verdict"] == "pass" else "other"
        for e in [*v["evidence"], *(e for p in v["problems"] for e in p["evidence"])]:
            texts[kind] += [len(escape(e["text"]).encode()), len(escape(e["source"]).encode())]
    allowed = {kind: _share(sorted(texts[kind]), weight[kind], _LONGEST[kind]) for kind in texts}

    def cut(text: str, verdict: str) -> str:
        most = allowed["pass" if verdict == "pass" else "other"]
        weighs = len(escape(text).encode())
        if weighs <= most:
            return text
        keep = max(40, most * len(text) // weighs)  # hostile text grows when escaped: `"` becomes five bytes
        return f"{text[:keep]} … ({len(text) - keep} more characters in run.json)"

    return cut


def _share(sizes: list[int], budget: int, longest: int) -> int:
    """The largest limit under which all texts together stay within the budget; short ones leave room to long ones."""
    left = budget
    for number, size in enumerate(sizes):
        fair = left // (len(sizes) - number)
        if size > fair:
            return max(80, min(longest, fair))
        left -= size
    return longest


@cache
def _template() -> Template:
    loader = FileSystemLoader(places.folder("reports") / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["steps"] = steps
    return environment.get_template("page.html.j2")
