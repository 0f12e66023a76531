"""As much OpenAPI as kubectl asks for before it applies: which verbs take fieldValidation and dryRun."""

from __future__ import annotations

from labproof.simlab.kube.kinds import Kind, KindTable, Obj

_QUERY = ("dryRun", "fieldManager", "fieldValidation", "force")


def _paths(kind: Kind) -> Obj:
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    space = "/namespaces/{namespace}" if kind.namespaced else ""
    gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    parameters = [{"name": n, "in": "query", "schema": {"type": "string", "uniqueItems": True}} for n in _QUERY]

    def operation(action: str) -> Obj:
        return {
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk, "parameters": parameters,
            "responses": {"200": {"description": "OK"}},
        }  # fmt: skip

    return {
        f"{root}{space}/{kind.plural}": {"post": operation("post")},
        f"{root}{space}/{kind.plural}/{{name}}": {"patch": operation("patch"), "put": operation("put")},
    }


def index(table: KindTable) -> Obj:
    """`GET /openapi/v3`."""
    roots = {f"apis/{k.group}/{k.version}" if k.group else f"api/{k.version}" for k in table.kinds}
    return {"paths": {r: {"serverRelativeURL": f"/openapi/v3/{r}?hash=SIM"} for r in sorted(roots)}}


def document(table: KindTable, root: str, version: str) -> Obj:
    """`GET /openapi/v3/<root>`: an object schema per kind that accepts every field."""
    kinds = [k for k in table.kinds if (f"apis/{k.group}/{k.version}" if k.group else f"api/{k.version}") == root]
    schemas: Obj = {}
    paths: Obj = {}
    for kind in kinds:
        name = f"io.k8s.api.{kind.group or 'core'}.{kind.version}.{kind.kind}"
        gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        schemas[name] = {
            "type": "object", "description": kind.kind, "x-kubernetes-group-version-kind": [gvk],
            "x-kubernetes-preserve-unknown-fields": True,
        }  # fmt: skip
        paths |= _paths(kind)
    return {
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": version}, "paths": paths,
        "components": {"schemas": schemas},
    }  # fmt: skip
