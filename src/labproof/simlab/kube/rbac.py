"""RBAC: who may do what, from the Role objects in the store; refusals in the server's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from labproof.simlab.kube.admission import Refused
from labproof.simlab.kube.kinds import Obj
from labproof.simlab.kube.store import Store


@dataclass(frozen=True)
class Request:
    """What a user wants to do, as an authorizer sees it."""

    user: str
    groups: tuple[str, ...]
    verb: str
    group: str = ""
    resource: str = ""  # plural, with "/subresource"
    namespace: str = ""
    name: str = ""
    path: str = ""  # non-resource URL


class Authorizer:
    """RBAC over the Roles and bindings in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def allows(self, request: Request) -> bool:
        """Whether some rule grants it; system:masters may do everything."""
        if "system:masters" in request.groups:
            return True
        if request.path:
            if request.path.startswith(("/version", "/api", "/apis", "/openapi", "/healthz", "/livez", "/readyz")):
                return True  # system:discovery and system:public-info-viewer
        elif request.group in {"authorization.k8s.io", "authentication.k8s.io"} and request.verb == "create":
            return True  # system:basic-user
        return any(_grants(rule, request) for rule in self.rules_for(request))

    def rules_for(self, request: Request) -> list[Obj]:
        """All rules that apply to a user in a namespace."""
        rules: list[Obj] = []
        for binding in self._store.each("clusterrolebindings.rbac.authorization.k8s.io"):
            if _bound(binding, request, ""):
                rules += self._role(binding, "")
        if request.namespace:
            for binding in self._store.all("rolebindings.rbac.authorization.k8s.io", request.namespace):
                if _bound(binding, request, request.namespace):
                    rules += self._role(binding, request.namespace)
        return rules

    def _role(self, binding: Obj, namespace: str) -> list[Obj]:
        ref = binding["roleRef"]
        if ref["kind"] == "ClusterRole":
            role = self._store.get("clusterroles.rbac.authorization.k8s.io", ref["name"])
        else:
            role = self._store.get("roles.rbac.authorization.k8s.io", ref["name"], namespace)
        return list((role or {}).get("rules") or [])

    def check(self, request: Request) -> None:
        """Raise unless the request is allowed.

        Raises:
            Refused: 403 in the server's words.
        """
        if self.allows(request):
            return
        who = f'User "{request.user}" cannot {request.verb}'
        if request.path:
            details: Obj = {}
            raise Refused(403, "Forbidden", f'forbidden: {who} path "{request.path}"', details)
        shown = request.resource.partition("/")[0] + (f".{request.group}" if request.group else "")
        named = f' "{request.name}"' if request.name else ""
        scope = f'in the namespace "{request.namespace}"' if request.namespace else "at the cluster scope"
        message = (
            f'{shown}{named} is forbidden: {who} resource "{request.resource}" in API group "{request.group}" {scope}'
        )
        details = {
            **({"name": request.name} if request.name else {}),
            **({"group": request.group} if request.group else {}),
            "kind": request.resource.partition("/")[0],
        }
        raise Refused(403, "Forbidden", message, details)


def _bound(binding: Obj, request: Request, namespace: str) -> bool:
    for subject in binding.get("subjects") or []:
        kind, name = subject.get("kind"), subject.get("name")
        if (kind == "User" and name == request.user) or (kind == "Group" and name in request.groups):
            return True
        if kind == "ServiceAccount":
            account = f"system:serviceaccount:{subject.get('namespace') or namespace}:{name}"
            if account == request.user:
                return True
    return False


def _grants(rule: Mapping[str, Any], request: Request) -> bool:
    verbs = rule.get("verbs") or []
    if "*" not in verbs and request.verb not in verbs:
        return False
    if request.path:
        urls = rule.get("nonResourceURLs") or []
        return any(u in {"*", request.path} or (u.endswith("*") and request.path.startswith(u[:-1])) for u in urls)
    groups, resources = rule.get("apiGroups") or [], rule.get("resources") or []
    if "*" not in groups and request.group not in groups:
        return False
    subresource = request.resource.partition("/")[2]
    if "*" not in resources and request.resource not in resources and f"*/{subresource}" not in resources:
        return False
    names = rule.get("resourceNames") or []
    return not names or request.name in names


