"""The GPU operator: its chart, and the operator that deploys operands from the ClusterPolicy (kubernetes-gpu.md 4)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from labproof.simlab.kube.chart import nfd_objects
from labproof.simlab.kube.kinds import Obj

if TYPE_CHECKING:
    from labproof.simlab.kube.cluster import SimCluster

_NFD_LABELS = tuple(f"feature.node.kubernetes.io/pci-{n}.present" for n in ("10de", "0302_10de", "0300_10de"))
_OPERANDS = {
    "nvidia-driver-daemonset": "driver",
    "nvidia-container-toolkit-daemonset": "container-toolkit",
    "nvidia-operator-validator": "operator-validator",
    "nvidia-device-plugin-daemonset": "device-plugin",
    "gpu-feature-discovery": "gpu-feature-discovery",
    "nvidia-dcgm-exporter": "dcgm-exporter",
}
_STATES = {
    "nvidia-driver-daemonset": "state-driver",
    "nvidia-container-toolkit-daemonset": "state-container-toolkit",
    "nvidia-operator-validator": "state-operator-validation",
    "nvidia-device-plugin-daemonset": "state-device-plugin",
    "gpu-feature-discovery": "gpu-feature-discovery",
    "nvidia-dcgm-exporter": "state-dcgm-exporter",
}
_VALIDATIONS = ("driver", "toolkit", "cuda", "plugin")
_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


class OperatorChart:
    """One release of the gpu-operator chart."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        """Inputs `clusters.<name>.plugin`: release, namespace, version, nfd_version, values."""
        self.release = str(inputs.get("release", "gpu-operator"))
        self.namespace = str(inputs.get("namespace", "gpu-operator"))
        self.version = str(inputs.get("version", "v26.7.0"))
        self.nfd_version = str(inputs.get("nfd_version", "0.18.3"))
        self.values: dict[str, Any] = dict(inputs.get("values") or {})

    def _value(self, part: str, key: str, default: Any) -> Any:
        return (self.values.get(part) or {}).get(key, default)

    def objects(self) -> list[Obj]:
        """What Helm installs; the operands follow from the ClusterPolicy."""
        found: list[Obj] = []
        config = (self.values.get("devicePlugin") or {}).get("config") or {}
        if config.get("data"):
            found.append(
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {
                        "name": str(config.get("name", "time-slicing-config")),
                        "namespace": self.namespace,
                    },
                    "data": {k: str(v) for k, v in config["data"].items()},
                }
            )
        if self._value("nfd", "enabled", True):
            worker = {"sources": {"pci": {"deviceClassWhitelist": ["02", "0200", "0207", "0300", "0302"],
                                          "deviceLabelFields": ["vendor"]}}}  # fmt: skip
            found += nfd_objects(self.release, self.namespace, self.nfd_version, worker, "nvidia.com", {})
        labels = {"app": "gpu-operator", "app.kubernetes.io/component": "gpu-operator"}
        found.append(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "gpu-operator", "namespace": self.namespace, "labels": labels},
                "spec": {
                    "replicas": 1,
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {
                            "tolerations": [
                                {
                                    "key": "node-role.kubernetes.io/control-plane",
                                    "operator": "Exists",
                                    "effect": "NoSchedule",
                                }
                            ],
                            "containers": [
                                {
                                    "name": "gpu-operator",
                                    "image": f"nvcr.io/nvidia/gpu-operator:{self.version}",
                                    "command": ["gpu-operator"],
                                }
                            ],
                        },
                    },
                },
            }
        )
        found.append(
            {
                "apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy", "metadata": {"name": "cluster-policy"},
                "spec": {
                    "operator": {"runtimeClass": "nvidia"},
                    "driver": {
                        "enabled": bool(self._value("driver", "enabled", True)),
                        "version": str(self._value("driver", "version", "580.105.08")),
                    },
                    "toolkit": {"enabled": bool(self._value("toolkit", "enabled", True))},
                    "devicePlugin": {
                        "enabled": bool(self._value("devicePlugin", "enabled", True)),
                        "version": str(self._value("devicePlugin", "version", "v0.19.0")),
                        "config": {k: v for k, v in config.items() if k in {"name", "default"}},
                    },
                    "gfd": {"enabled": bool(self._value("gfd", "enabled", True))},
                    "dcgmExporter": {"enabled": bool(self._value("dcgmExporter", "enabled", True))},
                    "validator": {},
                    "cdi": {"enabled": bool(self._value("cdi", "enabled", True)),
                            "nriPluginEnabled": bool(self._value("cdi", "nriPluginEnabled", False))},
                    "hostPaths": {
                        "driverInstallDir": str(self._value("hostPaths", "driverInstallDir", "/run/nvidia/driver"))
                    },
                },
            }
        )  # fmt: skip
        return found


def _validation(component: str, namespace_image: str, install_dir: str) -> Obj:
    mounts = [{"name": "driver-install-dir", "mountPath": install_dir}] if component == "driver" else []
    return {
        "volumeMounts": mounts,
        "name": f"{component}-validation",
        "image": namespace_image,
        "command": ["nvidia-validator"],
        "env": [
            {"name": "COMPONENT", "value": component},
            {"name": "DRIVER_INSTALL_DIR", "value": install_dir},
        ],
        "securityContext": {"privileged": True},
    }


def _daemonset(name: str, namespace: str, owner: Obj, spec: Obj) -> Obj:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {
            "name": name, "namespace": namespace, "labels": {**labels, "app.kubernetes.io/part-of": "nvidia-gpu"},
            "ownerReferences": [
                {
                    "apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy", "name": owner["metadata"]["name"],
                    "uid": owner["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    **spec,
                    "nodeSelector": {f"nvidia.com/gpu.deploy.{_OPERANDS[name]}": "true"},
                    "tolerations": [_TOLERATION],
                    "priorityClassName": "system-node-critical",
                },
            },
            "updateStrategy": {"type": "RollingUpdate"},
        },
    }  # fmt: skip


def operands(policy: Obj, namespace: str, operator_image: str) -> list[Obj]:
    """The DaemonSets that the operator wants for a ClusterPolicy."""
    spec = policy["spec"]
    install = str(spec["hostPaths"]["driverInstallDir"])
    plugin_image = f"nvcr.io/nvidia/k8s-device-plugin:{spec['devicePlugin']['version']}"
    wait = {"name": "toolkit-validation", "image": operator_image, "command": ["wait-for-toolkit"],
            "securityContext": {"privileged": True}}  # fmt: skip
    driver_root = [
        {"name": "DRIVER_INSTALL_DIR", "value": install},
        {"name": "NVIDIA_DRIVER_ROOT", "value": install},
        {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"},
    ]
    found = [
        _daemonset(
            "nvidia-operator-validator", namespace, policy,
            {
                "initContainers": [_validation(c, operator_image, install) for c in _VALIDATIONS],
                "volumes": [{"name": "driver-install-dir", "hostPath": {"path": install, "type": ""}}],
                "containers": [
                    {"name": "nvidia-operator-validator", "image": operator_image, "command": ["gpu-operator"],
                     "securityContext": {"privileged": True}}
                ],
            },
        )
    ]  # fmt: skip
    if spec["driver"]["enabled"]:  # there is no driver container for Talos, so its image cannot be pulled (K31)
        driver = {
            "name": "nvidia-driver-ctr", "image": f"nvcr.io/nvidia/driver:{spec['driver']['version']}-talos",
            "command": ["nvidia-driver"], "args": ["init"], "securityContext": {"privileged": True},
        }  # fmt: skip
        found.append(_daemonset("nvidia-driver-daemonset", namespace, policy, {"containers": [driver]}))
    if spec["toolkit"]["enabled"] and not spec["cdi"]["nriPluginEnabled"]:  # GO#2382 (K29)
        drop_in = "containerd-drop-in-config"
        toolkit = {
            "name": "nvidia-container-toolkit-ctr", "image": "nvcr.io/nvidia/k8s/container-toolkit:v1.19.1",
            "command": ["nvidia-toolkit"], "securityContext": {"privileged": True},
            "volumeMounts": [{"name": drop_in, "mountPath": "/runtime/config-dir.d/"}],
        }  # fmt: skip
        drop_ins = {"name": drop_in, "hostPath": {"path": "/etc/containerd/conf.d", "type": "DirectoryOrCreate"}}
        body = {"containers": [toolkit], "volumes": [drop_ins]}
        found.append(_daemonset("nvidia-container-toolkit-daemonset", namespace, policy, body))
    config = spec["devicePlugin"].get("config") or {}
    volumes = [{"name": "host-root", "hostPath": {"path": "/", "type": ""}}]
    manager = [
        {"name": "DEFAULT_CONFIG", "value": str(config.get("default") or "")},
        {"name": "FALLBACK_STRATEGIES", "value": "empty"},
    ]
    extra_env: list[Obj] = []
    if config.get("name"):
        volumes += [
            {"name": "available-configs", "configMap": {"name": config["name"]}},
            {"name": "config", "emptyDir": {}},
        ]
        extra_env = [{"name": "CONFIG_FILE", "value": "/config/config.yaml"}, *manager]

    def with_config(main: Obj, name: str) -> Obj:
        body: Obj = {
            "initContainers": [copy.deepcopy(wait)],
            "containers": [main],
            "volumes": copy.deepcopy(volumes),
        }
        if config.get("name"):
            body["initContainers"].append(
                {
                    "name": "config-manager-init",
                    "image": plugin_image,
                    "command": ["config-manager"],
                    "env": [{"name": "ONESHOT", "value": "true"}, *manager],
                }
            )
            body["containers"].append(
                {
                    "name": "config-manager",
                    "image": plugin_image,
                    "command": ["config-manager"],
                    "env": [{"name": "ONESHOT", "value": "false"}, *manager],
                }
            )
        main["name"] = name
        return body  # fmt: skip

    if spec["devicePlugin"]["enabled"]:
        strategy = "cdi-annotations,cdi-cri" if spec["cdi"]["enabled"] else "envvar"
        found.append(
            _daemonset(
                "nvidia-device-plugin-daemonset",
                namespace,
                policy,
                with_config(
                    {
                        "image": plugin_image,
                        "command": ["nvidia-device-plugin"],
                        "env": [
                            *driver_root,
                            {"name": "DEVICE_LIST_STRATEGY", "value": strategy},
                            *extra_env,
                        ],
                        "securityContext": {"privileged": True},
                    },
                    "nvidia-device-plugin",
                ),
            )
        )
    if spec["dcgmExporter"]["enabled"]:
        exporter = {
            "name": "nvidia-dcgm-exporter", "image": "nvcr.io/nvidia/k8s/dcgm-exporter:4.5.3-4.8.2-distroless",
            "command": ["dcgm-exporter"], "env": list(driver_root),
            "ports": [{"name": "metrics", "containerPort": 9400}], "securityContext": {"privileged": True},
        }  # fmt: skip
        body = {"initContainers": [copy.deepcopy(wait)], "containers": [exporter]}
        found.append(_daemonset("nvidia-dcgm-exporter", namespace, policy, body))
    if spec["gfd"]["enabled"]:
        found.append(
            _daemonset(
                "gpu-feature-discovery",
                namespace,
                policy,
                with_config(
                    {
                        "image": plugin_image,
                        "command": ["gpu-feature-discovery"],
                        "env": [*driver_root, *extra_env],
                        "securityContext": {"privileged": True},
                    },
                    "gpu-feature-discovery",
                ),
            )
        )
    return found


def reconcile(cluster: SimCluster) -> None:
    """One pass of the operator: label GPU nodes, deploy the operands, report the ClusterPolicy's state."""
    kind = cluster.kinds.named("ClusterPolicy", "nvidia.com/v1")
    if kind is None:
        return
    policies = [*cluster.store.each(kind.key)]
    policy, others = policies[0] if policies else None, policies[1:]
    namespace = str((cluster.inputs.get("plugin") or {}).get("namespace", "gpu-operator"))
    running = [
        p
        for p in cluster.store.all("pods", namespace)
        if (p["metadata"].get("labels") or {}).get("app") == "gpu-operator" and p["status"].get("phase") == "Running"
    ]
    if policy is None or not running:
        return
    for other in others:  # only the first one rules
        if (other.get("status") or {}).get("state") != "ignored":
            cluster.store.put(kind, {**other, "status": {"namespace": namespace, "state": "ignored"}})
    nodes = cluster.store.all("nodes")
    any_nfd = any(k.startswith("feature.node.kubernetes.io/") for n in nodes for k in n["metadata"].get("labels") or {})
    gpu_nodes = [n for n in nodes if any((n["metadata"].get("labels") or {}).get(k) == "true" for k in _NFD_LABELS)]
    for node in gpu_nodes:
        wanted = {"nvidia.com/gpu.present": "true"}
        wanted |= {
            f"nvidia.com/gpu.deploy.{o}": "true" for o in (*_OPERANDS.values(), "driver", "container-toolkit", "dcgm")
        }
        have = node["metadata"]["labels"]
        missing = {k: v for k, v in wanted.items() if k not in have}  # an owner's `false` opts the node out
        if missing:
            fresh = copy.deepcopy(node)
            fresh["metadata"]["labels"] |= missing
            cluster.store.put(cluster.nodes_kind, fresh)
    name = str(policy["spec"]["operator"]["runtimeClass"])
    key = "runtimeclasses.node.k8s.io"
    if not policy["spec"]["cdi"]["nriPluginEnabled"] and cluster.store.get(key, name) is None:
        cluster.store.put(cluster.kinds.key(key), {"metadata": {"name": name}, "handler": name})
    not_ready = []
    if gpu_nodes:
        ds_kind = cluster.kinds.key("daemonsets.apps")
        for wanted_ds in operands(policy, namespace, running[0]["spec"]["containers"][0]["image"]):
            name = wanted_ds["metadata"]["name"]
            have = cluster.store.get(ds_kind.key, name, namespace)
            if have is None:
                have = cluster.store.put(ds_kind, {**wanted_ds, "status": {}})
            status = have.get("status") or {}
            desired = status.get("desiredNumberScheduled", 0)
            # an operand that no node wants counts as ready
            if status.get("numberReady", 0) < desired or "desiredNumberScheduled" not in status:
                not_ready.append(_STATES[name])
    _report(cluster, policy, any_nfd, bool(gpu_nodes), not_ready, namespace)


