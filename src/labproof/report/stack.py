"""The stack drawn: one SVG a chain, from the PCI slot down to the apps that hold a share of the GPU.

It is inline in the page, so the page's colours reach it (light, dark, print). Verdicts are told by sign, word and
line style as well as by colour. Widths are in the units of a 400 wide drawing, which a phone shows one to one.
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from labproof.report.wording import LAYERS, SIGNS, on_chain, spoken, told_of, worst

WIDE = 400
_LEFT, _RIGHT = 4, WIDE - 4
_TEXT = 52  # where the text of a box begins
_LINE = 17
_CHARACTERS = 49  # of 12.5 px text, on the narrow side of what fits
_GAP = 16


def stack_svg(result: dict[str, Any], chain: str) -> Markup:
    """The drawing of one chain."""
    content = result["chains"][chain]
    broken = next((b for b in result["first_broken"] if b["chain"] == chain), None)
    first_layer = next((v["layer"] for v in result["verdicts"] if broken and v["clause"] == broken["clause"]), None)
    parts, y = _slot(content, chain)
    for layer in content["layers"]:
        verdicts = on_chain(result, chain, layer["layer"])
        state = worst(verdicts) or "unselected"
        y = _joint(parts, y, state)
        told = told_of(verdicts, broken)
        first = broken["cause"] if broken is not None and layer["layer"] == first_layer else None
        y = _layer(parts, y, layer, state, told, first)
    for holding in result.get("holders", ()):
        if chain in holding["chains"]:
            y = _apps(parts, y, holding)
    label = f"{chain}: " + "; ".join(
        f"{layer['layer']} {worst(on_chain(result, chain, layer['layer'])) or 'not selected'}"
        for layer in content["layers"]
    )
    return Markup(
        '<svg class="stack" viewBox="0 0 {w} {h}" role="group" aria-label="{label}">{inner}</svg>'
    ).format(w=WIDE, h=y + 4, label=label, inner=Markup("").join(parts))  # fmt: skip


def _slot(content: dict[str, Any], chain: str) -> tuple[list[Markup], int]:
    """The card in its slot: a drawing, no verdict."""
    address = content.get("address") or chain.rpartition("/")[2]
    name = content.get("card") or content["gpu"]
    drawn = Markup(
        '<g class="card"><path d="M10 12h34v26h-34z"/><circle cx="27" cy="25" r="8"/><path d="M27 17v16M19 25h16"/>'
        '<path class="gold" d="M14 41h18"/></g>'
        '<text class="name" x="{x}" y="23">{name}</text><text class="about" x="{x}" y="41">{about}</text>'
    ).format(x=_TEXT, name=_cut(name, 40), about=_cut(f"PCI slot {address} · {content['gpu']}", _CHARACTERS))
    return [drawn], 48


def _joint(parts: list[Markup], y: int, state: str) -> int:
    parts.append(
        Markup('<path class="joint {}" d="M27 {}v{}"/>').format(
            "cut" if state in ("blocked", "unselected") else "", y, _GAP
        )
    )
    return y + _GAP


def _layer(parts: list[Markup], y: int, layer: dict[str, Any], state: str, told: str, first: str | None) -> int:
    title = LAYERS.get(layer["layer"], layer["layer"])
    name = f"{title} {layer['name']}".strip() if layer["layer"] != "transcode" else title
    lines = _wrapped(spoken(layer["versions"]))
    height = 34 + _LINE * (len(lines) + 1)
    if first is not None:
        height += _LINE
    inner = [
        Markup('<rect class="box" x="{}" y="{}" width="{}" height="{}" rx="8"/>').format(
            _LEFT, y, _RIGHT - _LEFT, height
        ),
        Markup('<circle class="disc" cx="27" cy="{}" r="13"/>').format(y + 24),
        Markup('<text class="sign" x="27" y="{}">{}</text>').format(y + 30, SIGNS.get(state, "")),
        Markup('<text class="name" x="{}" y="{}">{}</text>').format(_TEXT, y + 24, _cut(name, 38)),
    ]
    below = y + 24
    for line in lines:
        below += _LINE
        inner.append(Markup('<text class="about" x="{}" y="{}">{}</text>').format(_TEXT, below, line))
    below += _LINE
    inner.append(Markup('<text class="told" x="{}" y="{}">{}</text>').format(_TEXT, below, _cut(told, _CHARACTERS)))
    if first is not None:
        below += _LINE
        inner.append(
            Markup('<text class="told" x="{}" y="{}">▲ first broken layer: {}</text>').format(_TEXT, below, first)
        )
    parts.append(
        Markup('<a href="#{}"><g class="layer {}{}">{}</g></a>').format(
            layer["layer"], state, " broken" if first is not None else "", Markup("").join(inner)
        )
    )
    return y + height


def _apps(parts: list[Markup], y: int, holding: dict[str, Any]) -> int:
    """Who sits at the end of the chain: a row for each slot holder, and what is left."""
    held = sum(h["slots"] for h in holding["holders"])
    total = holding["allocatable"]
    rows = [f"{h['app']} holds {h['slots']}" for h in holding["holders"][:6]]
    if len(holding["holders"]) > 6:
        rows.append(f"and {len(holding['holders']) - 6} more pods")
    if not holding["pods_read"]:
        rows.append("holders could not be read")
    elif total is not None:
        rows.append(f"{max(0, total - held)} of {total} {holding['resource']} free")
    for row in rows:
        parts.append(Markup('<path class="joint" d="M27 {}v20h14"/>').format(y))
        parts.append(
            Markup('<text class="about" x="{}" y="{}">{}</text>').format(_TEXT, y + 24, _cut(row, _CHARACTERS))
        )
        y += 20
    return y + 10


def _wrapped(items: list[str]) -> list[str]:
    """Versions in lines that fit, broken between them; at most four lines."""
    lines: list[str] = []
    for item in (_cut(i, _CHARACTERS) for i in items if i):
        if lines and len(lines[-1]) + 3 + len(item) <= _CHARACTERS:
            lines[-1] += f" · {item}"
        else:
            lines.append(item)
    return lines[:4]


def _cut(text: str, length: int) -> str:
    text = " ".join(str(text).split())
    return text if len(text) <= length else text[: length - 1] + "…"
