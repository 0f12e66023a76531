"""The PVE API over HTTPS: tickets, tokens, privileges, tasks (facts proxmox 2.1, 2.5, 2.6)."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from aiohttp import web

from labproof.simlab.pve import answers, changes
from labproof.simlab.pve.hostpci import Refused
from labproof.simlab.pve.node import PveNode
from labproof.simlab.pve.rights import ALL, Credentials, Identity, identities, privileges

if TYPE_CHECKING:
    from labproof.simlab.transport import Line

Handler = Callable[["Request"], Any]


class Keys(Protocol):
    """What the server needs of `labproof.simlab.world.pki.Pki`."""

    def server_context(self, kind: str, cluster: str, name: str, *names: str) -> ssl.SSLContext:
        """A TLS server context."""
        ...


class Answer(Exception):
    """An error answer: status, reason line, optional parameter errors."""

    def __init__(self, status: int, reason: str, errors: dict[str, str] | None = None) -> None:
        """Carry what goes into the answer."""
        super().__init__(reason)
        self.status, self.reason, self.errors = status, reason, errors


class Request:
    """One authenticated request: the node, who asks, path values and parameters."""

    def __init__(self, node: PveNode, who: Identity, values: dict[str, str], parameters: dict[str, str]) -> None:
        """Bundle what handlers need."""
        self.node, self.who, self.values, self.parameters = node, who, values, parameters

    def may(self, path: str, *wanted: str) -> bool:
        """Whether any of the privileges is held on the path."""
        return bool(privileges(self.node.host.inputs["pve"], self.who, path) & set(wanted))

    def need(self, path: str, *wanted: str) -> None:
        """Refuse with PVE's 403 unless one of the privileges is held."""
        if not self.may(path, *wanted):
            raise Answer(403, f"Permission check failed ({path}, {'|'.join(wanted)})")

    @property
    def vmid(self) -> int:
        """The VM of the path; 500 with PVE's text when it does not exist here."""
        return int(self.values["vmid"])


class RunningServer:
    """A listening PVE API on 127.0.0.1."""

    def __init__(self, runner: web.AppRunner, port: int) -> None:
        """Wrap the runner."""
        self._runner, self.port = runner, port

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()


async def serve(
    world_ref: Callable[[], Any],
    name: str,
    pki: Keys,
    port: int = 0,
    credentials: Credentials | None = None,
    line: Line | None = None,
) -> RunningServer:
    """Serve the PVE API of host `name`; secrets are made in `credentials` on first use."""
    api = Api(world_ref, name, credentials or Credentials())
    application = web.Application(client_max_size=1 << 20, middlewares=[line.http()] if line is not None else ())
    application.router.add_route("*", "/{path:.*}", api.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=pki.server_context("pve", name, name, f"{name}.lan"))
    await site.start()
    bound: int = runner.addresses[0][1]
    return RunningServer(runner, bound)


