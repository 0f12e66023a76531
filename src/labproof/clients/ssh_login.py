"""Logging in to one SSH host: host key enforced, keys tried in order, every refusal told apart.

paramiko's own client reports a refused key, an unreadable key file and a missing agent with one text;
the auth strategy here keeps them apart.
"""

import base64
import hashlib
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
from paramiko.auth_strategy import (
    AuthFailure,
    AuthSource,
    AuthStrategy,
    InMemoryPrivateKey,
    OnDiskPrivateKey,
    Password,
)
from paramiko.hostkeys import InvalidHostKey
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import IncompatiblePeer

from labproof.clients.errors import Kind, TransportFailure, from_os_error
from labproof.clients.ssh_config import Hop

LOG = "labproof.paramiko"
# paramiko logs whole tracebacks of its transport thread at ERROR; the failure raised says it in one line.
logging.getLogger(LOG).setLevel(logging.CRITICAL + 1)


class _HostKeyNotKnown(Exception):
    def __init__(self, key: paramiko.PKey) -> None:
        self.key = key
        super().__init__(key.get_name())


class _RefuseUnknown(paramiko.MissingHostKeyPolicy):
    """Never add a key by itself: whoever answers first would be trusted for good."""

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        raise _HostKeyNotKnown(key)


class _KeysThenPassword(AuthStrategy):
    """Named keys, then the agent's, then the usual files, then the password.

    Named keys first: an agent with many keys uses up the server's MaxAuthTries (sshd_config(5), default 6).
    """

    def __init__(self, hop: Hop) -> None:
        super().__init__(paramiko.SSHConfig())
        self.log = logging.getLogger(LOG)
        self.hop = hop
        self.tried: list[str] = []

    def get_sources(self) -> Iterator[AuthSource]:
        for name in self.hop.identity_files:
            yield from self._file(name, named=True)
        if self.hop.use_agent:
            try:
                keys = paramiko.Agent().get_keys()
            except (OSError, paramiko.SSHException) as error:
                self.tried.append(f"the agent ({type(error).__name__})")
                keys = ()
            for key in keys:
                self.tried.append(f"agent key {fingerprint(key)}")
                yield InMemoryPrivateKey(self.hop.user, key)
        for name in self.hop.default_keys:
            yield from self._file(name, named=False)
        password = self.hop.password
        if password is not None:
            self.tried.append("the password")
            yield Password(self.hop.user, lambda: password)

    def _file(self, name: str, *, named: bool) -> Iterator[AuthSource]:
        path = Path(name).expanduser()
        if path.suffix == ".pub":
            return  # only picks a key of the agent
        if not path.is_file():
            if named:
                self.tried.append(f"{name} (no such file)")
            return
        try:
            # As bytes: paramiko 5 hands a str on to cryptography, which refuses it whatever the passphrase is.
            secret: Any = self.hop.passphrase.encode() if self.hop.passphrase else None
            key = paramiko.PKey.from_path(path, secret)
        except (OSError, ValueError, TypeError, paramiko.SSHException, UnknownKeyType) as error:
            # TypeError: cryptography's way to say that a passphrase is missing.
            why = "needs a passphrase" if isinstance(error, TypeError) else "cannot be read as a private key"
            self.tried.append(f"{name} ({why})")
            return
        self.tried.append(f"key {name}")
        yield OnDiskPrivateKey(self.hop.user, "python-config", path, key)


def log_in(hop: Hop, sock: "socket.socket | paramiko.Channel") -> paramiko.SSHClient:
    """Speak SSH over an open socket or channel: check the host key, then authenticate.

    Raises:
        TransportFailure: unknown_host_key, changed_host_key, auth, protocol, timeout, reset, unsupported.
    """
    client = paramiko.SSHClient()
    client.set_log_channel(LOG)
    client.set_missing_host_key_policy(_RefuseUnknown())
    _load_known_hosts(client, hop)
    strategy = _KeysThenPassword(hop)
    limit_s = hop.connect_timeout_s
    started = time.monotonic()
    try:
        client.connect(
            hop.known_as or hop.address,
            port=22 if hop.known_as else hop.port,  # a HostKeyAlias is stored without a port
            username=hop.user,
            sock=sock,
            timeout=limit_s,
            banner_timeout=limit_s,
            auth_timeout=limit_s,
            channel_timeout=limit_s,
            auth_strategy=strategy,
        )
    except _HostKeyNotKnown as error:
        client.close()
        raise _unknown(hop, error.key) from None
    except paramiko.BadHostKeyException as error:
        client.close()
        raise _changed(hop, error.key, error.expected_key) from None
    except AuthFailure as failure:
        seconds, silent = time.monotonic() - started, _silent(client, failure)
        client.close()
        if silent:
            raise _broken(hop, EOFError(), seconds) from None
        raise _refused(hop, strategy, failure) from None
    except paramiko.AuthenticationException:
        client.close()
        raise TransportFailure(Kind.AUTH, str(hop), "login refused") from None
    except IncompatiblePeer as error:
        client.close()
        raise TransportFailure(Kind.UNSUPPORTED, str(hop), f"no common algorithm: {error}") from None
    except (paramiko.SSHException, EOFError) as error:
        client.close()
        raise _broken(hop, error, time.monotonic() - started) from None
    except OSError as error:
        client.close()
        raise from_os_error(error, str(hop), hop.address, limit_s) from None
    return client


