"""Containers of a pod: image, creation, start, exit and restart, with the kubelet's states, events and back-offs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from labproof.simlab.kube import container_start, runtime
from labproof.simlab.kube.kinds import Obj
from labproof.simlab.kube.podrun import ContainerRun, PodRun
from labproof.simlab.kube.process import KILLED, ContainerIO, LogBook, missing_executable
from labproof.simlab.kube.service_table import service_for
from labproof.simlab.kube.services import Running

if TYPE_CHECKING:
    from labproof.simlab.kube.kubelet import Kubelet

_EPOCH = "1970-01-01T00:00:00Z"
_PULL_BACK_OFF = (10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
_CRASH_BACK_OFF = (10.0, 20.0, 40.0, 80.0, 160.0, 300.0)


class ContainerManager:
    """Starts and restarts the containers of one kubelet."""

    def __init__(self, kubelet: Kubelet) -> None:
        self._kubelet = kubelet
        self._cluster = kubelet.cluster
        self._cleanups: dict[int, Callable[[], None]] = {}

    # ------------------------------------------------------------------ start

    def start(self, run: PodRun, container: ContainerRun) -> None:
        """Try to start a container now; failures leave it waiting and are tried again."""
        kubelet = self._kubelet
        pod = kubelet.pod(run)
        if pod is None or run.finished or pod["metadata"].get("deletionTimestamp") or container.running:
            return
        container.attempts += 1
        if not self._image_ready(run, pod, container):
            return
        image = self._cluster.image(container.spec["image"])
        try:
            world = container_start.build_world(kubelet, pod, run, container, image)
        except container_start.ConfigMissing as missing:
            self._waits(run, pod, container, "CreateContainerConfigError", str(missing))
            return
        except container_start.StartHangs:
            return
        except container_start.CreateFailed as failed:
            self._waits(run, pod, container, "CreateContainerError", str(failed))
            return
        except container_start.StartFailed as failed:
            self._created(pod, container, image)
            self._start_error(run, pod, container, str(failed))
            return
        self._created(pod, container, image)
        argv = runtime.argv_of(container.spec, image)
        service = service_for(argv, image)
        if service is None and not (argv and self._cluster.programs.exists(argv[0], world)):
            self._start_error(
                run,
                pod,
                container,
                "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc "
                f"create failed: unable to start container process: {missing_executable(argv[0] if argv else '')}",
            )
            return
        container.world = world
        container.incarnation += 1
        if container.log.entries or container.log.closed:
            container.previous = container.log
            container.log = LogBook()
        container.started_at = self._cluster.clock.stamp()
        container.state = {"running": {"startedAt": container.started_at}}
        kubelet.event(pod, "Normal", "Started", self._cluster.release.started(container.name), container)
        kubelet.report(run)
        if service is None:
            self.resume(run, container)
            return
        running = self._running(run, pod, container, argv)
        incarnation = container.incarnation
        cleanup = service(running)
        if cleanup is not None:
            if container.running and container.incarnation == incarnation:
                self._cleanups[id(container)] = cleanup
            else:
                cleanup()

    def _image_ready(self, run: PodRun, pod: Obj, container: ContainerRun) -> bool:
        kubelet, spec = self._kubelet, container.spec
        ref, policy = spec["image"], spec.get("imagePullPolicy", "IfNotPresent")
        name = ref.rpartition("/")[2].partition(":")[0].partition("@")[0]
        repository = ref.partition("@")[0]
        if any(letter.isupper() for letter in repository.rsplit(":", 1)[0].partition("/")[2] or name):
            bad = repository.rsplit(":", 1)[0].partition("/")[2] or name
            text = (
                f'Failed to apply default image tag "{ref}": couldn\'t parse image name "{ref}": invalid reference '
                f"format: repository name ({bad}) must be lowercase"
            )
            self._waits(run, pod, container, "InvalidImageName", text, event="InspectFailed")
            return False
        if ref in kubelet.images and policy != "Always":
            kubelet.event(pod, "Normal", "Pulled", self._cluster.release.pulled(ref), container)
            return True
        if policy == "Never":
            text = f'Container image "{ref}" is not present with pull policy of Never'
            kubelet.event(pod, "Warning", "ErrImageNeverPull", text, container)
            self._waits(run, pod, container, "ErrImageNeverPull", text, event_text="ErrImageNeverPull")
            return False
        error = self._cluster.pull(kubelet.name, ref)
        kubelet.event(pod, "Normal", "Pulling", f'Pulling image "{ref}"', container)
        if not error:
            image = self._cluster.image(ref)
            text = (
                f'Successfully pulled image "{ref}" in 1.2s (1.2s including waiting). '
                f"Image size: {image.size_bytes} bytes."
            )
            kubelet.event(pod, "Normal", "Pulled", text, container)
            return True
        tries = run.pull_tries.get(container.name, 0)
        run.pull_tries[container.name] = tries + 1
        kubelet.event(pod, "Warning", "Failed", f'Failed to pull image "{ref}": {error}', container)
        kubelet.event(pod, "Warning", "Failed", "Error: ErrImagePull", container)
        container.state = {"waiting": {"reason": "ErrImagePull", "message": error}}
        kubelet.report(run)
        delay = _PULL_BACK_OFF[min(tries, len(_PULL_BACK_OFF) - 1)]

        def back_off() -> None:
            if run.finished or kubelet.pod(run) is None or not container.state.get("waiting"):
                return
            text = f'Back-off pulling image "{ref}"'
            container.state = {"waiting": {"reason": "ImagePullBackOff", "message": f"{text}: ErrImagePull: {error}"}}
            kubelet.event(pod, "Normal", "BackOff", text, container)
            kubelet.event(pod, "Warning", "Failed", "Error: ImagePullBackOff", container)
            kubelet.report(run)

        self._cluster.clock.after(1.0, back_off)
        self._cluster.clock.after(delay + 2.0, lambda: self.start(run, container))
        return False

    def _created(self, pod: Obj, container: ContainerRun, image: runtime.Image) -> None:
        container.container_id = f"containerd://{self._cluster.store.hex('container')}"
        container.image_id = self._kubelet.images.get(image.ref, "")
        self._kubelet.event(pod, "Normal", "Created", self._cluster.release.created(container.name), container)

    def _waits(
        self,
        run: PodRun,
        pod: Obj,
        container: ContainerRun,
        reason: str,
        message: str,
        event: str = "Failed",
        event_text: str = "",
    ) -> None:
        """The container cannot be created; the kubelet tries again at its next sync."""
        container.state = {"waiting": {"reason": reason, "message": message}}
        text = message if event != "Failed" else f"Error: {event_text or message}"
        self._kubelet.event(pod, "Warning", event, text, container)
        self._kubelet.report(run)
        self._cluster.clock.after(min(1.0 * 2 ** min(container.attempts, 7), 120.0), lambda: self.start(run, container))

    def _start_error(self, run: PodRun, pod: Obj, container: ContainerRun, message: str) -> None:
        kubelet = self._kubelet
        kubelet.event(pod, "Warning", "Failed", f"Error: {message}", container)
        ended = {
            "exitCode": 128,
            "reason": "StartError",
            "message": message,
            "startedAt": _EPOCH,
            "finishedAt": self._cluster.clock.stamp(),
            "containerID": container.container_id,
        }
        if pod["spec"].get("restartPolicy", "Always") == "Never":
            container.state = {"terminated": ended}
            container.log.close()
            kubelet.report(run)
            return
        container.state = {"waiting": {"reason": "RunContainerError", "message": message}}
        container.last = {"terminated": ended}
        kubelet.report(run)
        self._restart(run, pod, container)

    # ------------------------------------------------------------------ running

    def resume(self, run: PodRun, container: ContainerRun) -> None:
        """Give a running container its program, once there is an event loop."""
        world = container.world
        if not container.running or container.task is not None or world is None:
            return
        argv = runtime.argv_of(container.spec, self._cluster.image(container.spec["image"]))
        if service_for(argv, self._cluster.image(container.spec["image"])) is not None:
            return
        loop = self._cluster.loop
        if loop is None:
            return
        clock, log = self._cluster.clock, container.log
        # `sleep 900` holds a slot while the suite works in real time: a promise, not work, so it is not sped up
        io = ContainerIO(
            1.0 if argv[0].rpartition("/")[2] == "sleep" else clock.speed,
            lambda chunk: log.write(clock.now(), "stdout", chunk),
            lambda chunk: log.write(clock.now(), "stderr", chunk),
        )
        container.io = io
        incarnation = container.incarnation

        async def process() -> None:
            try:
                code = await self._cluster.programs.run(argv, world, io)
            except asyncio.CancelledError:
                return
            except Exception as broken:  # a fault of the simulator itself must be seen, not hang the pod
                io.write_stderr(f"not simulated: {type(broken).__name__}: {broken}\n".encode())
                code = 70
            if io.cancelled or container.incarnation != incarnation:
                return
            reason = "OOMKilled" if io.oom_killed else ""
            self.exited(run, container, KILLED if io.oom_killed else code, reason)

        container.task = loop.create_task(process())

    def _running(self, run: PodRun, pod: Obj, container: ContainerRun, argv: list[str]) -> Running:
        clock, log, incarnation = self._cluster.clock, container.log, container.incarnation

        def same() -> bool:
            return container.running and container.incarnation == incarnation and not run.finished

        def write(line: str) -> None:
            log.lines(clock.now(), line if line.endswith("\n") else line + "\n")

        def later(seconds: float, action: Callable[[], None]) -> None:
            clock.after(seconds, lambda: action() if same() else None)

        def leave(code: int, reason: str) -> None:
            if same():
                self.exited(run, container, code, reason)

        world = container.world
        assert world is not None, "a running container has a world"
        return Running(self._kubelet, pod, container, world, argv, write, later, leave)

    def exited(self, run: PodRun, container: ContainerRun, code: int, reason: str = "") -> None:
        """The process ended by itself."""
        pod = self._kubelet.pod(run)
        self._end(container, code, reason)
        if pod is None:
            return
        self._termination_message(container, code)
        policy = pod["spec"].get("restartPolicy", "Always")
        if container.init and code == 0:
            container.done = True
            self._kubelet.report(run)
            self._kubelet.advance(run)
            return
        self._kubelet.report(run)
        if run.finished or policy == "Never" or (policy == "OnFailure" and code == 0):
            return
        self._restart(run, pod, container)

    def _termination_message(self, container: ContainerRun, code: int) -> None:
        spec, world = container.spec, container.world
        text = b""
        if world is not None:
            written = world.files.get(spec.get("terminationMessagePath", "/dev/termination-log"), b"")
            text = written if isinstance(written, bytes) else b""
        if not text and code != 0 and spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            text = b"".join(chunk for _, _, chunk in container.log.entries)[-2048:]
        if text:
            container.state["terminated"]["message"] = text[:4096].decode(errors="replace")

    def _end(self, container: ContainerRun, code: int, reason: str) -> None:
        if not container.running:
            return
        container.state = {
            "terminated": {
                "exitCode": code,
                "reason": reason or ("Completed" if code == 0 else "Error"),
                "startedAt": container.started_at,
                "finishedAt": self._cluster.clock.stamp(),
                "containerID": container.container_id,
            }
        }
        container.log.close()
        container.task = None
        container.io = None
        cleanup = self._cleanups.pop(id(container), None)
        if cleanup is not None:
            cleanup()

    def kill(self, run: PodRun, container: ContainerRun) -> None:
        """SIGKILL: the container ends with 137, if it ran."""
        del run  # the pod's state is the caller's business
        if container.io is not None:
            container.io.cancelled = True
        if container.task is not None:
            container.task.cancel()
        self._end(container, KILLED, "Error")

    # ------------------------------------------------------------------ restart

    def _restart(self, run: PodRun, pod: Obj, container: ContainerRun) -> None:
        """Restart after the back-off: at once the first time, then 10, 20, 40 ... 300 s."""
        clock, kubelet, release = self._cluster.clock, self._kubelet, self._cluster.release
        name = f"{run.name}_{run.namespace}({run.uid})"
        if container.attempts <= 1:
            clock.after(0.6, lambda: self._again(run, container))
            return
        delay = _CRASH_BACK_OFF[min(container.attempts - 2, len(_CRASH_BACK_OFF) - 1)]
        shown = f"{int(delay)}s" if delay < 60 else f"{int(delay) // 60}m{int(delay) % 60}s"
        message = f"back-off {shown} restarting failed container={container.name} pod={name}"

        def waiting() -> None:
            if run.finished or container.running or kubelet.pod(run) is None:
                return
            if container.terminated:
                container.last = {"terminated": container.terminated}
            container.state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
            kubelet.report(run)

        def back_off() -> None:
            if run.finished or container.running or kubelet.pod(run) is None:
                return
            text = f"Back-off restarting failed container {container.name} in pod {name}"
            kubelet.event(pod, "Warning", "BackOff", text, container)
            if release.shows_back_off:
                waiting()

        clock.after(min(1.0, delay / 2), back_off)
        if not release.shows_back_off:
            clock.after(delay - 0.1, waiting)
        clock.after(delay, lambda: self._again(run, container))

    def _again(self, run: PodRun, container: ContainerRun) -> None:
        if run.finished or container.running or self._kubelet.pod(run) is None:
            return
        if container.terminated:
            container.last = {"terminated": container.terminated}
        container.restarts += 1
        self.start(run, container)
