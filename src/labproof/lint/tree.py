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


class TooLarge(NotYaml):
    """It may be YAML, but no manifest looks like that, and reading it would not end."""


@dataclass(eq=False)
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
    builder = _Builder(first_line)
    for event in yaml.parse(text, Loader=_LOADER):
        done = builder.take(event)
        if done is not None:
            yield done


class _Builder:
    """Puts events together. Sizes and depths are counted with aliases expanded, as every reader of the tree sees it."""

    def __init__(self, first_line: int) -> None:
        self.first_line = first_line
        self.stack: list[Node] = []
        self.pending: list[Node | None] = []  # the key that waits for its value, one per open collection
        self.anchors: dict[str, Node] = {}
        self.sizes: dict[int, tuple[int, int]] = {}
        self.count = 0

    def take(self, event: yaml.Event) -> Node | None:
        """One event; returns a document's root when that is complete."""
        if isinstance(event, yaml.DocumentStartEvent):
            self.anchors = {}
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            return self._close(event)
        elif isinstance(event, yaml.AliasEvent):
            known = self.anchors.get(event.anchor or "")
            if known is None or any(known is above for above in self.stack):
                raise NotYaml(f"alias *{event.anchor} names nothing that stands before it", self._line(event))
            self._attach(known, event)
            return None if self.stack else known
        elif isinstance(event, yaml.ScalarEvent):
            style = event.style or ""
            end = self.first_line + (event.end_mark.line if event.end_mark else 0)
            quoted = style in ("'", '"', "|", ">")
            node = Node("scalar", self._line(event), end, event.value, style, quoted)
            self._attach(node, event)
            return None if self.stack else node
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            line = self._line(event)
            node = Node("map" if isinstance(event, yaml.MappingStartEvent) else "list", line, line)
            self._attach(node, event)
            self.stack.append(node)
            self.pending.append(None)
        return None

    def _line(self, event: yaml.Event) -> int:
        return self.first_line + (event.start_mark.line if event.start_mark else 0)

    def _close(self, event: yaml.Event) -> Node | None:
        done = self.stack.pop()
        self.pending.pop()
        if event.end_mark:
            done.end = max(done.line, self.first_line + event.end_mark.line - (event.end_mark.column == 0))
        inside = [node for pair in done.pairs for node in pair] + done.members
        below = [self.sizes.get(id(node), (1, 0)) for node in inside]
        size, depth = 1 + sum(n for n, _ in below), 1 + max((n for _, n in below), default=0)
        self.sizes[id(done)] = (size, depth)
        if size > _NODES or depth > _DEPTH:
            raise TooLarge("nested deeper or larger than any manifest, once its aliases are expanded", done.line)
        return None if self.stack else done

    def _attach(self, node: Node, event: yaml.Event) -> None:
        self.count += 1
        if len(self.stack) > _DEPTH or self.count > _NODES:
            raise TooLarge("nested deeper or larger than any manifest", self._line(event))
        anchor = getattr(event, "anchor", None)
        if anchor:
            self.anchors[anchor] = node
        if not self.stack:
            return
        into, key = self.stack[-1], self.pending[-1]
        if into.kind == "list":
            into.members.append(node)
        elif key is None:
            self.pending[-1] = node
        else:
            into.pairs.append((key, node))
            self.pending[-1] = None
