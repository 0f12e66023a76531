"""The kubelet of one node: admission, sandboxes, and the pod as a whole. Containers are in `containers.py`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from labproof.simlab.kube import container_start, podspec, runtime
from labproof.simlab.kube.clock import parse_time
from labproof.simlab.kube.containers import ContainerManager
from labproof.simlab.kube.devices import AdmissionRefused, DeviceManager
from labproof.simlab.kube.kinds import Obj
from labproof.simlab.kube.podrun import ContainerRun, PodRun, build_status
from labproof.simlab.kube.quantity import is_extended, whole
from labproof.simlab.world.states import NodeState

if TYPE_CHECKING:
    from labproof.simlab.kube.cluster import SimCluster

# Model seconds; together the recorded half second from create to Running.
BEGIN_S, SANDBOX_S, START_S = 0.05, 0.25, 0.2
_RETRY_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 122.0)  # pod workers back off up to two minutes


class Kubelet:
    """Runs the pods bound to one node.

    Attributes:
        devices: the device manager.
        answers: what each device plugin's Allocate puts into a container, by resource.
        images: images this node has, by reference.
        specs: CDI specs on this node: kind -> device names.
        cdi_hook: hook path that the CDI specs name, "" when they name none.
    """

    def __init__(self, cluster: SimCluster, state: NodeState, inputs: Mapping[str, Any]) -> None:
        self.cluster = cluster
        self.name = state.name
        self.state = state
        self.inputs = inputs
        self.devices = DeviceManager()
        self.answers: dict[str, Callable[[list[str]], container_start.DeviceResponse]] = {}
        self.runs: dict[str, PodRun] = {}
        self.images: dict[str, str] = {}
        self.specs: dict[str, tuple[str, ...]] = {}
        self.cdi_hook = ""
        self.gates: set[str] = set(inputs.get("validations") or ())  # files under /run/nvidia/validations
        self.xid_listeners: list[Callable[[int], None]] = []  # plugins that wait for NVML's critical Xid events
        self.restarted_at: list[Callable[[], None]] = []  # plugins that watch kubelet.sock
        capacity = inputs.get("capacity") or {}
        self.cpus = int(capacity.get("cpu", 4))
        self.memory_mib = int(capacity.get("memory_mib", 8192))
        self._containers = ContainerManager(self)
        self.stopped = False
        self.stopped_at = 0.0
        self._next_ip = 10
        self._index = 0

    # ------------------------------------------------------------------ the node

    @property
    def alive(self) -> bool:
        """Whether the kubelet runs: the node is up and its kubelet was not stopped."""
        running = bool((self.inputs.get("kubelet") or {}).get("running", True)) and not self.stopped
        return self.state.up and running

    def has_file(self, path: str) -> bool:
        """Whether a path exists on the node, as far as CDI hooks need it (Talos links it from 1.13 on, TAL#13022)."""
        extra = self.inputs.get("files") or {}
        if path in extra:
            return bool(extra[path])
        # Talos links the tools into /usr/bin with the new library layout of 1.13
        linked = path in {"/usr/bin/nvidia-ctk", "/usr/bin/nvidia-cdi-hook"} and self.state.cdi_enabled
        return linked or path == "/usr/local/bin/nvidia-cdi-hook"

    def cdi_specs(self) -> dict[str, tuple[str, ...]]:
        """CDI kinds and device names on the node: the plugin's own, and the node's /run/cdi/nvidia.yaml."""
        specs = dict(self.specs)
        if self.state.cdi_spec:
            names = ("all", *(str(g.index) for g in self.state.gpus), *(g.uuid for g in self.state.gpus))
            specs["nvidia.com/gpu"] = names
            specs["management.nvidia.com/gpu"] = ("all",)
        return specs

    def restart(self) -> None:
        """The kubelet restarts: device plugins must register again."""
        self.devices.forget_all()
        for watcher in list(self.restarted_at):
            watcher()
        self.cluster.post_node(self.name)

    def turn(self, state: NodeState) -> None:
        """Something happened to the node's card or driver: what containers hold open is void, their nodes stay."""
        self.state = state
        left = {gpu.uuid for gpu in state.gpus}
        for run in self.runs.values():
            for container in run.containers:
                world = container.world
                if world is not None:
                    world.node, world.gpus = state, tuple(g for g in world.gpus if g.uuid in left)

    # ------------------------------------------------------------------ pods

    def notice(self, pod: Obj) -> None:
        """A pod was bound to this node (called again for known ones)."""
        uid = pod["metadata"]["uid"]
        if uid in self.runs or not self.alive or podspec.is_terminal(pod) or pod["metadata"].get("deletionTimestamp"):
            return
        self.runs[uid] = PodRun(uid, pod["metadata"]["namespace"], pod["metadata"]["name"])
        self.cluster.clock.after(BEGIN_S, lambda: self._begin(uid))

    def pod(self, run: PodRun) -> Obj | None:
        """The pod object of a run; None when it is gone or another pod has its name."""
        found = self.cluster.store.get("pods", run.name, run.namespace)
        return found if found is not None and found["metadata"]["uid"] == run.uid else None

    def event(self, pod: Obj, kind: str, reason: str, message: str, container: ContainerRun | None = None) -> None:
        """A kubelet event on the pod or one of its containers."""
        path = None
        if container is not None:
            path = f"spec.{'initContainers' if container.init else 'containers'}{{{container.name}}}"
        self.cluster.recorder.counted(pod, kind, reason, message, "kubelet", self.name, path)

    def _begin(self, uid: str) -> None:
        run = self.runs.get(uid)
        pod = self.pod(run) if run else None
        if run is None or pod is None:
            self.runs.pop(uid, None)
            return
        run.start_time = self.cluster.clock.stamp()
        try:
            self._admit(pod, uid)
        except AdmissionRefused as refused:
            self.devices.release(uid)
            text = f"Allocate failed due to {refused}, which is unexpected"
            run.rejected = ("UnexpectedAdmissionError", f"Pod was rejected: {text}")
            run.finished = True
            self.event(pod, "Warning", "UnexpectedAdmissionError", text)
            self.report(run)
            return
        run.handler = self.cluster.handler_of(pod)
        for key, init in (("initContainers", True), ("containers", False)):
            for spec in pod["spec"].get(key) or []:
                held = self.devices.of(uid, spec["name"])
                run.containers.append(ContainerRun(spec, init, held=dict(held)))
        if run.inits:
            for container in [*run.inits[1:], *run.mains]:
                container.state = {"waiting": {"reason": "PodInitializing"}}
        deadline = pod["spec"].get("activeDeadlineSeconds")
        if deadline is not None:
            self.cluster.clock.after_real(float(deadline), lambda: self._deadline(uid))
        self.report(run)
        self.cluster.clock.after(SANDBOX_S, lambda: self._make_sandbox(uid, 0))

    def _admit(self, pod: Obj, uid: str) -> None:
        for container in podspec.all_containers(pod):
            for name, value in ((container.get("resources") or {}).get("limits") or {}).items():
                if is_extended(name) and whole(value) > 0:
                    self.devices.allocate(uid, container["name"], name, whole(value))

    def _make_sandbox(self, uid: str, tries: int) -> None:
        run = self.runs.get(uid)
        pod = self.pod(run) if run else None
        if run is None or pod is None or run.finished or pod["metadata"].get("deletionTimestamp"):
            return
        volume, error = container_start.mount_error(pod, self.state)
        if volume:
            self.event(pod, "Warning", "FailedMount", error)
        else:
            error = runtime.sandbox_error(self.state, run.handler, self.cluster.store.hex("sandbox"))
            if error:
                text = f"Failed to create pod sandbox: rpc error: code = Unknown desc = {error}"
                self.event(pod, "Warning", "FailedCreatePodSandBox", text)
        if error:
            self.report(run)
            delay = _RETRY_S[min(tries, len(_RETRY_S) - 1)]
            self.cluster.clock.after(delay, lambda: self._make_sandbox(uid, tries + 1))
            return
        run.sandbox = True
        if pod["spec"].get("hostNetwork"):
            run.ip = self.state.address
        else:
            self._next_ip += 1
            run.ip = self.cluster.pod_ip(self.name, self._next_ip)
        self.report(run)
        self.cluster.clock.after(START_S, lambda: self.advance(run))

    def advance(self, run: PodRun) -> None:
        """Start what may be started now: the next init container, else all regular ones."""
        pod = self.pod(run)
        if pod is None or run.finished or pod["metadata"].get("deletionTimestamp"):
            return
        for container in run.inits:
            if not container.done:
                if not container.attempts:
                    self._containers.start(run, container)
                return
        for container in run.mains:
            if not container.attempts:
                self._containers.start(run, container)

    def report(self, run: PodRun) -> None:
        """Post the pod's status; a terminal pod gives its devices back."""
        pod = self.pod(run)
        if pod is None:
            return
        status = build_status(
            pod,
            run,
            self.cluster.release,
            self.devices,
            self.state.address,
            self.cluster.clock.stamp(),
            self.cluster.containerd_two,
        )
        if status["phase"] in {"Succeeded", "Failed"} and not run.finished:
            run.finished = True
            self.devices.release(run.uid)
            status = build_status(
                pod,
                run,
                self.cluster.release,
                self.devices,
                self.state.address,
                self.cluster.clock.stamp(),
                self.cluster.containerd_two,
            )
        fresh = copy.copy(pod)
        fresh["metadata"] = dict(pod["metadata"])
        fresh["status"] = status
        self.cluster.store.put(self.cluster.pods_kind, fresh)

    def _deadline(self, uid: str) -> None:
        run = self.runs.get(uid)
        pod = self.pod(run) if run else None
        if run is None or pod is None or run.finished:
            return
        text = "Pod was active on the node longer than the specified deadline"
        run.ended = ("DeadlineExceeded", text)
        self.event(pod, "Normal", "DeadlineExceeded", text)
        for container in run.containers:
            if container.running:
                self.event(pod, "Normal", "Killing", f"Stopping container {container.name}", container)
            self._containers.kill(run, container)
        self.report(run)

    # ------------------------------------------------------------------ ends

    def stop(self, pod: Obj, grace: float) -> None:
        """A pod on this node was deleted gracefully: stop it, then remove the object."""
        uid = pod["metadata"]["uid"]
        run = self.runs.get(uid)
        if not self.alive:
            return  # nobody answers: it stays Terminating until somebody forces it
        wait = 0.2
        if run is not None and not run.finished:
            for container in run.containers:
                if container.running:
                    self.event(pod, "Normal", "Killing", f"Stopping container {container.name}", container)
                    # a program that is PID 1 and installs no handler ignores SIGTERM; services heed it
                    wait = max(wait, min(grace, 30.0) if container.task is not None else 0.5)
        self.cluster.clock.after(wait, lambda: self._remove(uid, pod))

    def _remove(self, uid: str, deleted: Obj) -> None:
        run = self.runs.get(uid)
        if run is None:  # deleted before it was begun
            meta = deleted["metadata"]
            found = self.cluster.store.get("pods", meta["name"], meta["namespace"])
            if found is not None and found["metadata"]["uid"] == uid:
                self.cluster.store.remove("pods", meta["name"], meta["namespace"])
            return
        pod = self.pod(run)
        self.forget(uid)
        if pod is not None:
            self.cluster.store.remove("pods", run.name, run.namespace)

    def forget(self, uid: str) -> None:
        """The pod object is gone (deleted by force, or its removal is due): kill what is left, free its devices."""
        run = self.runs.pop(uid, None)
        if run is None:
            return
        run.finished = True
        for container in run.containers:
            self._containers.kill(run, container)
        self.devices.release(uid)
        self.cluster.dirty()

    def close(self) -> None:
        """The world is replaced: cancel every process."""
        for uid in list(self.runs):
            self.forget(uid)

    def run_of(self, pod: Obj) -> PodRun | None:
        """The run behind a pod object."""
        return self.runs.get(pod["metadata"]["uid"])

    def go_live(self) -> None:
        """An event loop took over: start the programs that history only recorded as running."""
        for run in self.runs.values():
            for container in run.containers:
                self._containers.resume(run, container)

    def age_of(self, run: PodRun) -> float:
        """Seconds since the pod started on this node."""
        return self.cluster.clock.now() - parse_time(run.start_time) if run.start_time else 0.0
