"""Two small pictures for a wiki: a badge that says how the last run ended, and a sparkline of the runs before it.

They stand alone in a Markdown page, where no style sheet reaches them, so their colours are fixed and dark enough for
white text (at least 4.5 to 1).
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup, escape

from labproof.report.wording import SIGNS, ending

COLOURS = {"pass": "#1a7f37", "fail": "#b3261e", "unchecked": "#8a5a00", "blocked": "#5c6470"}
_CHARACTER = 6.7  # pixels of one character of an 11 px sans-serif text, on the wide side


def badge(result: dict[str, Any]) -> str:
    """SVG: `labproof moody-good | ✓ green`."""
    word, colour, _ = ending(result)
    left = f"{'SIMULATED lab' if result['simulated'] else 'labproof'} {_cut(result['lab'], 30)}"
    right = f"{SIGNS[colour]} {word}"
    wide, rest = _width(left), _width(right)
    return str(
        Markup(
            "<svg xmlns='http://www.w3.org/2000/svg' width='{total}' height='20' role='img' aria-label='{label}'>"
            "<title>{label}</title><rect width='{wide}' height='20' fill='#3b4048'/>"
            "<rect x='{wide}' width='{rest}' height='20' fill='{colour}'/>"
            "<g fill='#fff' text-anchor='middle' font-family='Verdana,DejaVu Sans,sans-serif' font-size='11'>"
            "<text x='{left_x}' y='14'>{left}</text><text x='{right_x}' y='14'>{right}</text></g></svg>\n"
        ).format(
            total=wide + rest, wide=wide, rest=rest, label=f"{left}: {word}", colour=COLOURS[colour],
            left=left, right=right, left_x=wide // 2, right_x=wide + rest // 2,
        )
    )  # fmt: skip


def sparkline(result: dict[str, Any], past: list[dict[str, Any]]) -> str:
    """SVG: a bar a run, oldest first; green ones are full, the others stop half-way and have a foot."""
    runs = [*past[-29:], result]
    bars = []
    for number, run in enumerate(runs):
        word, colour, _ = ending({"exit_status": run.get("exit_status", 3)})
        top, height = (2, 18) if colour == "pass" else (10, 10)
        bars.append(
            Markup("<rect x='{}' y='{}' width='5' height='{}' fill='{}'><title>{}: {}</title></rect>").format(
                2 + number * 7, top, height, COLOURS[colour], run["started"], word
            )
        )
    green = sum(1 for run in runs if run.get("exit_status") == 0)
    label = escape(f"{green} of the last {len(runs)} runs of {_cut(result['lab'], 30)} were green")
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{4 + len(runs) * 7}' height='22' role='img'"
        f" aria-label='{label}'><title>{label}</title>{''.join(bars)}</svg>\n"
    )


def _width(text: str) -> int:
    return round(len(text) * _CHARACTER) + 12


def _cut(text: str, length: int) -> str:
    text = " ".join(str(text).split())
    return text if len(text) <= length else text[: length - 1] + "…"
