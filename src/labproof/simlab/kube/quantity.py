"""Kubernetes quantities and label and field selectors."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any

from labproof.simlab.kube.kinds import Obj

_SUFFIX = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
}
_FORM = re.compile(r"^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)(n|u|m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")


def amount(quantity: Any) -> Decimal:
    """The value of a quantity (`500m`, `2Gi`, `1`).

    Raises:
        ValueError: it is not one.
    """
    match = _FORM.match(str(quantity))
    if not match:
        raise ValueError(str(quantity))
    try:
        return Decimal(match.group(1)) * _SUFFIX[match.group(2) or ""]
    except InvalidOperation as wrong:
        raise ValueError(str(quantity)) from wrong


def whole(quantity: Any) -> int:
    """The value rounded up, as Quantity.Value() does."""
    return int(amount(quantity).to_integral_value(rounding=ROUND_CEILING))


def is_extended(resource: str) -> bool:
    """Whether a resource name is an extended resource: a domain of its own that is not kubernetes.io."""
    domain, slash, _ = resource.partition("/")
    return bool(slash) and domain != "kubernetes.io" and not domain.endswith(".kubernetes.io")


# ---------------------------------------------------------------------- selectors

_REQUIREMENT = re.compile(r"^\s*(!?)\s*([A-Za-z0-9./_-]+)\s*(?:(==|=|!=|\bnotin\b|\bin\b)\s*(.*))?$")


def parse_label_selector(text: str) -> list[tuple[str, str, list[str]]]:
    """`a=b,c!=d,e in (f,g),h,!i` as (key, operator, values).

    Raises:
        ValueError: with the message of the API server's parser, roughly.
    """
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    found: list[tuple[str, str, list[str]]] = []
    for part in (p.strip() for p in parts):
        if not part:
            continue
        match = _REQUIREMENT.match(part)
        if not match:
            raise ValueError(f"unable to parse requirement: {part}")
        negated, key, operator, raw = match.groups()
        if operator is None:
            found.append((key, "DoesNotExist" if negated else "Exists", []))
        elif operator in {"in", "notin"}:
            values = [v.strip() for v in raw.strip().strip("()").split(",")]
            found.append((key, "In" if operator == "in" else "NotIn", values))
        else:
            found.append((key, "NotIn" if operator == "!=" else "In", [raw.strip()]))
    return found


def meets(labels: dict[str, str], requirements: list[tuple[str, str, list[str]]]) -> bool:
    """Whether labels meet (key, operator, values) requirements of selectors and node affinity."""
    for key, operator, values in requirements:
        have = labels.get(key)
        if operator == "In":
            ok = have is not None and have in values
        elif operator == "NotIn":
            ok = have is None or have not in values
        elif operator == "Exists":
            ok = have is not None
        elif operator == "DoesNotExist":
            ok = have is None
        else:  # Gt, Lt of node affinity
            try:
                left, right = int(have or ""), int(values[0])
            except ValueError:
                return False
            ok = left > right if operator == "Gt" else left < right
        if not ok:
            return False
    return True


def selects(selector: Obj | None, labels: dict[str, str]) -> bool:
    """Whether a LabelSelector (matchLabels, matchExpressions) selects these labels."""
    if not selector:
        return False
    rows = [(k, "In", [v]) for k, v in (selector.get("matchLabels") or {}).items()]
    rows += [(e["key"], e["operator"], e.get("values") or []) for e in selector.get("matchExpressions") or []]
    return meets(labels, rows)


def field(obj: Obj, path: str) -> str:
    """The value at a dotted path, as field selectors compare it ("" when unset)."""
    value: Any = obj
    for part in path.split("."):
        if not isinstance(value, dict):
            return ""
        value = value.get(part)
        if value is None:
            return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def fields_match(obj: Obj, selector: str) -> bool:
    """Whether an object meets a field selector (`status.phase!=Running,spec.nodeName=a`)."""
    for part in (p for p in selector.split(",") if p):
        name, operator, wanted = re.split(r"(!=|==|=)", part, maxsplit=1)
        if (field(obj, name.strip()) == wanted.strip()) == (operator == "!="):
            return False
    return True
