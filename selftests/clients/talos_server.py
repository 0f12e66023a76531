"""A Talos-like API on 127.0.0.1: grpclib over Ed25519 mutual TLS, answering what each test tells it to."""

import asyncio
import base64
import ssl
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

from labproof.clients import talos_messages as m
from labproof.clients.wire import WireCodec

from .certificates import Authority, Issued, talos_key

UNARY = {
    "/machine.MachineService/Version": (m.Empty, m.VersionResponse),
    "/machine.MachineService/Hostname": (m.Empty, m.HostnameResponse),
    "/machine.MachineService/SystemStat": (m.Empty, m.SystemStatResponse),
    "/machine.MachineService/ServiceList": (m.Empty, m.ServiceListResponse),
    "/cosi.resource.State/Get": (m.CosiGetRequest, m.CosiReply),
}
STREAMS = {
    "/machine.MachineService/Dmesg": (m.DmesgRequest, m.Data),
    "/machine.MachineService/List": (m.ListRequest, m.FileInfo),
    "/machine.MachineService/Read": (m.ReadRequest, m.Data),
    "/cosi.resource.State/List": (m.CosiListRequest, m.CosiReply),
}

Answers = dict[str, Callable[[Any], Iterable[Any]]]


class TalosServer:
    """`answers`: method name -> function of the request giving the replies; it may raise GRPCError.

    Attributes:
        asked: (method, request, value of `node`, all metadata names) of each call.
    """

    def __init__(self, authority: Authority, folder: Path, answers: Answers) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Any, str | None, set[str]]] = []
        issued = authority.issue("node")
        pem = folder / "talos-server.pem"
        pem.write_bytes(issued.certificate + issued.key)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pem)
        tls.load_verify_locations(cadata=authority.pem.decode())
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.set_alpn_protocols(["h2"])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = self._run(self._start(tls))

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self, tls: ssl.SSLContext) -> int:
        self._server = Server([self], codec=WireCodec())
        await self._server.start("127.0.0.1", 0, ssl=tls)
        return int(self._server._server.sockets[0].getsockname()[1])

    def __mapping__(self) -> dict[str, Handler]:
        table = {}
        for methods, cardinality in ((UNARY, Cardinality.UNARY_UNARY), (STREAMS, Cardinality.UNARY_STREAM)):
            for path, (request, reply) in methods.items():
                table[path] = Handler(self._handler(path), cardinality, request, reply)
        return table

    def _handler(self, path: str) -> Any:
        name = path.rpartition("/")[2] if "cosi" not in path else "Cosi" + path.rpartition("/")[2]

        async def handle(stream: Any) -> None:
            request = await stream.recv_message()
            self.asked.append((name, request, stream.metadata.get("node"), set(stream.metadata)))
            for reply in self.answers[name](request):
                if reply is HANG:
                    await asyncio.sleep(30)
                await stream.send_message(reply)

        return handle

    def close(self) -> None:
        async def stop() -> None:
            self._server.close()
            await self._server.wait_closed()

        self._run(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


HANG = object()


def talosconfig(
    path: Path, authority: Authority, client: Issued, *, port: int, name: str = "moody", **changes: Any
) -> Path:
    """Write a talosconfig as talosctl does, base64 over Talos' PEM; `changes` replace or (None) drop keys."""
    body: dict[str, Any] = {
        "endpoints": [f"127.0.0.1:{port}"],
        "ca": _base64(authority.pem),
        "crt": _base64(client.certificate),
        "key": _base64(talos_key(client.key)),
        **changes,
    }
    body = {key: value for key, value in body.items() if value is not None}
    path.write_text(yaml.safe_dump({"context": name, "contexts": {name: body, "moody-admin": body}}))
    return path


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
