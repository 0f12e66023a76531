"""What was written through a cluster's API: its etcd keeps that while machines below it stop and start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labproof.simlab.kube.kinds import Kind, Obj

if TYPE_CHECKING:
    from labproof.simlab.kube.cluster import SimCluster

_PASSING = frozenset({"pods", "events", "leases.coordination.k8s.io"})  # they end with the machines that bear them
_CRD = "customresourcedefinitions.apiextensions.k8s.io"


class Written:
    """Objects made, changed or deleted by clients, and what clients set on nodes."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, str], None] = {}
        self._nodes: dict[str, dict[str, Any]] = {}

    def note(self, kind: Kind, obj: Obj, before: Obj | None = None, *, gone: bool = False) -> None:
        """A client wrote an object (`before` it was this), or deletes it."""
        meta = obj["metadata"]
        if kind.key == "nodes" and before is not None and not gone:
            self._note_node(obj, before)
        elif kind.key not in _PASSING | {"nodes"}:
            namespace = meta.get("namespace", "") if kind.namespaced else ""
            self._objects[kind.key, namespace, meta["name"]] = None

    def _note_node(self, node: Obj, before: Obj) -> None:
        kept = self._nodes.setdefault(node["metadata"]["name"], {"labels": {}, "annotations": {}})
        for part in ("labels", "annotations"):
            new, old = node["metadata"].get(part) or {}, before["metadata"].get(part) or {}
            kept[part] |= {key: new.get(key) for key in {*new, *old} if new.get(key) != old.get(key)}
        for part in ("taints", "unschedulable"):
            if node["spec"].get(part) != before["spec"].get(part):
                kept[part] = node["spec"].get(part)
        kept["managedFields"] = node["metadata"].get("managedFields")

    def carry(self, earlier: SimCluster, fresh: SimCluster) -> None:
        """Lay it over a cluster that was just built from the same inputs."""
        for key, namespace, name in self._objects:
            found = earlier.store.get(key, name, namespace)
            if found is None:
                fresh.store.remove(key, name, namespace)
                continue
            if key == _CRD:
                fresh.serve_crd(found)
            kind = fresh.kinds.named(found["kind"], found["apiVersion"])
            if kind is None:
                continue
            lasting = key in {"namespaces", "persistentvolumeclaims", _CRD}
            status: Obj = {} if lasting or "status" not in found else {"status": {}}
            fresh.store.put(kind, {**found, "metadata": dict(found["metadata"]), **status})
            if key == "namespaces":
                fresh.furnish(name)

    def dress(self, node: Obj) -> Obj:
        """A node as it registers again: the object is still there, with what clients set on it."""
        kept = self._nodes.get(node["metadata"]["name"])
        if kept is None:
            return node
        metadata, spec = {**node["metadata"]}, {**node["spec"]}
        for part in ("labels", "annotations"):
            merged = {**(metadata.get(part) or {}), **kept[part]}
            metadata[part] = {key: value for key, value in merged.items() if value is not None}
        for part in ("taints", "unschedulable"):
            if part in kept:
                spec.pop(part, None)
                spec |= {part: kept[part]} if kept[part] else {}
        if kept["managedFields"]:
            metadata["managedFields"] = kept["managedFields"]
        return {**node, "metadata": metadata, "spec": spec}
