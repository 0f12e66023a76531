"""YAML as its owner typed it: values without YAML 1.1's surprises, and the place of every key.

PyYAML reads an unquoted `0000:01:00.0` as the number 60.0, `10:20` as 620 and the class `0300` as 192
(facts/ecosystem 0.3, tried). The resolver here knows neither base 60 nor octal nor yes/no words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Mark:
    """Line and column, both counted from 1."""

    line: int
    column: int


class _PlainLoader(yaml.SafeLoader):
    """A SafeLoader whose scalars are strings unless they are plainly a number, true, false or null."""


_PlainLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|false|False)$", "tTfF"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789"),
    ("tag:yaml.org,2002:float", r"^-?(?:0|[1-9][0-9]*)\.[0-9]+$", "-0123456789"),
    ("tag:yaml.org,2002:merge", r"^<<$", "<"),
):
    _PlainLoader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def read(text: str, name: str) -> tuple[Any, dict[Path, Mark]]:
    """Parse one YAML document.

    Returns:
        The value, and for each path in it the mark of its key (for list items: of the item).

    Raises:
        yaml.MarkedYAMLError: not YAML; its problem_mark says where. Also for a key that is there twice.
    """
    loader = _PlainLoader(text)
    loader.name = name
    try:
        node = loader.get_single_node()
        marks: dict[Path, Mark] = {}
        if node is None:
            return None, marks
        _walk(node, (), marks)
        return loader.construct_document(node), marks
    finally:
        loader.dispose()


def _walk(node: yaml.Node, path: Path, marks: dict[Path, Mark]) -> None:
    marks.setdefault(path, _mark(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, below in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"{name!r} is there twice", problem_mark=key.start_mark)
            seen.add(name)
            marks[(*path, name)] = _mark(key)
            _walk(below, (*path, name), marks)
    elif isinstance(node, yaml.SequenceNode):
        for index, below in enumerate(node.value):
            _walk(below, (*path, index), marks)


def _mark(node: yaml.Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)
