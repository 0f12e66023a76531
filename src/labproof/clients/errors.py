"""One vocabulary for "the answer did not come": every client maps its library's failures to it.

A `TransportFailure` says in one line what was contacted, as whom, what happened and what to do.
It never carries a secret and never a library's traceback: clients raise it `from None`.
"""

import socket
import ssl
from collections.abc import Iterable
from enum import StrEnum


class Kind(StrEnum):
    """What went wrong, in the words a person would use."""

    REFUSED = "refused"  # nothing listens there, or no route
    TIMEOUT = "timeout"
    DNS = "dns"
    RESET = "reset"  # the connection broke while in use
    TLS = "tls"
    AUTH = "auth"  # 401: the credential itself is not accepted
    FORBIDDEN = "forbidden"  # 403, PERMISSION_DENIED: known, but not allowed
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"  # 5xx, UNAVAILABLE: the server is there and cannot answer now
    UNKNOWN_HOST_KEY = "unknown_host_key"
    CHANGED_HOST_KEY = "changed_host_key"
    NOT_FOUND = "not_found"
    REJECTED = "rejected"  # 400, 409, 422: understood and refused, asking again changes nothing
    PROTOCOL = "protocol"  # garbage, half a page, another server's answer
    UNSUPPORTED = "unsupported"  # this client or this server version cannot do it


TRANSIENT = frozenset({Kind.REFUSED, Kind.RESET, Kind.RATE_LIMITED, Kind.UNAVAILABLE})
"""Kinds worth asking again for a read. A timeout is not: the caller's time is already spent."""


class TransportFailure(Exception):
    """A question got no answer.

    Attributes:
        kind: the class of failure.
        target: what was contacted, as `protocol user@host:port` or similar.
        text: one line for a person.
        status: HTTP status, where there was one.
        reason: the server's machine-readable word (`AlreadyExists`, `PERMISSION_DENIED`), where it gave one.
        answer: the server's own message, unchanged but for secrets.
        retry_after_s: seconds the server asked us to stay away, where it did.
    """

    def __init__(
        self,
        kind: Kind,
        target: str,
        text: str,
        *,
        status: int | None = None,
        reason: str | None = None,
        answer: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.kind = kind
        self.target = target
        self.text = one_line(text)
        self.status = status
        self.reason = reason
        self.answer = answer
        self.retry_after_s = retry_after_s
        super().__init__(f"{target}: {self.text}")

    def __repr__(self) -> str:
        return f"TransportFailure({self.kind.value}, {self.target!r}, {self.text!r})"


class WaitFailed(Exception):
    """A state that was waited for did not come.

    Attributes:
        what: what was waited for.
        last: the last value read, None when no read succeeded.
        failure: the last read's failure, when the last read failed.
        elapsed_s: seconds waited.
    """

    def __init__(
        self, text: str, *, what: str, last: object, failure: TransportFailure | None, elapsed_s: float
    ) -> None:
        self.what = what
        self.last = last
        self.failure = failure
        self.elapsed_s = elapsed_s
        super().__init__(text)


class WaitTimeout(WaitFailed):
    """The limit passed."""


class WaitEnded(WaitFailed):
    """A terminal state came from which the wanted one cannot follow: waiting on would be waste."""


class Secret(str):
    """A password or token that does not show itself in a repr, and so in no traceback with locals.

    Formatting it (`str`, f-string) gives the plain text: it must be possible to use it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def hide(target: object, *names: str) -> None:
    """Make the named fields of a frozen dataclass secrets, where they are set."""
    for name in names:
        value = getattr(target, name)
        if value is not None:
            object.__setattr__(target, name, Secret(value))


def one_line(text: str, limit: int = 1000) -> str:
    """`text` with every run of white space made one blank, cut at `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 4] + " ..."


def without(text: str, secrets: Iterable[str | None]) -> str:
    """`text` with every secret replaced: a server may echo what it was sent.

    Very short strings are left alone, they would only mutilate the text.
    """
    for secret in secrets:
        if secret and len(secret) >= 4:
            text = text.replace(secret, "***")
    return text


def from_os_error(error: OSError, target: str, host: str, limit_s: float) -> TransportFailure:
    """Map a socket or TLS error met while contacting `host`.

    Args:
        error: what the standard library raised.
        target: how to name the peer in the text.
        host: the name or address that was dialled.
        limit_s: the timeout in force, seconds, for the text.
    """
    if isinstance(error, ssl.SSLError):
        return from_tls_error(error, target)
    if isinstance(error, socket.gaierror):
        return TransportFailure(
            Kind.DNS, target, f"the name {host!r} does not resolve; check the address that was given"
        )
    if isinstance(error, TimeoutError):
        return TransportFailure(
            Kind.TIMEOUT, target, f"no answer within {limit_s:g} s; down, or filtered by a firewall?"
        )
    if isinstance(error, ConnectionRefusedError):
        return TransportFailure(Kind.REFUSED, target, "connection refused: nothing listens there; is it up?")
    if isinstance(error, ConnectionError):
        return TransportFailure(Kind.RESET, target, "the peer broke the connection; it may be restarting")
    # EHOSTUNREACH, ENETUNREACH and their like: a refusal by the network.
    why = error.strerror or type(error).__name__
    return TransportFailure(Kind.REFUSED, target, f"cannot be reached ({why})")


_TLS_ALERTS = {
    # OpenSSL's spelling of an alert the peer sent -> what it means for the owner of a client certificate
    "TLSV1_ALERT_UNKNOWN_CA": "the server does not accept our client certificate: another CA issued it",
    "TLSV1_ALERT_DECRYPT_ERROR": "the server does not accept our client certificate: its CA has another key",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the server does not accept our client certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the server says our client certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the server does not accept our client certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server wants a client certificate and none was sent",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS on this port",
    "UNEXPECTED_EOF_WHILE_READING": "the peer closed the connection during the TLS handshake",
}


def from_tls_error(error: ssl.SSLError, target: str) -> TransportFailure:
    """Map a TLS failure; the text tells which side refused whom."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message or "certificate verify failed"
        return TransportFailure(Kind.TLS, target, f"its certificate is not trusted ({why}); give the CA that issued it")
    if isinstance(error, ssl.SSLZeroReturnError | ssl.SSLEOFError):
        return TransportFailure(Kind.TLS, target, _TLS_ALERTS["UNEXPECTED_EOF_WHILE_READING"])
    reason = error.reason or ""
    why = _TLS_ALERTS.get(reason, f"TLS failed ({reason or type(error).__name__})")
    return TransportFailure(Kind.TLS, target, why)
