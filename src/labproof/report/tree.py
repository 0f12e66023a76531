"""The end of the terminal output: the stack as a tree, the first broken layer, where the report is."""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labproof.report.verdict import explain
from labproof.report.wording import spoken, told_of

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

SIGNS = {"pass": "✓", "fail": "✗", "blocked": "·", "unchecked": "?", "excepted": "~"}
PLAIN = {"✓": "ok", "✗": "FAIL", "·": "-", "?": "?", "~": "~", "├─": "|-", "└─": "`-"}
ORDER = ("fail", "unchecked", "blocked", "excepted", "pass")
COLOURS = {"fail": "red", "unchecked": "yellow", "blocked": "yellow", "excepted": "cyan", "pass": "green"}
_AFTER = "not asked any more after: "  # how a reading says that its peer was given up before
WORDS = {0: "green", 1: "RED", 2: "interrupted", 5: "nothing ran", 6: "INCOMPLETE", 7: "BUSY"}

#: Characters of versions behind a layer's line; run.json and the page have all of them.
SHOWN = 64
#: Further failures are told in full up to this many; beyond that a line each, the page has the rest.
TOLD_IN_FULL = 8


def write_tree(terminal: TerminalReporter, result: dict[str, Any], folder: Path | None) -> None:
    """Write the closing section of a run."""
    plain = not _can_draw(terminal)
    simulated = "SIMULATED " if result["simulated"] else ""
    terminal.section(f"{simulated}lab {result['lab']}", sep="=", bold=True)
    for chain, content in result["chains"].items():
        terminal.write_line(f"{chain}  {content['gpu']}")
        for line, colour in _layer_lines(result, chain, content["layers"]):
            text = line
            for sign, word in PLAIN.items() if plain else ():
                text = text.replace(sign, word)
            terminal.write_line(text, **({colour: True} if colour else {}))
    _write_findings(terminal, result)
    word = WORDS.get(result["exit_status"], f"exit status {result['exit_status']}")
    terminal.write_line(f"{word}: {_counts(result)}; {result['seconds']:.1f} s", bold=True)
    if folder is not None:
        terminal.write_line(f"report: {folder.parent.parent / 'latest' / 'index.html'}  (run {folder.name})")


def layer_line(terminal: TerminalReporter, layer: str, counted: Counter[str], seconds: float) -> tuple[str, str]:
    """A layer that has settled, and its colour.

    Args:
        counted: verdicts of the layer.
        seconds: since its first clause began.
    """
    worst = next(v for v in ORDER if counted[v])
    sign = SIGNS[worst] if _can_draw(terminal) else PLAIN[SIGNS[worst]]
    counts = ", ".join(f"{counted[v]} {v}" for v in ORDER if counted[v])
    return f"  {layer:<11}{sign} {counts:<28} {seconds:6.1f} s".rstrip(), COLOURS[worst]


def one_line(result: dict[str, Any], folder: Path | None) -> str:
    """A whole run in one line, for `-q`: how it ended, what is broken first, counts, where the page is."""
    simulated = "SIMULATED " if result["simulated"] else ""
    told = [
        f"{simulated}{result['lab']}: {WORDS.get(result['exit_status'], 'exit status ' + str(result['exit_status']))}"
    ]
    for first in result["first_broken"][:1]:
        verdict = next(
            v for v in result["verdicts"] if v["clause"] == first["clause"] and first["chain"] in v["chains"]
        )
        told.append(f"{verdict['layer']} {first['clause']}: {first['cause']} {verdict['problems'][0]['title']}")
    if result["drift"]:
        told.append(f"drift from baseline: {result['drift'][0]['text']}")
    told.append(_counts(result) + f"; {result['seconds']:.1f} s")
    return "; ".join(told) + (f"; {folder.parent.parent / 'latest' / 'index.html'}" if folder is not None else "")


def _counts(result: dict[str, Any]) -> str:
    counted = Counter(v["verdict"] for v in result["verdicts"])
    counts = ", ".join(f"{counted[v]} {v}" for v in reversed(ORDER) if counted[v])
    missing = f", {len(result['missing'])} expected but not run" if result["missing"] else ""
    return (counts or "no clause was judged") + missing


