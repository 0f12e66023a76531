"""Defaults that the API server writes into pods, and what a pod asks for."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from labproof.simlab.kube.kinds import Obj
from labproof.simlab.kube.quantity import amount, is_extended
from labproof.simlab.kube.store import Store

_ACCOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"


def containers(pod: Obj) -> list[Obj]:
    """The pod's regular containers."""
    return list(pod["spec"].get("containers") or [])


def all_containers(pod: Obj) -> list[Obj]:
    """Init containers first, then the regular ones."""
    return [*(pod["spec"].get("initContainers") or []), *containers(pod)]


def default_pull_policy(image: str) -> str:
    """`Always` for :latest and untagged images, else `IfNotPresent`."""
    last = image.rsplit("/", 1)[-1]
    if "@" in last:
        return "IfNotPresent"
    return "Always" if ":" not in last or last.endswith(":latest") else "IfNotPresent"


def apply_defaults(pod: Obj, store: Store) -> None:
    """Write the API server's defaults into a new pod (in place): those the recordings show."""
    spec: Obj = pod["spec"]
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    account = spec.get("serviceAccountName") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = account
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    tolerations = spec.setdefault("tolerations", [])
    for reason in ("not-ready", "unreachable"):
        key = f"node.kubernetes.io/{reason}"
        if not any(t.get("key") in {key, None} and t.get("effect") in {"NoExecute", None} for t in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    token = f"kube-api-access-{store.suffix()}"
    automount = spec.get("automountServiceAccountToken", True)
    if automount:
        spec.setdefault("volumes", []).append({"name": token, "projected": _token_sources()})
    for container in all_containers(pod):
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        container.setdefault("imagePullPolicy", default_pull_policy(container.get("image", "")))
        _default_requests(container["resources"])
        if automount:
            container.setdefault("volumeMounts", []).append(
                {"name": token, "readOnly": True, "mountPath": _ACCOUNT_PATH}
            )


def _token_sources() -> Obj:
    return {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {
                "downwardAPI": {
                    "items": [
                        {
                            "path": "namespace",
                            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                        }
                    ]
                }
            },
        ],
        "defaultMode": 420,
    }


def _default_requests(resources: Obj) -> None:
    for name, value in list((resources.get("limits") or {}).items()):
        resources["limits"][name] = str(value)
        if not (is_extended(name) and "requests" in resources and name not in resources["requests"]):
            resources.setdefault("requests", {}).setdefault(name, str(value))
        else:
            resources["requests"][name] = str(value)
    for name, value in list((resources.get("requests") or {}).items()):
        resources["requests"][name] = str(value)


def requests(pod: Obj) -> dict[str, Decimal]:
    """What the scheduler counts for a pod: the sum of its containers, at least each init container's."""
    total: dict[str, Decimal] = {}
    for container in containers(pod):
        for name, value in (container.get("resources", {}).get("requests") or {}).items():
            total[name] = total.get(name, Decimal(0)) + amount(value)
    for container in pod["spec"].get("initContainers") or []:
        for name, value in (container.get("resources", {}).get("requests") or {}).items():
            total[name] = max(total.get(name, Decimal(0)), amount(value))
    return total


def qos_class(pod: Obj) -> str:
    """BestEffort, Burstable or Guaranteed; extended resources do not count."""
    seen = False
    guaranteed = True
    for container in all_containers(pod):
        resources = container.get("resources", {})
        need = {k: v for k, v in (resources.get("requests") or {}).items() if k in {"cpu", "memory"}}
        limit = {k: v for k, v in (resources.get("limits") or {}).items() if k in {"cpu", "memory"}}
        seen = seen or bool(need or limit)
        if set(limit) != {"cpu", "memory"} or any(amount(need.get(k, v)) != amount(v) for k, v in limit.items()):
            guaranteed = False
    if not seen:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def is_terminal(pod: Obj) -> bool:
    """Whether the pod is Succeeded or Failed: such pods hold no resources."""
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}


def tolerates(pod: Obj, taint: Obj) -> bool:
    """Whether some toleration of the pod matches a taint."""
    for toleration in pod["spec"].get("tolerations") or []:
        key, effect = toleration.get("key"), toleration.get("effect")
        if effect and effect != taint["effect"]:
            continue
        if not key and toleration.get("operator") == "Exists":
            return True
        if key != taint["key"]:
            continue
        if toleration.get("operator", "Equal") == "Exists" or (toleration.get("value") or "") == (
            taint.get("value") or ""
        ):
            return True
    return False


def owner_of(pod: Obj) -> Obj | None:
    """The controlling owner reference, None for a bare pod."""
    for ref in pod["metadata"].get("ownerReferences") or []:
        if ref.get("controller"):
            return dict(ref)
    return None


def value_at(obj: Any, *path: str) -> Any:
    """The value at a path of keys; None as soon as one is missing."""
    for part in path:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(part)
    return obj
