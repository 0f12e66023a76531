"""The NVIDIA plugin's sharing configuration, in a ConfigMap or in chart values: the parser's own rules, with lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from labproof.facts.plugin_config import Flaw, parse_plugin_config
from labproof.lint.scope import Scope, Sharing
from labproof.lint.sources import Source
from labproof.lint.templates import has_template
from labproof.lint.tree import Node, NotYaml, TooLarge, embedded

_CAUSES = {
    Flaw.NOT_YAML: "K01",
    Flaw.VERSION: "K01",
    Flaw.NO_RESOURCES: "K01",
    Flaw.FEW_REPLICAS: "K02",
    Flaw.MALFORMED: "K01",
    Flaw.BOTH_SHARINGS: "K01",
    Flaw.UNKNOWN_KEY: "K98",
    Flaw.NO_EFFECT: "K98",
}


def is_plugin_config(value: Node, owner: str = "") -> bool:
    """Whether a ConfigMap's value is meant for the NVIDIA plugin.

    Args:
        value: the value.
        owner: name of the ConfigMap and the key; words of GPUs there make a doubtful value ours.
    """
    if value.kind == "scalar" and not re.search(r"\b(?:sharing|timeSlicing|migStrategy|mps)\b", value.scalar):
        return False
    ours = re.search(r"nvidia|gpu|slic|plugin", owner, re.IGNORECASE) is not None
    root = value
    if value.kind == "scalar":
        try:
            found = embedded(value)
        except TooLarge:
            return False
        except NotYaml:
            return "timeSlicing" in value.scalar or ours
        root = found[0] if found else value
    if root.get("sharing", "timeSlicing") is not None or root.get("sharing", "mps") is not None:
        return True
    if root.get("flags", "migStrategy") is not None:
        return True
    return ours and root.get("sharing") is not None


def sharing_of(path: str, value: Node) -> Iterator[Sharing]:
    """What a valid sharing configuration promises."""
    root = _root(value)
    if root is None:
        return
    for kind in ("timeSlicing", "mps"):
        block = root.get("sharing", kind)
        resources = block.get("resources") if block is not None else None
        if block is None or resources is None:
            continue
        renamed, fails = block.get("renameByDefault"), block.get("failRequestsGreaterThanOne")
        for resource in resources.members:
            name, replicas = resource.get("name"), resource.get("replicas")
            if name is None or replicas is None or not isinstance(replicas.plain, int):
                continue
            full = name.scalar if "/" in name.scalar else f"nvidia.com/{name.scalar}"
            yield Sharing(
                path,
                replicas.line,
                full,
                replicas.plain,
                renamed is not None and renamed.plain is True,
                (fails is not None and fails.plain is True) or kind == "mps",
            )


def judge_plugin_config(source: Source, value: Node, scope: Scope) -> None:
    """Every flaw of one configuration, at its key."""
    if value.kind == "scalar" and has_template(value.scalar):
        scope.skip(source, value.line, "a sharing configuration that a template fills in")
        return
    text = value.scalar if value.kind == "scalar" else _dump(value)
    root = _root(value)
    seen: set[tuple[int, str]] = set()
    try:
        if value.kind == "scalar":
            _bounded(value)
        found = parse_plugin_config(text)[1]
    except (ValueError, RecursionError):
        scope.skip(source, value.line, "a sharing configuration that cannot be read")
        return
    for flaw in found:
        line = _line(value, root, flaw.path)
        if flaw.flaw in (Flaw.UNKNOWN_KEY, Flaw.NO_EFFECT):
            text = f"`{flaw.path}`: {flaw.text}"
        elif flaw.flaw is Flaw.NOT_YAML:
            text = "this value is not YAML, so the plugin exits at start"
        else:
            text = f"the plugin exits at start: {flaw.text}"
        cause = _CAUSES[flaw.flaw]
        if (line, cause) not in seen:
            seen.add((line, cause))
            scope.find(source, line, cause, text)
    if value.kind == "scalar":
        _commented(source, value, scope)


def _commented(source: Source, value: Node, scope: Scope) -> None:
    """A key in a comment that would be ignored once somebody takes the comment sign away (facts V3)."""
    first = value.line + 1 if value.style in ("|", ">") else value.line
    for at, line in enumerate(value.scalar.split("\n")):
        found = re.match(r"\s*#\s*(resourceName)\s*:\s*\S+", line)
        if found:
            text = f"`{found[1]}` would be ignored too: only `renameByDefault: true` renames, to nvidia.com/gpu.shared"
            scope.find(source, first + at, "K98", text)


def _bounded(value: Node) -> None:
    """Raises TooLarge for what the plugin's rules should not be asked to read; text that is no YAML is theirs."""
    try:
        embedded(value)
    except TooLarge:
        raise
    except NotYaml:
        return


def _root(value: Node) -> Node | None:
    if value.kind == "map":
        return value
    if not is_plugin_config(value):
        return None
    try:
        found = embedded(value)
    except NotYaml:
        return None
    return found[0] if found and found[0].kind == "map" else None


def _line(value: Node, root: Node | None, path: str) -> int:
    if root is None:
        return value.line
    steps: list[str | int] = []
    for word in re.findall(r"[^.\[\]]+|\[\d+\]", path):
        steps.append(int(word[1:-1]) if word.startswith("[") else word)
    # an ignored key may itself hold dots, then its place is that of its parent
    return root.at(*steps) if path else value.line


def _dump(value: Node) -> str:
    return json.dumps(value.plain)
