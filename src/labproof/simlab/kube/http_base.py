"""What every handler of the simulated API server shares: the request taken apart, answers, and who is asking."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from aiohttp import web

from labproof.simlab.kube import protobuf_bodies
from labproof.simlab.kube.admission import Refused
from labproof.simlab.kube.cluster import SimCluster
from labproof.simlab.kube.kinds import Kind, Obj
from labproof.simlab.kube.rbac import Request


@dataclass(frozen=True)
class Target:
    """A resource path taken apart."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    sub: str = ""
    rest: str = ""  # behind .../proxy/


@dataclass(frozen=True)
class Identity:
    """Who is asking."""

    user: str
    groups: tuple[str, ...]


def unauthorized() -> Refused:
    """401, as for a bad token."""
    return Refused(401, "Unauthorized", "Unauthorized")


def identify(request: web.Request, cluster: SimCluster) -> Identity:
    """The user behind a request: bearer token, else client certificate, else anonymous.

    Raises:
        Refused: 401, the token is unknown.
    """
    header = request.headers.get("Authorization", "")
    if header.lower().startswith("bearer "):
        token = header[7:].strip()
        known = cluster.tokens.get(token)
        if known is None:
            for name, entry in (cluster.inputs.get("users") or {}).items():
                if entry and entry.get("token") == token:
                    known = (name, tuple(entry.get("groups") or ()))
        if known is None:
            raise unauthorized()
        return Identity(known[0], (*known[1], "system:authenticated"))
    certificate = request.transport.get_extra_info("peercert") if request.transport else None
    if certificate:
        fields = [pair for row in certificate.get("subject", ()) for pair in row]
        user = next((v for k, v in fields if k == "commonName"), "")
        groups = tuple(v for k, v in fields if k == "organizationName")
        if user:
            return Identity(user, (*groups, "system:authenticated"))
    return Identity("system:anonymous", ("system:unauthenticated",))


def parse_path(cluster: SimCluster, path: str) -> Target | None:
    """The resource a path names; None for anything that is no resource of this cluster."""
    parts = [p for p in path.split("/") if p]
    if parts[:2] == ["api", "v1"]:
        group, version, rest = "", "v1", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) >= 3 and rest[2] not in {"status", "finalize"}:
        namespace, rest = rest[1], rest[2:]
    kind = cluster.kinds.at(group, version, rest[0]) if rest else None
    if kind is None:
        return None
    name = rest[1] if len(rest) > 1 else ""
    sub = rest[2] if len(rest) > 2 else ""
    return Target(kind, namespace, name, sub, "/".join(rest[3:]))


def authorize(cluster: SimCluster, who: Identity, target: Target, verb: str) -> None:
    """Raise Refused (403) unless RBAC allows it."""
    resource = f"{target.kind.plural}/{target.sub}" if target.sub else target.kind.plural
    namespace = target.namespace or (target.name if target.kind.plural == "namespaces" else "")
    cluster.authorizer.check(Request(who.user, who.groups, verb, target.kind.group, resource, namespace, target.name))


def answer(body: Any, status: int = 200, warnings: list[str] | None = None) -> web.Response:
    """A JSON answer with the server's headers."""
    headers = {"Audit-Id": str(uuid.uuid4()), "Cache-Control": "no-cache, private"}
    response = web.Response(
        text=json.dumps(body, separators=(",", ":")) + "\n", status=status, headers=headers,
        content_type="application/json",
    )  # fmt: skip
    for text in warnings or ():
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{escaped}"')
    return response


def refusal(refused: Refused) -> web.Response:
    """The Status object of a refusal."""
    return answer(refused.status(), refused.code)


async def body_of(request: web.Request) -> Any:
    """The decoded body: JSON, YAML, or protobuf of the kinds that kubectl sends so.

    Raises:
        Refused: 400, it cannot be decoded.
    """
    raw = await request.read()
    if not raw:
        return {}
    if "protobuf" in request.content_type:
        try:
            return protobuf_bodies.decode(raw)
        except (protobuf_bodies.Undecodable, UnicodeDecodeError) as wrong:
            raise Refused(400, "BadRequest", f"couldn't get version/kind; {wrong}") from wrong
    try:
        if "yaml" in request.content_type:
            return yaml.safe_load(raw)
        return json.loads(raw)
    except (ValueError, yaml.YAMLError) as wrong:
        raise Refused(400, "BadRequest", f"couldn't get version/kind; json parse error: {wrong}") from wrong


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean query parameter."""
    return query.get(name, "").lower() in {"1", "true"}


def bare(obj: Obj) -> Obj:
    """An object as a list item: without kind and apiVersion."""
    return {k: v for k, v in obj.items() if k not in {"kind", "apiVersion"}}
