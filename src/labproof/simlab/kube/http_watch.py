"""The watch stream."""

from __future__ import annotations

import asyncio
import json
import time

from aiohttp import web

from labproof.simlab.kube import table
from labproof.simlab.kube.admission import Refused
from labproof.simlab.kube.cluster import SimCluster
from labproof.simlab.kube.http_base import Target, flag
from labproof.simlab.kube.http_objects import selected
from labproof.simlab.kube.kinds import Obj
from labproof.simlab.kube.quantity import fields_match, meets, parse_label_selector
from labproof.simlab.kube.store import Change

_DEFAULT_S = 1800.0


class _Filter:
    def __init__(self, target: Target, request: web.Request) -> None:
        self._key = "events" if target.kind.group == "events.k8s.io" else target.kind.key
        self._namespace, self._name = target.namespace, target.name
        self._labels = parse_label_selector(request.query.get("labelSelector", ""))
        self._fields = request.query.get("fieldSelector", "")

    def takes(self, obj: Obj | None) -> bool:
        if obj is None:
            return False
        meta = obj["metadata"]
        if (self._namespace and meta.get("namespace") != self._namespace) or (
            self._name and meta["name"] != self._name
        ):
            return False
        return meets(meta.get("labels") or {}, self._labels) and (not self._fields or fields_match(obj, self._fields))

    def event(self, change: Change) -> tuple[str, Obj] | None:
        """The event a watcher sees: leaving the selection is DELETED, entering it ADDED."""
        if change.key != self._key:
            return None
        now = change.kind != "DELETED" and self.takes(change.obj)
        before = self.takes(change.before)
        if now:
            return ("MODIFIED" if before else "ADDED", change.obj)
        return ("DELETED", change.obj) if before else None


async def watch(cluster: SimCluster, target: Target, request: web.Request) -> web.StreamResponse:
    """Stream changes until the time is up, the client leaves, or the world is replaced."""
    query = request.query
    chosen = _Filter(target, request)
    version = query.get("resourceVersion", "")
    limit = float(query.get("timeoutSeconds") or _DEFAULT_S)
    queue = cluster.store.subscribe()
    as_table = table.wanted(request)
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"})

    async def send(kind: str, obj: Obj) -> None:
        if as_table and kind in {"ADDED", "MODIFIED", "DELETED"}:
            obj = table.build(target.kind, [obj], {"resourceVersion": cluster.store.version}, cluster.clock.now())
        await response.write((json.dumps({"type": kind, "object": obj}, separators=(",", ":")) + "\n").encode())

    try:
        await response.prepare(request)
        backlog: list[tuple[str, Obj]] = []
        if version in {"", "0"}:
            backlog = [("ADDED", o) for o in selected(cluster, target, query) if chosen.takes(o)]
        else:
            changes = cluster.store.since(int(version))
            if changes is None:
                oldest = cluster.store.history[0].version
                gone = Refused(410, "Expired", f"too old resource version: {version} ({oldest})")
                await send("ERROR", gone.status())
                return response
            backlog = [e for e in map(chosen.event, changes) if e is not None]
        for kind, obj in backlog:
            await send(kind, obj)
        if flag(query, "sendInitialEvents"):
            note = {"k8s.io/initial-events-end": "true"}
            meta = {"resourceVersion": cluster.store.version, "annotations": note}
            await send("BOOKMARK", {"kind": target.kind.kind, "apiVersion": target.kind.api_version, "metadata": meta})
        deadline = time.monotonic() + limit
        while (left := deadline - time.monotonic()) > 0:
            try:
                change = await asyncio.wait_for(queue.get(), left)
            except TimeoutError:
                break
            if change is None:
                break
            event = chosen.event(change)
            if event is not None:
                await send(*event)
    except (ConnectionResetError, ConnectionAbortedError):
        pass  # the client has seen enough
    finally:
        cluster.store.unsubscribe(queue)
    return response
