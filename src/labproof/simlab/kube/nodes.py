"""Node objects, derived from each node's operating system, its kubelet and its device manager."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from labproof.simlab.kube.clock import rfc3339
from labproof.simlab.kube.kinds import Obj
from labproof.simlab.world.states import NodeState

if TYPE_CHECKING:
    from labproof.simlab.kube.cluster import SimCluster
    from labproof.simlab.kube.kubelet import Kubelet

_PRESSURES = (
    ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)
_STOPPED = ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
_NO_CNI = (
    "False", "KubeletNotReady",
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: cni plugin not initialized",
)  # fmt: skip


def control_plane_reboots(cluster: SimCluster) -> bool:
    """Whether every control plane is in the middle of a reboot of its own: then nobody answers."""
    planes = [k for k in cluster.kubelets.values() if k.inputs.get("role") == "control-plane"]
    return bool(planes) and all(getattr(k.state, "rebooting", False) for k in planes)


def ready_condition(kubelet: Kubelet) -> tuple[str, str, str]:
    """Status, reason and message of the Ready condition."""
    if not kubelet.alive:
        return _STOPPED
    if not (kubelet.inputs.get("containerd") or {}).get("running", True):
        return "False", "KubeletNotReady", "container runtime is down"
    if not (kubelet.inputs.get("cni") or {}).get("ready", True):
        return _NO_CNI
    return "True", "KubeletReady", "kubelet is posting ready status"


def taint_rows(taints: dict[str, str]) -> list[Obj]:
    """`key -> value:effect` (or `:effect`) as taint objects."""
    rows = []
    for key, text in taints.items():
        value, _, effect = str(text).rpartition(":")
        rows.append({"key": key, **({"value": value} if value else {}), "effect": effect})
    return rows


def _taints(cluster: SimCluster, kubelet: Kubelet, ready: str, before: Obj | None) -> list[Obj]:
    own = {
        "node.kubernetes.io/unreachable",
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unschedulable",
    }
    if before is not None:
        rows = [dict(t) for t in before["spec"].get("taints") or [] if t["key"] not in own]
    else:
        # a kubelet sets its taints when it registers and never again (NodeRestriction; facts kubernetes-gpu V19)
        joined_before = kubelet.inputs.get("registered_without_taints")
        at_registration = {} if joined_before else dict(kubelet.state.node_taints)
        rows = taint_rows(at_registration | dict(kubelet.inputs.get("taints") or {}))
    stamp = cluster.clock.stamp()
    old = {t["key"]: t for t in (before or {"spec": {}})["spec"].get("taints") or []}
    for status, name in (("Unknown", "unreachable"), ("False", "not-ready")):
        if ready == status:
            key = f"node.kubernetes.io/{name}"
            added = old.get(key, {}).get("timeAdded", stamp)
            rows.append({"key": key, "effect": "NoSchedule", "timeAdded": added})
    cordoned = before["spec"].get("unschedulable") if before else kubelet.inputs.get("cordoned")
    if cordoned:
        key = "node.kubernetes.io/unschedulable"
        rows.append({"key": key, "effect": "NoSchedule", "timeAdded": old.get(key, {}).get("timeAdded", stamp)})
    return rows


def tainted_as_cordoned(node: Obj, stamp: str) -> Obj:
    """The node with the taint of a cordon, or without: the node lifecycle controller does not wait for a status."""
    key = "node.kubernetes.io/unschedulable"
    rows = [row for row in node["spec"].get("taints") or [] if row["key"] != key]
    if node["spec"].get("unschedulable"):
        rows.append({"key": key, "effect": "NoSchedule", "timeAdded": stamp})
    spec = {name: value for name, value in node["spec"].items() if name != "taints"}
    return {**node, "spec": {**spec, "taints": rows} if rows else spec}


def _labels(cluster: SimCluster, kubelet: Kubelet) -> dict[str, str]:
    state = kubelet.state
    labels = {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": state.name,
        "kubernetes.io/os": "linux",
    }
    if kubelet.inputs.get("role") == "control-plane":
        labels["node-role.kubernetes.io/control-plane"] = ""
        labels["node.kubernetes.io/exclude-from-external-load-balancers"] = ""
    labels |= {f"extensions.talos.dev/{name}": version for name, version in state.extensions}
    labels |= dict(state.node_labels)
    labels |= {k: str(v) for k, v in (kubelet.inputs.get("labels") or {}).items()}
    return labels


def _conditions(cluster: SimCluster, kubelet: Kubelet, before: Obj | None) -> list[Obj]:
    now = cluster.clock.stamp()
    status, reason, message = ready_condition(kubelet)
    rows = [("Ready", status, reason, message)]
    if status == "Unknown":
        rows = [(name, *_STOPPED) for name, _, _ in _PRESSURES] + rows
    else:
        rows = [(name, "False", why, text) for name, why, text in _PRESSURES] + rows
    old = {c["type"]: c for c in ((before or {}).get("status") or {}).get("conditions") or []}
    found = []
    for name, state, why, text in rows:
        was = old.get(name)
        beat = was["lastHeartbeatTime"] if was and not kubelet.alive else now
        moved = was["lastTransitionTime"] if was and was["status"] == state else now
        found.append(
            {
                "type": name,
                "status": state,
                "lastHeartbeatTime": beat,
                "lastTransitionTime": moved,
                "reason": why,
                "message": text,
            }
        )
    return found


def _numbers(kubelet: Kubelet) -> tuple[dict[str, str], dict[str, str]]:
    capacity = kubelet.inputs.get("capacity") or {}
    memory_ki = kubelet.memory_mib * 1024
    disk_ki = int(capacity.get("disk_gib", 100)) * 2**20
    pods = str(capacity.get("pods", 110))
    reserved = kubelet.inputs.get("reserved") or {}
    cpu_left = kubelet.cpus * 1000 - int(reserved.get("cpu_m", 0))
    total = {
        "cpu": str(kubelet.cpus),
        "ephemeral-storage": f"{disk_ki}Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": f"{memory_ki}Ki",
        "pods": pods,
    }
    left = {
        **total,
        "cpu": str(kubelet.cpus) if not reserved else f"{cpu_left}m",
        "ephemeral-storage": str(int(disk_ki * 1024 * 0.99)),
        "memory": f"{memory_ki - int(reserved.get('memory_mib', 100)) * 1024}Ki",
    }
    if kubelet.alive:
        for name, (cap, alloc) in kubelet.devices.numbers().items():
            total[name], left[name] = str(cap), str(alloc)
        for name in kubelet.inputs.get("registered_before") or {}:
            total.setdefault(name, "0")  # the key stays for ever (K8S#92396)
            left.setdefault(name, "0")
    else:  # stale numbers of a kubelet that stopped posting (captures s13)
        for name, value in (kubelet.inputs.get("registered_before") or {}).items():
            total[name], left[name] = str(value), str(value)
    return dict(sorted(total.items())), dict(sorted(left.items()))


def _images(cluster: SimCluster, kubelet: Kubelet) -> list[Obj]:
    rows: list[Obj] = []
    for ref, digest in kubelet.images.items():
        repository = ref.partition("@")[0]
        folder, slash, last = repository.rpartition("/")
        bare = f"{folder}{slash}{last.partition(':')[0]}"
        names = [f"{bare}@{digest}"] + ([ref] if "@" not in ref else [])
        rows.append({"names": names, "sizeBytes": cluster.image(ref).size_bytes})
    return sorted(rows, key=lambda r: (-r["sizeBytes"], r["names"][0]))[:50]


def node_object(cluster: SimCluster, kubelet: Kubelet) -> Obj:
    """The Node object as its kubelet and the node controller left it."""
    state = kubelet.state
    before = cluster.store.get("nodes", state.name)
    ready = ready_condition(kubelet)[0]
    capacity, allocatable = _numbers(kubelet)
    annotations = {
        "node.alpha.kubernetes.io/ttl": "0",
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
    }
    if state.schematic:
        annotations["extensions.talos.dev/schematic"] = state.schematic
    if before is not None:
        metadata = copy.deepcopy(before["metadata"])
        spec = copy.deepcopy(before["spec"])
    else:
        metadata = {"name": state.name, "labels": _labels(cluster, kubelet), "annotations": annotations}
        spec = {"podCIDR": cluster.pod_cidr(state.name)}
        if kubelet.inputs.get("cordoned"):
            spec["unschedulable"] = True
    taints = _taints(cluster, kubelet, ready, before)
    spec.pop("taints", None)
    if taints:
        spec["taints"] = taints
    uuid = str(getattr(state, "system_uuid", "") or kubelet.inputs.get("system_uuid", ""))
    info: dict[str, Any] = {
        "machineID": (kubelet.inputs.get("machine_id") or uuid.replace("-", "")),
        "systemUUID": uuid,
        "bootID": state.boot_id,
        "kernelVersion": state.kernel,
        "osImage": f"Talos ({state.os_version})" if state.os == "talos" else state.os_version,
        "containerRuntimeVersion": f"containerd://{cluster.containerd}",
        "kubeletVersion": str(kubelet.inputs.get("kubelet_version") or cluster.release.text),
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": "amd64",
    }
    status: Obj = {
        "capacity": capacity,
        "allocatable": allocatable,
        "conditions": _conditions(cluster, kubelet, before),
        "addresses": [
            {"type": "InternalIP", "address": state.address},
            {"type": "Hostname", "address": state.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": info,
        "images": _images(cluster, kubelet),
    }
    if cluster.containerd_two:
        features = {"recursiveReadOnlyMounts": True, "userNamespaces": True}
        handlers = ["", *state.runtime_handlers]
        status["runtimeHandlers"] = [{"name": h, "features": features} for h in handlers]
        status["features"] = {"supplementalGroupsPolicy": True}
    if cluster.release.declared_features:
        status["declaredFeatures"] = list(cluster.release.declared_features)
    if not kubelet.alive and before is not None:
        stale = copy.deepcopy(before["status"])
        stale["conditions"] = status["conditions"]
        status = stale
    return {"metadata": metadata, "spec": spec, "status": status}


def lease_object(cluster: SimCluster, kubelet: Kubelet) -> Obj:
    """The kubelet's Lease in kube-node-lease: its renewTime tells a live kubelet from a stale Ready."""
    at = cluster.clock.now() if kubelet.alive else max(kubelet.state.booted_at, kubelet.stopped_at)
    renewed = rfc3339(at).replace("Z", ".000000Z")
    return {
        "metadata": {"name": kubelet.name, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": kubelet.name, "leaseDurationSeconds": 40, "renewTime": renewed},
    }


_GRACE_S = 46.5  # kubelet stopped -> Ready=Unknown (real-kubernetes.md, Timings)
_EVICT_S = 300.0  # tolerationSeconds of the default tolerations


def stop_kubelet(cluster: SimCluster, name: str) -> None:
    """The kubelet of a node dies; its containers go on, and the control plane notices later."""
    kubelet = cluster.kubelets[name]
    kubelet.stopped = True
    kubelet.stopped_at = cluster.clock.now()
    cluster.clock.after(_GRACE_S, lambda: _lost(cluster, name))


def _lost(cluster: SimCluster, name: str) -> None:
    """The node controller takes a silent node for lost: conditions, taints, and its pods are not ready any more."""
    kubelet = cluster.kubelets[name]
    if kubelet.alive:
        return
    cluster.post_node(name)
    node = cluster.store.get("nodes", name)
    if node is not None:
        text = f"Node {name} status is now: NodeNotReady"
        cluster.recorder.counted(node, "Normal", "NodeNotReady", text, "node-controller")
    now = cluster.clock.stamp()
    for pod in cluster.store.all("pods"):
        if pod["spec"].get("nodeName") != name or pod["status"].get("phase") != "Running":
            continue
        conditions = [
            {
                **{k: v for k, v in c.items() if k not in {"reason", "message"}},
                "status": "False",
                "lastTransitionTime": now,
            }
            if c["type"] == "Ready"
            else c
            for c in pod["status"]["conditions"]
        ]
        cluster.store.put(cluster.pods_kind, {**pod, "status": {**pod["status"], "conditions": conditions}})
        cluster.recorder.counted(pod, "Warning", "NodeNotReady", "Node is not ready", "node-controller")
    # with every node gone the controller stops evicting (recorded on one node)
    if any(k.alive for k in cluster.kubelets.values()):
        cluster.clock.after(_EVICT_S, lambda: _evict(cluster, name))


def _evict(cluster: SimCluster, name: str) -> None:
    """The taint manager deletes pods that tolerate `unreachable:NoExecute` for a time only; nobody confirms it."""
    for pod in cluster.store.all("pods"):
        if pod["spec"].get("nodeName") != name:
            continue
        for_ever = any(
            t.get("key") in {"node.kubernetes.io/unreachable", None}
            and t.get("effect") in {"NoExecute", None}
            and t.get("tolerationSeconds") is None
            for t in pod["spec"].get("tolerations") or []
        )
        if not for_ever:
            cluster.delete_pod(pod)


def plain_node(name: str, inputs: Mapping[str, Any], booted_at: float) -> NodeState:
    """A node without a GPU whose operating system nobody models: a control plane of the cluster."""
    return NodeState(
        name=name, address=str(inputs.get("address", "192.0.2.10")), up=bool(inputs.get("up", True)),
        os=str(inputs.get("os", "talos")), os_version=str(inputs.get("os_version", "v1.11.6")),
        kernel=str(inputs.get("kernel", "6.12.62-talos")), boot_id=str(inputs.get("boot_id", f"boot-{name}")),
        booted_at=booted_at, stage="running", driver_version=None, driver_open=False, library_version=None,
        library_root="", modules=frozenset(), gpus=(), device_nodes=(), runtime_handlers=("runc",),
        default_runtime="runc",
    )  # fmt: skip
