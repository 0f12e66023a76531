"""The API server of a simulated cluster: HTTPS, client certificates and bearer tokens, RBAC on every request."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from aiohttp import web

from labproof.simlab.kube import http_objects, http_pods, http_watch, kinds, openapi, pod_http
from labproof.simlab.kube.admission import Refused
from labproof.simlab.kube.clock import rfc3339
from labproof.simlab.kube.cluster import SimCluster
from labproof.simlab.kube.eviction import evict
from labproof.simlab.kube.http_base import (
    Identity,
    Target,
    answer,
    authorize,
    body_of,
    flag,
    identify,
    parse_path,
    refusal,
)
from labproof.simlab.kube.nodes import control_plane_reboots
from labproof.simlab.kube.rbac import Request

if TYPE_CHECKING:
    from labproof.simlab.transport import Line
    from labproof.simlab.world.pki import Pki

log = logging.getLogger(__name__)
_REVIEWS = {"SelfSubjectAccessReview", "SelfSubjectRulesReview", "SelfSubjectReview"}
_MAX_BODY = 3 * 2**20


@dataclass
class RunningServer:
    """A listening API server."""

    port: int
    close: Callable[[], Awaitable[None]]


class ApiServer:
    """Answers requests for the cluster of the current world."""

    def __init__(self, cluster_ref: Callable[[], SimCluster]) -> None:
        """`cluster_ref` returns the cluster of the current world; after a reset it is another object."""
        self._cluster_ref = cluster_ref
        self._last: SimCluster | None = None

    def cluster(self) -> SimCluster:
        """The current cluster, driven by the running loop; the one before it is closed."""
        cluster = self._cluster_ref()
        if cluster is not self._last:
            if self._last is not None:
                self._last.close()
            self._last = cluster
            cluster.attach(asyncio.get_running_loop())
        return cluster

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        cluster = self.cluster()
        if control_plane_reboots(cluster):
            if request.transport is not None:
                request.transport.abort()
            raise asyncio.CancelledError
        try:
            who = identify(request, cluster)
            return await self._route(cluster, who, request)
        except Refused as refused:
            return refusal(refused)
        except asyncio.CancelledError:
            raise
        except Exception as broken:  # an answer the client can show beats a dropped connection
            log.exception("API server of %s: %s %s", cluster.name, request.method, request.path)
            return refusal(Refused(500, "InternalError", f"Internal error occurred: simulator: {broken!r}"))

    async def _route(self, cluster: SimCluster, who: Identity, request: web.Request) -> web.StreamResponse:
        path = request.path
        target = parse_path(cluster, path)
        if target is None:
            cluster.authorizer.check(Request(who.user, who.groups, request.method.lower(), path=path))
            return self._about(cluster, request)
        verb = _verb(request, target)
        authorize(cluster, who, target, verb)
        if verb == "patch" and request.content_type.startswith("application/apply-patch"):
            there = cluster.store.get(target.kind.key, target.name, target.namespace)
            authorize(cluster, who, target, "patch" if there else "create")  # an apply may make the object
        if target.kind.kind in _REVIEWS:
            body = await body_of(request)
            return answer(http_objects.create_review(cluster, who, target, body), 201)
        if target.sub in {"log", "exec", "proxy", "eviction", "token", "attach", "portforward"}:
            return await self._subresource(cluster, target, request)
        if verb in {"list", "watch"} and not target.name:
            if flag(request.query, "watch"):
                return await http_watch.watch(cluster, target, request)
            return http_objects.list_objects(cluster, target, request)
        if verb == "watch":
            return await http_watch.watch(cluster, target, request)
        if verb == "get":
            return http_objects.get_object(cluster, target, request)
        handler = {
            "create": http_objects.create_object,
            "update": http_objects.update_object,
            "patch": http_objects.patch_object,
            "delete": http_objects.delete_object,
            "deletecollection": http_objects.delete_collection,
        }.get(verb)
        if handler is None or verb not in target.kind.verbs:
            raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        return await handler(cluster, target, request)

    async def _subresource(self, cluster: SimCluster, target: Target, request: web.Request) -> web.StreamResponse:
        if target.sub == "log":
            return await http_pods.log(cluster, target, request)
        if target.sub == "exec":
            return await http_pods.execute(cluster, target, request)
        if target.sub == "proxy" and target.kind.key == "pods":
            return await pod_http.proxy(cluster, target, request)
        if target.sub == "eviction":
            evict(cluster, target.kind, target.name, target.namespace)
            return answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)
        if target.sub == "token":
            http_objects.existing(cluster, target)
            body = await body_of(request)
            token = base64.urlsafe_b64encode(f"sim:{cluster.store.hex('token')}".encode()).decode().rstrip("=")
            account = f"system:serviceaccount:{target.namespace}:{target.name}"
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{target.namespace}")
            cluster.tokens[token] = (account, groups)
            seconds = int((body.get("spec") or {}).get("expirationSeconds") or 3600)
            expires = rfc3339(cluster.clock.now() + seconds)
            return answer(
                {
                    "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
                    "metadata": {"name": target.name, "namespace": target.namespace}, "spec": body.get("spec") or {},
                    "status": {"token": token, "expirationTimestamp": expires},
                },
                201,
            )  # fmt: skip
        raise Refused(503, "ServiceUnavailable", "the server is currently unable to handle the request")

    def _about(self, cluster: SimCluster, request: web.Request) -> web.Response:
        path = request.path.rstrip("/") or "/"
        parts = path.split("/")[1:]
        if path == "/version":
            return answer(_version(cluster))
        if path in {"/healthz", "/livez", "/readyz"}:
            return web.Response(text="ok", content_type="text/plain")
        if path in {"/api", "/apis"}:
            return _discovery(cluster, request, legacy=path == "/api")
        if path == "/api/v1" or (parts[0] == "apis" and len(parts) == 3):
            group, version = ("", "v1") if parts[0] == "api" else (parts[1], parts[2])
            found = kinds.resource_list(cluster.kinds, group, version)
            if found is not None:
                return answer(found)
        if parts[0] == "apis" and len(parts) == 2:
            for group in kinds.group_list(cluster.kinds)["groups"]:
                if group["name"] == parts[1]:
                    return answer({"kind": "APIGroup", "apiVersion": "v1", **group})
        if path == "/openapi/v3":
            return answer(openapi.index(cluster.kinds))
        if path.startswith("/openapi/v3/"):
            root = path.removeprefix("/openapi/v3/")
            return answer(openapi.document(cluster.kinds, root, cluster.release.git_version))
        raise Refused(404, "NotFound", "the server could not find the requested resource", {})


def _verb(request: web.Request, target: Target) -> str:
    method = request.method
    if target.sub == "exec":  # a WebSocket handshake is a GET but means create, since 1.36; before that it was get
        return "create" if method == "POST" else "get"
    if method in {"GET", "HEAD"}:
        if flag(request.query, "watch"):
            return "watch"
        return "get" if target.name else "list"
    if method == "DELETE":
        return "delete" if target.name else "deletecollection"
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(method, method.lower())


def _version(cluster: SimCluster) -> dict[str, str]:
    return {
        "major": "1", "minor": str(cluster.release.minor), "emulationMajor": "1",
        "emulationMinor": str(cluster.release.minor), "gitVersion": cluster.release.git_version, "gitCommit": "sim",
        "gitTreeState": "clean", "buildDate": "2025-12-09T00:00:00Z", "goVersion": "go1.24.11", "compiler": "gc",
        "platform": "linux/amd64",
    }  # fmt: skip


def _discovery(cluster: SimCluster, request: web.Request, legacy: bool) -> web.Response:
    accept = request.headers.get("Accept", "")
    if "as=APIGroupDiscoveryList" in accept:
        response = answer(kinds.aggregated(cluster.kinds, legacy))
        response.headers["Content-Type"] = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        return response
    if legacy:
        return answer({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
    return answer(kinds.group_list(cluster.kinds))


async def serve_cluster(
    cluster_ref: Callable[[], SimCluster], context: ssl.SSLContext | None, port: int = 0, line: Line | None = None
) -> RunningServer:
    """Serve on 127.0.0.1; `context` None serves plain HTTP (tests)."""
    api = ApiServer(cluster_ref)
    app = web.Application(client_max_size=_MAX_BODY, middlewares=[line.http()] if line is not None else ())
    app.router.add_route("*", "/{tail:.*}", api.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=context)
    await site.start()
    api.cluster()

    async def close() -> None:
        await runner.cleanup()
        cluster_ref().close()

    server: Any = site._server  # aiohttp offers no public way to the socket of a site
    return RunningServer(int(server.sockets[0].getsockname()[1]), close)


async def serve(
    world_ref: Callable[[], Any], name: str, pki: Pki, port: int = 0, line: Line | None = None
) -> RunningServer:
    """Serve the cluster `name` of the current world, with the PKI of the lab."""
    context = pki.server_context(
        "kube", name, "kubernetes", "kubernetes.default", client_certificates=ssl.CERT_OPTIONAL
    )
    return await serve_cluster(lambda: world_ref().clusters[name], context, port, line)


def kubeconfig(pki: Pki, name: str, port: int, user: str = "labproof", groups: tuple[str, ...] = ()) -> str:
    """A kubeconfig for a user of a served cluster; `admin` belongs to system:masters."""
    if user == "admin":
        groups = (*groups, "system:masters")
    issued = pki.client("kube", name, user, *groups)

    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    body = {
        "apiVersion": "v1", "kind": "Config", "current-context": f"{user}@{name}",
        "clusters": [
            {
                "name": name,
                "cluster": {
                    "server": f"https://127.0.0.1:{port}",
                    "certificate-authority-data": encoded(pki.authority("kube", name).pem),
                },
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": encoded(issued.certificate), "client-key-data": encoded(issued.key),
                },
            }
        ],
        "contexts": [{"name": f"{user}@{name}", "context": {"cluster": name, "user": user}}],
    }  # fmt: skip
    return yaml.safe_dump(body, sort_keys=False)


__all__ = ["ApiServer", "RunningServer", "kubeconfig", "serve", "serve_cluster"]
