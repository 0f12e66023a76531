"""The hands in a cluster: each applies one recorded change or gives it back, and looks again before it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from labproof.provision import cluster_wait
from labproof.provision.bench import Bench
from labproof.provision.failure import ChangedSince, StepFailed
from labproof.provision.objects import Obj, applied_by, covers, is_ours, nothing_of, strangers

if TYPE_CHECKING:
    from labproof.clients.kubernetes import KubeSession

Record = Mapping[str, Any]
ACTIONS = frozenset({"object", "taints", "discovery", "effective"})
#: How long a deleted object may take to be gone: a namespace ends with all that is in it.
GONE_S = 300.0
FEATURE = "feature.node.kubernetes.io/"
NFD_ANNOTATIONS = "nfd.node.kubernetes.io/"
_FEATURE_LABELS = f"{NFD_ANNOTATIONS}feature-labels"
#: What a namespace of ours may hold beside our own objects: Kubernetes puts these everywhere.
_EVERYWHERE = frozenset({("ConfigMap", "kube-root-ca.crt")})
_LISTED = (
    ("ConfigMap", "/api/v1", "configmaps"),
    ("Service", "/api/v1", "services"),
    ("PersistentVolumeClaim", "/api/v1", "persistentvolumeclaims"),
    ("DaemonSet", "/apis/apps/v1", "daemonsets"),
    ("Deployment", "/apis/apps/v1", "deployments"),
    ("StatefulSet", "/apis/apps/v1", "statefulsets"),
    ("Job", "/apis/batch/v1", "jobs"),
    ("CronJob", "/apis/batch/v1", "cronjobs"),
)


def found_at(session: KubeSession, path: str) -> Obj | None:
    """The object at a path, None when there is none."""
    from labproof.clients.errors import Kind, TransportFailure

    try:
        return session.get_json(path)
    except TransportFailure as failure:
        if failure.kind is Kind.NOT_FOUND:
            return None
        raise


def perform(bench: Bench, change: Record) -> None:
    """Make a change that the journal has announced.

    Raises:
        StepFailed, ChangedSince: it could not be made.
        TransportFailure: the API did not answer, or refused it.
    """
    cluster = bench.lab.cluster(str(change["target"]))
    if change["action"] == "effective":
        cluster_wait.until_effective(bench, cluster, change["detail"])
    elif change["action"] == "taints":
        _taint(bench.kube(cluster), change, change["detail"]["taints"], change["detail"]["replaced"])
    elif change["action"] == "object":
        _apply(bench.kube(cluster), change)


def _apply(session: KubeSession, change: Record) -> None:
    live = found_at(session, change["path"])
    state = _state_of_object(session, change, live)
    if state == "after":
        return
    if state == "other":
        raise ChangedSince(f"{change['thing']} was changed by somebody else")
    body = change["configuration"]
    if live is not None:  # exactly what was looked at
        version = live["metadata"]["resourceVersion"]
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": version}}
    session.apply(change["path"], body, field_manager=change["manager"])


def state_of(bench: Bench, change: Record) -> str:
    """Whether a change stands: `after`, `before`, or `other` when somebody else's hand was there since."""
    session = bench.kube(bench.lab.cluster(str(change["target"])))
    if change["action"] == "effective":
        return "before"  # a wait leaves nothing behind
    if change["action"] == "discovery":
        return "after" if any(_discovered(node) for node in _nodes(session)) else "before"
    if change["action"] == "taints":
        return _state_of_taints(session, change)
    return _state_of_object(session, change, found_at(session, change["path"]))


def _state_of_object(session: KubeSession, change: Record, live: Obj | None) -> str:
    if live is None:
        return "other" if change["found"] else "before"
    mine = applied_by(live, change["manager"])
    stands = mine is not None and covers(live, change["configuration"])
    if change["found"]:
        return "after" if stands else "before" if mine == change["applied_before"] else "other"
    if not stands or strangers(live):
        return "other"
    return "other" if live["kind"] == "Namespace" and _guests(session, live["metadata"]["name"]) else "after"


