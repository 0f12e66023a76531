"""Controllers: DaemonSet, Deployment, ReplicaSet, Job, and the garbage collector."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from labproof.simlab.kube import podspec
from labproof.simlab.kube.admission import Refused
from labproof.simlab.kube.clock import parse_time
from labproof.simlab.kube.kinds import Kind, Obj
from labproof.simlab.kube.quantity import selects
from labproof.simlab.kube.scheduler import affinity_matches

if TYPE_CHECKING:
    from labproof.simlab.kube.cluster import SimCluster

_DAEMON_TOLERATIONS = (
    ("not-ready", "NoExecute"), ("unreachable", "NoExecute"), ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"), ("pid-pressure", "NoSchedule"), ("unschedulable", "NoSchedule"),
)  # fmt: skip


def template_hash(template: Obj) -> str:
    """The hash that names a revision of a pod template."""
    digest = hashlib.sha256(json.dumps(template, sort_keys=True, default=str).encode()).hexdigest()
    return "".join("bcdfghjklmnpqrstvwxz2456789"[int(d, 16)] for d in digest[:10])


def is_ready(pod: Obj) -> bool:
    """Whether the pod's Ready condition is True."""
    return any(
        c["type"] == "Ready" and c["status"] == "True" for c in (pod.get("status") or {}).get("conditions") or []
    )


