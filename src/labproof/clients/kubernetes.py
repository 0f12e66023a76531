"""The Kubernetes API in plain dicts: paths in, JSON out, nothing validated away on our side.

The official client brings kubeconfig, credentials and connections. Its models are not used: they differ between
35, 36 and 37, and 37 refuses on this side what a server would take (facts/real-kubernetes.md, pitfall 3).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import websocket

from labproof.clients import kubernetes_exec
from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.kubernetes_exec import ExecResult
from labproof.clients.kubernetes_http import KubeConnection, KubeTarget, Query
from labproof.clients.wait import ask_again

__all__ = ["ExecResult", "KubeSession", "KubeTarget", "PodLog"]

T = TypeVar("T")

PAGE = 500
RESTARTS = 3  # of a paged list whose continue token expired
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


@dataclass(frozen=True)
class PodLog:
    """A container's log, or why there is none (`content` is None then)."""

    content: bytes | None
    reason: str | None


class KubeSession:
    """One cluster. Nothing is contacted before the first question (but a credential plugin may be).

    Any number of threads may use it at once, exec included.
    """

    def __init__(self, target: KubeTarget) -> None:
        """Read the kubeconfig; raises TransportFailure when it cannot serve (see `kubeconfig.load`)."""
        self.target = target
        self._connection = KubeConnection(target)
        self.context = self._connection.context

    @property
    def requests(self) -> int:
        """Requests sent so far, repeated ones and exec included."""
        return self._connection.requests

    def __enter__(self) -> "KubeSession":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"KubeSession({self._connection.name!r})"

    @property
    def as_whom(self) -> str:
        """The kubeconfig's own words for the account: `admin@moody (context moody)`."""
        return self._connection.as_whom

    def close(self) -> None:
        """Close the connections and remove the certificates."""
        self._connection.close()

    def get_json(self, path: str, **query: Query) -> dict[str, Any]:
        """Read one object, or one page of a list; asked again up to three times after a transient failure.

        Args:
            path: `/api/v1/nodes/moody`.
            query: as the API spells it (`labelSelector`, `fieldSelector`); None is left out.
        """
        return self._again(lambda: self._connection.json("GET", path, query))

    def list_json(self, path: str, page: int = PAGE, **query: Query) -> dict[str, Any]:
        """Read a whole list, page by page, as one list object; begun anew when the server forgot its place (410).

        Returns:
            The last page's object with the `items` of all pages.
        """
        for _ in range(RESTARTS):
            try:
                return self._pages(path, page, query)
            except TransportFailure as failure:
                if failure.status != 410:
                    raise
        text = f"{path}: the list changed faster than it could be read, {RESTARTS} times"
        raise TransportFailure(Kind.UNAVAILABLE, self._connection.name, text, status=410)

    def create(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """POST an object to its collection. Never asked again.

        Raises:
            TransportFailure: rejected (409 reason AlreadyExists, 422 Invalid), forbidden (RBAC, and admission such
                as PodSecurity or a quota: `answer` tells).
        """
        return self._connection.json("POST", path, _dry(dry_run), body)

    def apply(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        field_manager: str = "labproof",
        force: bool = False,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Server-side apply of one object at its own path.

        Raises:
            TransportFailure: rejected with status 409 when another manager owns a field and `force` is not set.
        """
        query = {"fieldManager": field_manager, "force": force, **_dry(dry_run)}
        return self._connection.json("PATCH", path, query, body, APPLY)

    def merge_patch(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """JSON merge patch of one object; None removes a key."""
        return self._connection.json("PATCH", path, _dry(dry_run), body, MERGE)

    def delete(
        self,
        path: str,
        *,
        grace_s: int | None = None,
        uid: str | None = None,
        propagation: str = "Background",
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """DELETE one object. With `uid` only that very one: a namesake made since is left alone (409)."""
        options: dict[str, Any] = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": propagation,
        }
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        return self._connection.json("DELETE", path, _dry(dry_run), options)

    def log(
        self,
        namespace: str,
        pod: str,
        container: str | None = None,
        *,
        previous: bool = False,
        tail_lines: int | None = None,
    ) -> PodLog:
        """A container's log as bytes; `content` None with the server's reason where there is none to be had.

        Raises:
            TransportFailure: all but "not there" and "not now": auth, forbidden, and no answer at all.
        """
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/log"
        query = {"container": container, "previous": previous or None, "tailLines": tail_lines}
        try:
            content = self._again(lambda: self._connection.send("GET", path, query))
        except TransportFailure as failure:
            # 400 waiting or no previous one, 404 no pod, 500 the kubelet does not answer (real-kubernetes.md)
            if failure.status in (400, 404, 500):
                return PodLog(None, failure.answer or failure.text)
            raise
        return PodLog(content, None)

    def exec(
        self, namespace: str, pod: str, argv: list[str], container: str | None = None, timeout_s: float = 60.0
    ) -> ExecResult:
        """Run `argv` (no shell) in a container, on a connection of its own.

        Raises:
            TransportFailure: the command was not accepted: not_found (no such pod or container), rejected (not
                scheduled), forbidden, unavailable (kubelet). Once accepted, every ending is an ExecResult.
        """
        query = [("command", word) for word in argv] + [("stdout", "true"), ("stderr", "true")]
        query += [("container", container)] if container else []
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/exec"
        connection, settings = self._connection, self._connection.configuration
        url = f"{settings.host}{path}?{urlencode(query)}".replace("http", "ws", 1)
        handshake_s = min(self.target.timeout_s, timeout_s)
        connection.count()
        try:
            return kubernetes_exec.run(
                url,
                [f"{name}: {value}" for name, value in connection.credential().items()],
                connection.tls,
                server_name=settings.tls_server_name,
                proxy=connection.proxy(),
                handshake_s=handshake_s,
                timeout_s=timeout_s,
            )
        except kubernetes_exec.HandshakeRefused as refused:
            what = f"exec in {namespace}/{pod}"
            raise connection.refused(refused.status, refused.body, what, None) from None
        except websocket.WebSocketTimeoutException:
            raise connection.no_answer(TimeoutError(), handshake_s) from None
        except websocket.WebSocketException as error:
            text = f"exec in {namespace}/{pod}: no WebSocket came about ({type(error).__name__})"
            raise TransportFailure(Kind.PROTOCOL, self._connection.name, text) from None
        except OSError as error:
            raise connection.no_answer(error, handshake_s) from None

    def through(
        self,
        namespace: str,
        pod: str,
        port: int,
        path: str,
        query: Mapping[str, Query] | None = None,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Ask what listens on a port of a pod, through the API server (`pods/proxy`); sent once.

        The `Authorization` header belongs to the API server and never reaches the pod.

        Returns:
            The body, undecoded: clients that parse it turn JSON into Python's own spelling (facts kubernetes-gpu 8.7).

        Raises:
            TransportFailure: the pod's own refusals included (its status is the answer's).
        """
        where = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}:{port}/proxy/{path.lstrip('/')}"
        sent = json.dumps(body).encode() if body is not None else None
        kind = "application/json" if body is not None else None
        return self._connection.send(method, where, query or {}, body=sent, content_type=kind, more=headers)

    def can_i(
        self, verb: str, group: str, resource: str, subresource: str | None = None, namespace: str | None = None
    ) -> bool:
        """Whether the account may do `verb` on a resource (`group` empty: core; no namespace: cluster-wide)."""
        wanted: dict[str, str] = {"verb": verb, "group": group, "resource": resource}
        wanted |= {"subresource": subresource} if subresource else {}
        wanted |= {"namespace": namespace} if namespace else {}
        body = _review("authorization.k8s.io/v1", "SelfSubjectAccessReview", {"resourceAttributes": wanted})
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        # Asking for a review changes nothing: it may be asked again like a read.
        answer = self._again(lambda: self._connection.json("POST", path, {}, body))
        return bool((answer.get("status") or {}).get("allowed"))

    def whoami(self) -> str:
        """The user name the server knows the account by; the kubeconfig's word where the server does not tell.

        SelfSubjectReview is served since Kubernetes 1.28 (authentication.k8s.io/v1).
        """
        body = _review("authentication.k8s.io/v1", "SelfSubjectReview", None)
        try:
            answer = self._again(
                lambda: self._connection.json("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, body)
            )
        except TransportFailure as failure:
            if failure.kind in (Kind.NOT_FOUND, Kind.FORBIDDEN, Kind.REJECTED):
                return self.as_whom
            raise
        return str(((answer.get("status") or {}).get("userInfo") or {}).get("username") or self.as_whom)

    def _again(self, read: Callable[[], T]) -> T:
        return ask_again(read, pause_s=self.target.retry_pause_s)

    def _pages(self, path: str, page: int, query: Mapping[str, Query]) -> dict[str, Any]:
        items: list[Any] = []
        place: str | None = None
        while True:
            found = self.get_json(path, **{**query, "limit": page, "continue": place})
            if not isinstance(found.get("items"), list):
                raise TransportFailure(
                    Kind.PROTOCOL, self._connection.name, f"{path} is no list: the answer has no items"
                )
            items += found["items"]
            place = (found.get("metadata") or {}).get("continue")
            if not place:
                return {**found, "items": items}


def _dry(dry_run: bool) -> dict[str, Query]:
    return {"dryRun": "All"} if dry_run else {}


def _review(api_version: str, kind: str, spec: dict[str, Any] | None) -> dict[str, Any]:
    review: dict[str, Any] = {"apiVersion": api_version, "kind": kind}
    return review if spec is None else {**review, "spec": spec}
