"""An Image Factory: register a schematic, look one up, and list the extensions of a release.

Source of paths and status codes: facts/talos.md 1. Plain HTTPS, no credential.
"""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any
from urllib.parse import quote, urlsplit

from labproof.clients.errors import Kind, TransportFailure, from_os_error, from_tls_error

_LONGEST = 4 * 2**20  # bytes of an answer


class ImageFactory:
    """One factory.

    Args:
        url: `https://factory.talos.dev`.
        ca: path of a CA file; None: the system's.
        timeout_s: for one request.
    """

    def __init__(self, url: str, ca: str | None = None, timeout_s: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self._ca, self._timeout_s = ca, timeout_s

    def register(self, schematic: str) -> str:
        """Post a schematic's YAML; returns the id that the factory gave it. Idempotent."""
        _, body = self._send("POST", "/schematics", schematic.encode(), (201, 200))
        return str(self._json(body, "/schematics").get("id", ""))

    def knows(self, ident: str) -> bool:
        """Whether the factory has a schematic of this id."""
        status, _ = self._send("GET", f"/schematics/{quote(ident)}", None, (200, 404))
        return status == 200

    def extensions(self, tag: str) -> frozenset[str] | None:
        """Official extensions of a release, without `siderolabs/`; None when the factory has no such release."""
        path = f"/version/{quote(tag)}/extensions/official"
        status, body = self._send("GET", path, None, (200, 404))
        if status == 404:
            return None
        rows = self._json(body, path)
        return frozenset(str(row.get("name", "")).removeprefix("siderolabs/") for row in rows)

    def _json(self, body: bytes, path: str) -> Any:
        try:
            return json.loads(body)
        except ValueError:
            raise TransportFailure(
                Kind.PROTOCOL, self.url, f"{path} was answered with something else than JSON"
            ) from None

    def _send(self, method: str, path: str, body: bytes | None, good: tuple[int, ...]) -> tuple[int, bytes]:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        connection: http.client.HTTPConnection
        try:
            if parts.scheme == "https":
                connection = http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls())
            else:
                connection = http.client.HTTPConnection(host, port, timeout=self._timeout_s)
            try:
                headers = {"Content-Type": "application/yaml"} if body is not None else {}
                connection.request(method, f"{parts.path}{path}", body, headers)
                answer = connection.getresponse()
                content = answer.read(_LONGEST)
            finally:
                connection.close()
        except ssl.SSLError as error:
            raise from_tls_error(error, self.url) from None
        except http.client.HTTPException as error:
            said = f"{path} was answered by no HTTP ({type(error).__name__})"
            raise TransportFailure(Kind.PROTOCOL, self.url, said) from None
        except OSError as error:
            raise from_os_error(error, self.url, host, self._timeout_s) from None
        if answer.status not in good:
            said = content.decode("utf-8", "replace").strip()[:300]
            raise TransportFailure(
                Kind.REJECTED, self.url, f"{method} {path}: {answer.status} {said}", status=answer.status, answer=said
            )
        return answer.status, content

    def _tls(self) -> ssl.SSLContext:
        """Verified, by a CA of a homelab's own too: one without keyUsage is no reason to refuse (facts ecosystem)."""
        context = ssl.create_default_context(cafile=self._ca)
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        return context
