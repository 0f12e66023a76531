"""What the API server does to a new object before it stores it: validation, defaults, admission plugins.

Texts and bodies: captures s04*, s05c, s10*, s11 and real-kubernetes.md (Refused by the API server).
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from labproof.simlab.kube import podspec, psa
from labproof.simlab.kube.kinds import Kind, Obj
from labproof.simlab.kube.quantity import amount, is_extended

if TYPE_CHECKING:
    from labproof.simlab.kube.cluster import SimCluster


class Refused(Exception):
    """An answer other than success: a Status object."""

    def __init__(self, code: int, reason: str, message: str, details: Obj | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details

    def status(self) -> Obj:
        """The body."""
        body: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details:
            body["details"] = self.details
        return {**body, "code": self.code}


def resource_name(kind: Kind) -> str:
    """`pods` or `daemonsets.apps`, as in messages."""
    return kind.key


def not_found(kind: Kind, name: str) -> Refused:
    """404 for an object."""
    details = {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural}
    return Refused(404, "NotFound", f'{resource_name(kind)} "{name}" not found', details)


def forbidden(kind: Kind, name: str, why: str) -> Refused:
    """403 of an admission plugin."""
    details = {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural}
    return Refused(403, "Forbidden", f'{resource_name(kind)} "{name}" is forbidden: {why}', details)


def invalid(kind: Kind, name: str, causes: list[tuple[str, str, str]]) -> Refused:
    """422. `causes`: (reason FieldValueInvalid|FieldValueRequired, message, field)."""
    texts = [f"{field}: {message}" for _, message, field in causes]
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details: Obj = {"name": name}
    if kind.group:
        details["group"] = kind.group
    details |= {
        "kind": kind.kind,
        "causes": [{"reason": r, "message": m, "field": f} for r, m, f in causes],
    }
    shown = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    return Refused(422, "Invalid", f'{shown} "{name}" is invalid: {joined}', details)


def admit_create(cluster: SimCluster, kind: Kind, obj: Obj) -> list[str]:
    """Check and complete a new object in place; returns warnings.

    Raises:
        Refused: in the server's words.
    """
    meta = obj["metadata"]
    shown = meta.get("name") or meta.get("generateName", "")
    if kind.namespaced:
        space = cluster.store.get("namespaces", meta["namespace"])
        if space is None:
            raise not_found(cluster.store.kinds.key("namespaces"), meta["namespace"])
        if space["metadata"].get("deletionTimestamp"):
            raise forbidden(
                kind,
                shown,
                f"unable to create new content in namespace {meta['namespace']} because it is being terminated",
            )
    if kind.kind == "Pod" and not kind.group:
        return _admit_pod(cluster, kind, obj, shown)
    if kind.kind == "Namespace":
        obj.setdefault("metadata", {}).setdefault("labels", {})["kubernetes.io/metadata.name"] = meta.get("name")
        obj["spec"] = {"finalizers": ["kubernetes"]}
        obj["status"] = {"phase": "Active"}
    if kind.group in {"apps", "batch"}:
        obj.setdefault("spec", {})
        if kind.kind in {"Deployment", "ReplicaSet", "StatefulSet"}:
            obj["spec"].setdefault("replicas", 1)
        obj["status"] = {}
    return []


def _admit_pod(cluster: SimCluster, kind: Kind, pod: Obj, shown: str) -> list[str]:
    spec = pod.setdefault("spec", {})
    pod.pop("status", None)
    if not spec.get("containers"):
        raise invalid(kind, shown, [("FieldValueRequired", "Required value", "spec.containers")])
    _default_priority(cluster, kind, pod, shown)
    podspec.apply_defaults(pod, cluster.store)
    name = spec.get("runtimeClassName")
    if name:
        runtime_class = cluster.store.get("runtimeclasses.node.k8s.io", name)
        if runtime_class is None:
            raise forbidden(kind, shown, f'pod rejected: RuntimeClass "{name}" not found')
        selector = podspec.value_at(runtime_class, "scheduling", "nodeSelector")
        if selector:
            spec["nodeSelector"] = {**selector, **(spec.get("nodeSelector") or {})}
    warnings = _pod_security(cluster, kind, pod, shown)
    _validate_resources(kind, pod, shown)
    _quota(cluster, kind, pod, shown)
    pod["status"] = {"phase": "Pending", "qosClass": podspec.qos_class(pod)}
    return warnings


def _default_priority(cluster: SimCluster, kind: Kind, pod: Obj, shown: str) -> None:
    spec = pod["spec"]
    name = spec.get("priorityClassName")
    value, policy = 0, "PreemptLowerPriority"
    if name:
        found = cluster.store.get("priorityclasses.scheduling.k8s.io", name)
        if found is None:
            raise forbidden(kind, shown, f"no PriorityClass with name {name} was found")
        value, policy = int(found["value"]), found.get("preemptionPolicy", policy)
    else:
        for found in cluster.store.each("priorityclasses.scheduling.k8s.io"):
            if found.get("globalDefault"):
                spec["priorityClassName"] = found["metadata"]["name"]
                value, policy = int(found["value"]), found.get("preemptionPolicy", policy)
    spec["priority"], spec["preemptionPolicy"] = value, policy


def _pod_security(cluster: SimCluster, kind: Kind, pod: Obj, shown: str) -> list[str]:
    namespace = pod["metadata"]["namespace"]
    levels = cluster.pod_security(namespace)
    found = psa.violations(pod, levels["enforce"])
    if found:
        raise forbidden(kind, shown, f'violates PodSecurity "{levels["enforce"]}:latest": {found}')
    softer = psa.violations(pod, levels["warn"])
    return [f'would violate PodSecurity "{levels["warn"]}:latest": {softer}'] if softer else []


def _validate_resources(kind: Kind, pod: Obj, shown: str) -> None:
    causes: list[tuple[str, str, str]] = []
    for key in ("initContainers", "containers"):
        for index, container in enumerate(pod["spec"].get(key) or []):
            causes += _container_causes(container.get("resources") or {}, f"spec.{key}[{index}].resources")
    if causes:
        raise invalid(kind, shown, causes)


def _container_causes(resources: Obj, at: str) -> list[tuple[str, str, str]]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    causes: list[tuple[str, str, str]] = []
    for part, rows in (("limits", limits), ("requests", requests)):
        for name, value in rows.items():
            where = f"{at}.{part}[{name}]"
            try:
                number = amount(value)
            except ValueError:
                text = (
                    f'Invalid value: "{value}": quantities must match the regular expression '
                    "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                )
                causes.append(("FieldValueInvalid", text, where))
                continue
            if is_extended(name) and number != int(number):
                causes.append(("FieldValueInvalid", f'Invalid value: "{value}": must be an integer', where))
    if causes:
        return causes
    for name, value in requests.items():
        limit: Any = limits.get(name)
        if is_extended(name):
            if limit is None:
                text = "Required value: Limit must be set for non overcommitable resources"
                causes.append(("FieldValueRequired", text, f"{at}.limits"))
            elif amount(limit) != amount(value):
                text = f'Invalid value: "{value}": must be equal to {name} limit of {limit}'
                causes.append(("FieldValueInvalid", text, f"{at}.requests"))
        elif limit is not None and amount(value) > amount(limit):
            text = f'Invalid value: "{value}": must be less than or equal to {name} limit of {limit}'
            causes.append(("FieldValueInvalid", text, f"{at}.requests"))
    return causes


def _quota(cluster: SimCluster, kind: Kind, pod: Obj, shown: str) -> None:
    namespace = pod["metadata"]["namespace"]
    for quota in cluster.store.all("resourcequotas", namespace):
        hard = quota["spec"].get("hard") or {}
        asked = {f"requests.{k}": v for k, v in podspec.requests(pod).items()}
        asked |= {k: v for k, v in podspec.requests(pod).items() if not is_extended(k)}
        asked["pods"] = Decimal(1)
        over = []
        for name, limit in hard.items():
            if name not in asked:
                continue
            used = sum(
                (
                    Decimal(1)
                    if name == "pods"
                    else podspec.requests(p).get(name.removeprefix("requests."), Decimal(0))
                    for p in cluster.store.all("pods", namespace)
                    if not podspec.is_terminal(p)
                ),
                Decimal(0),
            )
            if used + asked[name] > amount(limit):
                over.append((name, asked[name], used, limit))
        if over:
            text = (
                f"exceeded quota: {quota['metadata']['name']}, "
                f"requested: {','.join(f'{n}={a}' for n, a, _, _ in over)}, "
                f"used: {','.join(f'{n}={u}' for n, _, u, _ in over)}, "
                f"limited: {','.join(f'{n}={h}' for n, _, _, h in over)}"
            )
            raise forbidden(kind, shown, text)
