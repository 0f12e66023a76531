"""Write an exception into lab.yaml without touching a comment, a blank or a quote of its owner.

The text is changed where YAML's own marks say; the result is read again and must be the old lab plus the exception, or
nothing is written.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from labproof.checks.gate import expected_targets
from labproof.checks.registry import clauses
from labproof.inventory.chains import chains_of
from labproof.inventory.load import LabError, load_lab
from labproof.inventory.models import Lab
from labproof.inventory.yaml_marks import read

_KEY = "exceptions"
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 _./()+,;'-]*")
_ORDER = ("clause", "cause", "chain", "subject", "reason", "until")
_KINDS = (re.compile(r"true|false|null|yes|no|on|off|~", re.IGNORECASE),)


class Refused(Exception):
    """The exception cannot be written; `str()` says why and what would do."""


@dataclass(frozen=True)
class Wanted:
    """An exception as asked for."""

    clause: str
    reason: str
    until: date | None = None
    cause: str | None = None
    chain: str | None = None
    subject: str | None = None

    def fields(self) -> dict[str, str]:
        """What is written, in order."""
        given = {**self.__dict__, "until": self.until.isoformat() if self.until else None}
        return {key: str(given[key]) for key in _ORDER if given[key] is not None}


def accept(file: Path, wanted: Wanted, today: date) -> str:
    """Write an exception; an expired or other one of the same clause, cause, chain and subject is renewed.

    Args:
        file: lab.yaml; a link is followed.

    Returns:
        What was done, in a sentence.

    Raises:
        Refused: unknown clause, cause or chain, a date that is over, or a file that cannot be changed safely.
        LabError: lab.yaml is not valid as it is.
    """
    file = file.resolve()
    lab = load_lab(file, read_secrets=False)
    _judge(lab, wanted, today)
    text = file.read_bytes().decode("utf-8")
    before, _ = read(text, str(file))
    twin = next((i for i, e in enumerate(before.get(_KEY) or ()) if _same(e, wanted)), None)
    new = _inserted(text, wanted) if twin is None else _renewed(text, twin, wanted)
    _prove(before, new, twin, wanted, file)
    _replace(file, new)
    what = "renewed" if twin is not None else "written"
    until = f"until {wanted.until}" if wanted.until else "with no end; --until DATE would give it one"
    return f"exception for {wanted.clause} {what} in {file} ({until})"


# ------------------------------------------------------------------ is it meant


def _judge(lab: Lab, wanted: Wanted, today: date) -> None:
    known = clauses()
    if wanted.clause not in known:
        raise Refused(f"no clause {wanted.clause!r}{_near(wanted.clause, known)}")
    clause = known[wanted.clause]
    if wanted.cause is not None and wanted.cause not in clause.causes:
        causes = ", ".join(clause.causes)
        raise Refused(f"{clause.id} never names {wanted.cause!r}{_near(wanted.cause, clause.causes)}; causes: {causes}")
    names = [c.id for c in chains_of(lab)] + [t.name for t in expected_targets(lab, clause)]
    if wanted.chain is not None and wanted.chain not in names:
        raise Refused(
            f"no chain {wanted.chain!r}{_near(wanted.chain, names)}; there are: {', '.join(dict.fromkeys(names))}"
        )
    if not wanted.reason.strip():
        raise Refused("an exception needs a reason: --reason TEXT")
    if wanted.until is not None and wanted.until < today:
        raise Refused(f"--until {wanted.until} is over")


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.upper(), known, 1, 0.5) or difflib.get_close_matches(name, known, 1, 0.5)
    return f", did you mean {near[0]}?" if near else ""


def _same(entry: Any, wanted: Wanted) -> bool:
    return isinstance(entry, dict) and all(
        entry.get(key) == getattr(wanted, key) for key in ("clause", "cause", "chain", "subject")
    )


# ------------------------------------------------------------------ the text


def _inserted(text: str, wanted: Wanted) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise Refused("this file is no mapping")
    end = "\r\n" if "\r\n" in text else "\n"
    held = next((value for key, value in root.value if key.value == _KEY), None)
    flow = "{" + ", ".join(f"{k}: {_scalar(v, True)}" for k, v in wanted.fields().items()) + "}"
    if held is None:
        if root.flow_style:
            return _into_flow(text, root, f"{json.dumps(_KEY)}: [{flow}]")
        return _appended(text, root, [f"{_KEY}:", *_block(wanted, "  ")], end)
    if _is_alias(text, held):
        raise Refused(f"{_KEY} is an alias (*name) here; write the exception by hand")
    if isinstance(held, yaml.SequenceNode) and held.value and not held.flow_style:
        return _behind_last_item(text, held, wanted, end)
    if isinstance(held, yaml.SequenceNode) and held.value:
        return _into_flow(text, held, flow)
    return text[: held.start_mark.index] + f"[{flow}]" + text[held.end_mark.index :]  # `exceptions: []`


def _block(wanted: Wanted, indent: str) -> list[str]:
    pairs = [f"{key}: {_scalar(value, False)}" for key, value in wanted.fields().items()]
    return [f"{indent}- {pairs[0]}", *(f"{indent}  {pair}" for pair in pairs[1:])]


def _appended(text: str, root: yaml.MappingNode, lines: Sequence[str], end: str) -> str:
    """Behind everything, comments too; before the marker that ends a document."""
    marker = re.search(r"(?m)^\.\.\.[ \t]*\r?$", text[root.start_mark.index :])
    at = root.start_mark.index + marker.start() if marker else len(text)
    head = text[:at]
    head += "" if not head or head.endswith("\n") else end
    indent = " " * root.start_mark.column
    return head + end + end.join(f"{indent}{line}" for line in lines) + end + text[at:]


def _behind_last_item(text: str, held: yaml.SequenceNode, wanted: Wanted, end: str) -> str:
    indent = " " * held.start_mark.column
    last = _last_leaf(held)
    at = last.end_mark.index
    if isinstance(last, yaml.ScalarNode) and last.style in ("|", ">"):
        at = last.start_mark.index + len(text[last.start_mark.index : at].rstrip())
    at = _line_end(text, at)
    return text[:at] + end + end.join(_block(wanted, indent)) + text[at:]


def _last_leaf(node: yaml.Node) -> yaml.Node:
    """The last thing written of a node; a flow collection is one thing."""
    while isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return node


def _into_flow(text: str, node: yaml.CollectionNode, item: str) -> str:
    close = node.end_mark.index - 1
    last = node.value[-1][1] if isinstance(node.value[-1], tuple) else node.value[-1]
    between = re.sub(r"#[^\n]*", "", text[last.end_mark.index : close])
    at = last.end_mark.index
    if "," in between:  # a comma behind the last item is allowed
        at = text.index(",", at) + 1
        return f"{text[:at]} {item}{text[at:]}"
    return f"{text[:at]}, {item}{text[at:]}"


def _renewed(text: str, index: int, wanted: Wanted) -> str:
    """Another reason and date in the exception that is there."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise Refused("this file is no mapping")
    item = next(value for key, value in root.value if key.value == _KEY).value[index]
    line = item.start_mark.line + 1
    if not isinstance(item, yaml.MappingNode):
        raise Refused(f"line {line} is no exception")
    held = {key.value: value for key, value in item.value}
    if ("until" in held) != (wanted.until is not None):
        raise Refused(f"there is an exception like this in line {line}: change its date there, or take it away")
    edits = []
    for key in ("reason", "until") if wanted.until else ("reason",):
        node = held[key]
        if not isinstance(node, yaml.ScalarNode) or node.style in ("|", ">") or _is_alias(text, node):
            raise Refused(f"there is an exception like this in line {line}: change it there")
        edits.append((node.start_mark.index, node.end_mark.index, _scalar(wanted.fields()[key], bool(item.flow_style))))
    for start, stop, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[stop:]
    return text


