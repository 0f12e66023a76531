"""The apps probe: where each declared app runs, and what it says when asked.

Nothing is played, changed or deleted beyond one short session, which is ended again. An app that its owner has put to
rest (no replicas, `state: parked`, an on-demand app without a pod) is not asked at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout

from labproof.clients.app_http import AppHttp, AtUrl, ThroughPod
from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.kubernetes import KubeSession, KubeTarget
from labproof.facts.apps import AppFacts, AppPod, AppsFacts
from labproof.facts.pod_outcome import Outcome, classify
from labproof.facts.reading import Reading, absent, failed, value
from labproof.facts.store import now
from labproof.inventory.branches import App
from labproof.inventory.models import Cluster, Lab
from labproof.probes import app_frigate, app_inference, app_jellyfin, app_ollama, app_sessions
from labproof.probes.pods import lock_file

Json = Mapping[str, Any]

#: Port of each kind when lab.yaml gives none (the projects' own defaults; Frigate's is the one without a login).
PORTS = {"jellyfin": 8096, "frigate": 5000, "ollama": 11434, "emby": 8096, "plex": 32400, "immich-ml": 3003,
         "openai": 8000, "comfyui": 8188}  # fmt: skip
Look = Callable[[AppHttp, App, Lab, AppFacts], AppFacts]
_LOOKS: dict[str, Look] = {
    "jellyfin": app_jellyfin.look,
    "frigate": app_frigate.look,
    "ollama": app_ollama.look,
    "plex": app_sessions.plex,
    "emby": app_sessions.emby,
    "openai": app_inference.openai,
    "comfyui": app_inference.comfyui,
}
_TELLS = "xecution provider"  # lines of Immich's log that are kept
_WORKLOADS = ("deployments", "statefulsets")


def probe_apps(lab: Lab, cluster: Cluster) -> Reading[AppsFacts]:
    """All declared apps of one cluster, one after the other.

    Returns:
        A failed reading when the API gave no answer at all.
    """
    target = KubeTarget(cluster.kubeconfig, cluster.context, lab.timings.connect_s, lab.timings.request_s)
    try:
        with KubeSession(target) as session:
            pods = [p for p in session.list_json("/api/v1/pods")["items"] if isinstance(p, Mapping)]
            found = tuple(_app(session, lab, cluster, app, pods) for app in cluster.apps)
            where = f"{session.context.configuration.host} as {session.as_whom}"
            return value(AppsFacts(cluster.name, found), where, now())
    except TransportFailure as failure:
        return failed(failure.target, f"{failure.target}: {failure.text}", failure.kind.value, now())


def _app(session: KubeSession, lab: Lab, cluster: Cluster, app: App, pods: list[Json]) -> AppFacts:
    facts = AppFacts(app.name, app.kind, _replicas(session, app), _pod(session, app, pods))
    pod = facts.pod.value
    if app.state == "parked" or pod is None or pod.outcome.outcome is not Outcome.RUNNING:
        return facts
    http = _way(session, lab, app, pod)
    facts = replace(facts, where=http.where)
    look = _LOOKS.get(app.kind)
    if look is None:
        log = _log(session, pod)
        return replace(facts, log=log, answer=Reading(log.state, "its log", log.source, log.why, log.at, log.kind))
    lock = FileLock(str(lock_file(cluster, pod.node)))
    try:
        lock.acquire(timeout=lab.timings.pod_start_s + lab.timings.transcode_s)
    except Timeout:
        why = f"another labproof process works on the GPU of {pod.node}"
        return replace(facts, answer=failed(http.where, why, "busy", now()))
    try:  # our own transcodes and the app's session would share the card's counters
        return look(http, app, lab, replace(facts, answer=value("answered", http.where, now())))
    except TransportFailure as failure:
        why = failure.answer or failure.text
        return replace(facts, answer=failed(http.where, why, failure.kind.value, now()))
    except ValueError:
        return replace(facts, answer=failed(http.where, "what it answered is not JSON", "protocol", now()))
    finally:
        lock.release()


def _log(session: KubeSession, pod: AppPod) -> Reading[str]:
    source = f"kubectl -n {pod.namespace} logs {pod.name}"
    try:
        found = session.log(pod.namespace, pod.name)
    except TransportFailure as failure:
        return failed(source, failure.answer or failure.text, failure.kind.value, now())
    if found.content is None:
        return failed(source, found.reason or "no log", "log", now())
    lines = [line for line in found.content.decode("utf-8", "replace").splitlines() if _TELLS in line]
    return value("\n".join(lines[-20:]), source, now())


def _way(session: KubeSession, lab: Lab, app: App, pod: AppPod) -> AppHttp:
    key = app.api_key.get_secret_value() if app.api_key is not None else ""
    headers = _headers(app.kind, key, direct=app.url is not None) if key else {}
    if app.url is not None:
        return AtUrl(app.url, lab.timings.request_s, headers)
    return ThroughPod(session, pod.namespace, pod.name, app.port or PORTS[app.kind], headers)


def _headers(kind: str, key: str, *, direct: bool) -> dict[str, str]:
    """How each kind takes its key; through the API server `Authorization` is not ours to use."""
    if kind == "jellyfin" and direct:
        return {"authorization": f'MediaBrowser Token="{key}"'}
    if kind in ("jellyfin", "emby"):
        return {"x-emby-token": key}
    if kind == "plex":
        return {"x-plex-token": key, "accept": "application/json"}
    return {"authorization": f"Bearer {key}"} if direct else {"x-api-key": key}


def _replicas(session: KubeSession, app: App) -> Reading[int]:
    namespace, _, name = app.workload.partition("/")
    sources = []
    for plural in _WORKLOADS:
        path = f"/apis/apps/v1/namespaces/{quote(namespace)}/{plural}/{quote(name)}"
        sources.append(f"GET {path}")
        try:
            found = session.get_json(path)
        except TransportFailure as failure:
            if failure.kind is Kind.NOT_FOUND:
                continue
            return failed(sources[-1], failure.answer or failure.text, failure.kind.value, now())
        wanted = (found.get("spec") or {}).get("replicas")
        return value(1 if wanted is None else int(wanted), sources[-1], now())
    return absent(", ".join(sources), f"no Deployment and no StatefulSet {app.workload}", now())


def _pod(session: KubeSession, app: App, pods: list[Json]) -> Reading[AppPod]:
    source = "GET /api/v1/pods"
    mine = [p for p in pods if _belongs(p, app.workload)]
    if not mine:
        return absent(source, f"no pod of {app.workload}", now())
    newest = max(mine, key=lambda p: (_phase(p) == "Running", str(p["metadata"].get("creationTimestamp"))))
    events: list[Json] = []
    if _phase(newest) != "Running":
        uid = str(newest["metadata"].get("uid"))
        try:
            events = session.list_json("/api/v1/events", fieldSelector=f"involvedObject.uid={uid}")["items"]
        except TransportFailure:
            events = []  # they only add words to what the pod itself says
    spec = newest.get("spec") or {}
    return value(
        AppPod(
            str(newest["metadata"].get("namespace")),
            str(newest["metadata"].get("name")),
            str(spec.get("nodeName") or ""),
            classify(newest, events, now()),
            tuple(str(c.get("image") or "") for c in spec.get("containers") or ()),
        ),
        source,
        now(),
    )


def _phase(pod: Json) -> str:
    return str((pod.get("status") or {}).get("phase"))


def _belongs(pod: Json, workload: str) -> bool:
    """By owner: a ReplicaSet carries its Deployment's name and a hash of its template; a bare pod is its own."""
    meta = pod.get("metadata") or {}
    namespace, _, name = workload.partition("/")
    if meta.get("namespace") != namespace or _phase(pod) in ("Succeeded", "Failed") or meta.get("deletionTimestamp"):
        return False
    owner = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
    if owner is None:
        return bool(meta.get("name") == name)
    held = str(owner.get("name"))
    if owner.get("kind") == "ReplicaSet":
        return re.fullmatch(rf"{re.escape(name)}-[a-z0-9]+", held) is not None
    return held == name
