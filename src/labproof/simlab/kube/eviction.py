"""pods/eviction: a deletion that PodDisruptionBudgets may refuse for now (policy/v1; 429 in the server's words)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labproof.simlab.kube import podspec
from labproof.simlab.kube.admission import Refused, not_found
from labproof.simlab.kube.kinds import Kind, Obj

if TYPE_CHECKING:
    from labproof.simlab.kube.cluster import SimCluster

BUDGETS = "poddisruptionbudgets.policy"


def evict(cluster: SimCluster, kind: Kind, name: str, namespace: str) -> None:
    """Evict a pod.

    Raises:
        Refused: 404, or 429 while a budget allows no disruption.
    """
    pod = cluster.store.get(kind.key, name, namespace)
    if pod is None:
        raise not_found(kind, name)
    for budget in cluster.store.all(BUDGETS, namespace):
        if _speaks_of(budget, pod) and not podspec.is_terminal(pod) and _allowed(cluster, budget) <= 0:
            cause = {
                "reason": "DisruptionBudget",
                "message": f"The disruption budget {budget['metadata']['name']} needs more healthy pods than there are",
            }
            text = "Cannot evict pod as it would violate the pod's disruption budget."
            raise Refused(429, "TooManyRequests", text, {"causes": [cause]})
    cluster.delete(kind, name, namespace)


def _speaks_of(budget: Obj, pod: Obj) -> bool:
    wanted = ((budget["spec"].get("selector") or {}).get("matchLabels")) or {}
    labels = pod["metadata"].get("labels") or {}
    return bool(wanted) and all(labels.get(key) == value for key, value in wanted.items())


def _allowed(cluster: SimCluster, budget: Obj) -> int:
    """Disruptions that the budget allows now; numbers only, no percentages."""
    pods = [p for p in cluster.store.all("pods", budget["metadata"]["namespace"]) if _speaks_of(budget, p)]
    ready = sum(
        any(c["type"] == "Ready" and c["status"] == "True" for c in (p.get("status") or {}).get("conditions") or ())
        and not p["metadata"].get("deletionTimestamp")
        for p in pods
    )
    spec = budget["spec"]
    if "minAvailable" in spec:
        return ready - int(spec["minAvailable"])
    return ready - (len(pods) - int(spec.get("maxUnavailable", 1)))
