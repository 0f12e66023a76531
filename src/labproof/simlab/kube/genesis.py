"""What a cluster starts with: namespaces, releases, the owner's objects, and changes made later in its past."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from labproof.simlab.kube import custom_kinds, intel_chart, kinds, managed, operator_chart
from labproof.simlab.kube.chart import PluginChart
from labproof.simlab.kube.kinds import Kind, Obj
from labproof.simlab.kube.nodes import stop_kubelet
from labproof.simlab.kube.patch import merge_patch
from labproof.simlab.kube.rbac import shipped_objects

if TYPE_CHECKING:
    from labproof.simlab.kube.cluster import SimCluster

_SYSTEM = ("default", "kube-system", "kube-public", "kube-node-lease")
_PRIORITIES = (("system-node-critical", 2000001000), ("system-cluster-critical", 2000000000))


def installed_kinds(inputs: Mapping[str, Any]) -> tuple[Kind, ...]:
    """Custom resources of the installed flavour."""
    plugin = inputs.get("plugin") or {}
    values = plugin.get("values") or {}
    flavour = plugin.get("flavour")
    found: list[Kind] = []
    if flavour == "gpu-operator" or any((values.get(p) or {}).get("enabled") for p in ("nfd", "gfd")):
        found += [kinds.NODE_FEATURE, kinds.NODE_FEATURE_RULE]
    if flavour == "gpu-operator":
        found.append(kinds.CLUSTER_POLICY)
    if flavour == "intel-operator":
        found.append(intel_chart.DEVICE_PLUGIN)
    for operator, installed in (inputs.get("operators") or {}).items():
        found += custom_kinds.OPERATORS[operator] if installed else ()
    return tuple(found)


def initial_objects(cluster: SimCluster) -> list[Obj]:
    """Everything that is created when the cluster's history begins, in order."""
    inputs = cluster.inputs
    found: list[Obj] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}} for n in _SYSTEM]
    for name, entry in (inputs.get("namespaces") or {}).items():
        labels = {k: str(v) for k, v in ((entry or {}).get("labels") or {}).items()}
        found.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    for name, value in _PRIORITIES:
        found.append(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name},
                "value": value,
                "globalDefault": False,
                "preemptionPolicy": "PreemptLowerPriority",
                "description": "Used for system critical pods.",
            }
        )
    for name, entry in (inputs.get("runtime_classes") or {}).items():
        found.append(
            {
                "apiVersion": "node.k8s.io/v1",
                "kind": "RuntimeClass",
                "metadata": {"name": name},
                "handler": str((entry or {}).get("handler", name)),
            }
        )
    plugin = inputs.get("plugin") or {}
    known = {o["metadata"]["name"] for o in found if o["kind"] == "Namespace"}
    for manifest in (inputs.get("objects") or {}).values():
        if manifest and manifest["kind"] in {"ConfigMap", "PersistentVolumeClaim"}:
            found.append(copy.deepcopy(manifest))
    release: list[Obj] = []
    if plugin.get("flavour") == "nvidia-device-plugin":
        release = PluginChart(dict(plugin)).objects()
    elif plugin.get("flavour") == "gpu-operator":
        release = operator_chart.OperatorChart(dict(plugin)).objects()
    elif str(plugin.get("flavour", "")).startswith("intel-"):
        release = intel_chart.IntelChart(dict(plugin)).objects()
    for namespace in {o["metadata"].get("namespace") for o in release} - known - {None}:
        found.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    found += shipped_objects(inputs.get("rbac") or {})
    found += [_by_helm(obj, plugin, cluster.clock.stamp()) for obj in release]
    for manifest in (inputs.get("objects") or {}).values():
        if manifest and manifest["kind"] not in {"ConfigMap", "PersistentVolumeClaim"}:
            found.append(copy.deepcopy(manifest))
    return found


def _by_helm(obj: Obj, plugin: Mapping[str, Any], stamp: str) -> Obj:
    """An object of a release as Helm leaves it: its annotations, and Helm as the manager of every field."""
    meta = {**obj["metadata"]}
    meta["annotations"] = {
        **(meta.get("annotations") or {}),
        "meta.helm.sh/release-name": str(plugin.get("release", "")),
        "meta.helm.sh/release-namespace": str(plugin.get("namespace", "")),
    }
    return managed.created({**obj, "metadata": meta}, "helm", managed.UPDATE, stamp)


def plan_changes(cluster: SimCluster) -> list[tuple[float, Callable[[], None]]]:
    """Inputs `changes`: name -> {ago: seconds before the world starts, and what happens then}.

    create: [manifest]; patch: [{kind, name, namespace, set}]; delete: [{kind, name, namespace}];
    kubelet_restart: node; kubelet_stop: node;
    break_stream: {node, resource}: the plugin's stream to the kubelet ends, its process stays;
    xid: {node, number}: a critical Xid event that only the plugin heard of (the kernel log has rotated since);
    leak_devices: {node, resource, count}: the kubelet forgets to free devices (K8S#130145).

    Returns:
        Delays from the beginning of history, with what happens then.
    """
    plan: list[tuple[float, Callable[[], None]]] = []
    start = cluster.clock.now()
    for entry in (cluster.inputs.get("changes") or {}).values():
        if not entry:
            continue
        after = max(60.0, cluster.world_time - start - float(entry.get("ago", 600)))
        plan.append((after, _change(cluster, entry)))
    return plan


def _change(cluster: SimCluster, entry: Mapping[str, Any]) -> Callable[[], None]:
    def act() -> None:
        if "kubelet_restart" in entry:
            cluster.kubelets[entry["kubelet_restart"]].restart()
        if "kubelet_stop" in entry:
            stop_kubelet(cluster, entry["kubelet_stop"])
        if "break_stream" in entry:
            kubelet = cluster.kubelets[entry["break_stream"]["node"]]
            kubelet.devices.stop(entry["break_stream"]["resource"])
            cluster.node_status_soon(kubelet.name)
        if "xid" in entry:
            for listener in cluster.kubelets[entry["xid"]["node"]].xid_listeners:
                listener(int(entry["xid"]["number"]))
        if "leak_devices" in entry:
            leak = entry["leak_devices"]
            cluster.kubelets[leak["node"]].devices.leak(leak["resource"], int(leak["count"]))
        for manifest in entry.get("create") or ():
            cluster.seed(manifest)
        for target in entry.get("delete") or ():
            kind = cluster.kinds.key(target["kind"])
            cluster.delete(kind, target["name"], target.get("namespace", ""))
        for target in entry.get("patch") or ():
            kind = cluster.kinds.key(target["kind"])
            before = cluster.store.get(kind.key, target["name"], target.get("namespace", ""))
            if before is not None:
                cluster.store.put(kind, merge_patch(before, target["set"]))

    return act
