"""Asking the Kubernetes API: one request out, its bytes or a clear failure back.

The official client's connection pool is used directly: its own request methods changed their signature between 35
and 37, follow redirects with the credential, and bound an answer by its pauses only, not as a whole.
"""

import json
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3
from kubernetes.client.api_client import ApiClient
from requests.utils import should_bypass_proxies

from labproof.clients import kubeconfig
from labproof.clients.errors import Kind, TransportFailure, from_os_error, without
from labproof.clients.http_faults import from_http_error

JSON = "application/json"

Query = str | int | bool | None


@dataclass(frozen=True)
class KubeTarget:
    """One cluster and the account to use.

    Attributes:
        kubeconfig: path.
        context: None: the file's current one.
        connect_timeout_s, timeout_s: to connect, and for a whole answer.
        retry_pause_s: before a read is asked again after a transient failure, doubling.
    """

    kubeconfig: str
    context: str | None = None
    connect_timeout_s: float = 10.0
    timeout_s: float = 30.0
    retry_pause_s: float = 0.5


class Headers(dict[str, str]):
    """Request headers that never show a credential, not even in a traceback with locals."""

    def __repr__(self) -> str:
        return f"<headers: {', '.join(self)}>"


class KubeConnection:
    """One cluster as one account: the pool, the credential, the names for messages.

    Attributes:
        requests: requests sent so far.
        name: the peer and the account, as every message names them.
    """

    def __init__(self, target: KubeTarget) -> None:
        self.target = target
        self.requests = 0
        self.context = kubeconfig.load(target.kubeconfig, target.context)
        self.configuration = self.context.configuration
        self.as_whom = f"{self.context.user} (context {self.context.name})"
        self.name = f"Kubernetes API {self.configuration.host} as {self.as_whom}"
        self._lock = threading.Lock()
        self._client = ApiClient(self.configuration)
        self._pool: urllib3.PoolManager = self._client.rest_client.pool_manager
        self._pool.connection_pool_kw["ssl_context"] = self.context.tls

    @property
    def tls(self) -> ssl.SSLContext:
        """How certificates are judged, and shown, for this cluster."""
        return self.context.tls

    def proxy(self) -> tuple[str, int] | None:
        """Host and port of the HTTP proxy this cluster is asked through, if any."""
        settings = self.configuration
        if not settings.proxy or should_bypass_proxies(settings.host, settings.no_proxy or ""):
            return None
        parts = urlsplit(settings.proxy)
        return (parts.hostname or "", parts.port or 3128)

    def close(self) -> None:
        """Close the connections and remove the certificates."""
        self._client.close()  # type: ignore[no-untyped-call]
        self.context.close()

    def count(self) -> None:
        """Count one request."""
        with self._lock:
            self.requests += 1

    def credential(self) -> Headers:
        """The header that names us; the hook behind it renews a token that is read from a file."""
        headers = Headers()
        settings: dict[str, Any] = dict(self.configuration.auth_settings())
        for setting in settings.values():
            if setting["in"] == "header" and setting["value"]:
                headers[setting["key"]] = setting["value"]
        return headers

    def json(
        self,
        method: str,
        path: str,
        query: Mapping[str, Query],
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
    ) -> dict[str, Any]:
        """Send one request and return the JSON object it is answered with."""
        sent = json.dumps(body).encode() if body is not None else None
        content = self.send(method, path, query, body=sent, content_type=content_type, accept=JSON)
        try:
            answer = json.loads(content)
        except ValueError:
            text = f"{method} {path}: the answer is not JSON ({len(content)} bytes); is this a Kubernetes API?"
            raise TransportFailure(Kind.PROTOCOL, self.name, text) from None
        if not isinstance(answer, dict):
            text = f"{method} {path}: the answer is no object; is this a Kubernetes API?"
            raise TransportFailure(Kind.PROTOCOL, self.name, text)
        return answer

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Query],
        *,
        body: bytes | None = None,
        content_type: str | None = None,
        accept: str = "*/*",
        more: Mapping[str, str] | None = None,
    ) -> bytes:
        """Send one request and return the whole answer. Sent once: repeating is the caller's choice.

        Args:
            more: further headers, for what stands behind a proxy path.
        """
        words = {name: _word(value) for name, value in query.items() if value is not None}
        url = f"{self.configuration.host}{path}" + (f"?{urlencode(words)}" if words else "")
        headers = Headers(more or {}, accept=accept, **self.credential())
        if body is not None and content_type:
            headers["content-type"] = content_type
        limit_s = self.target.timeout_s
        deadline = time.monotonic() + limit_s
        self.count()
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=self.target.connect_timeout_s, read=limit_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            content = _read(response, deadline)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self.no_answer(error) from None
        if not 200 <= response.status < 300:
            again = response.headers.get("retry-after")
            raise self.refused(response.status, content, f"{method} {path}", again)
        return content

    def no_answer(self, error: BaseException, limit_s: float | None = None) -> TransportFailure:
        """Map what the socket, TLS or urllib3 raised; `limit_s` is the timeout that was in force."""
        limit_s = limit_s or self.target.timeout_s
        host = urlsplit(self.configuration.host).hostname or self.configuration.host
        if isinstance(error, OSError) and not isinstance(error, urllib3.exceptions.HTTPError):
            return from_os_error(error, self.name, host, limit_s)
        return from_http_error(error, self.name, host, limit_s)

    def refused(self, status: int, body: bytes, what: str, again: str | None) -> TransportFailure:
        """Map an HTTP status and the Status object (or plain text) that came with it."""
        answer, reason = body.decode("utf-8", "replace").strip(), None
        try:
            said = json.loads(body)
            answer, reason = str(said.get("message") or answer), said.get("reason")
        except (ValueError, AttributeError):
            answer = answer if len(answer) < 500 and "<html" not in answer.lower() else ""
        # A proxy may repeat what it was sent; a credential plugin's token is known to nobody but this session.
        answer = without(answer, (sent.rpartition(" ")[2] for sent in self.credential().values()))
        kind, advice = _kind_of(status, answer)
        return TransportFailure(
            kind,
            self.name,
            f"{what}: {status} {answer or reason or ''}{advice}",
            status=status,
            reason=reason,
            answer=answer,
            retry_after_s=float(again) if again and again.isdigit() else None,
        )


def _kind_of(status: int, answer: str) -> tuple[Kind, str]:
    if status == 401:
        return Kind.AUTH, "; the token or certificate is not (or no longer) accepted"
    if status == 403:
        return Kind.FORBIDDEN, ""
    if status == 404 or (status == 500 and answer.startswith("container not found")):
        return Kind.NOT_FOUND, ""
    if status == 429:
        return Kind.RATE_LIMITED, ""
    if status >= 500:
        return Kind.UNAVAILABLE, ""
    if 300 <= status < 400:
        return Kind.PROTOCOL, "; an API server does not redirect: is there a login page in front?"
    return Kind.REJECTED, ""


def _read(response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """The whole body; a server that trickles is cut off at the deadline (the read timeout is per piece)."""
    content = bytearray()
    while piece := response.read1(64 * 1024):
        content += piece
        if time.monotonic() > deadline:
            response.close()
            raise TimeoutError
    response.release_conn()
    return bytes(content)


def _word(value: Query) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
