"""What listens in simulated pods, and the API server's way to it: `pods/<name>[:port]/proxy/<path>`.

Refusals: apiserver pkg/util/proxy and apimachinery proxy/transport.go (503 `error trying to reach service: ...`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from labproof.simlab.kube.admission import Refused
from labproof.simlab.kube.kinds import Obj
from labproof.simlab.kube.quantity import selects

if TYPE_CHECKING:
    from labproof.simlab.kube.cluster import SimCluster
    from labproof.simlab.kube.http_base import Target


@dataclass(frozen=True)
class Asked:
    """One request that reached a pod.

    Attributes:
        headers: without Authorization, which the API server keeps to itself; names in lower case.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What a pod's server answers."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Asked], Awaitable[Answer]]


class Listeners:
    """Sockets that programs in pods listen on, by pod uid and port."""

    def __init__(self) -> None:
        self._by_place: dict[tuple[str, int], Handler] = {}

    def listen(self, uid: str, port: int, handler: Handler) -> Callable[[], None]:
        """Listen; the result closes the socket again."""
        self._by_place[uid, port] = handler

        def close() -> None:
            if self._by_place.get((uid, port)) is handler:
                del self._by_place[uid, port]

        return close

    def at(self, uid: str, port: int) -> Handler | None:
        """Who listens there."""
        return self._by_place.get((uid, port))


async def proxy(cluster: SimCluster, target: Target, request: web.Request) -> web.Response:
    """Pass a request on to a pod.

    Raises:
        Refused: 404 no such pod, 503 nobody can be reached there.
    """
    name, _, told_port = target.name.removeprefix("http:").partition(":")
    pod = cluster.store.get("pods", name, target.namespace)
    if pod is None:
        details = {"name": name, "kind": "pods"}
        raise Refused(404, "NotFound", f'pods "{name}" not found', details)
    port = int(told_port or _first_port(pod))
    address = (pod.get("status") or {}).get("podIP")
    if not address:
        raise Refused(503, "ServiceUnavailable", "address not allowed")
    kubelet = cluster.kubelets.get(pod["spec"].get("nodeName", ""))
    if kubelet is None or not kubelet.state.up or _ingress_refused(cluster, pod):
        raise _unreachable(f"dial tcp {address}:{port}: i/o timeout")
    handler = cluster.listeners.at(pod["metadata"]["uid"], port)
    if handler is None:
        raise _unreachable(f"dial tcp {address}:{port}: connect: connection refused")
    headers = {k.lower(): v for k, v in request.headers.items() if k.lower() != "authorization"}
    asked = Asked(request.method, f"/{target.rest}", dict(request.query), headers, await request.read())
    answer = await handler(asked)
    return web.Response(
        body=answer.body, status=answer.status, content_type=answer.content_type, headers=dict(answer.headers)
    )


def _first_port(pod: Obj) -> int:
    ports: list[Any] = [p for c in pod["spec"]["containers"] for p in c.get("ports") or ()]
    return int(ports[0]["containerPort"]) if ports else 80


def _unreachable(why: str) -> Refused:
    return Refused(503, "ServiceUnavailable", f"error trying to reach service: {why}")


def _ingress_refused(cluster: SimCluster, pod: Obj) -> bool:
    """Whether a NetworkPolicy isolates the pod and lets nobody in."""
    labels = pod["metadata"].get("labels") or {}
    chosen = [
        p["spec"] for p in cluster.store.all("networkpolicies.networking.k8s.io", pod["metadata"]["namespace"])
        if "Ingress" in (p["spec"].get("policyTypes") or ("Ingress",))
        and (not p["spec"].get("podSelector") or selects(p["spec"]["podSelector"], labels))
    ]  # fmt: skip
    return bool(chosen) and not any(spec.get("ingress") for spec in chosen)
