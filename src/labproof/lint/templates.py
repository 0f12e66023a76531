"""Unrendered templates: what they look like, and how much of a file can still be judged around them.

A value that a template fills in is unknown, never wrong (facts wild 1, rank 11). A line that holds only a control
word of Terraform's templates is taken out, and whatever encloses it may hold more than one sees. Files with control
blocks of Jinja or Go templates are not judged at all: both branches of an `if` stand in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_INLINE = re.compile(r"\{\{|\{%|\$\{|%\{|<[A-Z][A-Z0-9_ -]*>|<(?:your|new|my|schematic)[ _-][a-z0-9_ -]*>|\bENC\[")
_CONTROL = re.compile(r"^\s*(?:%\{.*\}|\{\{-?\s*/\*.*\*/\s*-?\}\}|\{#.*#\})\s*$")
_BLOCK = re.compile(
    r"\{%-?\s*\w+|\{\{-?\s*(?:if|else|end|range|with|define|block|include|template|toYaml|tpl|nindent)\b|\{\{-?\s*\$\w+\s*:?="
)
_VALUE = re.compile(r"\{\{[^{}]*\}\}")
_ELLIPSIS = re.compile(r"^\s*(?:#\s*)?(?:\.\.\.|…)\s*$")
SUFFIXES = (".j2", ".jinja", ".jinja2", ".tmpl", ".tpl", ".tftpl", ".gotmpl", ".erb", ".cue", ".jsonnet")


@dataclass(frozen=True)
class Prepared:
    """A text with its control lines blanked. `whole` is False for a file that cannot be judged at all."""

    text: str
    open_lines: frozenset[int]
    first_template: int | None
    whole: bool = True


def has_template(text: str) -> bool:
    """Whether a value still waits for somebody to fill it in."""
    return _INLINE.search(text) is not None


def prepare(text: str, first_line: int = 1, excerpt: bool = False) -> Prepared:
    """Make a text readable around its templates.

    Args:
        text: a file or a fenced block.
        first_line: the line of the file on which it begins.
        excerpt: a block of a page, where `...` stands for what was left out.
    """
    lines = text.split("\n")
    taken: set[int] = set()
    first: int | None = None
    for at, line in enumerate(lines):
        bare = line.lstrip()
        if bare.startswith("#") and not _ELLIPSIS.match(line):
            continue
        if first is None and _INLINE.search(line) and "ENC[" not in line:
            first = first_line + at
        if _BLOCK.search(line) and not bare.startswith(("- |", "expr:")):
            return Prepared(text, frozenset(), first_line + at, whole=False)
        # `---` and `...` at the margin are YAML's own document marks
        if _CONTROL.match(line) or (excerpt and _ELLIPSIS.match(line)):
            lines[at] = ""
            taken.add(first_line + at)
        elif "{{" in line:
            lines[at] = _VALUE.sub("<RENDERED>", line)  # unquoted it would read as a flow mapping
    return Prepared("\n".join(lines), frozenset(taken), first)
