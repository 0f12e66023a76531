"""A small cluster as raw API objects, read by the real probe through a session that answers from memory.

Tests change the objects as a fault would and ask for a clause's judgement: readers, role detection, log parsing and
checks are all the shipped ones.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from types import SimpleNamespace

from labproof.checks.registry import clauses
from labproof.checks.subject import Subject
from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.kubernetes import PodLog
from labproof.facts.reading import Reading
from labproof.facts.store import now
from labproof.inventory.chains import targets_of
from labproof.inventory.models import Lab
from labproof.probes.kubernetes import _ClusterReader

NODE, PLUGIN_NS = "moody-good", "nvidia-device-plugin"
UUID = "8f2c1d34-55aa-4b21-9c0e-001122334455"
SHARED = """\
version: v1
sharing:
  timeSlicing:
    failRequestsGreaterThanOne: true
    resources:
      - name: nvidia.com/gpu
        replicas: 4
"""
RUNNING = {
    "version": "v1",
    "flags": {"failOnInitError": True, "deviceDiscoveryStrategy": "nvml", "plugin": {"deviceListStrategy": ["envvar"]}},
    "resources": {"gpus": [{"pattern": "*", "name": "nvidia.com/gpu"}]},
    "sharing": {
        "timeSlicing": {
            "failRequestsGreaterThanOne": True,
            "resources": [{"name": "nvidia.com/gpu", "devices": "all", "replicas": 4}],
        }
    },
}


def lab(**cluster) -> Lab:
    """The T4 lab; keywords replace settings of its cluster."""
    settings = {
        "name": "moody",
        "kubeconfig": "unused",
        "plugin": {"flavour": "nvidia-device-plugin", "discovery": "nvml"},
        "discovery": {"nfd": "vendor", "gfd": True},
        "sharing": {"strategy": "time-slicing", "replicas": 4},
        "workloads": [{"name": "media/jellyfin", "slots": 1}],
    }
    return Lab.model_validate(
        {
            "lab": "t4",
            "hosts": [{"name": "pve5", "ssh": {"address": "pve5"}, "pve": {"url": "https://pve5:8006"}}],
            "gpus": [{"name": "t4", "host": "pve5", "device": "10de:1eb8", "address": "0000:3b:00.0"}],
            "vms": [
                {"name": "vm", "host": "pve5", "id": 1105, "gpus": ["t4"], "match": {"smbios_uuid": UUID}},
            ],
            "nodes": [
                {
                    "name": NODE, "cluster": "moody", "vm": "vm",
                    "talos": {"talosconfig": "unused", "schematic": "ab" * 32},
                }
            ],
            "clusters": [settings | cluster],
            "timings": {"stable_interval_s": 0.001},
        }
    )  # fmt: skip


def running_log(config=None) -> str:
    return (
        "I1120 main.go:353]\nRunning with config:\n"
        + json.dumps(RUNNING if config is None else config, indent=2)
        + "\nI1120 server.go:197] Starting to serve 'nvidia.com/gpu' on nvidia-gpu.sock\n"
        "I1120 server.go:204] Registered device plugin for 'nvidia.com/gpu' with Kubelet\n"
    )


def healthy_node() -> dict:
    return {
        "metadata": {
            "name": NODE,
            "labels": {
                "kubernetes.io/hostname": NODE,
                "feature.node.kubernetes.io/pci-10de.present": "true",
                "nvidia.com/gpu.count": "1", "nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.memory": "15360",
                "nvidia.com/gpu.product": "Tesla-T4-SHARED", "nvidia.com/gpu.sharing-strategy": "time-slicing",
            },
            "annotations": {"extensions.talos.dev/schematic": "ab" * 32},
        },
        "spec": {},
        "status": {
            "capacity": {"cpu": "8", "nvidia.com/gpu": "4"},
            "allocatable": {"cpu": "8", "nvidia.com/gpu": "4"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ok"}],
            "nodeInfo": {"systemUUID": UUID, "kubeletVersion": "v1.34.3"},
            "runtimeHandlers": [{"name": ""}, {"name": "runc"}, {"name": "nvidia"}],
        },
    }  # fmt: skip


def daemonset(name: str, container: str, image: str, *, more=(), **template) -> dict:
    """A DaemonSet of the NVIDIA chart's shape (affinity and tolerations of facts kubernetes-gpu 1.4)."""
    terms = [
        {"matchExpressions": [{"key": key, "operator": "In", "values": ["true"]}]}
        for key in ("feature.node.kubernetes.io/pci-10de.present", "nvidia.com/gpu.present")
    ]
    spec = {
        "containers": [{"name": container, "image": image}, *more],
        "tolerations": [
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        ],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}},
    }
    return {
        "metadata": {"name": name, "namespace": PLUGIN_NS, "uid": f"ds-{name}", "generation": 1},
        "spec": {"template": {"spec": spec | template}},
        "status": {
            "desiredNumberScheduled": 1, "currentNumberScheduled": 1, "numberReady": 1, "observedGeneration": 1,
        },
    }  # fmt: skip


