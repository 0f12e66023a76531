"""One SSH connection per host, commands over it, both output streams read to the end."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

import paramiko

from labproof.clients.errors import Kind, TransportFailure, from_os_error
from labproof.clients.ssh_config import Hop, SshTarget, resolve
from labproof.clients.ssh_login import log_in

__all__ = ["CommandResult", "SshSession", "SshTarget"]

PIECE = 64 * 1024
GRACE_S = 5.0  # between the end of both streams and the exit status


@dataclass(frozen=True)
class CommandResult:
    """What a command left behind. `exit_status` is None when a signal ended it. `seconds` is wall time."""

    command: str
    exit_status: int | None
    stdout: bytes
    stderr: bytes
    seconds: float


class SshSession:
    """A connection to one host, opened at first use and kept for the whole run.

    Commands may be run from several threads at once. Nothing reconnects by itself: a connection that broke
    is a finding; `reconnect()` is for after a reboot we asked for.

    Attributes:
        connections: TCP connections to the target made so far (jump hosts not counted).
        commands: commands started so far.
    """

    def __init__(self, target: SshTarget) -> None:
        self.target = target
        self.connections = 0
        self.commands = 0
        self._hops: tuple[Hop, ...] | None = None
        self._clients: list[paramiko.SSHClient] = []
        self._lock = threading.Lock()

    def __enter__(self) -> "SshSession":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SshSession({self.target.host!r})"

    @property
    def hop(self) -> Hop:
        """The resolved target: address, port and account really used."""
        return self._route()[-1]

    @property
    def as_whom(self) -> str:
        """Whom the host sees, for "as whom" in plans and failures: `root@192.0.2.5:22`."""
        hop = self.hop
        return f"{hop.user}@{hop.address}:{hop.port}"

    @property
    def banner(self) -> str:
        """The server's identification, e.g. `SSH-2.0-OpenSSH_10.0p2 Debian-7` (connects if need be)."""
        return str(self._transport().remote_version)

    def run(self, command: str, stdin: bytes | None = None, timeout_s: float = 60.0) -> CommandResult:
        """Run one command line with the account's shell and read both streams to their end.

        Args:
            command: the line the remote shell gets.
            stdin: what the command reads; None or empty: end of file at once.
            timeout_s: for the whole command, seconds.

        Raises:
            TransportFailure: timeout (the command may still run there), reset, or any failure to connect.
        """
        transport = self._transport()
        hop = self.hop
        started = time.monotonic()
        deadline = started + timeout_s
        try:
            channel = transport.open_session(timeout=min(timeout_s, hop.connect_timeout_s))
            channel.settimeout(timeout_s)
            with _bounded(transport, timeout_s):
                channel.exec_command(command)
        except TimeoutError as error:
            if transport.is_active():
                raise self._lost(transport, error, command) from None
            text = f"`{_short(command)}` was not even begun within {timeout_s:g} s; the host may have gone down"
            raise TransportFailure(Kind.TIMEOUT, str(hop), text) from None
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._lost(transport, error, command) from None
        with self._lock:
            self.commands += 1
        errors = _Drain(channel)
        feeder = threading.Thread(target=_feed, args=(channel, stdin or b""), daemon=True)
        errors.start()
        feeder.start()
        try:
            stdout = _read(channel, deadline)
            errors.join(max(0.0, deadline - time.monotonic()))
            channel.status_event.wait(min(GRACE_S, max(0.0, deadline - time.monotonic())))
        except TimeoutError:
            stdout = b""
        seconds = time.monotonic() - started
        # A connection that breaks ends both streams too, but without the peer's own end of file.
        ended = channel.status_event.is_set() and not errors.is_alive()
        dropped = ended and channel.exit_status == -1 and not channel.eof_received
        status = channel.exit_status
        channel.close()
        if not ended:
            late = f"`{_short(command)}` did not end within {timeout_s:g} s; it may still run there"
            raise TransportFailure(Kind.TIMEOUT, str(hop), late)
        if dropped:
            raise self._lost(transport, EOFError(), command)
        return CommandResult(command, None if status == -1 else status, stdout, errors.taken, seconds)

    def reconnect(self) -> None:
        """Drop the connection and make a new one, after a reboot. Fails as connecting does: use `wait_until`."""
        self.close()
        self._transport()

    def close(self) -> None:
        """Close the connection and those of the jump hosts."""
        with self._lock:
            clients, self._clients = self._clients, []
        for client in reversed(clients):
            client.close()

    def _route(self) -> tuple[Hop, ...]:
        if self._hops is None:
            self._hops = resolve(self.target)
        return self._hops

    def _transport(self) -> paramiko.Transport:
        hops = self._route()
        with self._lock:
            if not self._clients:
                self._connect(hops)
            transport = self._clients[-1].get_transport()
        if transport is None or not transport.is_active():
            raise TransportFailure(
                Kind.RESET, str(hops[-1]), "the connection broke earlier in this run; the host may have restarted"
            )
        return transport

    def _connect(self, hops: tuple[Hop, ...]) -> None:
        clients: list[paramiko.SSHClient] = []
        try:
            for hop in hops:
                sock = _through(clients[-1], hop) if clients else _dial(hop)
                if hop is hops[-1]:
                    self.connections += 1
                clients.append(log_in(hop, sock))
        except TransportFailure:
            for client in reversed(clients):
                client.close()
            raise
        self._clients = clients

    def _lost(self, transport: paramiko.Transport, error: Exception, command: str) -> TransportFailure:
        target, shown = str(self.hop), f"`{_short(command)}`"
        if isinstance(error, paramiko.ChannelException):
            return TransportFailure(
                Kind.REJECTED, target, f"the server opens no session for a command ({error.text or error.code})"
            )
        if isinstance(error, TimeoutError) and transport.is_active():
            return TransportFailure(Kind.TIMEOUT, target, f"the server did not start {shown} in time")
        if transport.is_active() and isinstance(error, paramiko.SSHException):
            return TransportFailure(Kind.PROTOCOL, target, f"the server did not run {shown}: {error}")
        broke = f"the connection broke while {shown} ran; the host may have restarted"
        return TransportFailure(Kind.RESET, target, broke)