def _layer_lines(result: dict[str, Any], chain: str, layers: list[dict[str, Any]]) -> list[tuple[str, str]]:
    lines = []
    for number, layer in enumerate(layers):
        verdicts = [v for v in result["verdicts"] if v["layer"] == layer["layer"] and chain in v["chains"]]
        branch = "└─" if number == len(layers) - 1 else "├─"
        name = f" {branch} {layer['layer']:<11}{layer['name']:<18}"
        if not verdicts:
            lines.append((f"{name}   not selected", ""))
            continue
        counted = Counter(v["verdict"] for v in verdicts)
        worst = next(v for v in ORDER if counted[v])
        text = told_of(verdicts, next((b for b in result["first_broken"] if b["chain"] == chain), None))
        shown = textwrap.shorten(" · ".join(spoken(layer["versions"])), SHOWN, placeholder=" ...")
        lines.append((f"{name} {SIGNS[worst]} {text}{'   ' + shown if shown else ''}", COLOURS[worst]))
    return lines


def _write_findings(terminal: TerminalReporter, result: dict[str, Any]) -> None:
    broken = {(b["clause"], b["chain"]) for b in result["first_broken"]}
    for first in result["first_broken"]:
        verdict = next(
            v for v in result["verdicts"] if v["clause"] == first["clause"] and first["chain"] in v["chains"]
        )
        terminal.write_line("")
        terminal.write_line(f"first broken layer: {verdict['layer']} ({first['cause']})", red=True, bold=True)
        terminal.write_line(explain(verdict))
    rest = [
        v
        for v in result["verdicts"]
        if v["verdict"] in ("fail", "unchecked") and not any((v["clause"], c) in broken for c in v["chains"])
    ]
    failed = [v for v in rest if v["verdict"] == "fail"]
    if len(failed) <= TOLD_IN_FULL:
        for verdict in failed:
            terminal.write_line("")
            terminal.write_line(f"{verdict['severity']} finding:", bold=True)
            terminal.write_line(explain(verdict))
        rest = [v for v in rest if v["verdict"] == "unchecked"]
    if rest:
        terminal.write_line("")
        terminal.write_line("also:", bold=True)
        for line in _grouped(rest):
            terminal.write_line(line)
    terminal.write_line("")


def _grouped(verdicts: list[dict[str, Any]]) -> list[str]:
    """A line per failure, and one for all clauses unchecked for one reason, whatever each wanted to read."""
    by_reason: dict[str, list[dict[str, Any]]] = {}
    lines = []
    for verdict in verdicts:
        if verdict["verdict"] == "fail":
            lines.append(f"  fail      {verdict['clause']:<18} {_why(verdict)}")
        else:
            by_reason.setdefault(_core(verdict), []).append(verdict)
    for core, alike in by_reason.items():
        first = alike[0]["clause"]
        name = first if len(alike) == 1 else f"{first} and {len(alike) - 1} more"
        wanted = dict.fromkeys(v["reason"].removesuffix(core).removesuffix(_AFTER).rstrip(": ") for v in alike)
        about = ", ".join(w for w in list(wanted)[:3] if w) + (" ..." if len(wanted) > 3 else "")
        lines.append(f"  unchecked {name:<18} {about}: {core}" if about else f"  unchecked {name:<18} {core}")
    return lines


def _core(verdict: dict[str, Any]) -> str:
    """What went wrong, without what was to be read: `status of the VM: no answer within 30 s` -> `no answer ...`."""
    reason = str(verdict["reason"])
    why = str(verdict["evidence"][-1]["text"]).removeprefix(_AFTER) if verdict["evidence"] else ""
    return why if why and reason.endswith(why) else reason


def _why(verdict: dict[str, Any]) -> str:
    told = "; ".join(f"{p['cause']} {p['title']} ({p['subject']})" for p in verdict["problems"])
    return f"[{verdict['severity']}] {told}"


def _can_draw(terminal: TerminalReporter) -> bool:
    encoding = getattr(terminal._tw._file, "encoding", None) or "ascii"  # no public way to ask
    try:
        "✓├─".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
