"""What a page says around its blocks: counts, labels, extensions, commands (facts kubernetes-gpu V5-V13, talos 0)."""

from __future__ import annotations

import re

from labproof.lint.extensions import list_behind, unavailable
from labproof.lint.scope import Scope
from labproof.lint.sources import Source

_COUNT = re.compile(r"nvidia\.com/gpu:\s*(\d+)")
_LISTED = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s.*?`?siderolabs/([a-z0-9-]*[a-z0-9])(?![\w*{<-])")


def judge_page(source: Source, scope: Scope) -> None:
    """Rules over the text of a page; its blocks are judged by themselves."""
    lines = source.text.split("\n")
    replicas = _replicas(lines)
    for at, line in enumerate(lines):
        number = at + 1
        near = " ".join(lines[max(0, at - 3) : at + 1]).lower()
        counts = [int(count[:9]) for count in _COUNT.findall(line)]
        told = re.search(r"allocatable|advertis", near) and not re.search(
            r"\b(?:pods?|limits?|requests?)\b", line.lower()
        )
        if counts and replicas and told and all(count % replicas[0] for count in counts):
            text = f"says {counts[0]}, but the sharing (line {replicas[1]}) makes {replicas[0]} of each card"
            scope.find(source, number, "K08", text)
        _labels(source, number, line, bool(replicas), scope)
        if re.search(r"kubectl\b.*\s-l\s+app=nvidia-device-plugin(?![\w-])", line):
            text = "`app=nvidia-device-plugin` selects nothing; the operator's pods: app=nvidia-device-plugin-daemonset"
            scope.find(source, number, "K97", text)
        if re.search(r"DCGM_FI_DEV_FB_\w+.*(?:\(bytes\)|\bin bytes\b)", line) and "mib" not in line.lower():
            scope.find(source, number, "K98", "DCGM_FI_DEV_FB_* counts MiB, not bytes")
    _extensions(source, lines, scope)
    _apply_config(source, lines, scope)


def _replicas(lines: list[str]) -> tuple[int, int] | None:
    for at, line in enumerate(lines):
        if re.match(r"\s*timeSlicing:", line):
            for below in range(at + 1, min(at + 10, len(lines))):
                found = re.match(r"[\s-]*replicas:\s*(\d+)\s*$", lines[below])
                if found and int(found[1]) > 1:
                    return int(found[1]), below + 1
    return None


def _labels(source: Source, number: int, line: str, shared: bool, scope: Scope) -> None:
    product = re.search(r"nvidia\.com/gpu\.product[:=]\s*\"?([A-Za-z][\w.-]+)", line)
    if product and shared and "nvidia." not in product[1] and not product[1].endswith("-SHARED"):
        scope.find(source, number, "K09", f"with time-slicing the label reads {product[1]}-SHARED")
    old = re.search(r"nvidia\.com/cuda\.(driver|runtime)\.(major|minor|rev)\b", line)
    if old and "deprecat" not in line.lower():
        text = f"{old[0]} is deprecated: nvidia.com/cuda.{old[1]}-version.{old[2].replace('rev', 'revision')}"
        scope.find(source, number, "K98", text)
    if re.search(r"GFD.*[Ll]abels.*nvidia\.com/gpu\.present", line) and not re.search(r"\bnot\b|never", line.lower()):
        scope.find(
            source,
            number,
            "K15",
            "GFD never sets nvidia.com/gpu.present; the operator does, or you in machine.nodeLabels",
        )


def _extensions(source: Source, lines: list[str], scope: Scope) -> None:
    listed = [(found[1], at + 1) for at, line in enumerate(lines) if (found := _LISTED.match(line))]
    for name, number in listed:
        why = unavailable(name, None)
        if why is not None:
            scope.find(source, number, "T05", why)
    nvidia = {name for name, _ in listed if "nvidia" in name}
    for at, line in enumerate(lines):
        found = re.search(r"installer(?:-secureboot)?/([0-9a-f]{64})", line)
        behind = list_behind(found[1]) if found else None
        if behind is not None and nvidia and not nvidia & set(behind):
            text = f"this id is that of [{', '.join(behind)}], the page lists {', '.join(sorted(nvidia))}"
            scope.find(source, at + 1, "T06", text)


def _apply_config(source: Source, lines: list[str], scope: Scope) -> None:
    """A new install image takes effect by an upgrade only (facts talos 0, T03)."""
    text = source.text
    new_image = re.search(r"(?m)^\s*image:\s*\S*installer/\S+", text)
    if new_image is None or re.search(r"talosctl\b.*\bupgrade\b", text) or "talhelper" in text:
        return
    for at, line in enumerate(lines):
        if re.match(r"\s*(?:\$ )?talosctl\s.*\bapply-config\b", line) and "--insecure" not in line:
            said = (
                "the install image above takes effect at the first install only; `talosctl upgrade --image` is missing"
            )
            scope.find(source, at + 1, "T03", said)
            return
