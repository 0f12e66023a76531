"""YAML (and JSON, its subset) as a tree that knows its lines.

Built from libyaml's events, not by PyYAML's composer: input of strangers may nest a thousand levels deep or multiply
itself by aliases, and neither may end in a traceback or in a hang. Scalars follow YAML 1.2: a PCI address stays text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from labproof.lint.templates import has_template

_DEPTH = 60  # no manifest is deeper; plans of Terraform stay below 40
_NODES = 400_000
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+]?[0-9]+)?")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class NotYaml(ValueError):
    """The text is not YAML. `line` counts from 1."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


@dataclass
class Node:
    """A value with its place. `kind` is map, list or scalar; `open` means that a template may add to it."""

    kind: str
    line: int
    end: int
    scalar: str = ""
    style: str = ""
    quoted: bool = False
    pairs: list[tuple[Node, Node]] = field(default_factory=list)
    members: list[Node] = field(default_factory=list)
    open: bool = False

    def get(self, *path: str | int) -> Node | None:
        """The node at a path of keys and indices; None when there is none."""
        here: Node | None = self
        for step in path:
            here = here.step(step) if here is not None else None
        return here

    def step(self, step: str | int) -> Node | None:
        """One level of `get`. The last of two equal keys wins; merged keys (`<<`) come last."""
        if isinstance(step, int):
            return self.members[step] if self.kind == "list" and step < len(self.members) else None
        if self.kind != "map":
            return None
        for key, below in reversed(self.pairs):
            if key.scalar == step:
                return below
        for key, below in self.pairs:
            if key.scalar == "<<":
                for merged in below.members if below.kind == "list" else [below]:
                    found = merged.step(step)
                    if found is not None:
                        return found
        return None

    def key_line(self, step: str) -> int:
        """Line of a key, or this node's own line."""
        return next((key.line for key, _ in reversed(self.pairs) if key.scalar == step), self.line)

    def at(self, *path: str | int) -> int:
        """Line of the deepest key of a path that exists."""
        here, line = self, self.line
        for step in path:
            below = here.step(step)
            if below is None:
                break
            line = here.key_line(step) if isinstance(step, str) else below.line
            here = below
        return line

    def items(self) -> Iterator[tuple[str, Node, int]]:
        """Key, value and line of the key, for a map; nothing for anything else."""
        for key, below in self.pairs:
            if key.kind == "scalar":
                yield key.scalar, below, key.line

    @property
    def text(self) -> str | None:
        """The scalar as text; None for no scalar, null, or an unrendered template."""
        return None if self.kind != "scalar" or self.null or self.templated else self.scalar

    @property
    def null(self) -> bool:
        """Whether this is YAML's null."""
        return self.kind == "scalar" and not self.quoted and self.scalar in ("", "~", "null", "Null", "NULL")

    @property
    def templated(self) -> bool:
        """Whether this scalar, or a key or value below, is an unrendered template."""
        return self.kind == "scalar" and has_template(self.scalar)

    @property
    def plain(self) -> Any:
        """The value as Python has it; templates stay text."""
        if self.kind == "map":
            return {key.scalar: below.plain for key, below in self.pairs}
        if self.kind == "list":
            return [below.plain for below in self.members]
        if self.quoted:
            return self.scalar
        if self.null:
            return None
        if self.scalar in ("true", "True", "TRUE", "false", "False", "FALSE"):
            return self.scalar.lower() == "true"
        if _INT.fullmatch(self.scalar) and len(self.scalar) < 20:
            return int(self.scalar)
        return float(self.scalar) if _FLOAT.fullmatch(self.scalar) else self.scalar

    @property
    def size(self) -> int:
        """How many values lie below."""
        return len(self.pairs) + len(self.members)

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for _, below in self.pairs:
            yield from below.walk()
        for below in self.members:
            yield from below.walk()


