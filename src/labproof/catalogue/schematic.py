"""Image Factory schematics offline: the id is the SHA-256 of the canonical YAML, so no factory needs to be asked.

Source: facts talos 1 (field order, four blanks of indent, list order kept; vectors of the factory's own tests).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

#: Id of `customization: {}`: no extension at all.
DEFAULT_ID = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"

# Canonical order of the fields; a nested tuple is the order below that field.
_ORDER: tuple[tuple[str, Any], ...] = (
    ("owner", None),
    ("overlay", (("image", None), ("name", None), ("options", None))),
    (
        "customization",
        (
            ("embeddedMachineConfiguration", None),
            ("extraKernelArgs", None),
            ("meta", (("key", None), ("value", None))),
            ("systemExtensions", (("officialExtensions", None),)),
            ("bootloader", None),
            ("secureboot", (("enrollKeys", None), ("includeWellKnownCertificates", None))),
            ("diskImage", (("sectorSize", None),)),
        ),
    ),
)
# Plain scalars that Go's YAML writer leaves unquoted beyond doubt; all else is declared not computable.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./=,:@+-]*")
_QUOTED_BY_GO = re.compile(r"(?i:true|false|null|yes|no|on|off|y|n)|.*:")


class NotComputable(ValueError):
    """The id of this schematic cannot be told offline: a field or a scalar is outside what is known exactly."""


def canonical(schematic: Mapping[str, Any]) -> str:
    """The bytes the factory hashes, as text.

    Args:
        schematic: a parsed schematic file, with its top-level `customization`.

    Raises:
        NotComputable: unknown field, or a scalar that needs quoting.
    """
    lines = _mapping({"customization": {}, **schematic}, _ORDER, 0)
    return "".join(f"{line}\n" for line in lines)


def schematic_id(schematic: Mapping[str, Any]) -> str:
    """Id of a parsed schematic file; raises NotComputable as `canonical`."""
    return hashlib.sha256(canonical(schematic).encode()).hexdigest()


def id_of_extensions(names: Sequence[str]) -> str:
    """Id of a schematic that lists just these extensions, in this order; names with or without `siderolabs/`.

    Raises:
        NotComputable: a name needs quoting.
    """
    full = [name if "/" in name else f"siderolabs/{name}" for name in names]
    if not full:
        return schematic_id({})
    return schematic_id({"customization": {"systemExtensions": {"officialExtensions": full}}})


def id_of_text(text: str) -> str:
    """Id of canonical YAML as a node shows it (`extraInfo` of the entry named `schematic`)."""
    return hashlib.sha256(text.encode()).hexdigest()


def _mapping(body: Mapping[str, Any], order: tuple[tuple[str, Any], ...], depth: int) -> list[str]:
    known = {key for key, _ in order}
    if set(body) - known:
        raise NotComputable(f"unknown field {sorted(set(body) - known)[0]!r}")
    lines: list[str] = []
    indent = " " * 4 * depth
    for key, below in order:
        what = body.get(key)
        if what is None or (what in ([], {}, "", 0, False) and key != "customization"):
            continue  # the factory omits empty fields, but always writes `customization`
        if isinstance(what, Mapping):
            inner = _mapping(what, below or tuple((k, None) for k in what), depth + 1)
            if inner:
                lines += [f"{indent}{key}:", *inner]
            elif key == "customization":
                lines.append(f"{indent}{key}: {{}}")
        elif isinstance(what, list):
            lines += [f"{indent}{key}:", *_items(what, below, depth + 1)]
        else:
            lines.append(f"{indent}{key}: {_scalar(what)}")
    return lines


def _items(items: Sequence[Any], below: tuple[tuple[str, Any], ...] | None, depth: int) -> list[str]:
    lines = []
    indent = " " * 4 * depth
    for item in items:
        if isinstance(item, Mapping):
            first, *rest = _mapping(item, below or tuple((k, None) for k in item), 0)
            lines += [f"{indent}- {first}", *(f"{indent}  {line}" for line in rest)]
        else:
            lines.append(f"{indent}- {_scalar(item)}")
    return lines


def _scalar(what: Any) -> str:
    if isinstance(what, bool):
        return "true" if what else "false"
    if isinstance(what, int):
        return str(what)
    text = str(what)
    if not _PLAIN.fullmatch(text) or _QUOTED_BY_GO.fullmatch(text):
        raise NotComputable(f"the scalar {text!r} may need quoting")
    return text
