"""The scheduler: filters in kube-scheduler's order, and its words when nothing fits."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from labproof.simlab.kube import podspec
from labproof.simlab.kube.events import Recorder
from labproof.simlab.kube.kinds import Obj
from labproof.simlab.kube.quantity import amount, meets
from labproof.simlab.kube.store import Store
from labproof.simlab.kube.versions import Release


def affinity_matches(pod: Obj, node: Obj) -> bool:
    """nodeSelector and required nodeAffinity (terms ORed, expressions ANDed)."""
    labels = node["metadata"].get("labels") or {}
    wanted = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(k) != v for k, v in wanted.items()):
        return False
    terms = podspec.value_at(
        pod["spec"],
        "affinity",
        "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
        "nodeSelectorTerms",
    )
    if not terms:
        return True
    for term in terms:
        rows = [(e["key"], e["operator"], e.get("values") or []) for e in term.get("matchExpressions") or []]
        names = [(e["key"], e["operator"], e.get("values") or []) for e in term.get("matchFields") or []]
        if meets(labels, rows) and meets({"metadata.name": node["metadata"]["name"]}, names):
            return True
    return False


def blocking_taint(pod: Obj, node: Obj) -> Obj | None:
    """The first NoSchedule/NoExecute taint that the pod does not tolerate."""
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] in {"NoSchedule", "NoExecute"} and not podspec.tolerates(pod, taint):
            return dict(taint)
    return None


def held_on(store: Store, node_name: str) -> dict[str, Decimal]:
    """What the non-terminal pods bound to a node request, with their number as `pods`."""
    held: dict[str, Decimal] = {"pods": Decimal(0)}
    for pod in store.each("pods"):
        if pod["spec"].get("nodeName") != node_name or podspec.is_terminal(pod):
            continue
        held["pods"] += 1
        for name, value in podspec.requests(pod).items():
            held[name] = held.get(name, Decimal(0)) + value
    return held


class Scheduler:
    """Binds pending pods, oldest first."""

    def __init__(self, store: Store, recorder: Recorder, release: Release) -> None:
        self._store = store
        self._recorder = recorder
        self._release = release
        self._pods = store.kinds.key("pods")

    def run(self) -> list[Obj]:
        """One pass over all pods that wait for a node; returns those it bound."""
        bound = []
        for pod in self._store.each("pods"):
            spec, meta = pod["spec"], pod["metadata"]
            if spec.get("nodeName") or meta.get("deletionTimestamp") or podspec.is_terminal(pod):
                continue
            if spec.get("schedulerName", "default-scheduler") != "default-scheduler":
                continue
            missing = self._missing_claim(pod)
            if missing:
                self._unschedulable(pod, missing)
                continue
            node, message = self._place(pod)
            if node is None:
                self._unschedulable(pod, message)
            else:
                bound.append(self._bind(pod, node))
        return bound

    def _missing_claim(self, pod: Obj) -> str:
        total = len(self._store.all("nodes"))
        for volume in pod["spec"].get("volumes") or []:
            claim = podspec.value_at(volume, "persistentVolumeClaim", "claimName")
            if claim and not self._store.get("persistentvolumeclaims", claim, pod["metadata"]["namespace"]):
                # the doubled "not found" is the scheduler's own (real-kubernetes.md, Scheduling)
                return f'0/{total} nodes are available: persistentvolumeclaim "{claim}" not found. not found'
        return ""

    def _place(self, pod: Obj) -> tuple[str | None, str]:
        reasons: Counter[str] = Counter()
        hopeless: Counter[str] = Counter()
        nodes = self._store.all("nodes")
        fits = []
        for node in nodes:
            why, resolvable = self._filter(pod, node)
            if not why:
                fits.append(node)
                continue
            reasons.update(why)
            hopeless["No preemption victims found for incoming pod." if resolvable else ""] += 1
        if fits:
            least = min(
                fits,
                key=lambda n: (held_on(self._store, n["metadata"]["name"])["pods"], n["metadata"]["name"]),
            )
            return least["metadata"]["name"], ""
        total = len(nodes)
        if not total:
            return None, "no nodes available to schedule pods"
        text = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
        help_less = "Preemption is not helpful for scheduling."
        after = ", ".join(sorted(f"{count} {reason or help_less}".rstrip(".") for reason, count in hopeless.items()))
        return None, (
            f"0/{total} nodes are available: {text}. no new claims to deallocate, "
            f"preemption: 0/{total} nodes are available: {after}."
        )

    def _filter(self, pod: Obj, node: Obj) -> tuple[list[str], bool]:
        """Reasons why a node does not fit, and whether preemption could help."""
        if node["spec"].get("unschedulable") and not podspec.tolerates(
            pod, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        ):
            return ["node(s) were unschedulable"], False
        taint = blocking_taint(pod, node)
        if taint:
            return [self._release.taint_reason(taint["key"], taint.get("value") or "")], False
        if not affinity_matches(pod, node):
            return ["node(s) didn't match Pod's node affinity/selector"], False
        room = {k: amount(v) for k, v in (node["status"].get("allocatable") or {}).items()}
        held = held_on(self._store, node["metadata"]["name"])
        reasons, resolvable = [], True
        if held["pods"] + 1 > room.get("pods", Decimal(110)):
            reasons.append("Too many pods")
        for name, value in podspec.requests(pod).items():
            have = room.get(name, Decimal(0))
            if value > have - held.get(name, Decimal(0)):
                reasons.append(f"Insufficient {name}")
                # a request above the node's whole allocatable cannot be helped by preemption
                resolvable = resolvable and value <= have
        return reasons, resolvable

    def _bind(self, pod: Obj, node: str) -> Obj:
        others = [c for c in pod["status"].get("conditions") or [] if c["type"] != "PodScheduled"]
        fresh = {**pod, "spec": {**pod["spec"], "nodeName": node}, "status": {**pod["status"], "conditions": others}}
        # binding is no change of the spec's generation
        stored = self._store.put(self._pods, fresh)
        stored["metadata"]["generation"] = pod["metadata"].get("generation", 1)
        where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        self._recorder.scheduler(stored, "Normal", "Scheduled", f"Successfully assigned {where} to {node}", "Binding")
        return stored

    def _unschedulable(self, pod: Obj, message: str) -> None:
        now = self._store.clock.stamp()
        before = next((c for c in pod["status"].get("conditions") or [] if c["type"] == "PodScheduled"), None)
        if before and before.get("message") == message:
            return
        fresh = {**pod, "status": dict(pod["status"])}
        fresh["status"]["conditions"] = [
            {
                "type": "PodScheduled",
                "observedGeneration": pod["metadata"].get("generation", 1),
                "status": "False",
                "lastProbeTime": None,
                "lastTransitionTime": before["lastTransitionTime"] if before else now,
                "reason": "Unschedulable",
                "message": message,
            }
        ]
        self._recorder.scheduler(pod, "Warning", "FailedScheduling", message, "Scheduling")
        self._store.put(self._pods, fresh)
