"""Edits of a Talos machine configuration: what is wanted is put in, every other byte stays.

The text is never written anew from its values: comments and order stay, and what the journal keeps of an edit are the
few lines that changed, so no secret of the configuration gets into it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

#: Lists whose items are told apart by a key.
_KEYS = {("machine", "kernel", "modules"): "name", ("machine", "files"): "path"}


class CannotEdit(Exception):
    """The configuration has a form that an edit by lines would break."""


def patched(text: str, wanted: Mapping[str, Any]) -> str:
    """The configuration with `wanted` in its `machine` document; equal when it is there already.

    Args:
        text: all documents.
        wanted: e.g. `{"machine": {"sysctls": {...}, "kernel": {"modules": [{"name": "nvidia"}]}}}`; items of a list are
            added, or replaced where one of the same name or path is there.

    Raises:
        CannotEdit: not YAML, no `machine`, or the result would not be what was meant.
    """
    try:
        before = list(yaml.safe_load_all(text))
        after = text
        for path, value in _leaves(wanted):
            after = _put(after, path, value)
        found = list(yaml.safe_load_all(after))
    except yaml.YAMLError as wrong:
        raise CannotEdit(f"the machine configuration is not YAML ({str(wrong).splitlines()[0]})") from None
    index = _machine_document(before)
    meant = [_merged(d, wanted, ()) if n == index else d for n, d in enumerate(before)]
    if found != meant:
        raise CannotEdit("the machine configuration has a form that labproof cannot edit line by line")
    return after


def hunks(before: str, after: str) -> list[dict[str, Any]]:
    """The lines that differ: where they are in `after`, and both sides."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    found = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            found.append({"at": c, "after": new[c:d], "before": old[a:b]})
    return found


def taken_back(after: str, edits: Sequence[Mapping[str, Any]]) -> str:
    """The text before the edits."""
    lines = after.splitlines(keepends=True)
    for edit in sorted(edits, key=lambda e: -int(e["at"])):
        at = int(edit["at"])
        lines[at : at + len(edit["after"])] = edit["before"]
    return "".join(lines)


# ------------------------------------------------------------------ inside


def _machine_document(documents: Sequence[Any]) -> int:
    for number, document in enumerate(documents):
        if isinstance(document, Mapping) and isinstance(document.get("machine"), Mapping):
            return number
    raise CannotEdit("the machine configuration has no `machine`")


def _leaves(wanted: Mapping[str, Any], at: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = []
    for key, value in wanted.items():
        if isinstance(value, Mapping):
            found += _leaves(value, (*at, key))
        elif isinstance(value, list):
            found += [((*at, key), [item]) for item in value]
        else:
            found.append(((*at, key), value))
    return found


def _merged(have: Any, wanted: Any, at: tuple[str, ...]) -> Any:
    if isinstance(wanted, Mapping):
        base = have if isinstance(have, Mapping) else {}
        return {**base, **{key: _merged(base.get(key), value, (*at, key)) for key, value in wanted.items()}}
    if isinstance(wanted, list):
        key = _KEYS[at]
        rows = list(have or [])
        for item in wanted:
            index = next((n for n, row in enumerate(rows) if row.get(key) == item[key]), None)
            if index is None:
                rows.append(item)
            else:
                rows[index] = {**rows[index], **item}
        return rows
    return wanted


def _put(text: str, path: tuple[str, ...], value: Any) -> str:
    """One value at its place."""
    nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    index = _machine_document(list(yaml.safe_load_all(text)))
    node: Any = nodes[index]
    for depth, key in enumerate(path):
        entry = next(((k, v) for k, v in node.value if k.value == key), None)
        rest = _nested(path[depth + 1 :], value)
        if entry is None:
            return _append_to_mapping(text, node, {key: rest})
        child = entry[1]
        if depth == len(path) - 1:
            return (
                _put_list(text, entry[0], child, value, _KEYS[path])
                if isinstance(value, list)
                else _scalar(text, child, value)
            )
        if not isinstance(child, yaml.MappingNode) or child.flow_style or not child.value:
            inner = yaml.safe_load(text[child.start_mark.index : child.end_mark.index]) or {}
            return _replace_block(text, entry[0], child, _merged(inner, rest, path[: depth + 1]))
        node = child
    return text


def _nested(path: tuple[str, ...], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


def _dump(value: Any, column: int) -> str:
    dumped = yaml.safe_dump(value, sort_keys=False, default_flow_style=False, width=10_000)
    return "".join(f"{' ' * column}{line}".rstrip(" ") + "\n" for line in dumped.splitlines())


def _end_of(text: str, node: Any) -> int:
    """Index behind the last line of a node, comments and blank lines after it left out."""
    last = text[: node.end_mark.index].rstrip()
    while last.rpartition("\n")[2].lstrip().startswith("#"):
        last = last.rpartition("\n")[0].rstrip()
    end = text.find("\n", len(last))
    return len(text) if end < 0 else end + 1


def _insert(text: str, at: int, block: str) -> str:
    return text[:at] + ("" if text[:at].endswith("\n") or not at else "\n") + block + text[at:]


def _append_to_mapping(text: str, node: Any, value: Mapping[str, Any]) -> str:
    if node.flow_style or not node.value:
        raise CannotEdit("a part of the machine configuration is written in one line; write it as a block first")
    column = node.value[0][0].start_mark.column
    return _insert(text, _end_of(text, node), _dump(value, column))


def _replace_block(text: str, key: Any, child: Any, value: Any) -> str:
    """`key: {}` and the like, written as a block below its key."""
    column = key.start_mark.column
    at = text.rfind("\n", 0, key.start_mark.index) + 1
    return text[:at] + _dump({key.value: value}, column) + text[_line_end(text, child.end_mark.index) :]


def _line_end(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end + 1


def _put_list(text: str, key: Any, child: Any, items: list[Mapping[str, Any]], name: str) -> str:
    if not isinstance(child, yaml.SequenceNode) or child.flow_style or not child.value:
        have = yaml.safe_load(text[child.start_mark.index : child.end_mark.index]) or []
        return _replace_block(text, key, child, [*have, *items])
    item = items[0]
    column = child.start_mark.column
    for row in child.value:
        read = _value_of(text, row)
        if isinstance(read, Mapping) and read.get(name) == item[name]:
            merged = {**read, **item}
            if merged == read:
                return text
            at = text.rfind("\n", 0, row.start_mark.index) + 1
            return text[:at] + _dump([merged], column) + text[_end_of(text, row) :]
    return _insert(text, _end_of(text, child), _dump([dict(item)], column))


def _value_of(text: str, node: Any) -> Any:
    constructor = yaml.SafeLoader("")
    try:
        return constructor.construct_document(node)
    finally:
        constructor.dispose()


def _scalar(text: str, child: Any, value: Any) -> str:
    if _value_of(text, child) == value:
        return text
    if not isinstance(child, yaml.ScalarNode) or "\n" in text[child.start_mark.index : child.end_mark.index]:
        raise CannotEdit("a single value of the machine configuration is written over several lines")
    dumped = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
    gap = "" if child.start_mark.index != child.end_mark.index else " "
    return text[: child.start_mark.index] + gap + dumped + text[child.end_mark.index :]