def _report(
    cluster: SimCluster, policy: Obj, any_nfd: bool, any_gpu: bool, not_ready: list[str], namespace: str
) -> None:
    if not any_nfd:
        good, reason, message = True, "NFDLabelsMissing", "No NFD labels found"
    elif not any_gpu:
        good, reason, message = (
            True,
            "NoGPUNodes",
            "No GPU node found, watching for new nodes to join the cluster.",
        )
    elif not_ready:
        text = f"ClusterPolicy is not ready, states not ready: [{' '.join(not_ready)}]"
        good, reason, message = False, "OperandNotReady", text
    else:
        good, reason, message = (
            True,
            "Reconciled",
            "ClusterPolicy is ready as all resources have been successfully reconciled",
        )
    old = {c["type"]: c for c in (policy.get("status") or {}).get("conditions") or []}
    now = cluster.clock.stamp()
    rows = []
    for name, on in (("Ready", good), ("Error", not good)):
        status = "True" if on else "False"
        was = old.get(name)
        same = was is not None and was["status"] == status
        rows.append(
            {
                "type": name,
                "status": status,
                "reason": reason if on else ("Ready" if good else reason),
                "message": message if on else "",
                "lastTransitionTime": was["lastTransitionTime"] if was and same else now,
            }
        )
    fresh = copy.deepcopy(policy)
    fresh["status"] = {"namespace": namespace, "state": "ready" if good else "notReady", "conditions": rows}
    kind = cluster.kinds.named("ClusterPolicy", "nvidia.com/v1")
    assert kind is not None, "the ClusterPolicy kind is served, its object was just read"
    cluster.store.put(kind, fresh)
