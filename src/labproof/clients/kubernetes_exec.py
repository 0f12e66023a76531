"""A command in a container, over one WebSocket of its own, with every ending told apart.

The official `stream()` swaps a method of the shared client while it runs, has no timeout for the handshake, and its
`returncode` raises when the command could not start (facts/ecosystem.md 0, facts/real-kubernetes.md pitfalls 5
and 6). So the protocol (`v4.channel.k8s.io`) is spoken here, on the WebSocket library the official client uses.
"""

import contextlib
import json
import socket
import ssl
import threading
import time
from dataclasses import dataclass

import websocket

from labproof.clients.errors import Kind

PROTOCOL = "v4.channel.k8s.io"  # understood by every server since 1.4; nothing is sent, so v5's close is not needed
_STDOUT, _STDERR, _STATUS = 1, 2, 3


@dataclass(frozen=True)
class ExecResult:
    """How a command in a container ended.

    Attributes:
        exit_code: its exit status; None when it did not start, or its end was not seen.
        stdout, stderr: everything that came, also when the end was not seen.
        failure: why there is no exit code, in the server's words where it gave any.
        kind: that failure's kind: rejected (could not start), timeout, reset.
        seconds: wall time, the connection included.
    """

    exit_code: int | None
    stdout: bytes
    stderr: bytes
    failure: str | None
    kind: Kind | None
    seconds: float


class HandshakeRefused(Exception):
    """The server answered the WebSocket handshake with an HTTP status."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body
        super().__init__(f"handshake {status}")


def run(
    url: str,
    headers: list[str],
    tls: ssl.SSLContext,
    *,
    server_name: str | None,
    proxy: tuple[str, int] | None,
    handshake_s: float,
    timeout_s: float,
) -> ExecResult:
    """Open the stream, read it to its end, close it.

    Args:
        proxy: host and port of an HTTP proxy; None: none, whatever the environment says.
        handshake_s: until the command is accepted; the kubelet and the runtime are part of it.
        timeout_s: for everything.

    Raises:
        HandshakeRefused: the command was not accepted.
        websocket.WebSocketException, OSError: no stream came about.
    """
    started = time.monotonic()
    options = {"context": tls, **({"server_hostname": server_name} if server_name else {})}
    link = websocket.WebSocket(sslopt=options, skip_utf8_validation=True)
    alarm = _Alarm(link, handshake_s)
    settings = {"http_proxy_host": proxy[0], "http_proxy_port": proxy[1]} if proxy else {}
    alarm.start()
    try:
        link.connect(  # type: ignore[no-untyped-call]
            url,
            header=headers,
            subprotocols=[PROTOCOL],
            timeout=handshake_s,
            redirect_limit=0,  # a redirect would carry the credential elsewhere
            suppress_origin=True,
            http_no_proxy=["*"] if proxy is None else [],
            **settings,
        )
    except websocket.WebSocketBadStatusException as error:
        link.close()
        raise HandshakeRefused(error.status_code, error.resp_body or b"") from None
    except BaseException:
        link.shutdown()  # type: ignore[no-untyped-call]
        if alarm.rang:
            raise TimeoutError from None
        raise
    finally:
        alarm.cancel()
    alarm = _Alarm(link, max(0.0, started + timeout_s - time.monotonic()))
    alarm.start()
    try:
        return _read(link, started, timeout_s, alarm)
    finally:
        alarm.cancel()
        link.shutdown()  # type: ignore[no-untyped-call]


class _Alarm(threading.Timer):
    """Cuts the connection when the time is up: the socket's own timeout begins anew with every byte that trickles in.

    Attributes:
        rang: whether it did.
    """

    def __init__(self, link: websocket.WebSocket, limit_s: float) -> None:
        super().__init__(limit_s, self._cut)
        self.daemon = True
        self.rang = False
        self._link = link

    def _cut(self) -> None:
        self.rang = True
        sock = self._link.sock
        if sock is not None:
            with contextlib.suppress(OSError):  # it is closed already
                sock.shutdown(socket.SHUT_RDWR)


def _read(link: websocket.WebSocket, started: float, timeout_s: float, alarm: _Alarm) -> ExecResult:
    channels = {_STDOUT: bytearray(), _STDERR: bytearray(), _STATUS: bytearray()}
    failure, kind = "the connection ended before the command did", Kind.RESET
    deadline = started + timeout_s
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or alarm.rang:
            failure, kind = f"it did not end within {timeout_s:g} s; it may still run there", Kind.TIMEOUT
            break
        link.settimeout(left)
        try:
            opcode, frame = link.recv_data_frame(True)
        except websocket.WebSocketTimeoutException:
            continue
        except (websocket.WebSocketException, OSError):
            if alarm.rang:
                continue
            break
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            break
        if opcode in (websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_TEXT) and frame.data:
            channel = channels.get(frame.data[0])
            if channel is not None:
                channel += frame.data[1:]
    seconds = time.monotonic() - started
    stdout, stderr = bytes(channels[_STDOUT]), bytes(channels[_STDERR])
    if not channels[_STATUS]:
        return ExecResult(None, stdout, stderr, failure, kind, seconds)
    code, failure_said = ending(bytes(channels[_STATUS]))
    kind_said = Kind.REJECTED if failure_said else None
    return ExecResult(code, stdout, stderr, failure_said, kind_said, seconds)


def ending(status: bytes) -> tuple[int | None, str | None]:
    """Read the Status object of the error channel: the exit code, or why there is none."""
    try:
        said = json.loads(status)
        if said["status"] == "Success":
            return 0, None
        # A command that could not start has causes too, but none that is an exit code.
        for cause in (said.get("details") or {}).get("causes") or ():
            if cause.get("reason") == "ExitCode":
                return int(cause["message"]), None
        return None, str(said.get("message") or said.get("reason") or "no reason given")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, "the end of the command was told in a form that is not known"