def _silent(client: paramiko.SSHClient, failure: AuthFailure) -> bool:
    """Whether the peer hung up or fell silent while we logged in: then it has refused nobody."""
    transport = client.get_transport()
    last = failure.result[-1].result if failure.result else None
    return transport is None or not transport.is_active() or "Authentication timeout" in str(last)


def fingerprint(key: paramiko.PKey) -> str:
    """The key as `ssh-keygen -l` shows it: `ssh-ed25519 SHA256:...`."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"


def _load_known_hosts(client: paramiko.SSHClient, hop: Hop) -> None:
    for name in hop.known_hosts:
        if not Path(name).is_file():
            continue
        try:
            client.load_system_host_keys(name)
        except (OSError, ValueError, InvalidHostKey) as error:
            raise TransportFailure(
                Kind.UNSUPPORTED, str(hop), f"the known_hosts file {name} cannot be read: {error}"
            ) from None


def _keyscan(hop: Hop, key: paramiko.PKey) -> str:
    kind = key.get_name().removeprefix("ssh-").split("-")[0]
    file = hop.known_hosts[0] if hop.known_hosts else "~/.ssh/known_hosts"
    return f"ssh-keyscan -p {hop.port} -t {kind} {hop.address} >> {file}"


def _unknown(hop: Hop, key: paramiko.PKey) -> TransportFailure:
    return TransportFailure(
        Kind.UNKNOWN_HOST_KEY,
        str(hop),
        f"its host key is in none of {', '.join(hop.known_hosts) or 'no file'}; it showed {fingerprint(key)}. "
        f"Compare with `ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` on its console, then `{_keyscan(hop, key)}`",
    )


def _changed(hop: Hop, seen: paramiko.PKey, expected: paramiko.PKey) -> TransportFailure:
    name = hop.known_as or (hop.address if hop.port == 22 else f"[{hop.address}]:{hop.port}")
    return TransportFailure(
        Kind.CHANGED_HOST_KEY,
        str(hop),
        f"its host key CHANGED: expected {fingerprint(expected)}, it showed {fingerprint(seen)}. "
        f"Reinstalled? Compare on its console, then `ssh-keygen -R '{name}'` and `{_keyscan(hop, seen)}`; "
        "else somebody is in between",
    )


def _refused(hop: Hop, strategy: _KeysThenPassword, failure: AuthFailure) -> TransportFailure:
    tried = ", ".join(strategy.tried) or "nothing: no key, no agent, no password"
    last = failure.result[-1].result if failure.result else None
    allowed = ""
    if isinstance(last, paramiko.BadAuthenticationType):
        allowed = f"; the server allows {', '.join(last.allowed_types)}"
    return TransportFailure(
        Kind.AUTH, str(hop), f"login refused; tried {tried}{allowed}. Put a key into authorized_keys there"
    )


def _broken(hop: Hop, error: Exception, seconds: float) -> TransportFailure:
    said = str(error)
    # paramiko words a silent peer like one that hung up ("Error reading SSH protocol banner"): the clock tells.
    if seconds >= 0.9 * hop.connect_timeout_s:
        return TransportFailure(
            Kind.TIMEOUT, str(hop), f"no SSH handshake within {hop.connect_timeout_s:g} s; overloaded?"
        )
    if "Indecipherable" in said:
        return TransportFailure(Kind.PROTOCOL, str(hop), "what answers there is no SSH server; check the port")
    if "banner" in said:
        # sshd does this too, when it starts, stops, or has MaxStartups logins pending.
        text = "the peer closed the connection before an SSH banner: restarting, busy, or no SSH server"
        return TransportFailure(Kind.RESET, str(hop), text)
    if isinstance(error, EOFError):
        return TransportFailure(Kind.RESET, str(hop), "the peer closed the connection during the handshake")
    return TransportFailure(Kind.PROTOCOL, str(hop), f"the SSH handshake failed: {said}")