def documents(text: str, first_line: int = 1, open_lines: frozenset[int] = frozenset()) -> list[Node]:
    """All documents of a stream; empty ones are left out.

    Args:
        text: the stream.
        first_line: the line of the file on which `text` begins.
        open_lines: lines (of the file) on which a template's control words were taken out.

    Raises:
        NotYaml: not YAML, nested too deeply, or larger than any manifest once aliases are expanded.
    """
    try:
        found = list(_build(text, first_line))
    except yaml.MarkedYAMLError as broken:
        mark = broken.problem_mark or broken.context_mark
        reason = " ".join(x for x in (broken.context, broken.problem) if x)
        raise NotYaml(reason or "not YAML", first_line + (mark.line if mark else 0)) from None
    except (yaml.YAMLError, UnicodeError, ValueError) as broken:
        if isinstance(broken, NotYaml):
            raise
        raise NotYaml(" ".join(str(broken).split())[:120], first_line) from None
    for document in found:
        if open_lines:
            _mark_open(document, open_lines)
    return [document for document in found if document.size or not document.null]


def embedded(scalar: Node) -> list[Node]:
    """Documents inside a text value (a ConfigMap's key, a patch), with the lines of the file around it.

    Raises:
        NotYaml: as `documents`.
    """
    first = scalar.line + 1 if scalar.style in ("|", ">") else scalar.line
    return documents(scalar.scalar, first)


def _mark_open(node: Node, lines: frozenset[int]) -> None:
    for below in node.walk():
        if below.kind != "scalar":
            below.open = any(below.line <= line <= below.end for line in lines)


def _build(text: str, first_line: int) -> Iterator[Node]:
    stack: list[Node] = []
    anchors: dict[str, Node] = {}
    sizes: dict[int, int] = {}
    depths: dict[int, int] = {}
    pending: list[Node | None] = []  # the key that waits for its value, one per open collection
    count = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.DocumentStartEvent):
            anchors = {}
            continue
        if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            done = stack.pop()
            pending.pop()
            done.end = max(done.line, first_line + event.end_mark.line - (1 if event.end_mark.column == 0 else 0))
            sizes[id(done)] = 1 + sum(sizes.get(id(k), 1) + sizes.get(id(v), 1) for k, v in done.pairs)
            sizes[id(done)] += sum(sizes.get(id(member), 1) for member in done.members)
            inside = [v for _, v in done.pairs] + done.members
            depths[id(done)] = 1 + max((depths.get(id(below), 0) for below in inside), default=0)
            if sizes[id(done)] > _NODES or depths[id(done)] > _DEPTH:
                raise NotYaml("nested deeper or larger than any manifest, once its aliases are expanded", done.line)
            if not stack:
                yield done
            continue
        node: Node
        if isinstance(event, yaml.AliasEvent):
            known = anchors.get(event.anchor)
            line = first_line + event.start_mark.line
            if known is None or known in stack:
                raise NotYaml(f"alias *{event.anchor} names nothing that stands before it", line)
            node = known
        elif isinstance(event, yaml.ScalarEvent):
            style = event.style or ""
            line = first_line + event.start_mark.line
            node = Node("scalar", line, first_line + event.end_mark.line, event.value, style, style in ("'", '"'))
            node.quoted = node.quoted or style in ("|", ">")
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            line = first_line + event.start_mark.line
            node = Node("map" if isinstance(event, yaml.MappingStartEvent) else "list", line, line)
        else:
            continue
        count += 1
        if len(stack) > _DEPTH or count > _NODES:
            raise NotYaml("nested deeper or larger than any manifest", first_line + event.start_mark.line)
        anchor = getattr(event, "anchor", None)
        if anchor and not isinstance(event, yaml.AliasEvent):
            anchors[anchor] = node
        if stack:
            _attach(stack[-1], pending, node)
        if node.kind != "scalar" and not isinstance(event, yaml.AliasEvent):
            stack.append(node)
            pending.append(None)
        elif not stack:
            yield node


def _attach(into: Node, pending: list[Node | None], node: Node) -> None:
    if into.kind == "list":
        into.members.append(node)
        return
    key = pending[-1]
    if key is None:
        pending[-1] = node
    else:
        into.pairs.append((key, node))
        pending[-1] = None