# ------------------------------------------------------------------ what the lab ships

_READ_KINDS = {
    "": ["namespaces", "nodes", "pods", "pods/log", "configmaps", "events", "serviceaccounts", "services",
         "resourcequotas", "persistentvolumeclaims"],
    "apps": ["daemonsets", "deployments", "replicasets", "statefulsets"],
    "batch": ["jobs"],
    "node.k8s.io": ["runtimeclasses"],
    "scheduling.k8s.io": ["priorityclasses"],
    "coordination.k8s.io": ["leases"],
    "nvidia.com": ["clusterpolicies"],
    "nfd.k8s-sigs.io": ["nodefeatures", "nodefeaturerules"],
}  # fmt: skip


def _built_in() -> list[Obj]:
    """What the suite's user may do as long as manifests/rbac.yaml does not exist."""
    api = "rbac.authorization.k8s.io/v1"
    subjects = [
        {"kind": "User", "name": "labproof", "apiGroup": "rbac.authorization.k8s.io"},
        {"kind": "ServiceAccount", "name": "labproof", "namespace": "labproof"},
    ]
    read = [{"apiGroups": [g], "resources": r, "verbs": ["get", "list", "watch"]} for g, r in _READ_KINDS.items()]
    own = [
        {"apiGroups": [""], "resources": ["pods", "pods/log", "pods/exec", "configmaps"], "verbs": ["*"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]},
    ]
    labels = {
        f"pod-security.kubernetes.io/{mode}": "restricted" if mode == "warn" else "baseline"
        for mode in ("enforce", "warn")
    }

    def ref(kind: str) -> Obj:
        return {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "labproof"}

    meta = {"name": "labproof", "namespace": "labproof"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "labproof", "labels": labels}},
        {"apiVersion": api, "kind": "ClusterRole", "metadata": {"name": "labproof"}, "rules": read},
        {
            "apiVersion": api, "kind": "ClusterRoleBinding", "metadata": {"name": "labproof"},
            "roleRef": ref("ClusterRole"), "subjects": subjects,
        },
        {"apiVersion": api, "kind": "Role", "metadata": meta, "rules": own},
        {
            "apiVersion": api, "kind": "RoleBinding", "metadata": meta, "roleRef": ref("Role"), "subjects": subjects,
        },
    ]  # fmt: skip


@lru_cache(maxsize=2)
def _manifest(path: Path, _changed_ns: int) -> tuple[Obj, ...]:
    return tuple(d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d)


def manifest_path(name: str = "rbac.yaml") -> Path | None:
    """A shipped role: in a clone beside `src`, in a wheel inside the package."""
    here = Path(__file__).resolve()
    candidates = (here.parents[4] / "manifests" / name, here.parents[2] / "manifests" / name)
    return next((c for c in candidates if c.is_file()), None)


def shipped_objects(inputs: Mapping[str, Any]) -> list[Obj]:
    """The shipped roles as the owner applied them.

    Args:
        inputs: {applied: the suite, provisioner: that of --provision, drain: that of draining, namespaces: reader
            (plugin, metrics, app) -> where the owner put that reader's bindings, as the file asks}.
    """
    if not inputs.get("applied", True):
        return []
    path = manifest_path()
    found = list(_manifest(path, path.stat().st_mtime_ns)) if path else _built_in()
    found = [_moved(o, inputs.get("namespaces") or {}) for o in found]
    for role, wanted in (("rbac-provision.yaml", "provisioner"), ("rbac-drain.yaml", "drain")):
        wider = manifest_path(role) if inputs.get(wanted) else None
        found += _manifest(wider, wider.stat().st_mtime_ns) if wider else ()
    spaces = [o for o in found if o["kind"] == "Namespace"]
    return [*spaces, *(o for o in found if o["kind"] != "Namespace")]


def _moved(obj: Obj, namespaces: Mapping[str, Any]) -> Obj:
    """A reader's binding in the namespace where this owner needs it; anything else as it was."""
    metadata = obj["metadata"]
    reader = str(metadata["name"]).removeprefix("labproof-").removesuffix("-reader")
    if obj["kind"] != "RoleBinding" or reader not in namespaces:
        return obj
    return {**obj, "metadata": {**metadata, "namespace": str(namespaces[reader])}}
