"""Field managers: who owns which field of an object, as `metadata.managedFields` says it, and what conflicts.

Format FieldsV1, rules and conflict texts: Kubernetes' server-side apply (apimachinery util/managedfields): `f:` a
field, `k:` the item of a keyed list, `v:` none here; lists without a key are one field.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from typing import Any

from labproof.simlab.kube.kinds import Obj

Path = tuple[str, ...]
APPLY, UPDATE = "Apply", "Update"
# Keys of lists that are merged item by item; every other list is atomic (taints and tolerations are).
_LIST_KEYS = {
    "containers": ("name",), "initContainers": ("name",), "volumes": ("name",), "env": ("name",),
    "volumeMounts": ("mountPath",), "ports": ("containerPort", "protocol"), "ownerReferences": ("uid",),
    "imagePullSecrets": ("name",),
}  # fmt: skip
_DEFAULTS = {"protocol": "TCP"}
_SERVER_SET = (
    ("f:apiVersion",), ("f:kind",), ("f:status",),
    *(("f:metadata", f"f:{name}") for name in (
        "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink",
        "deletionTimestamp", "deletionGracePeriodSeconds",
    )),
)  # fmt: skip


def leaves(value: Any, at: Path = ()) -> dict[Path, Any]:
    """Owned fields of an object with their values; what the server sets is left out."""
    if at in _SERVER_SET:
        return {}
    if isinstance(value, dict) and (value or not at):
        found: dict[Path, Any] = {}
        for key, inner in value.items():
            found |= leaves(inner, (*at, f"f:{key}"))
        return found
    keys = _LIST_KEYS.get(at[-1].removeprefix("f:"), ()) if at else ()
    if isinstance(value, list) and value and keys and all(isinstance(i, dict) and keys[0] in i for i in value):
        found = {}
        for item in value:
            found |= leaves(item, (*at, item_key(item, keys)))
        return found
    return {at: value}


def item_key(item: Obj, keys: Iterable[str]) -> str:
    """The path element of an item of a keyed list."""
    return "k:" + json.dumps({k: item.get(k, _DEFAULTS.get(k)) for k in sorted(keys)}, separators=(",", ":"))


def fields_of(paths: Iterable[Path]) -> Obj:
    """FieldsV1 of these paths."""
    tree: Obj = {}
    for path in sorted(paths):
        place = tree
        for part in path:
            place = place.setdefault(part, {})
    return tree


def paths_of(fields: Obj, at: Path = ()) -> set[Path]:
    """The leaf paths of FieldsV1."""
    below = {part: inner for part, inner in fields.items() if part != "."}
    if not below:
        return {at} if at else set()
    return {path for part, inner in below.items() for path in paths_of(inner, (*at, part))}


def shown(path: Path) -> str:
    """A path as messages spell it: `.spec.template.spec.containers[name="x"].image`."""
    text = ""
    for part in path:
        kind, _, rest = part.partition(":")
        if kind == "k":
            text += "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in json.loads(rest).items()) + "]"
        else:
            text += f".{rest}"
    return text


def entry(manager: str, operation: str, api_version: str, stamp: str, paths: Iterable[Path]) -> Obj:
    """One entry of managedFields."""
    return {
        "manager": manager, "operation": operation, "apiVersion": api_version, "time": stamp,
        "fieldsType": "FieldsV1", "fieldsV1": fields_of(paths),
    }  # fmt: skip


def entries(obj: Obj) -> list[Obj]:
    """managedFields of an object."""
    return list(obj["metadata"].get("managedFields") or [])


def created(obj: Obj, manager: str, operation: str, stamp: str) -> Obj:
    """A new object with its maker as the only owner."""
    own = {**obj, "metadata": {**obj["metadata"]}}
    own["metadata"]["managedFields"] = [entry(manager, operation, obj["apiVersion"], stamp, leaves(obj))]
    return own


def updated(before: Obj, after: Obj, manager: str, stamp: str) -> Obj:
    """An object after an update: what changed belongs to who changed it, and to nobody else."""
    old, new = leaves(before), leaves(after)
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    rows, mine = [], set(changed)
    for row in entries(before):
        paths = paths_of(row["fieldsV1"])
        if (row["manager"], row["operation"]) == (manager, UPDATE):
            mine |= paths & new.keys()
            continue
        left = {path for path in paths & new.keys() if path not in changed}
        if left:
            rows.append({**row, "fieldsV1": fields_of(left)})
    if mine:
        rows.append(entry(manager, UPDATE, after["apiVersion"], stamp, mine))
    return _with(after, rows)


def conflicts(before: Obj, applied: Obj, manager: str) -> list[tuple[Obj, Path]]:
    """Fields that somebody else owns with another value: (whose entry, path)."""
    have, want = leaves(before), leaves(applied)
    return [
        (row, path)
        for row in entries(before)
        if (row["manager"], row["operation"]) != (manager, APPLY)
        for path in sorted(paths_of(row["fieldsV1"]))
        if path in want and have.get(path) != want[path]
    ]


def conflict_text(found: list[tuple[Obj, Path]]) -> str:
    """The message of a 409 (apimachinery, conflict.go)."""
    if len(found) == 1:
        row, path = found[0]
        return f"Apply failed with 1 conflict: conflict with {_who(row)}: {shown(path)}"
    lines = []
    for who in sorted({_who(row) for row, _ in found}):
        lines.append(f"conflicts with {who}:")
        lines += [f"- {shown(path)}" for row, path in found if _who(row) == who]
    return f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)


def causes(found: list[tuple[Obj, Path]]) -> list[Obj]:
    """The causes of a 409."""
    return [
        {"reason": "FieldManagerConflict", "message": f"conflict with {_who(row)}", "field": shown(path)}
        for row, path in found
    ]


def _who(row: Obj) -> str:
    named = json.dumps(row["manager"])
    if row["operation"] != UPDATE:
        return named
    return f"{named} using {row['apiVersion']}" + (f" at {row['time']}" if row.get("time") else "")


def applied(before: Obj, merged: Obj, configuration: Obj, manager: str, stamp: str) -> Obj:
    """An object after an apply: fields the manager no longer applies and nobody else owns are gone."""
    want, have = leaves(configuration), leaves(before)
    rows: list[Obj] = []
    dropped: set[Path] = set()
    was: Obj | None = None
    for row in entries(before):
        paths = paths_of(row["fieldsV1"])
        if (row["manager"], row["operation"]) == (manager, APPLY):
            dropped, was = paths - want.keys(), row
            continue
        left = {path for path in paths if path not in want or have.get(path) == want[path]}
        if left:
            rows.append({**row, "fieldsV1": fields_of(left)})
    dropped -= {path for row in rows for path in paths_of(row["fieldsV1"])}
    result = without(merged, dropped)
    if want:
        fields = fields_of(want)
        same = was is not None and was["fieldsV1"] == fields and leaves(result) == have
        rows.append(was if same and was is not None else entry(manager, APPLY, result["apiVersion"], stamp, want))
    return _with(result, rows)


def _with(obj: Obj, rows: list[Obj]) -> Obj:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata | ({"managedFields": rows} if rows else {})}


def without(obj: Obj, paths: Iterable[Path]) -> Obj:
    """The object without these fields, and without the maps and items that become empty by that."""
    result: Obj = copy.deepcopy(obj)
    for path in paths:
        trail: list[tuple[Any, Any]] = []
        place: Any = result
        for part in path:
            key = _step(place, part)
            if key is None:
                break
            trail.append((place, key))
            place = place[key]
        else:
            for number, (parent, key) in enumerate(reversed(trail)):
                inner = parent[key]
                if number and (inner or not isinstance(inner, (dict, list))):
                    break
                del parent[key]
    return result


def _step(place: Any, part: str) -> Any:
    kind, _, rest = part.partition(":")
    if kind == "k":
        wanted = json.loads(rest)
        if not isinstance(place, list):
            return None
        return next(
            (n for n, i in enumerate(place) if all(i.get(k, _DEFAULTS.get(k)) == v for k, v in wanted.items())), None
        )
    return rest if isinstance(place, dict) and rest in place else None
