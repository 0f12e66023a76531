"""HTTP to an app: at its own URL, or at a pod's port through the API server. One answer in, bytes or a failure out.

Keys travel in headers, never in a path or a query: those end up in logs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

from labproof.clients.errors import Kind, TransportFailure, from_os_error, without
from labproof.clients.http_faults import from_http_error
from labproof.clients.kubernetes import KubeSession


class AppHttp(Protocol):
    """A way to an app.

    Attributes:
        where: the way, as evidence names it.
    """

    where: str

    def ask(self, path: str, query: Mapping[str, str] | None = None, *, method: str = "GET", body: Any = None) -> bytes:
        """Send one request; never repeated.

        Raises:
            TransportFailure: no answer, or a status of 400 and more (`status` tells).
        """
        ...


class ThroughPod:
    """An app in a pod, asked through the API server (`pods/proxy`)."""

    def __init__(
        self, session: KubeSession, namespace: str, pod: str, port: int, headers: Mapping[str, str] | None = None
    ) -> None:
        self._session = session
        self._place = (namespace, pod, port)
        self._headers = dict(headers or {})
        self.where = f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy"

    def ask(self, path: str, query: Mapping[str, str] | None = None, *, method: str = "GET", body: Any = None) -> bytes:
        """See AppHttp."""
        try:
            return self._session.through(
                *self._place, path, dict(query or {}), method=method, headers=self._headers, body=body
            )
        except TransportFailure as failure:
            failure.answer = without(failure.answer or "", self._headers.values())
            raise


class AtUrl:
    """An app at its own address."""

    def __init__(self, url: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})
        self.where = self._url

    def ask(self, path: str, query: Mapping[str, str] | None = None, *, method: str = "GET", body: Any = None) -> bytes:
        """See AppHttp."""
        import urllib3

        address = f"{self._url}/{path.lstrip('/')}" + (f"?{urlencode(dict(query))}" if query else "")
        headers = {**self._headers, **({"content-type": "application/json"} if body is not None else {})}
        sent = json.dumps(body).encode() if body is not None else None
        try:
            with urllib3.PoolManager(num_pools=1) as pool:
                response = pool.request(
                    method, address, body=sent, headers=headers, timeout=self._timeout_s, retries=False, redirect=False
                )
                content = bytes(response.data)
        except urllib3.exceptions.HTTPError as error:
            raise from_http_error(error, self._url, self._url, self._timeout_s) from None
        except OSError as error:
            raise from_os_error(error, self._url, self._url, self._timeout_s) from None
        if response.status >= 300:
            kinds = {401: Kind.AUTH, 403: Kind.FORBIDDEN, 404: Kind.NOT_FOUND}
            kind = kinds.get(response.status, Kind.UNAVAILABLE if response.status >= 500 else Kind.REJECTED)
            said = without(content.decode("utf-8", "replace")[:300], self._headers.values())
            text = f"{method} {path}: {response.status} {said}"
            raise TransportFailure(kind, self._url, text, status=response.status, answer=said)
        return content
