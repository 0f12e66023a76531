"""Measurements as small SVG charts: earlier runs and this one, or the samples of this run where it is the first."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from labproof.report.past import earlier_values

WIDE, HIGH = 120, 28
_EDGE = 4
#: What a measurement is about, by the beginning of its name, in the order of the page.
SUBJECTS = {
    "h264": "H.264 encode",
    "hevc": "HEVC encode",
    "av1": "AV1 encode",
    "decode": "Decode",
    "transcode": "Whole transcode",
    "app": "As the app does it",
    "at_once": "All at once",
    "software": "In software, for comparison",
    "gpu": "The card",
}
_WORDS = {
    "cpu": "CPU", "fps": "frames", "util": "busy", "vram": "card memory", "psnr": "PSNR", "ssim": "SSIM",
    "encoder": "encoder", "decoder": "decoder", "memory": "card memory",
}  # fmt: skip


def charts(result: dict[str, Any], past: list[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """By chain and subject, a row for each measurement: label, number, unit, how it moved, and the drawing."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for m in sorted(result["measurements"], key=lambda m: _rank(m["name"])):
        earlier = earlier_values(past, m["chain"], m["name"])
        subject, rest = split(m["name"])
        found.setdefault(m["chain"], {}).setdefault(subject, []).append(
            {
                "label": rest,
                "value": number(m["value"]),
                "unit": m["unit"],
                "moved": _moved(earlier, m["value"]),
                "drawing": _drawing(earlier, m),
            }
        )
    return found


def _rank(name: str) -> int:
    known = list(SUBJECTS)
    return next((i for i, subject in enumerate(known) if name.startswith(f"{subject}_")), len(known))


def split(name: str) -> tuple[str, str]:
    """`h264_cpu_per_frame` as (`H.264 encode`, `CPU per frame`)."""
    prefix = next((p for p in SUBJECTS if name.startswith(f"{p}_")), "")
    rest = name.removeprefix(f"{prefix}_").split("_")
    text = " ".join(_WORDS.get(word, word) for word in rest)
    return SUBJECTS.get(prefix, "Further"), text[:1].upper() + text[1:]


def label(name: str) -> str:
    """`h264_cpu_per_frame` as `H.264 encode: CPU per frame`."""
    return ": ".join(split(name))


def number(value: float) -> str:
    """At most four significant digits, no needless zeros."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _moved(earlier: list[float], value: float) -> str:
    if not earlier:
        return ""
    ranked = sorted(earlier)
    middle = len(ranked) // 2
    median = ranked[middle] if len(ranked) % 2 else (ranked[middle - 1] + ranked[middle]) / 2
    runs = f"{len(earlier)} earlier run{'s' if len(earlier) > 1 else ''}"
    share = (value - median) / abs(median) * 100 if median else 0.0
    moved = f"{share:+.0f} %" if abs(share) >= 0.5 else "as ever"
    return f"{moved}; median of {runs} {number(median)}"


def _drawing(earlier: list[float], measured: dict[str, Any]) -> Markup:
    """A line over the runs with this one as the dot; bars of this run's samples where there is no history."""
    if earlier:
        return _line([*earlier, measured["value"]], label(measured["name"]))
    samples = [float(x) for x in measured["samples"]]
    top = 100.0 if measured["unit"] == "%" else 0.0  # a share is drawn on the scale of the whole
    return _bars(samples, top, label(measured["name"])) if len(samples) > 1 else Markup("")


def _line(values: list[float], name: str) -> Markup:
    low, high = min(values), max(values)
    reach = (high - low) or 1.0
    step = (WIDE - 2 * _EDGE) / (len(values) - 1)
    points = [
        (
            round(_EDGE + i * step, 1),
            round(HIGH / 2 if high == low else HIGH - _EDGE - (v - low) / reach * (HIGH - 2 * _EDGE), 1),
        )
        for i, v in enumerate(values)
    ]
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-label="{label}"><polyline points="{points}"/>'
        '<circle cx="{x}" cy="{y}" r="3"/></svg>'
    ).format(
        w=WIDE, h=HIGH, points=" ".join(f"{x},{y}" for x, y in points), x=points[-1][0], y=points[-1][1],
        label=f"{name} over {len(values)} runs: from {number(low)} to {number(high)}, now {number(values[-1])}",
    )  # fmt: skip


def _bars(values: list[float], top: float, name: str) -> Markup:
    values = values[:40]
    high = max(*values, top) or 1.0
    step = (WIDE - 2 * _EDGE) / len(values)
    bars = Markup("").join(
        Markup('<rect x="{}" y="{}" width="{}" height="{}"/>').format(
            round(_EDGE + i * step, 1), round(HIGH - max(1.0, v / high * (HIGH - 4)), 1),
            round(max(1.0, min(step - 2, 14)), 1), round(max(1.0, v / high * (HIGH - 4)), 1),
        )
        for i, v in enumerate(values)
    )  # fmt: skip
    shown = ", ".join(number(v) for v in values)
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDE, HIGH, f"{name}, samples of this run: {shown}", bars
    )
