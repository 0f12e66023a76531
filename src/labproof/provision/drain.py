"""A Kubernetes node around a reboot: cordoned, its pods evicted, and after the boot Ready and schedulable again.

Evictions respect PodDisruptionBudgets (the API answers 429 while one allows none); DaemonSets and static pods stay.
A pod that nothing would make again is never evicted. The cluster's storage is healthy before and after.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from labproof.inventory.models import Node
from labproof.provision import storage
from labproof.provision.bench import Bench
from labproof.provision.changes import CallChange
from labproof.provision.failure import StepFailed
from labproof.provision.plan import Refusal

if TYPE_CHECKING:
    from labproof.clients.kubernetes import KubeSession

Json = Mapping[str, Any]
_CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
_CORDON = "node.kubernetes.io/unschedulable"  # the taint of a cordon, named in the scheduler's message
#: What an API server and its way may say while machines of the cluster reboot.
_AWAY = ("refused", "timeout", "reset", "dns", "unavailable", "protocol", "auth")


def around(
    bench: Bench, node: Node, scope: str, why: str, refusals: list[Refusal], notes: list[str]
) -> tuple[CallChange, CallChange] | None:
    """The drain before and the resumption after a reboot of a node; None (with a note) where there is nothing to drain.

    Args:
        bench: with the lab's clusters.
        node: declared, running.
        scope: write scope of whatever reboots it.
        why: reason, for the plan.
        refusals: what forbids it is added here.
        notes: what an owner should know is added here.
    """
    from labproof.clients.errors import Kind, TransportFailure

    cluster = bench.lab.cluster(node.cluster)
    try:
        session = bench.kube(cluster)
        found = session.get_json(f"/api/v1/nodes/{node.name}")
        pods = _pods(session, node.name)
        nodes = session.list_json("/api/v1/nodes")["items"]
        ill = storage.unhealthy(session)
        lacking = [verb for verb, *what in _RIGHTS if not session.can_i(verb, *what)]
    except TransportFailure as failure:
        if failure.kind is Kind.FORBIDDEN:
            refusals.append(Refusal("rights", f"{node.name} cannot be drained: {failure.text}"))
        else:
            notes.append(f"{node.name} is not drained first: {failure.text}")
        return None
    if lacking:
        text = f"{session.as_whom} may not drain {node.name}: apply manifests/rbac-drain.yaml"
        refusals.append(Refusal("rights", text))
        return None
    refusals += [Refusal("storage", f"{line}: {node.name} is not taken away from it now") for line in ill]
    refusals += _inside(node.name, found, pods, nodes)
    alone = [_name(pod) for pod in pods if _is_evictable(pod) and not _owner(pod)]
    if alone:
        text = f"{', '.join(alone)} on {node.name} belongs to no controller and would be lost: delete it by hand"
        refusals.append(Refusal("lone-pod", text))
    moving = [_name(pod) for pod in pods if _is_evictable(pod)]
    notes.append(f"{node.name}: {len(moving)} pods are evicted{': ' + ', '.join(moving) if moving else ''}")
    debt = _debt(bench, node)  # what an interrupted run cordoned is not the owner's cordon
    cordoned = bool(debt["cordoned"] if debt is not None else (found.get("spec") or {}).get("unschedulable"))
    detail = {"node": node.name, "cluster": cluster.name, "cordoned": cordoned, "boots": True}
    drain = CallChange(
        target=node.name, scope=scope, reason=why, clause="K8S-NODE-001", name="node-drain",
        call=f"kubectl drain {node.name} --ignore-daemonsets --delete-emptydir-data", detail=detail,
        seconds=bench.limits.drain_s,
    )  # fmt: skip
    return drain, resume(bench, node, scope, cordoned=cordoned, boots=True)


def resume(bench: Bench, node: Node, scope: str, *, cordoned: bool, boots: bool) -> CallChange:
    """The node is Ready again (after another boot where it `boots`) and schedulable as it was."""
    return CallChange(
        target=node.name, scope=scope, reason="it was drained", clause="K8S-NODE-001", name="node-resume",
        call=f"see {node.name} Ready" + ("" if cordoned else f", kubectl uncordon {node.name}"),
        detail={"node": node.name, "cluster": node.cluster, "cordoned": cordoned, "boots": boots},
        seconds=bench.limits.node_ready_s,
    )  # fmt: skip


def owed(bench: Bench, node: Node, scope: str, step: str) -> CallChange | None:
    """What an interrupted run still owes a node that this step drained; a step above makes good its own."""
    debt = _debt(bench, node, step)
    return resume(bench, node, scope, cordoned=bool(debt["cordoned"]), boots=False) if debt is not None else None


def _debt(bench: Bench, node: Node, step: str | None = None) -> Mapping[str, Any] | None:
    """Details of the first drain since the node was last let go on; None where nothing is owed."""
    pending: Mapping[str, Any] | None = None
    for entry in bench.journal.entries():
        if entry.change["target"] != node.name:
            continue
        if entry.action == "node-drain" and not entry.undone and step in (None, entry.step):
            pending = pending or entry.change["detail"]
        elif entry.action == "node-resume" and entry.done:
            pending = None
    return pending


def all_owed(bench: Bench, nodes: Collection[Node], scope: str, step: str) -> list[CallChange]:
    """What interrupted runs of this step still owe these nodes."""
    found = [owed(bench, node, scope, step) for node in nodes]
    return [change for change in found if change is not None]


_RIGHTS: tuple[tuple[str, ...], ...] = (("patch", "", "nodes"), ("create", "", "pods", "eviction"))


def _inside(name: str, node: Json, pods: Collection[Json], nodes: Collection[Json]) -> list[Refusal]:
    """labproof in the cluster itself: it would evict itself, or lose the API that it works through."""
    if not os.environ.get("KUBERNETES_SERVICE_HOST"):
        return []
    me = socket.gethostname()
    if any((pod.get("metadata") or {}).get("name") == me for pod in pods):
        return [Refusal("inside", f"labproof runs on {name} itself, as pod {me}: run it from elsewhere")]
    planes = [n for n in nodes if _CONTROL_PLANE in ((n.get("metadata") or {}).get("labels") or {})]
    if len(planes) == 1 and (planes[0].get("metadata") or {}).get("name") == name:
        text = f"{name} is the only control plane of the cluster that labproof runs in: run it from outside"
        return [Refusal("inside", text)]
    return []


# ------------------------------------------------------------------ hands


def drain(bench: Bench, change: Mapping[str, Any]) -> None:
    """Cordon, evict, wait until the pods are gone.

    Raises:
        StepFailed: the storage is not healthy, or pods are left when the limit is reached.
    """
    from labproof.clients.errors import Kind, TransportFailure, WaitFailed

    detail = change["detail"]
    name, session = detail["node"], bench.kube(bench.lab.cluster(detail["cluster"]))
    try:
        found = session.get_json(f"/api/v1/nodes/{name}")
    except TransportFailure as failure:
        if failure.kind is Kind.NOT_FOUND:
            return
        raise
    ill = storage.unhealthy(session)
    if ill:
        raise StepFailed(f"{name} is not drained: {'; '.join(ill)}")
    bench.boots[name] = _boot_id(found)
    session.merge_patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": True}})
    blocked: dict[str, str] = {}

    def left() -> list[str]:
        names = []
        for pod in _pods(session, name):
            if _is_evictable(pod):
                names.append(_name(pod))
                _evict(session, pod, blocked)
        return names

    try:
        bench.wait(f"{name} to be empty of pods", left, lambda names: not names, limit_s=bench.limits.drain_s)
    except WaitFailed as late:
        who = "; ".join(f"{pod}: {text}" for pod, text in blocked.items()) or str(late)
        text = f"{name} could not be drained within {bench.limits.drain_s:.0f} s ({who}); it stays cordoned"
        raise StepFailed(text) from None


def _evict(session: KubeSession, pod: Json, blocked: dict[str, str]) -> None:
    from labproof.clients.errors import Kind, TransportFailure

    meta = pod["metadata"]
    if meta.get("deletionTimestamp"):
        return
    body = {
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
    }  # fmt: skip
    try:
        session.create(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/eviction", body)
        blocked.pop(_name(pod), None)
    except TransportFailure as failure:
        if failure.status == 429:  # a budget allows no disruption now: asked again with the next look
            blocked[_name(pod)] = failure.answer or failure.text
        elif failure.kind is not Kind.NOT_FOUND:
            raise


def see_again(bench: Bench, change: Mapping[str, Any]) -> None:
    """Wait until the node is Ready and the storage healthy, then let pods on it again.

    Raises:
        StepFailed: it did not come back.
    """
    from labproof.clients.errors import Kind, WaitFailed

    detail = change["detail"]
    name, session = detail["node"], bench.kube(bench.lab.cluster(detail["cluster"]))
    through = tuple(Kind(word) for word in _AWAY)
    before = bench.boots.pop(name, "") if detail.get("boots") else ""

    def look() -> str:
        node = session.get_json(f"/api/v1/nodes/{name}")
        if before and _boot_id(node) == before:
            return "its kubelet has not posted the new boot yet"
        ready: Json = next(
            (c for c in (node.get("status") or {}).get("conditions") or () if c.get("type") == "Ready"), {}
        )
        if ready.get("status") != "True":
            return f"NotReady: {ready.get('message', '')}"
        if not detail["cordoned"] and (node.get("spec") or {}).get("unschedulable"):
            session.merge_patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": None}})
        return "; ".join(storage.unhealthy(session))

    try:
        bench.wait(
            f"{name} to be Ready again", look, lambda left: not left, limit_s=bench.limits.node_ready_s, through=through
        )
    except WaitFailed as late:
        raise StepFailed(f"{name} did not get well again ({late})") from None
    if not detail["cordoned"]:
        _await_scheduler(bench, session, name)


def _await_scheduler(bench: Bench, session: KubeSession, node: str) -> None:
    """Wait until the scheduler has looked again at pods it kept off the cordoned node; it does so within seconds.

    What they still wait for then is their own clauses' matter.
    """
    from labproof.clients.errors import WaitFailed

    def kept_off() -> list[str]:
        pending = session.list_json("/api/v1/pods", fieldSelector="status.phase=Pending")["items"]
        return [_name(pod) for pod in pending if _CORDON in str((pod.get("status") or {}).get("conditions"))]

    try:
        bench.wait(f"the scheduler to use {node} again", kept_off, lambda left: not left, limit_s=60.0)
    except WaitFailed as late:
        bench.tell(str(late))


# ------------------------------------------------------------------ reading


def _pods(session: KubeSession, node: str) -> list[Json]:
    rows: list[Json] = session.list_json("/api/v1/pods", fieldSelector=f"spec.nodeName={node}")["items"]
    return rows


def _is_evictable(pod: Json) -> bool:
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return False
    mirror = "kubernetes.io/config.mirror" in ((pod.get("metadata") or {}).get("annotations") or {})
    return not mirror and _owner(pod) not in ("DaemonSet", "Node")


def _owner(pod: Json) -> str:
    owners = (pod.get("metadata") or {}).get("ownerReferences") or ()
    return next((str(o.get("kind")) for o in owners if o.get("controller")), "")


def _name(pod: Json) -> str:
    meta = pod.get("metadata") or {}
    return f"{meta.get('namespace')}/{meta.get('name')}"


def _boot_id(node: Json) -> str:
    return str(((node.get("status") or {}).get("nodeInfo") or {}).get("bootID", ""))
