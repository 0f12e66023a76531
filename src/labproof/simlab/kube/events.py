"""Events: the kubelet's and controllers' counted ones, and the scheduler's of the newer API."""

from __future__ import annotations

from labproof.simlab.kube.clock import rfc3339_micro
from labproof.simlab.kube.kinds import Obj
from labproof.simlab.kube.store import Store


def reference(obj: Obj, field_path: str | None = None) -> Obj:
    """An ObjectReference to an object."""
    meta = obj["metadata"]
    ref: Obj = {"kind": obj["kind"]}
    if meta.get("namespace"):
        ref["namespace"] = meta["namespace"]
    ref |= {"name": meta["name"], "uid": meta.get("uid", ""), "apiVersion": obj["apiVersion"]}
    if meta.get("resourceVersion"):
        ref["resourceVersion"] = meta["resourceVersion"]
    if field_path:
        ref["fieldPath"] = field_path
    return ref


class Recorder:
    """Writes Event objects."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kind = store.kinds.key("events")
        self._seen: dict[tuple[str, ...], tuple[str, str]] = {}
        self._serial = 0

    def _name(self, obj: Obj) -> str:
        self._serial += 1
        return f"{obj['metadata']['name']}.18{self._serial:014x}"

    def counted(
        self,
        obj: Obj,
        event_type: str,
        reason: str,
        message: str,
        component: str,
        host: str = "",
        field_path: str | None = None,
    ) -> None:
        """An event of the old recorder: the same one again raises `count` (kubelet, controllers)."""
        namespace = obj["metadata"].get("namespace") or "default"
        uid = obj["metadata"].get("uid", obj["metadata"]["name"])
        key = (namespace, uid, event_type, reason, message, component, host, field_path or "")
        now = self._store.clock.stamp()
        known = self._seen.get(key)
        before = self._store.get("events", known[1], known[0]) if known else None
        if before is not None:
            self._store.put(self._kind, {**before, "count": before["count"] + 1, "lastTimestamp": now})
            return
        ref = reference(obj, field_path)
        if obj["kind"] == "Node":
            ref.pop("resourceVersion", None)
            if component == "kubelet":  # the kubelet uses the node's name as uid; recorded without one
                ref.pop("uid", None)
        event = {
            "metadata": {"name": self._name(obj), "namespace": namespace},
            "involvedObject": ref,
            "reason": reason,
            "message": message,
            "source": {"component": component, **({"host": host} if host else {})},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "type": event_type,
            "eventTime": None,
            "reportingComponent": component,
            "reportingInstance": host,
        }
        stored = self._store.put(self._kind, event)
        self._seen[key] = (namespace, stored["metadata"]["name"])

    def scheduler(self, pod: Obj, event_type: str, reason: str, message: str, action: str) -> None:
        """An event of the scheduler: `eventTime` set, no counts, empty source (real-kubernetes pitfall 8)."""
        namespace = pod["metadata"]["namespace"]
        key = (namespace, pod["metadata"]["uid"], event_type, reason, message, "default-scheduler")
        if key in self._seen:
            return
        event = {
            "metadata": {"name": self._name(pod), "namespace": namespace},
            "involvedObject": reference(pod),
            "reason": reason,
            "message": message,
            "source": {},
            "firstTimestamp": None,
            "lastTimestamp": None,
            "type": event_type,
            "eventTime": rfc3339_micro(self._store.clock.now()),
            "action": action,
            "reportingComponent": "default-scheduler",
            "reportingInstance": "default-scheduler-cp-1",
        }
        stored = self._store.put(self._kind, event)
        self._seen[key] = (namespace, stored["metadata"]["name"])
