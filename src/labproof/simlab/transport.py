"""Trouble on the way to a simulated server, switchable while it runs: no cause of the catalogue, only bad transport.

A `Line` stands in front of one server: a TCP relay that can refuse, cut, stall or answer nonsense, and hooks inside
the server (HTTP, gRPC) for what can only be said behind TLS. It also counts connections and requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web
from grpclib.const import Status
from grpclib.exceptions import GRPCError

if TYPE_CHECKING:
    from labproof.simlab.world.pki import Pki

_PIECE = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with 0 s: the kernel sends RST instead of FIN

#: What the relay does to a connection, and what a server's hook does to a request.
WIRE_KINDS = frozenset({"refused", "reset", "end", "stall", "garbage", "certificate"})
REQUEST_KINDS = frozenset({"status", "half", "trickle", "page", "exec-closed", "exec-dropped", "lost"})

_SAID = {
    401: "Unauthorized",
    403: "Forbidden",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
#: What a Talos node answers for the same trouble (gRPC has its own codes; facts talos 3.3).
_GRPC = {
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    429: Status.RESOURCE_EXHAUSTED,
    500: Status.INTERNAL,
    503: Status.UNAVAILABLE,
}


@dataclass(frozen=True)
class Trouble:
    """One kind of bad transport.

    Attributes:
        kind: one of WIRE_KINDS or REQUEST_KINDS.
        status: HTTP status of kind `status` (for Talos: the gRPC code that stands for the same).
        after: bytes of answer let through per connection (wire), or requests let through (request).
        only: regular expression; only requests whose `METHOD path` it finds are troubled.
    """

    kind: str
    status: int = 0
    after: int = 0
    only: str = ""

    def __post_init__(self) -> None:
        if self.kind not in WIRE_KINDS | REQUEST_KINDS:
            raise ValueError(f"no such trouble: {self.kind}")


@dataclass(frozen=True)
class Asked:
    """One request that reached a server. `writes`: it was meant to change something (no dry run, no review)."""

    method: str
    path: str
    writes: bool


class Line:
    """The way to one server."""

    def __init__(self, name: str, foreign: Callable[[], ssl.SSLContext]) -> None:
        """`foreign` makes a TLS context with a certificate that no client of this lab should accept."""
        self.name = name
        self.port = 0
        self.connections = 0
        self.asked: list[Asked] = []
        self._foreign = foreign
        self._target = 0
        self._trouble: Trouble | None = None
        self._passed = 0
        self._listening: asyncio.Server | None = None
        self._impostor: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, target: int) -> None:
        """Listen on a free port and relay to `target`."""
        self._target = target
        await self._listen()

    async def close(self) -> None:
        """Stop listening and drop what is open."""
        for server in (self._listening, self._impostor):
            if server is not None:
                server.close()
        for task in tuple(self._open):
            task.cancel()
        self._listening = self._impostor = None

    async def disturb(self, trouble: Trouble | None) -> None:
        """Begin a trouble, or end it with None; counters start at zero, open connections are dropped."""
        self._trouble, self._passed, self.connections = trouble, 0, 0
        self.asked.clear()
        for task in tuple(self._open):
            task.cancel()
        refuse = trouble is not None and trouble.kind == "refused"
        if refuse and self._listening is not None:
            self._listening.close()
            self._listening = None
        elif not refuse and self._listening is None:
            await self._listen()
        if trouble is not None and trouble.kind == "certificate" and self._impostor is None:
            self._impostor = await asyncio.start_server(_hang_up, "127.0.0.1", 0, ssl=self._foreign())

    # ------------------------------------------------------------- the relay

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", self.port, reuse_address=True)
        self.port = int(self._listening.sockets[0].getsockname()[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._relay(reader, writer)
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        trouble = self._trouble if self._trouble is not None and self._trouble.kind in WIRE_KINDS else None
        if trouble is not None and trouble.kind == "garbage":
            writer.write(b"\x00\xff* OK this is quite another service\r\n\x00")
            await writer.drain()
            writer.close()
            return
        impostor = self._impostor if trouble is not None and trouble.kind == "certificate" else None
        port = int(impostor.sockets[0].getsockname()[1]) if impostor is not None else self._target
        back, out = await asyncio.open_connection("127.0.0.1", port)
        for stream in (writer, out):
            link = stream.get_extra_info("socket")
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there = asyncio.create_task(_pump(reader, out))
        try:
            await self._answer(back, writer, trouble)
        finally:
            there.cancel()
            out.transport.abort()

    async def _answer(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter, trouble: Trouble | None) -> None:
        left = trouble.after if trouble is not None and trouble.kind in ("reset", "end", "stall") else None
        while left is None or left > 0:
            piece = await back.read(_PIECE if left is None else left)
            if not piece:
                return
            left = None if left is None else left - len(piece)
            writer.write(piece)
            await writer.drain()
        assert trouble is not None
        if trouble.kind == "stall":
            await asyncio.Event().wait()
        if trouble.kind == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            return
        writer.close()
        await writer.wait_closed()

    # ------------------------------------------------------------- hooks behind TLS

    def _note(self, method: str, path: str, query: str) -> Trouble | None:
        """Count a request; the trouble it gets, if any."""
        reviews = path.rpartition("/")[2].startswith("selfsubject")
        changes = method in ("POST", "PUT", "PATCH", "DELETE") and "dryRun=" not in query and not reviews
        self.asked.append(Asked(method, path, changes))
        trouble = self._trouble
        if trouble is None or trouble.kind not in REQUEST_KINDS or not re.search(trouble.only, f"{method} {path}"):
            return None
        if trouble.kind.startswith("exec-") and not path.endswith("/exec"):
            return None
        self._passed += 1
        return trouble if self._passed > trouble.after else None

    def http(self) -> Any:
        """An aiohttp middleware for the server behind this line."""

        @web.middleware
        async def disturbed(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            trouble = self._note(request.method, request.path, request.query_string)
            if trouble is None:
                return await handler(request)
            if trouble.kind == "lost":  # done, but nobody is told
                await handler(request)
            return await _bad_answer(request, trouble)

        return disturbed

    async def grpc(self, event: Any) -> None:
        """A listener for grpclib's RecvRequest."""
        trouble = self._note("RPC", event.method_name, "")
        if trouble is not None and trouble.kind == "trickle":
            await asyncio.sleep(3600)
        if trouble is not None:
            code = _GRPC.get(trouble.status, Status.INTERNAL)
            raise GRPCError(code, f"labproof-sim: {_SAID.get(trouble.status, 'broken on purpose')}")


