"""Calling a Talos node: grpclib on one background event loop, every call with a deadline, statuses mapped.

grpcio cannot be used: its BoringSSL offers no Ed25519, which every Talos certificate is (facts/talos.md 3.1).
grpclib goes through Python's ssl, and so through OpenSSL.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from labproof.clients import talosconfig
from labproof.clients.errors import Kind, TransportFailure, from_os_error, from_tls_error
from labproof.clients.wire import WireCodec, WireError

T = TypeVar("T")
R = TypeVar("R")

_H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # and empty SETTINGS

_KINDS = {
    Status.UNAUTHENTICATED: Kind.AUTH,
    Status.PERMISSION_DENIED: Kind.FORBIDDEN,
    Status.NOT_FOUND: Kind.NOT_FOUND,
    Status.UNIMPLEMENTED: Kind.UNSUPPORTED,
    Status.UNAVAILABLE: Kind.UNAVAILABLE,
    Status.INTERNAL: Kind.UNAVAILABLE,
    Status.DEADLINE_EXCEEDED: Kind.TIMEOUT,
    Status.RESOURCE_EXHAUSTED: Kind.RATE_LIMITED,
    Status.CANCELLED: Kind.RESET,
}


class _BackgroundLoop:
    """One event loop thread for all Talos sessions of this process, started at first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="labproof-talos", daemon=True).start()
            return self._loop

    def run(self, work: Coroutine[Any, Any, T], limit_s: float) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self.start())
        try:
            return future.result(limit_s)
        except FutureTimeout:
            future.cancel()
            raise TimeoutError from None


_LOOP = _BackgroundLoop()
LOOP_GRACE_S = 5.0  # beyond a call's own deadline, before the loop itself counts as stuck


class TalosChannel:
    """One connection to the first endpoint that answers; grpclib makes it anew when it broke between two calls.

    Attributes:
        calls: calls sent so far.
    """

    def __init__(
        self, context: talosconfig.TalosContext, endpoints: tuple[tuple[str, int], ...], node: str | None
    ) -> None:
        self.calls = 0
        self._endpoints = endpoints
        self._node = node
        self._as_whom = context.as_whom
        self._tls = talosconfig.tls_context(context)
        self._channel: Channel | None = None
        self._endpoint = endpoints[0]
        self._answered = False

    @property
    def name(self) -> str:
        """The peer and the account, as every message names them."""
        host, port = self._endpoint
        via = f"Talos API {host}:{port}"
        return f"{via} node {self._node} as {self._as_whom}" if self._node else f"{via} as {self._as_whom}"

    def call(self, method: str, request: object, reply: type[R], *, stream: bool, timeout_s: float) -> list[R]:
        """Call `/service/Method` and return every reply (one, unless `stream`).

        Raises:
            TransportFailure: with the server's own words in `answer`.
        """
        self.calls += 1
        try:
            replies = _LOOP.run(self._call(method, request, reply, stream, timeout_s), timeout_s + LOOP_GRACE_S)
        except GRPCError as error:
            self._answered = True
            raise self._refused(error, method) from None
        except StreamTerminatedError:
            self._drop()
            raise self._cut_off() from None
        except (ProtocolError, WireError) as error:
            self._drop()
            text = f"{method} was answered with something else than its reply ({error})"
            raise TransportFailure(Kind.PROTOCOL, self.name, text) from None
        except OSError as error:
            self._drop()
            raise from_os_error(error, self.name, self._endpoint[0], timeout_s) from None
        self._answered = True
        return replies

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        self._drop()

    async def _call(self, method: str, request: object, reply: type[R], stream: bool, timeout_s: float) -> list[R]:
        async with asyncio.timeout(timeout_s):
            channel = await self._connected()
            cardinality = Cardinality.UNARY_STREAM if stream else Cardinality.UNARY_UNARY
            # Exactly one `node`: the plural `nodes` is deprecated, and COSI refuses it (facts/talos.md 3.3).
            metadata = {"node": self._node} if self._node else None
            replies: list[R] = []
            open_stream: Any = channel.request(
                method, cardinality, type(request), reply, timeout=timeout_s, metadata=metadata
            )
            async with open_stream as opened:
                await opened.send_message(request, end=True)
                async for message in opened:
                    replies.append(message)
            return replies

    async def _connected(self) -> Channel:
        if self._channel is not None:
            return self._channel
        last: OSError | None = None
        for endpoint in self._endpoints:
            self._endpoint = endpoint
            host, port = endpoint
            channel = Channel(host, port, codec=WireCodec(), ssl=self._tls)
            try:
                await channel.__connect__()
            except OSError as error:
                channel.close()
                last = error
                continue
            except BaseException:
                channel.close()
                raise
            self._channel = channel
            return channel
        raise last or OSError("no endpoint")

    def _drop(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            _LOOP.start().call_soon_threadsafe(channel.close)

    def _cut_off(self) -> TransportFailure:
        """The peer hung up. With TLS 1.3 that is also how a refused client certificate looks: ask for the alert."""
        reset = TransportFailure(Kind.RESET, self.name, "the peer broke the connection; it may be restarting")
        if self._answered:
            return reset
        try:
            with (
                socket.create_connection(self._endpoint, timeout=5.0) as plain,
                self._tls.wrap_socket(plain, server_hostname=self._endpoint[0]) as sock,
            ):
                sock.sendall(_H2_PREFACE)
                if sock.recv(4096):
                    return reset  # it talks HTTP/2 with us: our certificate was not the reason
        except ssl.SSLError as error:
            return from_tls_error(error, self.name)
        except ConnectionError:
            pass
        except OSError:
            return reset
        # Not every server gets its alert out before it hangs up.
        text = "the peer hangs up right after the TLS handshake: most likely it does not accept our client certificate"
        return TransportFailure(Kind.TLS, self.name, f"{text} (another cluster's talosconfig?)")

    def _refused(self, error: GRPCError, method: str) -> TransportFailure:
        answer = error.message or ""
        kind, advice = _kind_of(error.status, answer)
        text = f"{method.rpartition('/')[2]}: {error.status.name} {answer}{advice}"
        return TransportFailure(kind, self.name, text, reason=error.status.name, answer=answer)


def _kind_of(status: Status, answer: str) -> tuple[Kind, str]:
    """One status stands for several things in Talos; its text tells them apart (facts/talos.md 3.3 to 3.6)."""
    if status is Status.PERMISSION_DENIED:
        if "is not supported" in answer:
            return Kind.UNSUPPORTED, "; this Talos version has no such resource"
        if "no request forwarding" in answer:
            return Kind.UNSUPPORTED, "; the endpoint is a worker, which forwards nothing: use a control plane's"
        return Kind.FORBIDDEN, "; the certificate's role does not allow it"
    if status is Status.UNKNOWN and "no such file or directory" in answer:
        return Kind.NOT_FOUND, ""
    if status is Status.UNAVAILABLE:
        return Kind.UNAVAILABLE, "; the endpoint did not reach that node"
    return _KINDS.get(status, Kind.REJECTED), ""
