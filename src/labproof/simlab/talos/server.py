"""apid of one simulated node: gRPC over HTTP/2 with Ed25519 mutual TLS, roles, and proxying on control planes.

Source of methods, texts and rights: facts/talos.md 3.1 to 3.6. Only a control plane forwards to other nodes.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from grpclib.const import Cardinality, Handler, Status
from grpclib.events import RecvRequest, listen
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from labproof.simlab.talos import actions, driver, files, services
from labproof.simlab.talos.resources import SENSITIVE, Resource, catalogue, shuffled
from labproof.simlab.talos.state import LogRecord, TalosState
from labproof.simlab.talos.wire import (
    FUTURE,
    RawCodec,
    message,
    number_of,
    parse,
    present,
    text_map,
    text_of,
    timestamp,
)
from labproof.simlab.world.states import NodeState

if TYPE_CHECKING:
    from labproof.simlab.transport import Line

READER, OPERATOR, ADMIN = "os:reader", "os:operator", "os:admin"
#: Methods that os:reader may call; the others of this server need os:admin.
READER_METHODS = frozenset({"Version", "Hostname", "SystemStat", "Dmesg", "List", "ServiceList", "Logs"})
_CHUNK = 32 * 1024


class WorldLike(Protocol):
    """What this server needs of the world: its booted nodes."""

    @property
    def nodes(self) -> dict[str, NodeState]:
        """Nodes by name."""
        ...


class PkiLike(Protocol):
    """Where the server's certificate comes from."""

    def server_context(
        self, kind: str, cluster: str, name: str, *names: str, client_certificates: ssl.VerifyMode = ...
    ) -> ssl.SSLContext:
        """A TLS server context that verifies client certificates."""
        ...


@dataclass
class RunningServer:
    """A listening server: its port on 127.0.0.1, and how to stop it."""

    port: int
    _server: Server

    async def close(self) -> None:
        """Stop listening and drop all connections."""
        self._server.close()
        await self._server.wait_closed()


async def serve(
    world_ref: Callable[[], WorldLike], name: str, pki: PkiLike, port: int = 0, line: Line | None = None
) -> RunningServer:
    """Serve the Talos API of node `name`.

    Args:
        world_ref: returns the current world; a reset swaps it under the running server.
        name: the node that is the endpoint; a control plane also forwards to the other nodes of its cluster.
        pki: makes the server certificate, with the CA of the node's cluster.
        port: 0 picks a free one.
        line: is told of every request, and may refuse it.
    """
    node = world_ref().nodes[name]
    cluster = getattr(node, "cluster", "") or name
    tls = pki.server_context("talos", cluster, name, node.address, client_certificates=ssl.CERT_REQUIRED)
    tls.set_alpn_protocols(["h2"])
    server = Server([Apid(world_ref, name)], codec=RawCodec())
    if line is not None:
        listen(server, RecvRequest, line.grpc)
    await server.start("127.0.0.1", port, ssl=tls)
    listening = server._server  # grpclib has no public way to ask for the port
    sockets = listening.sockets if isinstance(listening, asyncio.Server) else ()
    return RunningServer(int(sockets[0].getsockname()[1]), server)


