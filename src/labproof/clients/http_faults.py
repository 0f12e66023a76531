"""What requests and urllib3 raise, told apart by what happened on the wire.

Both wrap the cause several layers deep, and differently: the chain is walked down to the socket's own error.
"""

import socket
import ssl
from collections.abc import Iterator

import requests.exceptions
import urllib3.exceptions

from labproof.clients.errors import Kind, TransportFailure, from_os_error


def from_http_error(error: BaseException, target: str, host: str, limit_s: float) -> TransportFailure:
    """Map an error raised while asking an HTTPS server.

    Args:
        error: what requests or urllib3 raised.
        target: how to name the peer in the text.
        host: the name or address that was dialled.
        limit_s: the read timeout in force, seconds.
    """
    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, ssl.SSLError | socket.gaierror | ConnectionError | TimeoutError):
            return from_os_error(link, target, host, limit_s)
    if any(isinstance(link, urllib3.exceptions.TimeoutError | requests.exceptions.Timeout) for link in chain):
        return from_os_error(TimeoutError(), target, host, limit_s)
    if any(isinstance(link, urllib3.exceptions.IncompleteRead) for link in chain):
        # Over TLS, Python 3.11 shows a reset as an early end of file: both are the same event.
        return TransportFailure(Kind.RESET, target, "the answer broke off half-way; it may be restarting")
    if any(isinstance(link, urllib3.exceptions.ProtocolError) for link in chain):
        return from_os_error(ConnectionResetError(), target, host, limit_s)
    for link in chain:
        if isinstance(link, OSError) and link.errno is not None:
            return from_os_error(link, target, host, limit_s)
    return TransportFailure(Kind.PROTOCOL, target, f"the request failed ({type(chain[-1]).__name__})")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and everything it wraps, outermost first, each once."""
    todo, seen = [error], set[int]()
    while todo:
        link = todo.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        inside = [getattr(link, "reason", None), link.__cause__, link.__context__, *link.args]
        todo += [part for part in inside if isinstance(part, BaseException)]
