"""Editing kernel arguments in the boot loader's own files: tokens come and go, everything else keeps its bytes.

Source of the rules: facts proxmox 1.2 and section 6 (missing tokens only, order and quotes kept, never twice).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

DEFAULT = "GRUB_CMDLINE_LINUX_DEFAULT"
_ASSIGNMENT = re.compile(r"^(\s*(?:export\s+)?(GRUB_CMDLINE_LINUX(?:_DEFAULT)?)\+?=)(.*)$")
#: One value a shell reads as one word, and nothing that it would expand but variables.
_PLAIN = re.compile(
    r"""^(?:"(?P<double>[^"\\`]*)"|'(?P<single>[^']*)'|(?P<bare>[^\s"'\\`#;&|()<>]*))(?P<rest>\s*(?:\#.*)?)$"""
)


class CannotEdit(ValueError):
    """The file is written in a way that is not edited safely; the text says where."""


def edit_grub(text: str, add: Sequence[str], remove: Sequence[str]) -> str:
    """A GRUB defaults file with tokens added to GRUB_CMDLINE_LINUX_DEFAULT and removed from both variables.

    Args:
        text: the file; its last assignment of the variable is the one that is added to.
        add: tokens, appended in this order where they are not there yet.
        remove: tokens, taken out wherever they stand.

    Raises:
        CannotEdit: an assignment to be changed is no plain quoted or bare value.
    """
    lines = text.splitlines(keepends=True)
    found = [(i, m) for i, line in enumerate(lines) if (m := _ASSIGNMENT.match(line.rstrip("\r\n")))]
    last = next((i for i, m in reversed(found) if m[2] == DEFAULT), None)
    for index, match in found:
        wanted = add if index == last else ()
        if wanted or any(_has(match[3], token) for token in remove):
            lines[index] = _edited(index, match, wanted, remove) + _ending(lines[index])
    if add and last is None:
        if lines and not _ending(lines[-1]):
            lines[-1] += "\n"
        lines.append(f'{DEFAULT}="{" ".join(add)}"\n')
    return "".join(lines)


def edit_cmdline(text: str, add: Sequence[str], remove: Sequence[str]) -> str:
    """/etc/kernel/cmdline with tokens added at the end and removed.

    Raises:
        CannotEdit: it is not exactly one line with a `root=` (systemd-boot reads the first only, facts proxmox P05).
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) != 1 or not any(token.startswith("root=") for token in lines[0].split()):
        raise CannotEdit("it must be exactly one line that names root=: correct it by hand first")
    return _with_tokens(lines[0], add, remove).rstrip() + (_ending(text) or "\n")


def assigns_default(text: str) -> bool:
    """Whether a GRUB file sets GRUB_CMDLINE_LINUX_DEFAULT."""
    matches = (_ASSIGNMENT.match(line) for line in text.splitlines())
    return any(match is not None and match[2] == DEFAULT for match in matches)


def _edited(index: int, match: re.Match[str], add: Sequence[str], remove: Sequence[str]) -> str:
    plain = _PLAIN.match(match[3])
    if plain is None:
        raise CannotEdit(f"line {index + 1} sets {match[2]} in a way labproof does not edit; change it by hand")
    single = plain["single"]
    quote = "'" if single is not None else '"'
    value = single if single is not None else plain["double"] if plain["double"] is not None else plain["bare"]
    return f"{match[1]}{quote}{_with_tokens(value, add, remove)}{quote}{plain['rest']}"


def _with_tokens(value: str, add: Sequence[str], remove: Sequence[str]) -> str:
    for token in remove:
        value = re.sub(rf"(?:(?<=\s)|^){re.escape(token)}(?:\s+|$)", "", value)
    missing = [token for token in add if not _has(value, token)]
    if not missing:
        return value.rstrip() if remove else value
    return " ".join([*([value.rstrip()] if value.strip() else []), *missing])


def _has(value: str, token: str) -> bool:
    return token in value.strip("\"'").replace('"', " ").replace("'", " ").split()


def _ending(line: str) -> str:
    return "\r\n" if line.endswith("\r\n") else "\n" if line.endswith("\n") else ""
