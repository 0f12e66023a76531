"""Intel's device plugins: the operator with its GpuDevicePlugin resource, or the plain DaemonSet (kubernetes-gpu.md 5).

Inputs `clusters.<name>.plugin`: flavour intel-operator | intel-daemonset, namespace, version, and
    cert_manager: whether cert-manager runs (the operator's webhooks need its certificate)
    devices: name -> values of the chart intel-device-plugins-gpu (sharedDevNum, nodeSelector, enableMonitoring,
             monitoringMode, allocationPolicy, bypathMode, allowIDs, denyIDs, tolerations, image); null: not installed
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from labproof.simlab.kube.kinds import Kind, Obj

if TYPE_CHECKING:
    from labproof.simlab.kube.cluster import SimCluster

DEVICE_PLUGIN = Kind(
    "deviceplugin.intel.com", "v1", "gpudeviceplugins", "GpuDevicePlugin", False,
    sub=(("status", "", ("get", "patch", "update")),),
)  # fmt: skip
_MANAGER = {"control-plane": "controller-manager", "manager": "intel-deviceplugin-operator"}
_CONTROL = {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}


def _deployment(name: str, namespace: str, labels: dict[str, str], image: str, program: str) -> Obj:
    container = {"name": "manager", "image": image, "command": [program]}
    template = {"metadata": {"labels": labels}, "spec": {"tolerations": [_CONTROL], "containers": [container]}}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }  # fmt: skip


class IntelChart:
    """The installed releases."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        """Inputs as the module says."""
        self.operator = inputs.get("flavour") == "intel-operator"
        self.namespace = str(inputs.get("namespace", "inteldeviceplugins-system"))
        self.version = str(inputs.get("version", "0.34.1"))
        self.cert_manager = bool(inputs.get("cert_manager", True))
        self.devices: dict[str, Any] = {k: v for k, v in (inputs.get("devices") or {}).items() if v is not None}

    def objects(self) -> list[Obj]:
        """What Helm installs; with the operator the DaemonSets follow from the custom resources."""
        if not self.operator:
            return [daemonset(name, self.namespace, self.spec_of(v)) for name, v in self.devices.items()]
        found: list[Obj] = []
        if self.cert_manager:
            found.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "cert-manager"}})
            image = "quay.io/jetstack/cert-manager-controller:v1.19.1"
            labels = {"app.kubernetes.io/name": "cert-manager"}
            found.append(_deployment("cert-manager", "cert-manager", labels, image, "/app/controller"))
            image = f"docker.io/intel/intel-deviceplugin-operator:{self.version}"
            program = "/usr/local/bin/intel_deviceplugin_operator"
            found.append(
                _deployment("inteldeviceplugins-controller-manager", self.namespace, dict(_MANAGER), image, program)
            )
            for name, values in self.devices.items():  # the webhook lets them in only while it answers
                found.append(
                    {"apiVersion": "deviceplugin.intel.com/v1", "kind": "GpuDevicePlugin",
                     "metadata": {"name": name}, "spec": self.spec_of(values)}
                )  # fmt: skip
        return found

    def spec_of(self, values: dict[str, Any]) -> Obj:
        """Chart values as the custom resource's spec, with the chart's defaults (5.3)."""
        spec: Obj = {
            "image": f"docker.io/intel/intel-gpu-plugin:{self.version}",
            "sharedDevNum": 1,
            "logLevel": 2,
            "enableMonitoring": True,
            "preferredAllocationPolicy": "none",
            "nodeSelector": {"intel.feature.node.kubernetes.io/gpu": "true"},
        }
        names = {"allocationPolicy": "preferredAllocationPolicy"}
        for key, value in values.items():
            if key == "nodeSelector":
                spec["nodeSelector"] = {k: str(v) for k, v in (value or {}).items()}
            elif value is not None:
                spec[names.get(key, key)] = value
        return spec


def daemonset(name: str, namespace: str, spec: Obj) -> Obj:
    """The DaemonSet of one GpuDevicePlugin, or of the plain manifests."""
    arguments = [f"-shared-dev-num={spec['sharedDevNum']}", f"-allocation-policy={spec['preferredAllocationPolicy']}"]
    if spec.get("enableMonitoring"):
        arguments.append("-enable-monitoring")
    for key, flag in (("bypathMode", "bypath"), ("monitoringMode", "monitoring-mode"), ("allowIDs", "allow-ids"),
                      ("denyIDs", "deny-ids")):  # fmt: skip
        if spec.get(key):
            arguments.append(f"-{flag}={spec[key]}")
    labels = {"app": "intel-gpu-plugin", "gpu.intel.com/name": name}
    paths = {
        "devfs": "/dev/dri", "sysfsdrm": "/sys/class/drm", "kubeletsockets": "/var/lib/kubelet/device-plugins",
        "cdipath": "/var/run/cdi",
    }  # fmt: skip
    container = {
        "name": "intel-gpu-plugin",
        "image": spec["image"],
        "command": ["intel_gpu_device_plugin"],
        "args": arguments,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
                            "readOnlyRootFilesystem": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumeMounts": [{"name": n, "mountPath": p, "readOnly": n in ("devfs", "sysfsdrm")} for n, p in paths.items()],
    }  # fmt: skip
    pod: Obj = {
        "nodeSelector": dict(spec.get("nodeSelector") or {}),
        "tolerations": [dict(t) for t in (spec.get("tolerations") or {}).values()],
        "containers": [container],
        "volumes": [{"name": n, "hostPath": {"path": p, "type": ""}} for n, p in paths.items()],
    }
    return {
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": f"intel-gpu-plugin-{name}", "namespace": namespace, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod},
                 "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}},
    }  # fmt: skip


def reconcile(cluster: SimCluster) -> None:
    """One pass of the operator: a DaemonSet for each GpuDevicePlugin, and its status."""
    kind = cluster.kinds.named("GpuDevicePlugin", "deviceplugin.intel.com/v1")
    if kind is None:
        return
    namespace = str((cluster.inputs.get("plugin") or {}).get("namespace", "inteldeviceplugins-system"))
    ds_kind = cluster.kinds.key("daemonsets.apps")
    for plugin in list(cluster.store.each(kind.key)):
        name = f"intel-gpu-plugin-{plugin['metadata']['name']}"
        have = cluster.store.get(ds_kind.key, name, namespace)
        if have is None:
            wanted = daemonset(plugin["metadata"]["name"], namespace, plugin["spec"])
            have = cluster.store.put(ds_kind, {**wanted, "status": {}})
        counted = have.get("status") or {}
        pods = [
            p for p in cluster.store.all("pods", namespace)
            if any(r.get("uid") == have["metadata"]["uid"] for r in p["metadata"].get("ownerReferences") or [])
        ]  # fmt: skip
        nodes = sorted({p["spec"].get("nodeName", "") for p in pods} - {""})
        status = {
            "controlledDaemonSet": {"kind": "DaemonSet", "name": name, "namespace": namespace},
            "desiredNumberScheduled": counted.get("desiredNumberScheduled", 0),
            "numberReady": counted.get("numberReady", 0),
            "nodeNames": nodes,
        }
        if status != plugin.get("status"):
            fresh = copy.deepcopy(plugin)
            fresh["status"] = status
            cluster.store.put(kind, fresh)