class Api:
    """Authenticates, routes, wraps answers in the `data` envelope."""

    def __init__(self, world_ref: Callable[[], Any], name: str, credentials: Credentials) -> None:
        """Serve whatever world `world_ref` returns at the time of a request."""
        self._world_ref, self._name, self._credentials = world_ref, name, credentials
        for identity in identities(world_ref().hosts[name].inputs["pve"]).values():
            if identity.token:
                credentials.token(identity.name)
            else:
                credentials.password(identity.name)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        path = unquote(request.raw_path.split("?", 1)[0])
        if not path.startswith("/api2/json"):
            return web.Response(status=404 if path != "/" else 200, text="labproof-sim\n")
        path = path.removeprefix("/api2/json").rstrip("/") or "/"
        host = self._world_ref().hosts[self._name]
        if not host.up:
            raise web.HTTPServiceUnavailable
        try:
            parameters = {**request.query, **await _body(request)}
            if path == "/access/ticket" and request.method == "POST":
                return _envelope(self._ticket(parameters))
            who = self._authenticate(request)
            node: PveNode = self._world_ref().pve[self._name]
            if not host.cluster_file_system and path != "/version":
                raise Answer(500, "ipcc_send_rec[1] failed: Connection refused")
            handler, values = _route(request.method, path)
            if values.get("node", node.host.name) != node.host.name:
                raise Answer(
                    500,
                    f"hostname lookup '{values['node']}' failed - failed to get address info for: "
                    f"{values['node']}: Name or service not known",
                )
            result = handler(Request(node, who, values, parameters))
        except Answer as answer:
            return _refusal(answer)
        except Refused as refused:
            return _refusal(Answer(500, str(refused)))
        return _envelope(*result) if isinstance(result, tuple) else _envelope(result)

    def _ticket(self, parameters: dict[str, str]) -> dict[str, Any]:
        user = parameters.get("username", "")
        if "realm" in parameters and "@" not in user:
            user = f"{user}@{parameters['realm']}"
        known = identities(self._world_ref().hosts[self._name].inputs["pve"])
        given = parameters.get("password", "")
        renewed = self._credentials.tickets.get(given, ("", 0, ""))[0] == user
        if user not in known or "!" in user or (given != self._credentials.password(user) and not renewed):
            raise Answer(401, "authentication failure")
        ticket, prevention = self._credentials.new_ticket(user)
        return {
            "username": user,
            "ticket": ticket,
            "CSRFPreventionToken": prevention,
            "cap": {},
            "clustername": "labproof-sim",
        }

    def _authenticate(self, request: web.Request) -> Identity:
        known = identities(self._world_ref().hosts[self._name].inputs["pve"])
        header = request.headers.get("Authorization", "")
        if header.startswith("PVEAPIToken="):
            token_id, _, value = header.removeprefix("PVEAPIToken=").partition("=")
            if token_id not in known:
                raise Answer(
                    401, f"no such token '{token_id.partition('!')[2]}' for user '{token_id.partition('!')[0]}'"
                )
            if value != self._credentials.token(token_id):
                raise Answer(401, "invalid token value!")
            return known[token_id]
        ticket = unquote(request.cookies.get("PVEAuthCookie", ""))
        if not ticket:
            raise Answer(401, "No ticket")
        user, expires, prevention = self._credentials.tickets.get(ticket, ("", 0.0, ""))
        if user not in known or expires < time.time():
            raise Answer(401, "permission denied - invalid PVE ticket")
        if request.method != "GET" and request.headers.get("CSRFPreventionToken") != prevention:
            raise Answer(401, "Permission denied - invalid csrf token")
        return known[user]


async def _body(request: web.Request) -> dict[str, str]:
    if request.method not in ("POST", "PUT"):
        return {}
    if request.content_type == "application/json":
        raw = await request.text()
        return {k: str(v) for k, v in (json.loads(raw) if raw else {}).items()}
    form = await request.post()
    return {key: "\n".join(str(value) for value in form.getall(key)) for key in form}  # arrays come as repeated keys


def _envelope(data: Any, extra: dict[str, Any] | None = None) -> web.Response:
    body = {"data": data, **(extra or {})}
    return web.Response(body=json.dumps(body).encode(), content_type="application/json", charset="utf-8",
                        headers={"Cache-Control": "max-age=0", "Pragma": "no-cache",
                        "Server": "pve-api-daemon/3.0"})  # fmt: skip


def _refusal(answer: Answer) -> web.Response:
    body: dict[str, Any] = {"data": None}
    if answer.errors:
        body["errors"] = answer.errors
    if answer.status != 401:
        body["message"] = f"{answer.reason}\n"
    reason = answer.reason.replace("\n", " ").replace("\r", " ")  # PVE puts the text into the status line
    return web.Response(
        status=answer.status, reason=reason, body=json.dumps(body).encode(), content_type="application/json"
    )


# ------------------------------------------------------------------ routes


def _route(method: str, path: str) -> tuple[Handler, dict[str, str]]:
    parts = path.strip("/").split("/")
    for verb, pattern, handler in _ROUTES:
        wanted = pattern.strip("/").split("/")
        if verb != method or len(wanted) != len(parts):
            continue
        values = {w[1:-1]: p for w, p in zip(wanted, parts, strict=True) if w.startswith("{")}
        if all(w.startswith("{") or w == p for w, p in zip(wanted, parts, strict=True)):
            return handler, values
    raise Answer(501, f"Method '{method} {path}' not implemented")


def _nodes(r: Request) -> Any:
    name = r.node.host.name
    return [answers.node_row(r.node)] if r.may(f"/nodes/{name}", "Sys.Audit") else []


def _node_status(r: Request) -> Any:
    r.need(f"/nodes/{r.values['node']}", "Sys.Audit")
    return answers.node_status(r.node)


