"""Subresources of pods that reach the kubelet: log and exec.

Errors: real-kubernetes.md (Logs and exec) and capture s11; exec's Status objects: capture s01.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from aiohttp import WSMsgType, web

from labproof.simlab.kube.admission import Refused
from labproof.simlab.kube.clock import parse_time
from labproof.simlab.kube.cluster import SimCluster
from labproof.simlab.kube.http_base import Target, flag
from labproof.simlab.kube.http_objects import existing
from labproof.simlab.kube.kinds import Obj
from labproof.simlab.kube.kubelet import Kubelet
from labproof.simlab.kube.podrun import ContainerRun
from labproof.simlab.kube.process import ContainerIO, LogBook, missing_executable

_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io")
_KUBELET_PORT = 10250


def _container_name(pod: Obj, asked: str) -> str:
    name = pod["metadata"]["name"]
    spec = pod["spec"]
    regular = [c["name"] for c in spec["containers"]]
    known = [c["name"] for c in spec.get("initContainers") or []] + regular
    if asked:
        if asked not in known:
            raise Refused(400, "BadRequest", f"container {asked} is not valid for pod {name}")
        return asked
    annotated = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    if annotated in regular:
        return str(annotated)
    if len(regular) > 1:
        text = f"a container name must be specified for pod {name}, choose one of: [{' '.join(regular)}]"
        raise Refused(400, "BadRequest", text)
    return str(regular[0])


def _kubelet(cluster: SimCluster, pod: Obj) -> Kubelet | None:
    return cluster.kubelets.get(pod["spec"].get("nodeName", ""))


# ---------------------------------------------------------------------- log


def _render(book: LogBook, query: Any, cluster: SimCluster) -> bytes:
    entries = book.entries
    since = query.get("sinceSeconds")
    if since:
        entries = [e for e in entries if e[0] >= cluster.clock.now() - float(since)]
    if query.get("sinceTime"):
        entries = [e for e in entries if e[0] >= parse_time(query["sinceTime"])]
    if flag(query, "timestamps"):
        from labproof.simlab.kube.clock import rfc3339_micro

        text = b"".join(
            rfc3339_micro(at).encode() + b" " + line
            for at, _, chunk in entries
            for line in chunk.splitlines(keepends=True)
        )
    else:
        text = b"".join(chunk for _, _, chunk in entries)
    tail = query.get("tailLines")
    if tail is not None:
        lines = text.splitlines(keepends=True)
        text = b"".join(lines[max(0, len(lines) - int(tail)) :])
    if query.get("limitBytes"):
        text = text[: int(query["limitBytes"])]
    return text


async def log(cluster: SimCluster, target: Target, request: web.Request) -> web.StreamResponse:
    """`GET .../pods/<name>/log`."""
    pod = existing(cluster, target)
    query = request.query
    name = _container_name(pod, query.get("container", ""))
    kubelet = _kubelet(cluster, pod)
    if kubelet is None:
        return web.Response(body=b"", content_type="text/plain")
    if not kubelet.alive:
        place = f"{kubelet.state.address}:{_KUBELET_PORT}"
        text = (
            f'Get "https://{place}/containerLogs/{target.namespace}/{target.name}/{name}": '
            f"dial tcp {place}: connect: connection refused"
        )
        raise Refused(500, "InternalError", text)
    run = kubelet.run_of(pod)
    container = run.container(name) if run else None
    if flag(query, "previous"):
        if container is None or container.previous is None:
            text = f'previous terminated container "{name}" in pod "{target.name}" not found'
            raise Refused(400, "BadRequest", text)
        return web.Response(body=_render(container.previous, query, cluster), content_type="text/plain")
    if container is None or not (container.incarnation or container.terminated):
        state = (container.state.get("waiting") or {}) if container else {}
        why = state.get("reason", "ContainerCreating")
        raise Refused(400, "BadRequest", f'container "{name}" in pod "{target.name}" is waiting to start: {why}')
    if not flag(query, "follow"):
        return web.Response(body=_render(container.log, query, cluster), content_type="text/plain")
    return await _follow(cluster, container.log, request)


async def _follow(cluster: SimCluster, book: LogBook, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    event = book.follow()
    try:
        await response.prepare(request)
        await response.write(_render(book, request.query, cluster))
        sent = len(book.entries)
        while True:
            for _, _, chunk in book.entries[sent:]:
                await response.write(chunk)
            sent = len(book.entries)
            if book.closed:
                break
            event.clear()
            await event.wait()
    except (ConnectionResetError, ConnectionAbortedError):
        pass  # the client has seen enough
    finally:
        book.unfollow(event)
    return response


# ---------------------------------------------------------------------- exec


def _ready_container(cluster: SimCluster, pod: Obj, asked: str) -> ContainerRun | web.Response:
    kubelet = _kubelet(cluster, pod)
    if kubelet is None:
        raise Refused(400, "BadRequest", f"pod {pod['metadata']['name']} does not have a host assigned")
    name = _container_name(pod, asked)
    if not kubelet.alive:
        text = f"error dialing backend: dial tcp {kubelet.state.address}:{_KUBELET_PORT}: connect: connection refused"
        raise Refused(500, "InternalError", text)
    run = kubelet.run_of(pod)
    container = run.container(name) if run else None
    if container is None or not container.running or container.world is None:
        return web.Response(status=500, text=f'container not found ("{name}")', content_type="text/plain")
    return container


def _missing(cluster: SimCluster, argv0: str) -> Obj:
    inner = (
        "Internal error occurred: error executing command in container: failed to exec in container: failed to "
        f'start exec "{cluster.store.hex("exec")}": OCI runtime exec failed: exec failed: unable to start container '
        f"process: {missing_executable(argv0)}"
    )
    return {
        "metadata": {}, "status": "Failure", "message": f"Internal error occurred: {inner}", "reason": "InternalError",
        "details": {"causes": [{"message": inner}]}, "code": 500,
    }  # fmt: skip


def _ended(code: int) -> Obj:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {}, "status": "Failure",
        "message": f"command terminated with non-zero exit code: error executing command, exit code {code}",
        "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }  # fmt: skip


async def execute(cluster: SimCluster, target: Target, request: web.Request) -> web.StreamResponse:
    """`.../pods/<name>/exec` over WebSocket (v3 to v5 channel protocols)."""
    pod = existing(cluster, target)
    found = _ready_container(cluster, pod, request.query.get("container", ""))
    if isinstance(found, web.Response):
        return found
    argv = request.query.getall("command", [])
    if not argv:
        raise Refused(400, "BadRequest", "you must specify at least one command for the container")
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise Refused(400, "BadRequest", "unable to upgrade: only WebSocket exec is simulated")
    socket = web.WebSocketResponse(protocols=_PROTOCOLS)
    await socket.prepare(request)
    await _Session(cluster, found, argv, socket, flag(request.query, "tty")).run()
    return socket


class _Session:
    """One exec: a process, its channels, and whoever ends it first (it, the client, or its container)."""

    def __init__(
        self, cluster: SimCluster, container: ContainerRun, argv: list[str], socket: web.WebSocketResponse, tty: bool
    ) -> None:
        self._cluster, self._container, self._argv, self._socket = cluster, container, argv, socket
        self._out: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._io = ContainerIO(
            cluster.clock.speed,
            lambda chunk: self._out.put_nowait(b"\x01" + chunk),
            lambda chunk: self._out.put_nowait((b"\x01" if tty else b"\x02") + chunk),
        )

    async def _process(self) -> None:
        world = self._container.world
        assert world is not None, "_ready_container returns containers with a world"
        if not self._cluster.programs.exists(self._argv[0], world):
            status = _missing(self._cluster, self._argv[0])
        else:
            try:
                status = _ended(await self._cluster.programs.run(list(self._argv), world, self._io))
            except Exception as broken:  # a fault of the simulator itself must be seen, not hang the client
                self._io.write_stderr(f"not simulated: {type(broken).__name__}: {broken}\n".encode())
                status = _ended(70)
        self._out.put_nowait(_channel_three(status))
        self._out.put_nowait(None)

    async def _writer(self) -> None:
        while (chunk := await self._out.get()) is not None:
            await self._socket.send_bytes(chunk)

    async def _container_gone(self) -> None:
        event = self._container.log.follow()
        try:
            while not self._container.log.closed:
                event.clear()
                await event.wait()
        finally:
            self._container.log.unfollow(event)

    async def run(self) -> None:
        """Until the process, the client or the container ends."""
        parts = (self._process(), self._writer(), _reader(self._socket), self._container_gone())
        tasks = [asyncio.ensure_future(part) for part in parts]
        try:
            # kubectl and the client's ws_client expect an empty frame on each channel that they opened
            for channel in (b"\x01", b"\x02", b"\x03"):
                await self._socket.send_bytes(channel)
            await asyncio.wait(tasks[1:], return_when=asyncio.FIRST_COMPLETED)
            if not tasks[1].done() and tasks[3].done():  # killed with its container
                await self._socket.send_bytes(_channel_three(_ended(137)))
        except ConnectionError:
            pass  # the client left
        finally:
            self._io.cancelled = not tasks[0].done()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(ConnectionError):
                await self._socket.close()


def _channel_three(status: Obj) -> bytes:
    return b"\x03" + json.dumps(status, separators=(",", ":")).encode()


async def _reader(socket: web.WebSocketResponse) -> None:
    """Wait until the client closes; standard input is not simulated."""
    async for message in socket:
        if message.type in {WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.ERROR}:
            return
