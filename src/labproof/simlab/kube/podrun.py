"""What the kubelet knows about a pod that runs on its node, and the status it reports from it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from labproof.simlab.kube import podspec
from labproof.simlab.kube.devices import DeviceManager
from labproof.simlab.kube.kinds import Obj
from labproof.simlab.kube.process import ContainerIO, LogBook
from labproof.simlab.kube.versions import Release
from labproof.simlab.world.states import PodWorld


@dataclass
class ContainerRun:
    """One container of a pod on a node."""

    spec: Obj
    init: bool = False
    state: Obj = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last: Obj = field(default_factory=dict)
    restarts: int = 0
    attempts: int = 0  # starts tried so far, successful or not
    container_id: str = ""
    image_id: str = ""
    log: LogBook = field(default_factory=LogBook)
    previous: LogBook | None = None
    world: PodWorld | None = None
    io: ContainerIO | None = None
    task: asyncio.Task[None] | None = None
    incarnation: int = 0
    started_at: str = ""
    done: bool = False  # an init container that completed
    held: dict[str, list[str]] = field(default_factory=dict)  # device ids; the status shows them after the end, too

    @property
    def name(self) -> str:
        """The container's name."""
        return str(self.spec["name"])

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return "running" in self.state

    @property
    def terminated(self) -> Obj | None:
        """The terminated state, None when it is not terminated."""
        ended = self.state.get("terminated")
        return dict(ended) if ended else None


@dataclass
class PodRun:
    """One pod on a node."""

    uid: str
    namespace: str
    name: str
    handler: str = ""
    start_time: str = ""
    sandbox: bool = False  # PodReadyToStartContainers
    ip: str = ""
    containers: list[ContainerRun] = field(default_factory=list)
    rejected: tuple[str, str] | None = None  # reason, message
    ended: tuple[str, str] | None = None  # DeadlineExceeded and its message
    finished: bool = False
    pull_tries: dict[str, int] = field(default_factory=dict)

    @property
    def inits(self) -> list[ContainerRun]:
        """Init containers in order."""
        return [c for c in self.containers if c.init]

    @property
    def mains(self) -> list[ContainerRun]:
        """Regular containers."""
        return [c for c in self.containers if not c.init]

    def container(self, name: str) -> ContainerRun | None:
        """The container of that name."""
        return next((c for c in self.containers if c.name == name), None)


def phase_of(pod: Obj, run: PodRun) -> str:
    """The pod's phase from its containers and restart policy (kubelet getPhase)."""
    if run.rejected or run.ended:
        return "Failed"
    policy = pod["spec"].get("restartPolicy", "Always")
    if any(not c.done for c in run.inits):
        stuck = [c for c in run.inits if c.terminated and c.terminated["exitCode"] != 0]
        return "Failed" if stuck and policy == "Never" else "Pending"
    mains = run.mains
    waiting = [c for c in mains if "waiting" in c.state]
    if any(not (c.last or c.running or c.terminated) for c in waiting):
        return "Pending"
    ended = [c for c in mains if c.terminated]
    if len(ended) == len(mains) and policy != "Always":
        codes = [c.terminated["exitCode"] for c in ended if c.terminated]
        if all(code == 0 for code in codes):
            return "Succeeded"
        return "Failed" if policy == "Never" else "Running"
    return "Running"