def _hardware(r: Request) -> Any:
    r.need("/", "Sys.Audit", "Sys.Modify")
    blacklist = r.parameters.get("pci-class-blacklist", answers.CLASS_BLACKLIST)
    return answers.hardware_pci(r.node, blacklist, r.parameters.get("verbose", "1") != "0")


def _vms(r: Request) -> Any:
    rows = [answers.vm_row(r.node, int(v)) for v in r.node.vms if r.may(f"/vms/{v}", "VM.Audit")]
    return list(reversed(rows))


def _config(r: Request) -> Any:
    r.need(f"/vms/{r.vmid}", "VM.Audit")
    return answers.vm_config(r.node, r.vmid, current=r.parameters.get("current", "0") == "1")


def _pending(r: Request) -> Any:
    r.need(f"/vms/{r.vmid}", "VM.Audit")
    r.node.section(r.vmid)
    return answers.vm_pending(r.node, r.vmid)


def _status(r: Request) -> Any:
    r.need(f"/vms/{r.vmid}", "VM.Audit")
    r.node.section(r.vmid)
    return answers.vm_status(r.node, r.vmid)


def _power(r: Request) -> Any:
    r.need(f"/vms/{r.vmid}", "VM.PowerMgmt")
    r.node.section(r.vmid)
    verb = r.values["verb"]
    held = (r.node.host.inputs["pve"].get("ha") or {}).get(str(r.vmid)) or {}
    if held.get("managed") and verb in ("start", "stop", "shutdown"):
        return _by_ha(r, verb, held)
    if verb == "start":
        return r.node.start(r.vmid, r.who.name).upid
    if verb in ("stop", "shutdown"):
        return r.node.stop(r.vmid, f"qm{verb}", r.who.name).upid
    if verb == "reboot":
        stopped = r.node.stop(r.vmid, "qmreboot", r.who.name)
        r.node.start(r.vmid)  # a qmstart task of its own, facts 3.3
        return stopped.upid
    raise Answer(501, f"Method 'POST {verb}' not implemented")


def _by_ha(r: Request, verb: str, held: dict[str, Any]) -> str:
    """Only the request is a task of the caller's; the HA manager does the work in one of its own (facts proxmox 3)."""
    asked = r.node.new_task("hastart" if verb == "start" else "hastop", r.vmid, r.who.name, time.time())
    asked.finish()
    held["state"] = "started" if verb == "start" else "stopped"
    if verb == "start":
        r.node.start(r.vmid)
    else:
        r.node.stop(r.vmid, f"qm{verb}")
    return asked.upid


def _resources(r: Request) -> Any:
    name = r.node.host.name
    kind = r.parameters.get("type")
    rows: list[dict[str, Any]] = []
    if kind in (None, "vm"):
        for vmid in r.node.vms:
            if r.may(f"/vms/{vmid}", "VM.Audit"):
                rows.append(answers.vm_row(r.node, int(vmid)) | {"id": f"qemu/{vmid}", "node": name, "type": "qemu"})
    if kind in (None, "node") and r.may(f"/nodes/{name}", "Sys.Audit"):
        rows.append(answers.node_row(r.node))
    return rows


def _mapping(r: Request) -> Any:
    allowed = [
        n for n in r.node.mappings if r.may(f"/mapping/pci/{n}", "Mapping.Audit", "Mapping.Use", "Mapping.Modify")
    ]
    return [row for row in answers.mapping_rows(r.node, r.parameters.get("check-node")) if row["id"] in allowed]


def _one_mapping(r: Request) -> Any:
    name = r.values["id"]
    r.need(f"/mapping/pci/{name}", "Mapping.Audit", "Mapping.Use", "Mapping.Modify")
    row = next((m for m in answers.mapping_rows(r.node, None) if m["id"] == name), None)
    if row is None:
        raise Answer(404, f"mapping '{name}' not found")
    return row


def _permissions(r: Request) -> Any:
    pve = r.node.host.inputs["pve"]
    paths = {"/", "/access", "/nodes", "/vms", "/storage", "/mapping", "/mapping/pci", *(pve.get("acl") or {}),
             *(f"/vms/{v}" for v in r.node.vms), f"/nodes/{r.node.host.name}",
             *(f"/mapping/pci/{m}" for m in r.node.mappings)}  # fmt: skip
    wanted = [r.parameters["path"]] if "path" in r.parameters else sorted(paths)
    found = {path: dict.fromkeys(sorted(privileges(pve, r.who, path)), 1) for path in wanted}
    return {path: held for path, held in found.items() if held or "path" in r.parameters}