def pod(name: str, owner: tuple[str, str], containers, *, namespace=PLUGIN_NS, node=NODE, gpu="", **spec) -> dict:
    """A Running pod; `gpu` is the limit on nvidia.com/gpu."""
    made = [{"name": c, "image": "i", "resources": {}} for c in containers]
    running = {"running": {"startedAt": "2026-11-20T10:00:02Z"}}
    if gpu:
        made[0]["resources"] = {"limits": {"nvidia.com/gpu": gpu}, "requests": {"nvidia.com/gpu": gpu}}
    return {
        "metadata": {
            "name": name, "namespace": namespace, "uid": f"uid-{name}", "creationTimestamp": "2026-11-20T10:00:00Z",
            "ownerReferences": [{"kind": owner[0], "name": owner[1], "controller": True}] if owner[0] else [],
        },
        "spec": {"nodeName": node, "containers": made} | spec,
        "status": {
            "phase": "Running", "startTime": "2026-11-20T10:00:01Z",
            "containerStatuses": [
                {"name": c, "ready": True, "restartCount": 0, "state": dict(running)}
                for c in containers
            ],
        },
    }  # fmt: skip


@dataclass
class World:
    """Raw objects by kind; `refused` answers a path with a failure instead."""

    nodes: list = field(default_factory=lambda: [healthy_node()])
    daemonsets: list = field(default_factory=list)
    pods: list = field(default_factory=list)
    config_maps: dict = field(default_factory=dict)
    runtime_classes: list = field(default_factory=lambda: [{"metadata": {"name": "nvidia"}, "handler": "nvidia"}])
    namespaces: list = field(default_factory=list)
    events: list = field(default_factory=list)
    policies: list | None = None
    logs: dict = field(default_factory=dict)
    lease_age_s: float = 4.0
    allocatable_series: list = field(default_factory=list)
    dry_run: tuple[int, str] | None = None
    refused: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)

    @property
    def node(self) -> dict:
        return self.nodes[0]

    def the(self, kind: str, name: str) -> dict:
        return next(o for o in getattr(self, kind) if o["metadata"]["name"] == name)