class _Drain(threading.Thread):
    """Reads stderr beside stdout: a full window on one stream would stop the command for good."""

    def __init__(self, channel: paramiko.Channel) -> None:
        super().__init__(daemon=True)
        self.channel = channel
        self.taken = b""

    def run(self) -> None:
        pieces = bytearray()
        # The timeout belongs to the reader of stdout; closing the channel ends this one in any case.
        try:
            while piece := self.channel.recv_stderr(PIECE):
                pieces += piece
        except TimeoutError:
            return
        finally:
            self.taken = bytes(pieces)


@contextmanager
def _bounded(transport: paramiko.Transport, limit_s: float) -> Iterator[None]:
    """Close the connection when the body takes longer: paramiko waits without end for the answer to a request, and a
    host that went down meanwhile leaves the connection half open (seen on a real guest's reboot).

    Raises:
        TimeoutError: it took longer.
    """
    late = threading.Event()

    def give_up() -> None:
        late.set()
        transport.close()

    timer = threading.Timer(limit_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (paramiko.SSHException, EOFError, OSError):
        if late.is_set():
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()


def _read(channel: paramiko.Channel, deadline: float) -> bytes:
    pieces = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        channel.settimeout(left)
        piece = channel.recv(PIECE)
        if not piece:
            return bytes(pieces)
        pieces += piece


def _feed(channel: paramiko.Channel, stdin: bytes) -> None:
    try:
        if stdin:
            channel.sendall(stdin)
        channel.shutdown_write()
    except OSError:
        # The command ended without reading all of it, or the connection broke: the readers tell which.
        return


def _dial(hop: Hop) -> socket.socket:
    try:
        sock = socket.create_connection((hop.address, hop.port), timeout=hop.connect_timeout_s)
    except OSError as error:
        raise from_os_error(error, str(hop), hop.address, hop.connect_timeout_s) from None
    # paramiko leaves Nagle on: 45 ms more for every command (measured on loopback, facts/ecosystem.md 0).
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _through(client: paramiko.SSHClient, hop: Hop) -> paramiko.Channel:
    transport = client.get_transport()
    try:
        if transport is None:
            raise EOFError
        return transport.open_channel(
            "direct-tcpip", (hop.address, hop.port), ("127.0.0.1", 0), timeout=hop.connect_timeout_s
        )
    except paramiko.ChannelException as error:
        why = error.text or str(error.code)
        raise TransportFailure(
            Kind.REFUSED, str(hop), f"the jump host cannot reach it, or may not forward: {why}"
        ) from None
    except (paramiko.SSHException, EOFError, OSError):
        raise TransportFailure(Kind.RESET, str(hop), "the connection to the jump host broke") from None


def _short(command: str) -> str:
    line = " ".join(command.split())
    return line if len(line) <= 60 else line[:57] + "..."