def _tasks(r: Request) -> Any:
    audit = r.may(f"/nodes/{r.values['node']}", "Sys.Audit")
    wanted, vmid = r.parameters.get("typefilter"), r.parameters.get("vmid")
    rows = [
        t.row() for t in reversed(r.node.tasks)
        if (audit or t.user == r.who.name) and wanted in (None, t.type) and vmid in (None, t.id)
        and int(t.starttime) >= int(r.parameters.get("since", 0))
    ]  # fmt: skip
    start = int(r.parameters.get("start", 0))
    return rows[start : start + int(r.parameters.get("limit", 50))], {"total": len(rows)}


def _task(r: Request) -> Any:
    task = next((t for t in r.node.tasks if t.upid == r.values["upid"]), None)
    if task is None:
        raise Answer(400, "Parameter verification failed.", {"upid": "unable to parse worker upid"})
    if task.user != r.who.name:
        r.need(f"/nodes/{r.values['node']}", "Sys.Audit")
    return task


def _task_log(r: Request) -> Any:
    task = _task(r)
    start, limit = int(r.parameters.get("start", 0)), int(r.parameters.get("limit", 50))
    lines = [{"n": n, "t": text} for n, text in enumerate(task.log, start=1)]
    return lines[start : start + limit] if limit else lines[start:], {"total": len(lines)}


def _backups(r: Request) -> Any:
    r.need("/", "Sys.Audit")
    return [
        {"id": name, "type": "vzdump", **job} for name, job in (r.node.host.inputs["pve"].get("backup") or {}).items()
    ]


def _containers(r: Request) -> Any:
    return [
        {"vmid": int(n), "name": c.get("name", n), "status": c.get("status", "running"), "type": "lxc"}
        for n, c in (r.node.host.inputs.get("lxc") or {}).items() if r.may(f"/vms/{n}", "VM.Audit")
    ]  # fmt: skip


def _cluster_status(r: Request) -> Any:
    return [{"type": "node", "name": r.node.host.name, "id": f"node/{r.node.host.name}", "online": 1, "local": 1,
             "ip": r.node.host.inputs.get("address"), "nodeid": 0, "level": ""}]  # fmt: skip


_ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/version", lambda r: answers.version(r.node)),
    ("GET", "/nodes", _nodes),
    ("GET", "/nodes/{node}/status", _node_status),
    ("GET", "/nodes/{node}/hardware/pci", _hardware),
    ("GET", "/nodes/{node}/qemu", _vms),
    ("GET", "/nodes/{node}/lxc", _containers),
    ("GET", "/nodes/{node}/qemu/{vmid}/config", _config),
    ("PUT", "/nodes/{node}/qemu/{vmid}/config", lambda r: changes.change(r, Answer)),
    ("POST", "/nodes/{node}/qemu/{vmid}/config", lambda r: changes.change(r, Answer, as_task=True)),
    ("GET", "/nodes/{node}/qemu/{vmid}/pending", _pending),
    ("GET", "/nodes/{node}/qemu/{vmid}/status/current", _status),
    ("POST", "/nodes/{node}/qemu/{vmid}/status/{verb}", _power),
    ("GET", "/nodes/{node}/tasks", _tasks),
    ("GET", "/nodes/{node}/tasks/{upid}/status", lambda r: _task(r).state()),
    ("GET", "/nodes/{node}/tasks/{upid}/log", _task_log),
    ("GET", "/cluster/resources", _resources),
    ("GET", "/cluster/status", _cluster_status),
    ("GET", "/cluster/backup", _backups),
    ("GET", "/cluster/mapping/pci", _mapping),
    ("POST", "/cluster/mapping/pci", lambda r: changes.create_mapping(r, Answer)),
    ("GET", "/cluster/mapping/pci/{id}", _one_mapping),
    ("PUT", "/cluster/mapping/pci/{id}", lambda r: changes.update_mapping(r, Answer)),
    ("DELETE", "/cluster/mapping/pci/{id}", lambda r: changes.delete_mapping(r, Answer)),
    ("GET", "/access/permissions", _permissions),
)

__all__ = ["ALL", "Answer", "Request", "RunningServer", "serve"]