class Apid:
    """The handlers. Requests and replies are bytes; the proxy rules are applied before anything else."""

    def __init__(self, world_ref: Callable[[], WorldLike], name: str) -> None:
        """Serve for node `name` of the current world."""
        self._world_ref = world_ref
        self._name = name

    def __mapping__(self) -> dict[str, Handler]:
        """Methods of machine.MachineService and cosi.resource.State."""
        unary = {"Version": _version, "Hostname": _hostname, "SystemStat": _system_stat, "ServiceList": _service_list}
        streams = {"Dmesg": _dmesg, "List": _list, "Logs": _logs, "Read": _read}
        mapping = {}
        for method, unary_reply in unary.items():
            handler = self._unary(method, unary_reply)
            mapping[f"/machine.MachineService/{method}"] = Handler(handler, Cardinality.UNARY_UNARY, None, None)
        for method, stream_reply in streams.items():
            handler = self._streaming(method, stream_reply)
            mapping[f"/machine.MachineService/{method}"] = Handler(handler, Cardinality.UNARY_STREAM, None, None)
        for path, method in actions.UNARY.items():
            mapping[path] = Handler(self._acting(method), Cardinality.UNARY_UNARY, None, None)
        for path, method in actions.STREAMS.items():
            mapping[path] = Handler(self._acting(method), Cardinality.UNARY_STREAM, None, None)
        mapping["/cosi.resource.State/Get"] = Handler(self._get, Cardinality.UNARY_UNARY, None, None)
        mapping["/cosi.resource.State/List"] = Handler(self._cosi_list, Cardinality.UNARY_STREAM, None, None)
        return mapping

    def _unary(self, method: str, reply: Callable[[TalosState], bytes]) -> Callable[[Stream[bytes, bytes]], Any]:
        async def handle(stream: Stream[bytes, bytes]) -> None:
            await stream.recv_message()
            node = self._authorised(stream, method)
            await stream.send_message(reply(node))

        return handle

    def _streaming(
        self, method: str, replies: Callable[[TalosState, bytes], AsyncIterator[bytes]]
    ) -> Callable[[Stream[bytes, bytes]], Any]:
        async def handle(stream: Stream[bytes, bytes]) -> None:
            request = await stream.recv_message() or b""
            node = self._authorised(stream, method)
            async for piece in replies(node, request):
                await stream.send_message(piece)

        return handle

    def _acting(self, method: str) -> Callable[[Stream[bytes, bytes]], Any]:
        async def handle(stream: Stream[bytes, bytes]) -> None:
            request = await stream.recv_message() or b""
            node = self._authorised(stream, method)
            for piece in actions.act(self._world_ref(), node, method, request):
                await stream.send_message(piece)

        return handle

    async def _get(self, stream: Stream[bytes, bytes]) -> None:
        fields = parse(await stream.recv_message() or b"")
        namespace, kind, key = text_of(fields, 1), text_of(fields, 2), text_of(fields, 3)
        node, rows = self._rows(stream, namespace, kind)
        row = next((r for r in rows if r.id == key), None)
        if row is None:
            raise GRPCError(Status.NOT_FOUND, f"resource {kind}({namespace}/{key}) doesn't exist")
        await stream.send_message(present(1, _resource(node, namespace, kind, row)))

    async def _cosi_list(self, stream: Stream[bytes, bytes]) -> None:
        fields = parse(await stream.recv_message() or b"")
        namespace, kind = text_of(fields, 1), text_of(fields, 2)
        node, rows = self._rows(stream, namespace, kind)
        for row in shuffled(rows):
            await stream.send_message(present(1, _resource(node, namespace, kind, row)))

    def _rows(self, stream: Stream[bytes, bytes], namespace: str, kind: str) -> tuple[TalosState, list[Resource]]:
        node = self._target(stream, one_to_many=False)
        rows = catalogue(node).get((namespace, kind))
        if rows is None:
            raise GRPCError(Status.PERMISSION_DENIED, f'resource type "{kind}" is not supported')
        if kind in SENSITIVE and ADMIN not in _roles(stream):
            raise GRPCError(Status.PERMISSION_DENIED, "not authorized")
        if not _roles(stream) & {READER, OPERATOR, ADMIN}:
            raise GRPCError(Status.PERMISSION_DENIED, "not authorized")
        return node, rows

    def _authorised(self, stream: Stream[bytes, bytes], method: str) -> TalosState:
        node = self._target(stream, one_to_many=True)
        allowed = {READER, OPERATOR, ADMIN} if method in READER_METHODS else actions.RIGHTS.get(method, {ADMIN})
        if not _roles(stream) & allowed:
            raise GRPCError(Status.PERMISSION_DENIED, "not authorized")
        return node

    def _target(self, stream: Stream[bytes, bytes], *, one_to_many: bool) -> TalosState:
        """The node meant by the request's metadata (T: director.go)."""
        nodes = self._world_ref().nodes
        endpoint = nodes.get(self._name)
        if not isinstance(endpoint, TalosState) or not endpoint.up:
            # A machine that is off answers nothing: hang up as its network stack would not even do.
            stream._stream._transport.abort()
            raise asyncio.CancelledError
        metadata: Mapping[str, Any] = stream.metadata or {}
        meant = metadata.get("node")
        if metadata.get("nodes"):
            if not one_to_many or meant:
                raise GRPCError(Status.INVALID_ARGUMENT, "one-2-many proxying is not supported for method")
            meant = metadata.get("nodes")
        if meant is None or str(meant) in (endpoint.name, endpoint.address):
            return endpoint
        if endpoint.role != "controlplane":
            raise GRPCError(Status.PERMISSION_DENIED, "no request forwarding")
        for node in nodes.values():
            known = isinstance(node, TalosState) and node.cluster == endpoint.cluster
            if known and str(meant) in (node.name, node.address):
                if not node.up:
                    break
                return node  # type: ignore[return-value]  # `known` holds
        dialled = f"dial tcp {meant}:50000: connect: no route to host"
        raise GRPCError(Status.UNAVAILABLE, f'connection error: desc = "transport: Error while dialing: {dialled}"')


def _roles(stream: Stream[bytes, bytes]) -> set[str]:
    """Roles are the organisations of the client certificate's subject."""
    certificate = (stream.peer.cert() if stream.peer else None) or {}
    return {what for part in certificate.get("subject", ()) for key, what in part if key == "organizationName"}


