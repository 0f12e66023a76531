"""Read lab.yaml: all its errors at once, each with line, column and what was expected."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from labproof.inventory import references
from labproof.inventory.models import Lab
from labproof.inventory.yaml_marks import Mark, read

#: Keys that hold a path; relative ones are taken from lab.yaml's folder.
PATH_KEYS = {
    "ssh": ("key", "known_hosts"),
    "pve": ("ca",),
    "talos": ("talosconfig", "admin_talosconfig"),
    "factory": ("ca",),
    "clusters": ("kubeconfig",),
}
SECRET_KEYS = frozenset({"password", "token_secret", "api_key"})
_ENV = re.compile(r"^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$")

Where = tuple[str | int, ...]


class LabError(Exception):
    """lab.yaml cannot be used; `str()` is every error, a line each."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        super().__init__("\n".join(lines))


def load_lab(path: Path, overlay: Mapping[str, Any] | None = None, read_secrets: bool = True) -> Lab:
    """The lab a file declares.

    Args:
        path: lab.yaml.
        overlay: values laid over the file's (the simulated lab's endpoints); lists of named things merge by name.
        read_secrets: False leaves secrets unread, for runs that contact nothing (`--collect-only`, the simulated
            lab before it has started).

    Raises:
        LabError: the file cannot be read, is no YAML, or does not declare a lab.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as unreadable:
        reason = getattr(unreadable, "strerror", None) or "it is not UTF-8 text"
        raise LabError([f"{path}: cannot be read: {reason}"]) from None
    try:
        content, marks = read(text, str(path))
    except yaml.YAMLError as broken:
        raise LabError([_yaml_line(path, broken)]) from None
    if not isinstance(content, dict):
        raise LabError([f"{path}:1:1: a lab file is a mapping that begins with `lab: NAME`, this is {_kind(content)}"])
    problems: list[tuple[Where, str]] = []
    content = _resolved(merge_by_name(content, overlay or {}), (), path.parent, problems)
    if not read_secrets:
        problems.clear()
    try:
        lab = Lab.model_validate(content)
    except ValidationError as invalid:
        problems += [(tuple(e["loc"]), _say(e, content)) for e in invalid.errors(include_url=False)]
        raise LabError(_located(path, marks, problems)) from None
    problems += references.problems_of(lab)
    if problems:
        raise LabError(_located(path, marks, problems))
    return lab


def merge_by_name(base: Any, patch: Any) -> Any:
    """Lay `patch` over `base`: mappings merge, a list of named things takes a mapping by name, all else is replaced."""
    if isinstance(base, list) and isinstance(patch, Mapping):
        return [
            merge_by_name(item, patch.get(item.get("name"), {})) if isinstance(item, dict) else item for item in base
        ]
    if isinstance(base, dict) and isinstance(patch, Mapping):
        return {**base, **{key: merge_by_name(base.get(key), below) for key, below in patch.items()}}
    return patch


def _resolved(item: Any, where: Where, folder: Path, problems: list[tuple[Where, str]]) -> Any:
    """The value with `${ENV}` and `file:` secrets read and relative paths made absolute."""
    if isinstance(item, dict):
        return {key: _resolved(below, (*where, key), folder, problems) for key, below in item.items()}
    if isinstance(item, list):
        return [_resolved(below, (*where, index), folder, problems) for index, below in enumerate(item)]
    if not isinstance(item, str) or not where:
        return item
    if where[-1] in SECRET_KEYS:
        return _secret(item, where, folder, problems)
    variable = _ENV.match(item)
    if variable:
        item = os.environ.get(variable[1], "")
        if not item:
            problems.append((where, f"${{{variable[1]}}} is not set in the environment"))
    if item and where[-1] in PATH_KEYS.get(_section(where), ()):
        return str((folder / Path(item).expanduser()).resolve())
    return item


def _section(where: Where) -> str:
    """What the key belongs to: `ssh`, or `clusters` for a key of one of them. A taint has a `key` too."""
    return next((part for part in reversed(where[:-1]) if isinstance(part, str)), "")


def _secret(item: str, where: Where, folder: Path, problems: list[tuple[Where, str]]) -> str:
    variable = _ENV.match(item)
    if variable:
        found = os.environ.get(variable[1], "")
        if not found:
            problems.append((where, f"${{{variable[1]}}} is not set in the environment; export it before the run"))
        return found
    if item.startswith("file:"):
        try:
            return (folder / Path(item[5:]).expanduser()).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as unreadable:
            reason = getattr(unreadable, "strerror", None) or "it is not text"
            problems.append((where, f"the file of this secret cannot be read: {reason}"))
            return ""
    problems.append((where, "a secret is never written into lab.yaml: use ${NAME} or file:PATH"))
    return ""


# ------------------------------------------------------------------ saying what is wrong


def _located(path: Path, marks: dict[Where, Mark], problems: list[tuple[Where, str]]) -> list[str]:
    lines = []
    for where, text in problems:
        known = where
        while known not in marks and known:
            known = known[:-1]
        mark = marks.get(known, Mark(1, 1))
        lines.append((mark.line, mark.column, f"{path}:{mark.line}:{mark.column}: {_dotted(where)}: {text}"))
    return [line for _, _, line in sorted(lines)]


def _dotted(where: Where) -> str:
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text or "lab"


def _say(error: Any, content: Any) -> str:
    kind, where, given = error["type"], tuple(error["loc"]), error.get("input")
    if kind == "extra_forbidden":
        names = _fields_at(where[:-1])
        near = difflib.get_close_matches(str(where[-1]), names, 1)
        return f"unknown key, {_did_you_mean(near)}expected one of: {', '.join(names)}"
    if kind == "missing":
        return "is required, but not there"
    if kind == "string_pattern_mismatch":
        digits = "in lower-case hex digits"
        expected = {
            "[0-7]$": f"a PCI address such as 0000:3b:00.0, {digits}",
            "{4}$": f"vendor:device such as 10de:1eb8, {digits}",
            ".-]+$": "NAMESPACE/NAME such as media/jellyfin",
        }
        shape = next((say for end, say in expected.items() if error["ctx"]["pattern"].endswith(end)), "")
        return f"{given!r} is not {shape}"
    if kind == "literal_error":
        near = difflib.get_close_matches(str(given), re.findall(r"'([^']+)'", error["ctx"]["expected"]), 1)
        return f"{given!r} is not known, {_did_you_mean(near)}expected {error['ctx']['expected']}"
    shown = "" if isinstance(given, dict | list | SecretStr) or where[-1] in SECRET_KEYS else f" (given: {given!r})"
    return f"{error['msg'][0].lower()}{error['msg'][1:]}{shown}"


def _did_you_mean(near: list[str]) -> str:
    return f"did you mean {near[0]!r}? " if near else ""


def _fields_at(where: Where) -> list[str]:
    """Names of the fields of the model at a path."""
    model: Any = Lab
    for part in where:
        if isinstance(part, str) and isinstance(model, type) and issubclass(model, BaseModel):
            model = _model_in(model.model_fields[part].annotation)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None


def _yaml_line(path: Path, broken: yaml.YAMLError) -> str:
    mark = getattr(broken, "problem_mark", None)
    text = str(getattr(broken, "problem", None) or "not YAML")
    return f"{path}:{mark.line + 1}:{mark.column + 1}: {text}" if mark else f"{path}:1:1: {text}"


def _kind(content: Any) -> str:
    return {type(None): "an empty file", list: "a list", str: "plain text"}.get(type(content), "something else")