def healthy() -> World:
    """The standalone chart with NFD, GFD and an embedded configuration; Jellyfin holds one slot."""
    manager = {"name": "nvidia-device-plugin-sidecar", "image": "nvcr.io/nvidia/k8s-device-plugin:v0.18.2"}
    volumes = [
        {"name": "available-configs", "configMap": {"name": "nvidia-device-plugin-configs"}},
        {"name": "device-plugin", "hostPath": {"path": "/var/lib/kubelet/device-plugins"}},
    ]
    image = "nvcr.io/nvidia/k8s-device-plugin:v0.18.2"
    plugin = daemonset(
        "nvidia-device-plugin",
        "nvidia-device-plugin-ctr",
        image,
        more=[manager],
        volumes=volumes,
        runtimeClassName="nvidia",
    )
    gfd = daemonset("nvidia-device-plugin-gpu-feature-discovery", "gpu-feature-discovery-ctr", image)
    nfd = daemonset("nfd-worker", "worker", "registry.k8s.io/nfd/node-feature-discovery:v0.17.3", affinity={})
    nfd["spec"]["template"]["spec"]["containers"][0]["command"] = ["nfd-worker"]
    main = ["nvidia-device-plugin-ctr", "nvidia-device-plugin-sidecar"]
    return World(
        daemonsets=[plugin, gfd, nfd],
        pods=[
            pod("plugin-x", ("DaemonSet", "nvidia-device-plugin"), main),
            pod("gfd-x", ("DaemonSet", "nvidia-device-plugin-gpu-feature-discovery"), ["gpu-feature-discovery-ctr"]),
            pod("nfd-x", ("DaemonSet", "nfd-worker"), ["worker"]),
            pod("jellyfin-6d4-abc", ("ReplicaSet", "jellyfin-6d4"), ["jellyfin"], namespace="media", gpu="1"),
        ],
        config_maps={(PLUGIN_NS, "nvidia-device-plugin-configs"): {"default": SHARED}},
        namespaces=[
            {"metadata": {"name": PLUGIN_NS, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}},
            {"metadata": {"name": "media"}},
            {"metadata": {"name": "labproof", "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}},
        ],
        logs={("plugin-x", "nvidia-device-plugin-ctr", False): running_log()},
    )


class Session:
    """What `_ClusterReader` needs of a KubeSession."""

    as_whom = "tester"

    def __init__(self, world: World) -> None:
        self.world = world
        self.context = SimpleNamespace(configuration=SimpleNamespace(host="https://moody.invalid:6443"))
        self._looks = 0
        self._renewed = now() - world.lease_age_s

    def _ask(self, path: str) -> None:
        self.world.asked.append(path)
        if path in self.world.refused:
            raise self.world.refused[path]

    def get_json(self, path, **query):
        self._ask(path)
        if path == "/version":
            return {"gitVersion": "v1.34.3"}
        _, _, _, _, namespace, _, name = path.split("/")
        data = self.world.config_maps.get((namespace, name))
        if data is None:
            raise TransportFailure(Kind.NOT_FOUND, "api", "not found", status=404)
        return {"metadata": {"namespace": namespace, "name": name}, "data": data}

    def list_json(self, path, page=500, **query):
        self._ask(path)
        world = self.world
        served = world.policies is not None or not path.endswith("/clusterpolicies")
        if path.endswith("/gpudeviceplugins") or not served:
            raise TransportFailure(
                Kind.NOT_FOUND, "api", "the server could not find the requested resource", status=404
            )
        lease = {"metadata": {"name": NODE}, "spec": {"renewTime": _stamp(self._renewed)}}
        items = {
            "/api/v1/nodes": self._nodes,
            "/api/v1/pods": lambda: world.pods,
            "/apis/apps/v1/daemonsets": lambda: world.daemonsets,
            "/api/v1/events": lambda: world.events,
            "/api/v1/namespaces": lambda: world.namespaces,
            "/apis/node.k8s.io/v1/runtimeclasses": lambda: world.runtime_classes,
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases": lambda: [lease],
            "/apis/nvidia.com/v1/clusterpolicies": lambda: world.policies or [],
        }[path]()
        return {"items": copy.deepcopy(items)}

    def _nodes(self):
        if self.world.allocatable_series:
            looks = self.world.allocatable_series
            self.world.node["status"]["allocatable"]["nvidia.com/gpu"] = looks[min(self._looks, len(looks) - 1)]
            self._looks += 1
        return self.world.nodes

    def log(self, namespace, pod, container=None, *, previous=False, tail_lines=None):
        self._ask(f"log {pod} {container}{' previous' if previous else ''}")
        text = self.world.logs.get((pod, container, previous))
        return (
            PodLog(None, f'container "{container}" is waiting to start')
            if text is None
            else PodLog(text.encode(), None)
        )

    def create(self, path, body, *, dry_run=False):
        assert dry_run, "a probe creates nothing"
        self._ask(path)
        if self.world.dry_run is not None:
            status, message = self.world.dry_run
            raise TransportFailure(Kind.FORBIDDEN, "api", message, status=status, answer=message)
        return body | {"spec": body["spec"] | {"priority": 0}}


def _stamp(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def read(world: World, of: Lab) -> Reading:
    return _ClusterReader(of, of.clusters[0], Session(world)).read()


def subject(world: World, of: Lab, scope: str) -> Subject:
    reading = read(world, of)
    facts = SimpleNamespace(cluster=lambda name: reading, now=now())
    return Subject(facts, of, targets_of(of, scope, "kubernetes")[0])


def judge(ident: str, world: World, of: Lab | None = None):
    clause = clauses()[ident]
    return clause.judge(subject(world, of or lab(), clause.scope))


def failing(world: World, of: Lab) -> dict[str, list[str]]:
    """Clause -> causes, of every clause of the layer that the lab's features select and that does not hold."""
    from labproof.checks.judgement import Fail, Unchecked
    from labproof.inventory.chains import features_of

    found = {}
    by_scope = {scope: subject(world, of, scope) for scope in ("node", "cluster")}
    for clause in clauses().values():
        if clause.layer != "kubernetes" or clause.scope not in by_scope or clause.reads != ("kubernetes",):
            continue
        about = by_scope[clause.scope]
        if not set(clause.wants) <= features_of(of, about.target):
            continue
        judgement = clause.judge(about)
        if isinstance(judgement, Fail):
            found[clause.id] = [p.cause for p in judgement.problems]
        elif isinstance(judgement, Unchecked):
            found[clause.id] = [f"unchecked: {judgement.reason}"]
    return found


def findings(world: World, of: Lab) -> dict[str, list[str]]:
    """`failing`, less what is blocked by a failing blocking clause it comes after."""
    from labproof.checks.registry import BLOCKING

    every, raw = clauses(), failing(world, of)

    def blocked(ident: str) -> bool:
        return any(
            (lower in raw and every[lower].severity is BLOCKING) or blocked(lower)
            for lower in every[ident].after
        )  # fmt: skip

    return {ident: causes for ident, causes in raw.items() if not blocked(ident)}


def crash(world: World, name: str, log: str, *, reason: str = "Error", code: int = 1) -> None:
    """The plugin's pod restarts and restarts, and its previous log says why."""
    status = world.the("pods", name)["status"]["containerStatuses"][0]
    status.update(
        ready=False, restartCount=6, state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
        lastState={"terminated": {"exitCode": code, "reason": reason, "message": ""}},
    )  # fmt: skip
    world.logs.pop((name, status["name"], False), None)
    world.logs[name, status["name"], True] = log


def no_slots(world: World, *, capacity: str | None = "4", allocatable: str | None = "0") -> None:
    """The node's numbers after the plugin went away (or never came: None)."""
    for key, number in (("capacity", capacity), ("allocatable", allocatable)):
        numbers = world.node["status"][key]
        numbers.pop("nvidia.com/gpu", None)
        if number is not None:
            numbers["nvidia.com/gpu"] = number


def no_plugin_pod(world: World, name: str = "nvidia-device-plugin", pod_name: str = "plugin-x") -> dict:
    """The DaemonSet wants no pod here."""
    found = world.the("daemonsets", name)
    found["status"].update(desiredNumberScheduled=0, currentNumberScheduled=0, numberReady=0)
    world.pods = [p for p in world.pods if p["metadata"]["name"] != pod_name]
    return found


def event(kind: str, name: str, reason: str, message: str, *, namespace: str = PLUGIN_NS, uid: str = "") -> dict:
    return {
        "type": "Warning", "reason": reason, "message": message, "lastTimestamp": "2026-11-20T10:05:00Z", "count": 3,
        "metadata": {"namespace": namespace},
        "involvedObject": {"kind": kind, "name": name, "namespace": namespace, "uid": uid},
    }  # fmt: skip
