"""Waiting for what is really effective: pods of this configuration, the plugin's own words, allocatable, labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labproof.facts.plugin_log import effective_config, read_plugin_log
from labproof.inventory.models import Cluster
from labproof.provision import cluster_manifests as manifests
from labproof.provision.bench import Bench
from labproof.provision.failure import StepFailed

if TYPE_CHECKING:
    from labproof.clients.kubernetes import KubeSession

Obj = Mapping[str, Any]
#: Waiting reasons of a container that no waiting cures.
_HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"})
_PULL = frozenset({"ErrImagePull", "ImagePullBackOff"})
_NO_SUCH_IMAGE = ("not found", "unauthorized", "denied", "403 Forbidden")
#: A container that ended so often will end again (CrashLoopBackOff itself is nearly invisible: real-kubernetes).
_ENDS = 3


@dataclass(frozen=True)
class Look:
    """What was seen.

    Attributes:
        waits: what is not there yet, empty when all is.
        ended: why it cannot come any more, empty when it still can.
    """

    waits: str = ""
    ended: str = ""

    def __repr__(self) -> str:
        return self.ended or self.waits or "all there"


def until_effective(bench: Bench, cluster: Cluster, detail: Mapping[str, Any]) -> None:
    """Wait until DaemonSets run their newest pods on the GPU nodes, and the nodes offer what they are to.

    Raises:
        StepFailed: it did not come; names the clauses that are red.
    """
    from labproof.clients.errors import WaitFailed

    session = bench.kube(cluster)
    limit = bench.limits.pods_s
    try:
        bench.wait(
            str(detail["what"]), lambda: _look(session, detail), lambda look: not look.waits,
            terminal=lambda look: bool(look.ended), limit_s=limit,
        )  # fmt: skip
    except WaitFailed as late:
        bench.drop("kubernetes")
        red = bench.red(detail["clauses"], bench.chains(cluster=cluster.name))
        told = "; ".join(red) or "no clause is red: try again"
        raise StepFailed(f"{late}. Red now: {told}") from None
    _await_workloads(bench, session, detail)


def _look(session: KubeSession, detail: Mapping[str, Any]) -> Look:
    namespace = detail["namespace"]
    pods = session.list_json(f"/api/v1/namespaces/{namespace}/pods")["items"]
    events = session.list_json(f"/api/v1/namespaces/{namespace}/events", fieldSelector="type=Warning")["items"]
    for name in detail["daemonsets"]:
        daemonset = session.get_json(f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}")
        refused = _refused(daemonset, events)
        if refused and not daemonset.get("status", {}).get("currentNumberScheduled"):
            return Look(refused, refused)
        for node in detail["nodes"]:
            seen = _pod_on(daemonset, node, pods, events, detail.get("mark"))
            if seen.waits or seen.ended:
                return seen
    for node, slots in detail["nodes"].items():
        seen = _node(session, node, slots, detail)
        if seen.waits:
            return seen
    return _words(session, detail, pods) if detail.get("replicas") else Look()


def _owned(pod: Obj, daemonset: Obj) -> bool:
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(owner.get("uid") == daemonset["metadata"]["uid"] for owner in owners)


def _refused(daemonset: Obj, events: list[Obj]) -> str:
    """Why the API server takes no pod of a DaemonSet: Pod Security, a RuntimeClass that is not there, a quota."""
    for event in reversed(events):
        about = event.get("involvedObject") or {}
        if about.get("uid") == daemonset["metadata"]["uid"] and event.get("reason") == "FailedCreate":
            return f"{daemonset['metadata']['name']}: {event.get('message')}"
    return ""


def _pod_on(daemonset: Obj, node: str, pods: list[Obj], events: list[Obj], mark: str | None) -> Look:
    name = daemonset["metadata"]["name"]
    mine = [
        pod for pod in pods
        if _owned(pod, daemonset) and pod["spec"].get("nodeName") == node
        and not pod["metadata"].get("deletionTimestamp")
        and (mark is None or (pod["metadata"].get("annotations") or {}).get(manifests.CONFIG_DIGEST) == mark)
    ]  # fmt: skip
    if not mine:
        return Look(f"no pod of {name} on {node} yet")
    pod = mine[-1]
    status = pod.get("status") or {}
    full = pod["metadata"]["name"]
    rows = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for row in rows:
        waiting = (row.get("state") or {}).get("waiting") or {}
        said = f"{full}: {row['name']}: {waiting.get('reason')}: {waiting.get('message', '')}"
        lost = waiting.get("reason") in _PULL and any(text in said for text in _NO_SUCH_IMAGE)
        if waiting.get("reason") in _HOPELESS or lost:
            return Look(said, said)
        ended = (row.get("lastState") or {}).get("terminated") or {}
        if int(row.get("restartCount") or 0) >= _ENDS and ended:
            text = f"{full}: {row['name']} ended {row['restartCount']} times, last with {ended.get('exitCode')}"
            return Look(text, f"{text} {ended.get('reason', '')} {ended.get('message', '')}".strip())
    for event in events:
        about, text = event.get("involvedObject") or {}, str(event.get("message"))
        if about.get("uid") == pod["metadata"]["uid"] and "no runtime for" in text:
            return Look(f"{full}: {text}", f"{full}: {text}")
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    return Look() if ready else Look(f"{full} is {status.get('phase', 'Pending')}, not ready")


def _node(session: KubeSession, name: str, slots: int | None, detail: Mapping[str, Any]) -> Look:
    node = session.get_json(f"/api/v1/nodes/{name}")
    offered = str(node["status"]["allocatable"].get(detail["resource"], "0"))
    if (offered == "0") if slots is None else (offered != str(slots)):
        return Look(f"{name} offers {offered} {detail['resource']}{'' if slots is None else f', not yet {slots}'}")
    labels = node["metadata"].get("labels") or {}
    for key, wanted in (detail.get("labels") or {}).items():
        if key not in labels or (wanted is not None and labels[key] != wanted):
            return Look(f"{name}: label {key} is {labels.get(key, 'not set')}")
    return Look()


def _words(session: KubeSession, detail: Mapping[str, Any], pods: list[Obj]) -> Look:
    """What every plugin itself says it runs with."""
    for pod in pods:
        mark = (pod["metadata"].get("annotations") or {}).get(manifests.CONFIG_DIGEST)
        containers = [container["name"] for container in pod["spec"]["containers"]]
        if mark != detail["mark"] or "nvidia-device-plugin-ctr" not in containers:
            continue
        name, where = pod["metadata"]["name"], pod["spec"].get("nodeName", "")
        log = session.log(detail["namespace"], name, "nvidia-device-plugin-ctr").content or b""
        told = read_plugin_log(
            log.decode("utf-8", "replace"), pod=name, namespace=detail["namespace"], node=where,
            container="nvidia-device-plugin-ctr", role="plugin", previous=False,
        )  # fmt: skip
        if not told.effective:
            return Look(f"{name} has not said yet what it runs with")
        runs = effective_config(json.loads(told.effective)).slots_per_card(detail["resource"])
        if runs != detail["replicas"]:
            return Look(f"{name} runs with {runs} slots per card, not {detail['replicas']}")
    return Look()


def _await_workloads(bench: Bench, session: KubeSession, detail: Mapping[str, Any]) -> None:
    """Declared workloads that were refused before come back by themselves; their controllers wait up to 16 minutes.

    They are the owner's: where they do not come, their own clauses say so.
    """
    from labproof.clients.errors import WaitFailed

    for workload in detail.get("workloads") or ():
        namespace, _, name = workload.partition("/")
        path = f"/api/v1/namespaces/{namespace}/pods"

        def runs(path: str = path, name: str = name) -> bool:
            found = [p for p in session.list_json(path)["items"] if p["metadata"]["name"].startswith(name)]
            return any((pod.get("status") or {}).get("phase") == "Running" for pod in found)

        try:
            bench.wait(f"{workload} to run again", runs, bool, limit_s=bench.limits.pods_s)
        except WaitFailed as late:
            bench.tell(f"{late}: a restart of it may help")