def boot_time(node: TalosState) -> float:
    """Unix seconds of the last boot: a node whose boot sequence never ends reboots every 70 minutes."""
    if not node.never_boots:
        return node.booted_at
    period = services.BOOT_TIMEOUT_S + 14.0  # measured 4206 to 4227 s (cozystack 3571)
    return time.time() - (time.time() - node.booted_at) % period


def _version(node: TalosState) -> bytes:
    go = "go1.24.6"
    info = message((1, node.os_version), (2, "sim"), (4, go), (5, "linux"), (6, "amd64"), FUTURE)
    platform = message((1, node.platform), (2, "metal" if node.platform == "metal" else "cloud"))
    return _reply(present(2, info) + present(3, platform) + present(4, message((1, True))))


def _hostname(node: TalosState) -> bytes:
    return _reply(message((2, node.name)))


def _system_stat(node: TalosState) -> bytes:
    return _reply(message((2, int(boot_time(node))), FUTURE))


def _service_list(node: TalosState) -> bytes:
    at = boot_time(node) + 20
    rows = b""
    for service in reversed(node.services):
        event = message((1, service.message), (2, service.state)) + present(3, timestamp(at))
        health = message((1, service.healthy is None), (2, bool(service.healthy)), (3, ""))
        info = message((1, service.id), (2, service.state)) + present(3, present(1, event)) + present(4, health)
        rows += present(2, info)
    return _reply(rows)


def _reply(fields: bytes) -> bytes:
    """XResponse with one message, as for a single node."""
    return present(1, fields)


def _data(content: bytes) -> bytes:
    return message((2, content))


async def _dmesg(node: TalosState, _request: bytes) -> AsyncIterator[bytes]:
    started = boot_time(node)
    records = node.log
    if node.log_rotated:
        records = tuple(r for r in records if r.offset_s > 3600)
    worked = [
        LogRecord(at - started, driver.xid_text(gpu.address, number), priority="warning")
        for gpu in node.gpus for at, number in gpu.card.happened
    ]  # fmt: skip
    for record in (*records, *worked):
        at = dt.datetime.fromtimestamp(started + record.offset_s, dt.UTC)
        stamp = at.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
        line = f"{record.facility}: {record.priority:>7}: [{stamp}]: {record.text}"
        yield _data("\n".join([line, *record.trailer]).encode() + b"\n")


async def _list(node: TalosState, request: bytes) -> AsyncIterator[bytes]:
    fields = parse(request)
    root = text_of(fields, 1).rstrip("/") or "/"
    depth = max(number_of(fields, 3), 1) if number_of(fields, 2) else 1
    paths = files.tree(node)
    if root not in paths:
        raise GRPCError(Status.UNKNOWN, f"lstat {root}: no such file or directory")
    yield _file_info(root, ".", paths[root])
    if paths[root].is_dir:
        for name, entry in sorted(files.children(paths, root, depth), reverse=True):
            yield _file_info(f"{root}/{name}", name, entry)


def _file_info(path: str, relative: str, entry: files.Entry) -> bytes:
    return message(
        (2, path.rpartition("/")[2] or path),
        (3, len(entry.content or "")),
        (4, entry.mode),
        (5, 1763632800),
        (6, entry.is_dir),
        (8, entry.link),
        (9, relative),
        (10, entry.uid),
        (11, entry.gid),
        FUTURE,
    )


async def _logs(node: TalosState, request: bytes) -> AsyncIterator[bytes]:
    key = text_of(parse(request), 2)
    service = next((s for s in node.services if s.id == key), None)
    if service is None:
        raise GRPCError(Status.NOT_FOUND, f'log "{key}" was not registered')
    for line in service.log:
        yield _data(line.encode() + b"\n")


async def _read(node: TalosState, request: bytes) -> AsyncIterator[bytes]:
    path = text_of(parse(request), 1)
    entry = files.tree(node).get(path)
    if entry is None:
        raise GRPCError(Status.NOT_FOUND, f"stat {path}: no such file or directory")
    if entry.content is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "path must be a regular file")
    content = entry.content.encode()
    for start in range(0, len(content), _CHUNK):
        yield _data(content[start : start + _CHUNK])


def _resource(node: TalosState, namespace: str, kind: str, row: Resource) -> bytes:
    at = timestamp(boot_time(node) + 10)
    metadata = message((1, namespace), (2, kind), (3, row.id), (4, "1"), (5, row.owner), (6, "running"))
    metadata += present(7, at) + present(8, at) + text_map(11, dict(row.annotations))
    spec = message((1, b"\x0a\x03sim"), (2, row.yaml))
    return present(1, metadata) + present(2, spec)
