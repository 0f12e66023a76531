"""The Kubernetes half of `--bare`: a cluster before anybody made the GPU a resource."""

from __future__ import annotations

from typing import Any


def bare_cluster(cluster: dict[str, Any]) -> None:
    """No plugin, no NFD and GFD, no RuntimeClass, none of their labels; what the owner runs is there. Changes it."""
    plugin = cluster.get("plugin") or {}
    home = plugin.get("namespace")
    cluster["plugin"] = {"flavour": "none"}
    cluster["runtime_classes"] = {}
    (cluster.get("namespaces") or {}).pop(home, None)
    cluster["objects"] = {
        name: manifest
        for name, manifest in (cluster.get("objects") or {}).items()
        if manifest and manifest["metadata"].get("namespace") != home
    }
    for node in (cluster.get("nodes") or {}).values():
        node.pop("registered_before", None)  # no kubelet ever heard of the resource
        labels = node.get("labels") or {}
        node["labels"] = {k: v for k, v in labels.items() if not k.startswith(("nvidia.com/", "feature.node."))}
    cluster["rbac"] = {**(cluster.get("rbac") or {}), "applied": True, "provisioner": True}
    # refused pods of the owner's workloads back off: a short past keeps their next try near
    cluster["history_s"] = 30
