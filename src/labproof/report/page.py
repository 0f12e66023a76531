"""index.html: one self-contained file, no script, nothing from outside."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from labproof import places
from labproof.report.tree import ORDER, WORDS

COLOUR = {0: "pass", 1: "fail", 6: "unchecked", 7: "unchecked"}


def page(result: dict[str, Any]) -> str:
    """HTML of one run."""
    verdicts = result["verdicts"]
    by_layer: dict[str, list[dict[str, Any]]] = {}
    for verdict in verdicts:
        by_layer.setdefault(verdict["layer"], []).append(verdict)

    def of(chain: str, layer: str) -> Counter[str]:
        return Counter(v["verdict"] for v in by_layer.get(layer, ()) if chain in v["chains"])

    def worst(chain: str, layer: str) -> str:
        counted = of(chain, layer)
        return next((v for v in ORDER if counted[v]), "blocked")

    def tally(chain: str, layer: str) -> str:
        counted = of(chain, layer)
        return ", ".join(f"{counted[v]} {v}" for v in ORDER if counted[v]) or "not selected"

    broken = [
        next(v for v in verdicts if v["clause"] == first["clause"] and first["chain"] in v["chains"])
        for first in result["first_broken"]
    ]
    total = Counter(v["verdict"] for v in verdicts)
    return _template().render(
        run=result,
        word=WORDS.get(result["exit_status"], f"exit status {result['exit_status']}").lower(),
        colour=COLOUR.get(result["exit_status"], "blocked"),
        counts=", ".join(f"{total[v]} {v}" for v in reversed(ORDER) if total[v]),
        first=broken,
        by_layer=by_layer,
        worst=worst,
        tally=tally,
    )


@cache
def _template() -> Template:
    loader = FileSystemLoader(places.folder("reports") / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("page.html.j2")
