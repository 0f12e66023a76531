"""The Table form of answers that `kubectl get` asks for."""

from __future__ import annotations

from aiohttp import web

from labproof.simlab.kube.clock import parse_time
from labproof.simlab.kube.kinds import Kind, Obj


def wanted(request: web.Request) -> bool:
    """Whether the client prefers a Table."""
    return "as=Table" in request.headers.get("Accept", "").partition(",")[0]


def age(seconds: float) -> str:
    """`3m12s`, `2d`: duration.HumanDuration, roughly."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    if whole < 600:
        return f"{whole // 60}m{whole % 60}s"
    if whole < 10800:
        return f"{whole // 60}m"
    if whole < 172800:
        return f"{whole // 3600}h"
    return f"{whole // 86400}d"


def _pod(pod: Obj) -> list[object]:
    status = pod.get("status") or {}
    rows = status.get("containerStatuses") or []
    shown = status.get("reason") or status.get("phase", "Unknown")
    for place, row in enumerate(status.get("initContainerStatuses") or []):
        state = row["state"]
        ended = state.get("terminated")
        if ended and ended["exitCode"] == 0:
            continue
        why = (ended or {}).get("reason") or (state.get("waiting") or {}).get("reason")
        total = len(status["initContainerStatuses"])
        shown = f"Init:{why}" if why and why != "PodInitializing" else f"Init:{place}/{total}"
        break
    else:
        for row in reversed(rows):
            why = (row["state"].get("waiting") or row["state"].get("terminated") or {}).get("reason")
            if why:
                shown = why
    if pod["metadata"].get("deletionTimestamp"):
        shown = "Terminating"
    ready = f"{sum(bool(r.get('ready')) for r in rows)}/{len(pod['spec'].get('containers') or [])}"
    return [ready, shown, str(sum(r.get("restartCount", 0) for r in rows))]


def _node(node: Obj) -> list[object]:
    ready = next((c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready"), "Unknown")
    text = {"True": "Ready"}.get(ready, "NotReady")
    if node["spec"].get("unschedulable"):
        text += ",SchedulingDisabled"
    roles = [k.rpartition("/")[2] for k in node["metadata"].get("labels") or {} if k.startswith("node-role.")]
    return [text, ",".join(roles) or "<none>", node["status"]["nodeInfo"]["kubeletVersion"]]


def _daemonset(obj: Obj) -> list[object]:
    status = obj.get("status") or {}
    names = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    return [status.get(n, 0) for n in names]


def _deployment(obj: Obj) -> list[object]:
    status = obj.get("status") or {}
    ready = f"{status.get('readyReplicas', 0)}/{obj['spec'].get('replicas', 1)}"
    return [ready, status.get("updatedReplicas", 0), status.get("availableReplicas", 0)]


def _event(obj: Obj) -> list[object]:
    ref = obj["involvedObject"]
    return [obj["type"], obj["reason"], f"{ref['kind'].lower()}/{ref['name']}", obj["message"]]


_COLUMNS = {
    "Pod": (("Ready", "Status", "Restarts"), _pod),
    "Node": (("Status", "Roles", "Version"), _node),
    "DaemonSet": (("Desired", "Current", "Ready", "Up-to-date", "Available"), _daemonset),
    "Deployment": (("Ready", "Up-to-date", "Available"), _deployment),
    "Event": (("Type", "Reason", "Object", "Message"), _event),
    "RuntimeClass": (("Handler",), lambda o: [o.get("handler", "")]),
}


def build(kind: Kind, rows: list[Obj], meta: Obj, now: float) -> Obj:
    """A Table of objects."""
    names, cells = _COLUMNS.get(kind.kind, ((), lambda _: []))
    columns = ["Name", *names, "Age"]

    def definition(name: str) -> Obj:
        return {
            "name": name, "type": "string", "format": "name" if name == "Name" else "", "description": "",
            "priority": 0,
        }  # fmt: skip

    found = []
    for obj in rows:
        born = parse_time(obj["metadata"]["creationTimestamp"])
        partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
        found.append({"cells": [obj["metadata"]["name"], *cells(obj), age(now - born)], "object": partial})
    return {
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
        "columnDefinitions": [definition(c) for c in columns], "rows": found,
    }  # fmt: skip