def _guests(session: KubeSession, namespace: str) -> list[str]:
    """What others have in a namespace that labproof made: deleting it would take that along."""
    found = []
    for kind, root, plural in _LISTED:
        for obj in session.list_json(f"{root}/namespaces/{namespace}/{plural}")["items"]:
            meta = obj["metadata"]
            theirs = not meta.get("ownerReferences") and not is_ours({**obj, "kind": kind})
            if theirs and (kind, meta["name"]) not in _EVERYWHERE:
                found.append(f"{kind} {meta['name']}")
    return found


def take_back(bench: Bench, change: Record) -> None:
    """Give one change that stands back: an object of ours is deleted, fields of another's object are returned."""
    cluster = bench.lab.cluster(str(change["target"]))
    session = bench.kube(cluster)
    if change["action"] == "taints":
        _taint(session, change, change["detail"]["replaced"], change["detail"]["taints"])
    elif change["action"] == "discovery":
        _forget_features(bench, session, change)
    else:
        path, live = change["path"], found_at(session, change["path"])
        if live is None:
            return
        if change["found"]:
            session.apply(path, change["applied_before"] or nothing_of(live), field_manager=change["manager"])
            return
        session.delete(path, uid=live["metadata"]["uid"], propagation="Foreground")
        _wait_gone(bench, f"{change['thing']} to be gone", lambda: found_at(session, path) is None)


def _wait_gone(bench: Bench, what: str, gone: Any) -> None:
    from labproof.clients.errors import WaitFailed

    try:
        bench.wait(what, gone, bool, limit_s=GONE_S)
    except WaitFailed as late:
        raise StepFailed(f"{what}: {late}") from None


# ------------------------------------------------------------------ nodes


def _nodes(session: KubeSession) -> list[Obj]:
    return list(session.list_json("/api/v1/nodes")["items"])


def _discovered(node: Obj) -> dict[str, dict[str, None]]:
    """NFD's labels (those its annotation lists, GFD's among them) and annotations on a node, as what removes them."""
    meta = node["metadata"]
    annotations = meta.get("annotations") or {}
    listed = [name for name in annotations.get(_FEATURE_LABELS, "").split(",") if name]
    named = {name if "/" in name else f"{FEATURE}{name}" for name in listed}
    labels: dict[str, None] = dict.fromkeys(sorted(named & set(meta.get("labels") or {})))
    mine: dict[str, None] = dict.fromkeys(sorted(key for key in annotations if key.startswith(NFD_ANNOTATIONS)))
    return {part: keys for part, keys in (("labels", labels), ("annotations", mine)) if keys}


def _forget_features(bench: Bench, session: KubeSession, change: Record) -> None:
    """NFD leaves its labels behind when it goes: they are removed when nobody is there to set them again."""
    pods = f"/api/v1/namespaces/{change['detail']['namespace']}/pods"
    _wait_gone(bench, "NFD's pods to be gone", lambda: not session.list_json(pods)["items"])
    for node in _nodes(session):
        gone = _discovered(node)
        if gone:
            session.merge_patch(f"/api/v1/nodes/{node['metadata']['name']}", {"metadata": gone})


def _rows(node: Obj) -> list[Obj]:
    return list((node.get("spec") or {}).get("taints") or [])


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(key, "") == other.get(key, "") for key in ("key", "value", "effect"))


def _taint(session: KubeSession, change: Record, wanted: list[Obj], instead_of: list[Obj]) -> None:
    """Taints are one field of a node: set with the version that was looked at, met by others three times at most."""
    from labproof.clients.errors import TransportFailure

    for tries_left in (2, 1, 0):
        node = session.get_json(change["detail"]["path"])
        rows = _rows(node)
        kept = [row for row in rows if not any(_same(row, old) for old in instead_of)]
        new = [*kept, *(row for row in wanted if not any(_same(row, one) for one in kept))]
        if new == rows:
            return
        meta = {"resourceVersion": node["metadata"]["resourceVersion"]}
        try:
            session.merge_patch(change["detail"]["path"], {"metadata": meta, "spec": {"taints": new or None}})
            return
        except TransportFailure as refused:
            if refused.status != 409 or not tries_left:
                raise


def _state_of_taints(session: KubeSession, change: Record) -> str:
    rows = _rows(session.get_json(change["detail"]["path"]))
    there = [any(_same(row, wanted) for row in rows) for wanted in change["detail"]["taints"]]
    return "after" if all(there) else "other" if any(there) else "before"