def build_status(
    pod: Obj,
    run: PodRun,
    release: Release,
    devices: DeviceManager,
    host_ip: str,
    now: str,
    containerd_two: bool,
) -> Obj:
    """The pod's status as the kubelet posts it."""
    before = {c["type"]: c for c in (pod.get("status") or {}).get("conditions") or []}
    generation = pod["metadata"].get("generation", 1)
    phase = phase_of(pod, run)
    if run.rejected:
        reason, message = run.rejected
        return {
            "observedGeneration": generation,
            "phase": "Failed",
            "message": message,
            "reason": reason,
            "startTime": run.start_time,
            "qosClass": podspec.qos_class(pod),
        }

    def condition(kind: str, good: bool, reason: str = "", message: str = "") -> Obj:
        status = "True" if good else "False"
        old = before.get(kind)
        row: Obj = {
            "type": kind,
            "observedGeneration": generation,
            "status": status,
            "lastProbeTime": None,
            "lastTransitionTime": old["lastTransitionTime"] if old and old["status"] == status else now,
        }
        if reason:
            row["reason"] = reason
        if message:
            row["message"] = message
        return row

    initialized = all(c.done for c in run.inits)
    ready = bool(run.mains) and all(c.running for c in run.mains) and initialized
    if phase in {"Succeeded", "Failed"}:
        why = ("PodCompleted" if phase == "Succeeded" else "PodFailed", "")
    else:
        unready = [c.name for c in run.mains if not c.running]
        why = ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    if ready:
        why = ("", "")
    pending_inits = [c.name for c in run.inits if not c.done]
    if initialized:
        init_why = ("PodCompleted", "") if phase == "Succeeded" else ("", "")
    else:
        init_why = (
            "ContainersNotInitialized",
            f"containers with incomplete status: [{' '.join(pending_inits)}]",
        )
    status: Obj = {
        "observedGeneration": generation,
        "phase": phase,
        "conditions": [
            condition("PodReadyToStartContainers", run.sandbox and not run.finished),
            condition("Initialized", initialized, *init_why),
            condition("Ready", ready, *why),
            condition("ContainersReady", ready, *why),
            condition("PodScheduled", True),
        ],
    }
    if run.ended:
        status["reason"], status["message"] = run.ended
    status |= {"hostIP": host_ip, "hostIPs": [{"ip": host_ip}]}
    if run.ip:
        status |= {"podIP": run.ip, "podIPs": [{"ip": run.ip}]}
    status["startTime"] = run.start_time
    rows = {c.name: _container_status(pod, run, c, release, devices, containerd_two) for c in run.containers}
    if run.inits:
        status["initContainerStatuses"] = [rows[c.name] for c in run.inits]
    status["containerStatuses"] = [rows[c.name] for c in run.mains]
    status["qosClass"] = podspec.qos_class(pod)
    if release.pod_level_resources:
        status |= _pod_resources(pod)
    return status


def _pod_resources(pod: Obj) -> Obj:
    total: Obj = {}
    for part in ("limits", "requests"):
        merged: Obj = {}
        for container in podspec.containers(pod):
            merged |= container.get("resources", {}).get(part) or {}
        if merged:
            total[part] = merged
    found: Obj = {"allocatedResources": total["requests"]} if total.get("requests") else {}
    return {**found, "resources": total}


def _container_status(
    pod: Obj,
    run: PodRun,
    container: ContainerRun,
    release: Release,
    devices: DeviceManager,
    containerd_two: bool,
) -> Obj:
    spec = container.spec
    resources = spec.get("resources") or {}
    row: Obj = {
        "name": container.name,
        "state": container.state,
        "lastState": container.last,
        "ready": container.running if not container.init else container.done,
        "restartCount": container.restarts,
        "image": spec["image"],
        "imageID": container.image_id,
    }
    if container.container_id:
        row["containerID"] = container.container_id
    row["started"] = container.running
    if container.container_id:
        if resources.get("requests"):
            row["allocatedResources"] = dict(resources["requests"])
        row["resources"] = {k: v for k, v in resources.items() if k in {"limits", "requests"}}
    mounts = []
    for mount in spec.get("volumeMounts") or []:
        seen: Obj = {"name": mount["name"], "mountPath": mount["mountPath"]}
        if mount.get("readOnly"):
            seen |= {"readOnly": True, "recursiveReadOnly": "Disabled"}
        mounts.append(seen)
    if mounts:
        row["volumeMounts"] = mounts
    if container.container_id and containerd_two:
        uid, gid = identity(pod, spec)
        row["user"] = {"linux": {"uid": uid, "gid": gid, "supplementalGroups": [gid]}}
    held = container.held
    if held and release.device_health:
        row["allocatedResourcesStatus"] = [
            {
                "name": name,
                "resources": [
                    {"resourceID": i, "health": "Healthy" if devices.healthy(name, i) else "Unhealthy"} for i in ids
                ],
            }
            for name, ids in held.items()
        ]
    return row


def supplemental_groups(pod: Obj) -> list[int]:
    """Further groups of every process of the pod; nothing else adds one (facts/kubernetes-gpu.md V16)."""
    context = pod["spec"].get("securityContext") or {}
    return [int(gid) for gid in [*(context.get("supplementalGroups") or []), context.get("fsGroup")] if gid is not None]


def identity(pod: Obj, container: Obj, image_uid: int = 0) -> tuple[int, int]:
    """uid and gid a container runs as: its securityContext, the pod's, the image's."""

    def first(name: str, fallback: int) -> int:
        for context in (container.get("securityContext") or {}, pod["spec"].get("securityContext") or {}):
            value: Any = context.get(name)
            if value is not None:
                return int(value)
        return fallback

    return first("runAsUser", image_uid), first("runAsGroup", 0)
