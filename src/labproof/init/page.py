"""Lines of a lab.yaml, each with how labproof knows it; and YAML that no name found in a lab can break out of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from labproof.inventory.yaml_marks import read

#: What stands for a value that nobody could look at.
UNSEEN = "NOT SEEN"
_PLAIN = re.compile(r"[A-Za-z0-9_./~][A-Za-z0-9_./~@!:+-]*")
_ENV = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}$")  # as the loader matches it: `$` allows a newline behind it


@dataclass(frozen=True)
class Raw:
    """Text of our own that goes into the file as it is: `${LABPROOF_PVE_TOKEN}`."""

    text: str


@dataclass
class Block:
    """A mapping under construction: entries and notes in order."""

    rows: list[tuple[str, object, str]] = field(default_factory=list)

    def put(self, key: str, value: object, how: str = "") -> None:
        """An entry, with how it is known. None and empty lists are left out."""
        if value is not None and value not in ((), [], {}):
            self.rows.append((key, value, how))

    def note(self, text: str) -> None:
        """A comment line of its own."""
        self.rows.append(("", None, text))


@dataclass
class Blocks:
    """A list of mappings."""

    items: list[Block] = field(default_factory=list)


def rendered(block: Block, depth: int = 0) -> list[str]:
    """The block's lines of YAML, comments behind the values they speak of."""
    lines: list[str] = []
    blank = "  " * depth
    for key, value, how in block.rows:
        comment = f"  # {shown(how)}" if how else ""
        if value is None:
            lines.append(f"{blank}# {shown(how, 400)}")
        elif isinstance(value, Block):
            lines += [f"{blank}{key}:{comment}", *rendered(value, depth + 1)]
        elif isinstance(value, Blocks):
            lines.append(f"{blank}{key}:{comment}")
            for item in value.items:
                lines += _item(rendered(item, depth + 2), depth + 1)
        else:
            lines.append(f"{blank}{key}: {_flow(value)}{comment}")
    return lines


def _item(lines: Sequence[str], depth: int) -> Iterable[str]:
    """Lines of a mapping as an item of a list: the dash goes before the first that is no comment."""
    blank = "  " * depth
    dashed = False
    for line in lines:
        if not dashed and not line.lstrip().startswith("#"):
            yield f"{blank}- {line[len(blank) + 2 :]}"
            dashed = True
        else:
            yield line if dashed else f"{blank}{line.lstrip()}"


def _flow(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(str(k))}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return scalar(str(value))


def as_text(text: str) -> str:
    """What lab.yaml can say as plain text: `${NAME}` would be a variable, so its dollar becomes an underscore.

    No name found in a lab may make the reader of the file look into the environment, nor into a file.
    """
    return "_" + text[1:] if _ENV.match(text) else text


def scalar(text: str) -> str:
    """A string as YAML that is read back as that very string (as `as_text` gives it), quoted where need be."""
    text = as_text(text)
    if _PLAIN.fullmatch(text) and not text.endswith(":") and _reads_back(text):
        return text
    # PyYAML escapes what is not plain ASCII; a huge width keeps it on one line
    return str(yaml.dump(text, default_style='"', allow_unicode=False, width=10**9)).strip()


def _reads_back(text: str) -> bool:
    try:
        return bool(read(f"a: {text}", "")[0] == yaml.safe_load(f"a: {text}") == {"a": text})  # YAML 1.2 and 1.1
    except yaml.YAMLError:
        return False


def shown(text: str, limit: int = 200) -> str:
    """A text of others for a comment or a terminal: one line, nothing that steers a terminal, not endless."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 4] + " ..."