class Lines:
    """The lines of one simulated lab, by protocol (`ssh`, `pve`, `talos`, `kube`) and target.

    Hand it to `SimLab(..., lines=Lines())`. The methods may be called from any thread.
    """

    def __init__(self) -> None:
        """No lines yet."""
        self._lines: dict[tuple[str, str], Line] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def __getitem__(self, key: tuple[str, str]) -> Line:
        return self._lines[key]

    def line(self, kind: str, name: str, pki: Pki) -> Line:
        """The line of one server; called in the loop that serves it."""
        self._loop = asyncio.get_running_loop()

        def foreign() -> ssl.SSLContext:
            from labproof.simlab.world.pki import Pki as Another

            strange = {"pve": "pve", "kube": "kube", "talos": "talos"}.get(kind, "kube")
            context = Another().server_context(strange, "elsewhere", "elsewhere")
            context.set_alpn_protocols(["h2"] if kind == "talos" else ["http/1.1"])
            return context

        return self._lines.setdefault((kind, name), Line(f"{kind}/{name}", foreign))

    async def close(self) -> None:
        """Close every line; called in the loop that serves them."""
        for line in self._lines.values():
            await line.close()

    def disturb(self, kind: str, name: str, trouble: Trouble | None) -> None:
        """Begin a trouble at one server, or end it."""
        self._run(self._lines[kind, name].disturb(trouble))

    def clear(self) -> None:
        """End every trouble; all counters start at zero."""
        for line in self._lines.values():
            self._run(line.disturb(None))

    def counts(self) -> dict[tuple[str, str], tuple[int, int, int]]:
        """Connections, requests and writing requests by server since its last `disturb` or `clear`."""
        return {
            key: (line.connections, len(line.asked), sum(a.writes for a in line.asked))
            for key, line in self._lines.items()
        }

    def _run(self, work: Any) -> None:
        if self._loop is None:
            raise RuntimeError("the simulated lab is not started")
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


async def _hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _bad_answer(request: web.Request, trouble: Trouble) -> web.StreamResponse:
    if trouble.kind in ("exec-closed", "exec-dropped"):
        return await _closed_exec(request, trouble)
    if trouble.kind == "page":  # a login page or proxy where the API should be
        return web.Response(text="<!DOCTYPE html><html><title>Sign in</title></html>", content_type="text/html")
    if trouble.kind == "status":
        return _status(request, trouble.status)
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100000"})
    await response.prepare(request)
    await response.write(b'{"kind":"List","data":[{"metadata":{"name":"a"},')
    if trouble.kind == "trickle":
        with contextlib.suppress(ConnectionError):
            for _ in range(99_000):
                await asyncio.sleep(0.1)
                await response.write(b" ")
    if request.transport is not None:
        request.transport.abort()
    return response


def _status(request: web.Request, status: int) -> web.Response:
    """The status in the server's own form: PVE says it in the status line, Kubernetes in a Status object."""
    said = _SAID.get(status, "Error")
    headers = {"Retry-After": "1"} if status == 429 else {}
    if request.path.startswith("/api2/"):
        return web.json_response({"data": None}, status=status, reason=said, headers=headers)
    body = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": said,
        "reason": said.replace(" ", ""), "code": status,
    }  # fmt: skip
    return web.json_response(body, status=status, headers=headers)


async def _closed_exec(request: web.Request, trouble: Trouble) -> web.StreamResponse:
    """The stream is accepted, says a little, and is over before the command is: no status frame comes."""
    socket_ = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
    await socket_.prepare(request)
    await socket_.send_bytes(b"\x01frame=12\n")
    if trouble.kind == "exec-closed":
        await socket_.close(code=1000)
        return socket_
    transport = request.transport
    if transport is not None:
        transport.abort()
    with contextlib.suppress(ConnectionError):
        while (await socket_.receive()).type not in (WSMsgType.CLOSED, WSMsgType.CLOSE, WSMsgType.ERROR):
            continue
    return socket_
