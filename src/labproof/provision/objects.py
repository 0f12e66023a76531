"""Objects of a cluster as changes: applied by the server under a field manager of our own, given back exactly."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from labproof.provision.changes import Change

Obj = dict[str, Any]
#: Field managers of all steps begin like this; each step has its own, so that none takes another's fields back.
MANAGER = "labproof-"
_SERVER_SET = (
    "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "deletionTimestamp",
    "deletionGracePeriodSeconds",
)  # fmt: skip
#: Managers of Kubernetes itself: what they write says nothing about who wants the object.
_CONTROLLERS = frozenset({"kube-controller-manager", "kube-apiserver", "kubelet"})
_PLURALS = {
    "Namespace": "namespaces", "Node": "nodes", "ConfigMap": "configmaps", "Service": "services",
    "ServiceAccount": "serviceaccounts", "DaemonSet": "daemonsets", "Deployment": "deployments",
    "RuntimeClass": "runtimeclasses", "CustomResourceDefinition": "customresourcedefinitions",
    "ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings", "Role": "roles",
    "RoleBinding": "rolebindings", "ServiceMonitor": "servicemonitors", "VMServiceScrape": "vmservicescrapes",
}  # fmt: skip


def path_of(obj: Mapping[str, Any]) -> str:
    """The API path of an object of the kinds that steps apply."""
    version, meta = str(obj["apiVersion"]), obj["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    space = f"/namespaces/{meta['namespace']}" if meta.get("namespace") else ""
    return f"{root}{space}/{_PLURALS[str(obj['kind'])]}/{meta['name']}"


def title_of(obj: Mapping[str, Any]) -> str:
    """`DaemonSet nvidia-device-plugin/nvidia-device-plugin`."""
    meta = obj["metadata"]
    return f"{obj['kind']} {meta['namespace'] + '/' if meta.get('namespace') else ''}{meta['name']}"


def content(obj: Mapping[str, Any]) -> Obj:
    """What somebody wants of an object: without what the server keeps of it, and without status."""
    kept = {key: value for key, value in obj.items() if key != "status"}
    meta = {key: value for key, value in obj["metadata"].items() if key not in _SERVER_SET}
    return copy.deepcopy({**kept, "metadata": meta})


def digest(obj: Mapping[str, Any] | None) -> str:
    """SHA-256 of the content, `absent` for no object."""
    if obj is None:
        return "absent"
    return sha256(json.dumps(content(obj), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def covers(live: Any, wanted: Any) -> bool:
    """Whether everything wanted is there; items of a list by their place, those with names by name."""
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(k in live and covers(live[k], v) for k, v in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(live, list):
            return False
        if wanted and all(isinstance(i, Mapping) and "name" in i for i in wanted):
            return all(any(covers(have, item) for have in live) for item in wanted)
        return len(live) == len(wanted) and all(covers(a, b) for a, b in zip(live, wanted, strict=True))
    return bool(live == wanted)


def strangers(obj: Mapping[str, Any]) -> tuple[str, ...]:
    """Field managers, other than ours and Kubernetes' own, that want something of an object (its status aside)."""
    rows = obj["metadata"].get("managedFields") or ()
    found = (
        str(row.get("manager"))
        for row in rows
        if row.get("subresource") != "status" and not str(row.get("manager")).startswith(MANAGER)
    )
    return tuple(dict.fromkeys(name for name in found if name not in _CONTROLLERS))


def is_ours(obj: Mapping[str, Any]) -> bool:
    """Whether the object is labproof's: it applied fields of it, and nobody else wants any."""
    mine = any(
        str(row.get("manager")).startswith(MANAGER) and row.get("operation") == "Apply"
        for row in obj["metadata"].get("managedFields") or ()
    )
    return mine and not strangers(obj)


def applied_by(obj: Mapping[str, Any], manager: str) -> Obj | None:
    """The configuration that a field manager applied, taken out of the object; None when it applied nothing."""
    for row in obj["metadata"].get("managedFields") or ():
        if row.get("manager") == manager and row.get("operation") == "Apply":
            picked = _pick(obj, row.get("fieldsV1") or {})
            return _identified(picked if isinstance(picked, dict) else {}, obj)
    return None


