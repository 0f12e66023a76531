"""The Kubernetes half of `--bare`: a cluster before anybody made the GPU a resource."""

from __future__ import annotations

from typing import Any

_EXPORTER = "dcgm-exporter"  # its DaemonSet, Service and ServiceMonitor; the owner's alerts stay


def bare_cluster(cluster: dict[str, Any]) -> None:
    """No plugin, NFD, GFD, RuntimeClass, exporter, none of their labels; what the owner runs is there. Changes it."""
    plugin = cluster.get("plugin") or {}
    home = plugin.get("namespace")
    cluster["plugin"] = {"flavour": "none"}
    cluster["runtime_classes"] = {}
    (cluster.get("namespaces") or {}).pop(home, None)
    cluster["objects"] = {
        name: manifest
        for name, manifest in (cluster.get("objects") or {}).items()
        if manifest and manifest["metadata"].get("namespace") != home and manifest["metadata"]["name"] != _EXPORTER
    }
    for space in (cluster.get("namespaces") or {}).values():
        labels = (space or {}).get("labels") or {}  # nobody thought of pods with host paths yet
        for label in [label for label in labels if label.startswith("pod-security.kubernetes.io/")]:
            del labels[label]
    for node in (cluster.get("nodes") or {}).values():
        node.pop("registered_before", None)  # no kubelet ever heard of the resource
        labels = node.get("labels") or {}
        node["labels"] = {k: v for k, v in labels.items() if not k.startswith(("nvidia.com/", "feature.node."))}
    cluster["rbac"] = {**(cluster.get("rbac") or {}), "applied": True, "provisioner": True}
    # refused pods of the owner's workloads back off: a short past keeps their next try near
    cluster["history_s"] = 30
