"""A pods/exec endpoint over a real WebSocket: each test says which frames come, and how it ends."""

import asyncio
import json
import ssl
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from .certificates import Issued

STDOUT, STDERR, STATUS = b"\x01", b"\x02", b"\x03"
Play = Callable[[web.WebSocketResponse, web.Request], Awaitable[None]]


class ExecServer:
    """`play` runs for each accepted exec; `refuse` answers the handshake instead, when set."""

    def __init__(self, issued: Issued, folder: Path, play: Play | None, refuse: tuple[int, str] | None) -> None:
        self.play = play
        self.refuse = refuse
        self.asked: list[web.Request] = []
        pem = folder / "exec-server.pem"
        pem.write_bytes(issued.certificate + issued.key)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(pem)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = self._run(self._start())

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> int:
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/exec", self._exec)
        app.router.add_get("/api/v1/nodes", self._nodes)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def _nodes(self, request: web.Request) -> web.Response:
        return web.json_response({"kind": "NodeList", "items": []})

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        if self.refuse is not None:
            status, body = self.refuse
            return web.Response(status=status, text=body)
        socket = web.WebSocketResponse(protocols=["v5.channel.k8s.io", "v4.channel.k8s.io"])
        await socket.prepare(request)
        assert self.play is not None
        await self.play(socket, request)
        return socket

    def close(self) -> None:
        self._run(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


def success() -> bytes:
    """The error channel of a command that exited 0."""
    return STATUS + json.dumps({"metadata": {}, "status": "Success"}).encode()


def exited(code: int) -> bytes:
    """The error channel of a command that exited otherwise, as the kubelet words it."""
    details = {"causes": [{"reason": "ExitCode", "message": str(code)}]}
    message = f"command terminated with non-zero exit code: exit status {code}"
    status = {"status": "Failure", "message": message, "reason": "NonZeroExitCode", "details": details}
    return STATUS + json.dumps({"metadata": {}, **status}).encode()


async def until_closed(socket: web.WebSocketResponse) -> None:
    """Stay until the client goes."""
    async for message in socket:
        if message.type is WSMsgType.CLOSE:
            return
