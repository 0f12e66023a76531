"""The nvidia-device-plugin chart: values in, objects out, as Helm renders them (kubernetes-gpu.md 1.4, 2.2).

Values are the chart's own names. Lists that a fault may want to touch are mappings by name (`tolerations`).
"""

from __future__ import annotations

import hashlib
from typing import Any

import yaml

from labproof.simlab.kube.kinds import Obj

_AFFINITY = (
    ("feature.node.kubernetes.io/pci-10de.present", "true"),
    ("feature.node.kubernetes.io/cpu-model.vendor_id", "NVIDIA"),
    ("nvidia.com/gpu.present", "true"),
)
_TOLERATIONS: dict[str, Obj] = {
    "critical": {"key": "CriticalAddonsOnly", "operator": "Exists"},
    "gpu": {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
}


def _meta(name: str, namespace: str, labels: dict[str, str]) -> Obj:
    return {"name": name, "namespace": namespace, "labels": dict(labels)}


def _host(name: str, path: str, kind: str = "") -> Obj:
    return {"name": name, "hostPath": {"path": path, "type": kind}}


class PluginChart:
    """One release of the chart."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        """Inputs `clusters.<name>.plugin`: release, namespace, version, nfd_version, registry, values."""
        self.release = str(inputs.get("release", "nvidia-device-plugin"))
        self.namespace = str(inputs.get("namespace", "nvidia-device-plugin"))
        self.version = str(inputs.get("version", "0.18.2"))
        self.nfd_version = str(inputs.get("nfd_version", "0.17.3"))
        self.values: dict[str, Any] = dict(inputs.get("values") or {})
        name = "nvidia-device-plugin"
        self.fullname = self.release if name in self.release else f"{self.release}-{name}"
        self.image = str(self.values.get("image") or f"nvcr.io/nvidia/k8s-device-plugin:v{self.version}")
        self.labels = {
            "app.kubernetes.io/name": name,
            "app.kubernetes.io/instance": self.release,
            "app.kubernetes.io/version": self.version,
            "app.kubernetes.io/managed-by": "Helm",
            "helm.sh/chart": f"{name}-{self.version}",
        }

    def objects(self) -> list[Obj]:
        """Everything the release contains, in install order."""
        found: list[Obj] = [
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": _meta(f"{self.fullname}-service-account", self.namespace, self.labels),
            }
        ]
        if self._config_map() and (self.values.get("config") or {}).get("map"):
            found.append(
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": _meta(self._config_map(), self.namespace, self.labels),
                    "data": {k: str(v) for k, v in self.values["config"]["map"].items()},
                }
            )
        if self._on("nfd") or self._on("gfd"):
            found += self._nfd()
        found.append(self._plugin())
        if self._on("gfd"):
            found.append(self._gfd())
        return found

    def _on(self, part: str) -> bool:
        return bool((self.values.get(part) or {}).get("enabled", False))

    def _config_map(self) -> str:
        config = self.values.get("config") or {}
        if config.get("name"):
            return str(config["name"])
        return f"{self.fullname}-configs" if config.get("map") else ""

    def _tolerations(self) -> list[Obj]:
        extra = self.values.get("tolerations") or {}
        return [dict(t) for t in (_TOLERATIONS | dict(extra)).values() if t]

    def _affinity(self) -> Obj:
        terms = [{"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]} for key, value in _AFFINITY]
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}

    def _environment(self, names: dict[str, str]) -> list[Obj]:
        """Chart values that were set become environment, which wins over the config file (1.1)."""
        rows = []
        for value, variable in names.items():
            if self.values.get(value) is not None:
                given = self.values[value]
                text = str(given).lower() if isinstance(given, bool) else str(given)
                rows.append({"name": variable, "value": text})
        return rows

    def _manager(self, name: str, oneshot: bool) -> Obj:
        config = self.values.get("config") or {}
        fallbacks = config.get("fallbackStrategies", "named,single")
        return {
            "name": name,
            "image": self.image,
            "command": ["config-manager"],
            "env": [
                {"name": "ONESHOT", "value": str(oneshot).lower()},
                {"name": "KUBECONFIG", "value": ""},
                {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "NODE_LABEL", "value": "nvidia.com/device-plugin.config"},
                {"name": "CONFIG_FILE_SRCDIR", "value": "/available-configs"},
                {"name": "CONFIG_FILE_DST", "value": "/config/config.yaml"},
                {"name": "DEFAULT_CONFIG", "value": str(config.get("default") or "")},
                {"name": "FALLBACK_STRATEGIES", "value": str(fallbacks)},
                {"name": "SEND_SIGNAL", "value": str(not oneshot).lower()},
                {"name": "SIGNAL", "value": "1"},
                {"name": "PROCESS_TO_SIGNAL", "value": "nvidia-device-plugin"},
            ],
            "volumeMounts": [
                {"name": "available-configs", "mountPath": "/available-configs"},
                {"name": "config", "mountPath": "/config"},
            ],
        }

    def _pod(self, component: str, main: Obj, volumes: list[Obj]) -> Obj:
        """The pod template of the plugin's or GFD's DaemonSet."""
        spec: Obj = {
            "serviceAccountName": f"{self.fullname}-service-account",
            "priorityClassName": self.values.get("priorityClassName", "system-node-critical"),
            "affinity": self._affinity(),
            "tolerations": self._tolerations(),
            "containers": [main],
            "volumes": volumes,
        }
        if self.values.get("runtimeClassName"):
            spec["runtimeClassName"] = self.values["runtimeClassName"]
        if self.values.get("nodeSelector"):
            spec["nodeSelector"] = dict(self.values["nodeSelector"])
        annotations: dict[str, str] = {}
        name = self._config_map()
        if name:
            spec["shareProcessNamespace"] = True
            spec["initContainers"] = [self._manager(f"{component}-init", True)]
            spec["containers"] = [self._manager(f"{component}-sidecar", False), main]
            main["env"].append({"name": "CONFIG_FILE", "value": "/config/config.yaml"})
            main.setdefault("volumeMounts", []).append({"name": "config", "mountPath": "/config"})
            spec["volumes"] += [
                {"name": "available-configs", "configMap": {"name": name}},
                {"name": "config", "emptyDir": {}},
            ]
            texts = (self.values.get("config") or {}).get("map")
            if texts:  # only the chart's own map rolls the pods when it changes
                annotations["checksum/config"] = hashlib.sha256(yaml.safe_dump(texts).encode()).hexdigest()
        selector = {k: self.labels[k] for k in ("app.kubernetes.io/name", "app.kubernetes.io/instance")}
        return {"metadata": {"labels": selector, "annotations": annotations}, "spec": spec}

    def _daemonset(self, name: str, template: Obj) -> Obj:
        selector = dict(template["metadata"]["labels"])
        return {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": _meta(name, self.namespace, self.labels),
            "spec": {
                "selector": {"matchLabels": selector},
                "template": template,
                "updateStrategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0},
                },
                "revisionHistoryLimit": 10,
            },
        }

    def _plugin(self) -> Obj:
        environment = self._environment(
            {
                "migStrategy": "MIG_STRATEGY",
                "failOnInitError": "FAIL_ON_INIT_ERROR",
                "deviceListStrategy": "DEVICE_LIST_STRATEGY",
                "deviceIDStrategy": "DEVICE_ID_STRATEGY",
                "deviceDiscoveryStrategy": "DEVICE_DISCOVERY_STRATEGY",
                "passDeviceSpecs": "PASS_DEVICE_SPECS",
            }
        )
        hook = (self.values.get("cdi") or {}).get("nvidiaHookPath")
        if hook:
            environment.append({"name": "NVIDIA_CDI_HOOK_PATH", "value": str(hook)})
        environment += [
            {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
            {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,utility"},
        ]
        caps: Obj = {"drop": ["ALL"]}
        if self._config_map() and self.values.get("migStrategy") is None:
            security: Obj = {"capabilities": {"add": ["SYS_ADMIN"]}}
        else:
            security = {"allowPrivilegeEscalation": False, "capabilities": caps}
        main: Obj = {
            "name": "nvidia-device-plugin-ctr",
            "image": self.image,
            "command": ["nvidia-device-plugin"],
            "env": environment,
            "securityContext": security,
            "resources": dict(self.values.get("resources") or {}),
            "volumeMounts": [
                {"name": "device-plugin", "mountPath": "/var/lib/kubelet/device-plugins"},
                {"name": "mps-shm", "mountPath": "/dev/shm"},  # noqa: S108 - the chart's own path
                {"name": "mps-root", "mountPath": "/mps"},
                {"name": "cdi-root", "mountPath": "/var/run/cdi"},
            ],
        }
        volumes = [
            _host("device-plugin", "/var/lib/kubelet/device-plugins", "Directory"),
            _host("mps-root", "/run/nvidia/mps", "DirectoryOrCreate"),
            _host("mps-shm", "/run/nvidia/mps/shm"),
            _host("cdi-root", "/var/run/cdi", "DirectoryOrCreate"),
        ]
        return self._daemonset(self.fullname, self._pod("nvidia-device-plugin", main, volumes))

    def _gfd(self) -> Obj:
        environment = self._environment({"migStrategy": "MIG_STRATEGY", "failOnInitError": "FAIL_ON_INIT_ERROR"})
        environment += [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
            {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,utility"},
        ]
        main: Obj = {
            "name": "gpu-feature-discovery-ctr",
            "image": self.image,
            "command": ["gpu-feature-discovery"],
            "env": environment,
            "securityContext": {"privileged": True},
            "volumeMounts": [
                {"name": "output-dir", "mountPath": "/etc/kubernetes/node-feature-discovery/features.d"},
                {"name": "host-sys", "mountPath": "/sys"},
            ],
        }
        volumes = [
            _host("output-dir", "/etc/kubernetes/node-feature-discovery/features.d"), _host("host-sys", "/sys"),
        ]  # fmt: skip
        name = f"{self.fullname}-gpu-feature-discovery"
        return self._daemonset(name, self._pod("gpu-feature-discovery", main, volumes))

    def _nfd(self) -> list[Obj]:
        nfd = dict(self.values.get("nfd") or {})
        default_extra = "nvidia.com"
        return nfd_objects(
            self.release,
            self.namespace,
            self.nfd_version,
            dict(nfd.get("workerConfig") or {"sources": {"pci": {"deviceLabelFields": ["vendor"]}}}),
            str(nfd.get("extraLabelNs", default_extra)),
            dict(nfd.get("workerTolerations") or {}),
        )


def nfd_objects(
    release: str,
    namespace: str,
    version: str,
    worker_config: dict[str, Any],
    extra_label_ns: str,
    tolerations: dict[str, Any],
) -> list[Obj]:
    """The node-feature-discovery chart: master and gc Deployments, worker DaemonSet and its ConfigMap."""
    base = f"{release}-node-feature-discovery"
    image = f"registry.k8s.io/nfd/node-feature-discovery:v{version}"

    def labels(role: str) -> dict[str, str]:
        return {
            "app.kubernetes.io/name": "node-feature-discovery",
            "app.kubernetes.io/instance": release,
            "role": role,
        }

    def deployment(role: str, argv: list[str]) -> Obj:
        control = [
            {
                "key": "node-role.kubernetes.io/control-plane",
                "operator": "Equal",
                "value": "",
                "effect": "NoSchedule",
            }
        ]
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _meta(f"{base}-{role}", namespace, labels(role)),
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels(role)},
                "template": {
                    "metadata": {"labels": labels(role)},
                    "spec": {
                        "tolerations": control if role == "master" else [],
                        "containers": [{"name": role, "image": image, "command": argv}],
                    },
                },
            },
        }

    allowed = {"gpu": _TOLERATIONS["gpu"]} | tolerations
    worker_spec: Obj = {
        "tolerations": [dict(t) for t in allowed.values() if t],
        "containers": [
            {
                "name": "worker",
                "image": image,
                "command": ["nfd-worker"],
                "args": ["-feature-gates=NodeFeatureAPI=true"],
                "volumeMounts": [
                    {"name": "host-boot", "mountPath": "/host-boot", "readOnly": True},
                    {"name": "host-sys", "mountPath": "/host-sys", "readOnly": True},
                ],
            }
        ],
        "volumes": [
            _host("host-boot", "/boot"),
            _host("host-sys", "/sys"),
            _host("features-d", "/etc/kubernetes/node-feature-discovery/features.d/"),
            {"name": "nfd-worker-conf", "configMap": {"name": f"{base}-worker-conf"}},
        ],
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _meta(f"{base}-worker-conf", namespace, labels("worker")),
            "data": {"nfd-worker.conf": yaml.safe_dump(worker_config, sort_keys=False)},
        },
        deployment("master", ["nfd-master", f"-extra-label-ns={extra_label_ns}"]),
        deployment("gc", ["nfd-gc"]),
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": _meta(f"{base}-worker", namespace, labels("worker")),
            "spec": {
                "selector": {"matchLabels": labels("worker")},
                "template": {"metadata": {"labels": labels("worker")}, "spec": worker_spec},
                "updateStrategy": {"type": "RollingUpdate"},
            },
        },
    ]