class Controllers:
    """All of kube-controller-manager that the lab needs; `run` is one pass over everything."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._store = cluster.store
        self._derived: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._failures: dict[str, int] = {}  # refused creations in a row, by owner: they back off to 16 min

    def run(self) -> None:
        """One pass."""
        for kind_key, step in (
            ("daemonsets.apps", self._daemonset),
            ("deployments.apps", self._deployment),
            ("replicasets.apps", self._replicaset),
            ("jobs.batch", self._job),
        ):
            kind = self._store.kinds.key(kind_key)
            for obj in self._store.each(kind_key):
                if not obj["metadata"].get("deletionTimestamp"):
                    step(kind, obj)
        self._collect()

    def _cached(self, owner: Obj, what: str, make: Callable[[Obj], Any]) -> Any:
        """Something derived from an object's spec, made once per generation."""
        meta = owner["metadata"]
        key = (meta["uid"], what)
        known = self._derived.get(key)
        if known is None or known[0] != meta.get("generation"):
            known = (meta.get("generation"), make(owner))
            self._derived[key] = known
        return known[1]

    def _owned(self, owner: Obj, key: str = "pods") -> list[Obj]:
        uid = owner["metadata"]["uid"]
        return [
            o
            for o in self._store.all(key, owner["metadata"].get("namespace"))
            if any(r.get("uid") == uid for r in o["metadata"].get("ownerReferences") or [])
            and not o["metadata"].get("deletionTimestamp")
        ]

    def _create_pod(self, kind: Kind, owner: Obj, template: Obj, labels: dict[str, str]) -> Obj | None:
        meta = owner["metadata"]
        pod = {
            "metadata": {
                "generateName": f"{meta['name']}-",
                "namespace": meta["namespace"],
                "labels": {**(template.get("metadata", {}).get("labels") or {}), **labels},
                "annotations": dict(template.get("metadata", {}).get("annotations") or {}),
                "ownerReferences": [
                    {
                        "apiVersion": kind.api_version,
                        "kind": kind.kind,
                        "name": meta["name"],
                        "uid": meta["uid"],
                        "controller": True,
                        "blockOwnerDeletion": True,
                    }
                ],
            },
            "spec": copy.deepcopy(template["spec"]),
        }
        component = f"{kind.kind.lower()}-controller"
        try:
            made, _ = self._cluster.create(self._cluster.pods_kind, pod)
        except Refused as refused:
            text = f"Error creating: {refused.message}"
            self._cluster.recorder.counted(owner, "Warning", "FailedCreate", text, component)
            tries = self._failures.get(meta["uid"], 0)
            self._failures[meta["uid"]] = tries + 1
            self._cluster.clock.after(min(1.0 * 2**tries, 960.0), self._cluster.dirty)
            return None
        self._failures.pop(meta["uid"], None)
        text = f"Created pod: {made['metadata']['name']}"
        self._cluster.recorder.counted(owner, "Normal", "SuccessfulCreate", text, component)
        return made

    def _set_status(self, kind: Kind, obj: Obj, status: Obj) -> None:
        status = {**status, "observedGeneration": obj["metadata"].get("generation", 1)}
        if status != obj.get("status"):
            self._store.put(kind, {**obj, "status": status})

    # ------------------------------------------------------------------ DaemonSet

    def _daemonset(self, kind: Kind, daemonset: Obj) -> None:
        template = self._cached(daemonset, "template", self._daemon_template)
        revision = self._cached(daemonset, "hash", lambda d: template_hash(d["spec"]["template"]))
        by_node: dict[str, list[Obj]] = {}
        for pod in self._owned(daemonset):
            terms = podspec.value_at(
                pod["spec"],
                "affinity",
                "nodeAffinity",
                "requiredDuringSchedulingIgnoredDuringExecution",
                "nodeSelectorTerms",
            )
            target = pod["spec"].get("nodeName") or terms[0]["matchFields"][0]["values"][0]
            if podspec.is_terminal(pod):
                self._cluster.delete_pod(pod, 0)
                continue
            by_node.setdefault(target, []).append(pod)
        counts = {"desired": 0, "current": 0, "mis": 0, "ready": 0, "updated": 0}
        for node in self._store.all("nodes"):
            name = node["metadata"]["name"]
            pods = by_node.get(name, [])
            if not self._should_run(template, node):
                counts["mis"] += bool(pods)
                no_execute = any(
                    t["effect"] == "NoExecute" and not podspec.tolerates({"spec": template["spec"]}, t)
                    for t in node["spec"].get("taints") or []
                )
                if no_execute or not affinity_matches({"spec": daemonset["spec"]["template"]["spec"]}, node):
                    for pod in pods:
                        self._cluster.delete_pod(pod)
                continue
            counts["desired"] += 1
            stale = [p for p in pods if p["metadata"]["labels"].get("controller-revision-hash") != revision]
            for pod in stale:
                self._cluster.delete_pod(pod)
            pods = [p for p in pods if p not in stale]
            if pods:
                counts["current"] += 1
                counts["updated"] += 1
                counts["ready"] += is_ready(pods[0])
            elif not stale and self._create_pod(
                kind,
                daemonset,
                self._for_node(template, name),
                {
                    "controller-revision-hash": revision,
                    "pod-template-generation": "1",
                },
            ):
                counts["current"] += 1
                counts["updated"] += 1
        status: Obj = {
            "currentNumberScheduled": counts["current"],
            "numberMisscheduled": counts["mis"],
            "desiredNumberScheduled": counts["desired"],
            "numberReady": counts["ready"],
            "updatedNumberScheduled": counts["updated"],
        }
        if counts["ready"]:
            status["numberAvailable"] = counts["ready"]
        if counts["desired"] - counts["ready"]:
            status["numberUnavailable"] = counts["desired"] - counts["ready"]
        self._set_status(kind, daemonset, status)

    @staticmethod
    def _daemon_template(daemonset: Obj) -> Obj:
        template: Obj = copy.deepcopy(daemonset["spec"]["template"])
        rows = template["spec"].setdefault("tolerations", [])
        for name, effect in _DAEMON_TOLERATIONS:
            key = f"node.kubernetes.io/{name}"
            if not any(t.get("key") == key for t in rows):
                rows.append({"key": key, "operator": "Exists", "effect": effect})
        return template

    @staticmethod
    def _for_node(template: Obj, node: str) -> Obj:
        """The template with the affinity that ties the pod to one node; other required terms stay."""
        pinned = copy.deepcopy(template)
        field = {"key": "metadata.name", "operator": "In", "values": [node]}
        affinity = pinned["spec"].setdefault("affinity", {}).setdefault("nodeAffinity", {})
        required = affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
        # the DaemonSet controller replaces the terms: it has already checked them
        required["nodeSelectorTerms"] = [{"matchFields": [field]}]
        return pinned

    @staticmethod
    def _should_run(template: Obj, node: Obj) -> bool:
        pod = {"spec": template["spec"]}
        if not affinity_matches(pod, node):
            return False
        return all(
            podspec.tolerates(pod, t)
            for t in node["spec"].get("taints") or []
            if t["effect"] in {"NoSchedule", "NoExecute"}
            and t["key"] not in {"node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"}
        )

    # ------------------------------------------------------------------ Deployment, ReplicaSet

    def _deployment(self, kind: Kind, deployment: Obj) -> None:
        spec, meta = deployment["spec"], deployment["metadata"]
        revision = self._cached(deployment, "hash", lambda d: template_hash(d["spec"]["template"]))
        wanted = spec.get("replicas", 1)
        rs_kind = self._store.kinds.key("replicasets.apps")
        name = f"{meta['name']}-{revision}"
        current = self._store.get("replicasets.apps", name, meta["namespace"])
        if current is None:
            labels = {
                **(spec["template"].get("metadata", {}).get("labels") or {}),
                "pod-template-hash": revision,
            }
            template = copy.deepcopy(spec["template"])
            template.setdefault("metadata", {})["labels"] = labels
            current = self._store.put(
                rs_kind,
                {
                    "metadata": {
                        "name": name,
                        "namespace": meta["namespace"],
                        "labels": labels,
                        "ownerReferences": [
                            {
                                "apiVersion": "apps/v1",
                                "kind": "Deployment",
                                "name": meta["name"],
                                "uid": meta["uid"],
                                "controller": True,
                                "blockOwnerDeletion": True,
                            }
                        ],
                    },
                    "spec": {
                        "replicas": wanted,
                        "selector": {"matchLabels": labels},
                        "template": template,
                    },
                    "status": {},
                },
            )
            text = f"Scaled up replica set {name} from 0 to {wanted}"
            self._cluster.recorder.counted(deployment, "Normal", "ScalingReplicaSet", text, "deployment-controller")
        for replicaset in self._owned(deployment, "replicasets.apps"):
            goal = wanted if replicaset["metadata"]["name"] == name else 0
            if replicaset["spec"].get("replicas") != goal:
                fresh = copy.deepcopy(replicaset)
                fresh["spec"]["replicas"] = goal
                self._store.put(rs_kind, fresh)
        ready = int((current.get("status") or {}).get("readyReplicas") or 0)
        total = int((current.get("status") or {}).get("replicas") or 0)
        status: Obj = {"replicas": total, "updatedReplicas": total}
        if ready:
            status |= {"readyReplicas": ready, "availableReplicas": ready}
        if wanted - ready > 0:
            status["unavailableReplicas"] = wanted - ready
        good = ready >= wanted
        why = (
            ("MinimumReplicasAvailable", "Deployment has minimum availability.")
            if good
            else ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        )
        before = {c["type"]: c for c in (deployment.get("status") or {}).get("conditions") or []}
        now = self._cluster.clock.stamp()
        old = before.get("Available")
        same = old is not None and old["status"] == str(good)
        status["conditions"] = [
            {
                "type": "Available",
                "status": str(good),
                "reason": why[0],
                "message": why[1],
                "lastTransitionTime": old["lastTransitionTime"] if old and same else now,
                "lastUpdateTime": old["lastUpdateTime"] if old and same else now,
            }
        ]
        self._set_status(kind, deployment, status)

    def _replicaset(self, kind: Kind, replicaset: Obj) -> None:
        spec = replicaset["spec"]
        pods = [p for p in self._owned(replicaset) if not podspec.is_terminal(p)]
        pods = [p for p in pods if selects(spec.get("selector"), p["metadata"].get("labels") or {})]
        wanted = spec.get("replicas", 1)
        for _ in range(wanted - len(pods) if self._may_replace(replicaset) else 0):
            made = self._create_pod(kind, replicaset, spec["template"], {})
            if made is None:
                break
            pods.append(made)
        for pod in sorted(pods, key=is_ready)[: max(0, len(pods) - wanted)]:
            self._cluster.delete_pod(pod)
        ready = sum(is_ready(p) for p in pods)
        status: Obj = {"replicas": len(pods)}
        if pods:
            status["fullyLabeledReplicas"] = len(pods)
        if ready:
            status |= {"readyReplicas": ready, "availableReplicas": ready}
        self._set_status(kind, replicaset, status)

    def _may_replace(self, replicaset: Obj) -> bool:
        """Whether a pod may be made now: after n Failed ones it waits 2^n s.

        The real controller replaces rejected pods as fast as its work queue lets it and litters (8.2); the pause keeps
        an hour of history short.
        """
        failed = [p for p in self._owned(replicaset) if (p.get("status") or {}).get("phase") == "Failed"]
        if not failed:
            return True
        newest = max(parse_time(p["metadata"]["creationTimestamp"]) for p in failed)
        pause = min(2.0 ** len(failed), 900.0)
        left = newest + pause - self._cluster.clock.now()
        if left > 0:
            self._cluster.clock.after(left + 0.1, self._cluster.dirty)
        return left <= 0

    # ------------------------------------------------------------------ Job

    def _job(self, kind: Kind, job: Obj) -> None:
        status = job.get("status") or {}
        if any(c["type"] in {"Complete", "Failed"} and c["status"] == "True" for c in status.get("conditions") or []):
            return
        spec, now = job["spec"], self._cluster.clock.stamp()
        pods: list[Obj] = self._owned(job)
        failed = [p for p in pods if p["status"].get("phase") == "Failed"]
        done = [p for p in pods if p["status"].get("phase") == "Succeeded"]
        active = [p for p in pods if not podspec.is_terminal(p)]
        completions = spec.get("completions") or 1
        fresh: Obj = {
            "startTime": status.get("startTime", now),
            "terminating": 0,
            "uncountedTerminatedPods": {},
        }
        conditions: list[Obj] = []

        def condition(name: str, reason: str, message: str) -> Obj:
            row = {"type": name, "status": "True", "lastProbeTime": now, "lastTransitionTime": now}
            return {**row, "reason": reason, "message": message}

        if len(done) >= completions:
            text = "Reached expected number of succeeded pods"
            conditions = [condition(c, "CompletionsReached", text) for c in ("SuccessCriteriaMet", "Complete")]
            fresh["completionTime"] = now
            self._cluster.recorder.counted(job, "Normal", "Completed", "Job completed", "job-controller")
        elif len(failed) > spec.get("backoffLimit", 6):
            text = "Job has reached the specified backoff limit"
            conditions = [condition(c, "BackoffLimitExceeded", text) for c in ("FailureTarget", "Failed")]
            self._cluster.recorder.counted(job, "Warning", "BackoffLimitExceeded", text, "job-controller")
        elif not active:
            labels = {
                "job-name": job["metadata"]["name"],
                "batch.kubernetes.io/job-name": job["metadata"]["name"],
            }
            made = self._create_pod(kind, job, spec["template"], labels)
            active = [made] if made else []
        if active:
            fresh |= {"active": len(active), "ready": sum(is_ready(p) for p in active)}
        if done:
            fresh["succeeded"] = len(done)
        if failed:
            fresh["failed"] = len(failed)
        if conditions:
            fresh["conditions"] = conditions
        self._store.put(kind, {**job, "status": fresh})

    # ------------------------------------------------------------------ garbage

    def _collect(self) -> None:
        alive = {o["metadata"]["uid"] for kind in self._store.kinds.kinds for o in self._store.each(kind.key)}
        for key in ("pods", "replicasets.apps", "controllerrevisions.apps"):
            for obj in self._store.each(key):
                refs = obj["metadata"].get("ownerReferences") or []
                if refs and all(r["uid"] not in alive for r in refs):
                    if key == "pods":
                        self._cluster.delete_pod(obj)
                    else:
                        self._store.remove(key, obj["metadata"]["name"], obj["metadata"]["namespace"])