def _is_alias(text: str, node: yaml.Node) -> bool:
    """A node that an alias stands for has the marks of its anchor, elsewhere: the key's line tells."""
    return text[: node.start_mark.index].rstrip(" \t").endswith(("*", "&")) or bool(
        re.search(rf"(?m)^\s*{_KEY}\s*:\s*\*", text)
    )


def _line_end(text: str, at: int) -> int:
    found = text.find("\n", at)
    if found < 0:
        return len(text)
    return found - 1 if text[found - 1 : found] == "\r" else found


def _scalar(text: str, flow: bool) -> str:
    """Plain where every YAML reader takes it for text, else in double quotes."""
    safe = _PLAIN.fullmatch(text) and not text.endswith(" ") and not any(k.fullmatch(text) for k in _KINDS)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text) or (safe and not (flow and "," in text)):
        return text
    return json.dumps(text, ensure_ascii=False)


# ------------------------------------------------------------------ is it right


def _prove(before: Any, new: str, twin: int | None, wanted: Wanted, file: Path) -> None:
    """The new text says what the old one said, and the exception.

    Raises:
        Refused: it does not; nothing has been written.
    """
    expected = [dict(e) for e in before.get(_KEY) or ()]
    if twin is None:
        expected.append(wanted.fields())
    else:
        expected[twin] |= {key: value for key, value in wanted.fields().items() if key in ("reason", "until")}
    try:
        after, _ = read(new, str(file))
    except yaml.YAMLError:
        after = None
    if after != {**before, _KEY: expected}:
        raise Refused(f"{file} is laid out in a way that this command cannot extend; write the exception by hand")


def _replace(file: Path, text: str) -> None:
    """Replace the file at once, with its rights; what labproof itself would not read is never put in place."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.write_bytes(text.encode("utf-8"))
    try:
        load_lab(part, read_secrets=False)
        part.chmod(stat.S_IMODE(file.stat().st_mode))
        part.replace(file)
    except LabError as wrong:
        raise Refused(str(wrong).replace(str(part), str(file))) from None
    finally:
        part.unlink(missing_ok=True)