def nothing_of(obj: Mapping[str, Any]) -> Obj:
    """The configuration by which a manager gives up all it applied to an object."""
    return _identified({}, obj)


def _identified(part: Obj, obj: Mapping[str, Any]) -> Obj:
    names = {key: obj["metadata"][key] for key in ("name", "namespace") if key in obj["metadata"]}
    return {
        **part, "apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": {**part.get("metadata", {}), **names},
    }  # fmt: skip


def _pick(value: Any, fields: Mapping[str, Any]) -> Any:
    """The part of a value that FieldsV1 names: `f:` a field, `k:` an item of a keyed list; no parts: all of it."""
    parts = [part for part in fields if part != "."]
    if not parts:
        return copy.deepcopy(value)
    if isinstance(value, Mapping):
        named = {part.removeprefix("f:"): part for part in parts}
        return {key: _pick(value[key], fields[part]) for key, part in named.items() if key in value}
    picked = []
    for item in value if isinstance(value, list) else ():
        for part in parts:
            wanted = json.loads(part.removeprefix("k:")) if part.startswith("k:") else None
            if wanted and all(item.get(k, "TCP" if k == "protocol" else None) == v for k, v in wanted.items()):
                picked.append({**wanted, **_pick(item, fields[part])})
    return picked


def flattened(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of an object as `spec.replicas`, `1`."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flattened(inner, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            name = inner.get("name", number) if isinstance(inner, Mapping) else number
            yield from flattened(inner, f"{at}[{name}]")
    else:
        yield at, value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True, kw_only=True)
class ObjectChange(Change):
    """An object of a cluster, or fields of one, applied by the server.

    Attributes:
        manager: field manager.
        configuration: what is applied.
        before: the object as it was found, None where there was none.
        after: the object as the server says it would be, None where it could not be asked (its namespace comes first).
    """

    manager: str
    configuration: Obj
    before: Obj | None
    after: Obj | None = None

    @property
    def action(self) -> str:
        """An object."""
        return "object"

    @property
    def title(self) -> str:
        """What happens to which object."""
        return f"{'create' if self.before is None else 'change'} {title_of(self.configuration)}"

    def difference(self) -> tuple[str, ...]:
        """Fields that go and come; of a new object what tells it from others."""
        if self.before is None:
            return tuple(f"+ {line}" for line in _telling(self.configuration))
        old = dict(flattened(content(self.before)))
        new = dict(flattened(content(self.after or self.configuration)))
        lines = []
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                lines += [f"- {key}: {line}" for line in old[key].splitlines()] if key in old else []
                lines += [f"+ {key}: {line}" for line in new[key].splitlines()] if key in new else []
        return tuple(lines)

    def record(self) -> dict[str, Any]:
        """With what undo gives back, and the digests by which it knows the object again."""
        before = self.before
        return {
            **super().record(),
            "path": path_of(self.configuration),
            "thing": f"{title_of(self.configuration)} (as {self.manager})",
            "manager": self.manager,
            "configuration": self.configuration,
            "found": before is not None,
            "applied_before": applied_by(before, self.manager) if before is not None else None,
            "before": digest(before),
            "after": digest(self.after) if self.after is not None else None,
        }


def _telling(obj: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a plan for a new object: labels of a namespace, images and arguments of a workload, data."""
    for key, value in (obj["metadata"].get("labels") or {}).items() if obj["kind"] in ("Namespace", "Node") else ():
        yield f"{key}: {value}"
    template = ((obj.get("spec") or {}).get("template") or {}).get("spec") or {}
    for container in template.get("containers") or ():
        yield f"{container['name']}: {container['image']}"
    for part in ("runtimeClassName",):
        if part in template:
            yield f"{part}: {template[part]}"
    for key, text in (obj.get("data") or {}).items():
        yield f"{key}:"
        yield from (f"  {line}" for line in str(text).splitlines())
    if "handler" in obj:
        yield f"handler: {obj['handler']}"
    for rule in obj.get("rules") or ():
        yield f"may {', '.join(rule['verbs'])} {', '.join(rule['resources'])}"
