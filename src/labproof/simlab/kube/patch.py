"""The four patch types of the API: merge, strategic merge, JSON patch, and server-side apply."""

from __future__ import annotations

import copy
from typing import Any

from labproof.simlab.kube.kinds import Obj

# Merge keys of lists in strategic merge and apply, by field name (the ones of core types that matter here).
_MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "volumeMounts": "mountPath",
    "ports": "containerPort", "conditions": "type", "tolerations": "", "ownerReferences": "uid",
    "imagePullSecrets": "name", "addresses": "type", "taints": "key", "subjects": "",
}  # fmt: skip


class PatchRefused(Exception):
    """The patch cannot be applied; the text goes into a 422."""


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def strategic(target: Any, patch: Any, field: str = "") -> Any:
    """Strategic merge: lists with a merge key are merged item by item, `$patch: delete|replace` honoured."""
    if isinstance(patch, dict):
        if patch.get("$patch") == "replace":
            return {k: copy.deepcopy(v) for k, v in patch.items() if k != "$patch"}
        merged = dict(target) if isinstance(target, dict) else {}
        for key, value in patch.items():
            if key.startswith("$setElementOrder/") or key == "$retainKeys":
                continue
            if key.startswith("$deleteFromPrimitiveList/"):
                name = key.partition("/")[2]
                merged[name] = [v for v in merged.get(name) or [] if v not in value]
            elif value is None:
                merged.pop(key, None)
            else:
                merged[key] = strategic(merged.get(key), value, key)
        return merged
    key = _MERGE_KEYS.get(field, "")
    if isinstance(patch, list) and key and all(isinstance(i, dict) for i in patch):
        rows = [copy.deepcopy(r) for r in target or []]
        for item in patch:
            if item.get("$patch") == "replace":
                return [copy.deepcopy(i) for i in patch if i.get("$patch") != "replace"]
            at = next((n for n, r in enumerate(rows) if r.get(key) == item.get(key)), None)
            if item.get("$patch") == "delete":
                if at is not None:
                    rows.pop(at)
            elif at is None:
                rows.append(copy.deepcopy(item))
            else:
                rows[at] = strategic(rows[at], item)
        return rows
    return copy.deepcopy(patch)


def _locate(document: Any, path: str) -> tuple[Any, str]:
    parts = [p.replace("~1", "/").replace("~0", "~") for p in path.split("/")[1:]]
    for part in parts[:-1]:
        try:
            document = document[int(part)] if isinstance(document, list) else document[part]
        except (KeyError, IndexError, ValueError, TypeError) as missing:
            raise PatchRefused(f'the path "{path}" does not exist') from missing
    return document, parts[-1]


def json_patch(target: Obj, operations: list[Obj]) -> Obj:
    """RFC 6902: add, remove, replace, test.

    Raises:
        PatchRefused: a path does not exist or a test fails.
    """
    document = copy.deepcopy(target)
    for operation in operations:
        kind, path = operation["op"], operation["path"]
        parent, last = _locate(document, path)
        try:
            if kind == "test":
                have = parent[int(last)] if isinstance(parent, list) else parent.get(last)
                if have != operation.get("value"):
                    raise PatchRefused(f"testing value {path} failed")
            elif isinstance(parent, list):
                if kind == "remove":
                    parent.pop(int(last))
                elif kind == "replace":
                    parent[int(last)] = copy.deepcopy(operation["value"])
                else:
                    parent.insert(len(parent) if last == "-" else int(last), copy.deepcopy(operation["value"]))
            elif kind == "remove":
                del parent[last]
            elif kind == "replace" and last not in parent:
                raise PatchRefused(f"replace operation does not apply: doc is missing key: {path}: missing value")
            else:
                parent[last] = copy.deepcopy(operation["value"])
        except (KeyError, IndexError, ValueError) as missing:
            raise PatchRefused(
                f"{kind} operation does not apply: doc is missing path: {path}: missing value"
            ) from missing
    return document
