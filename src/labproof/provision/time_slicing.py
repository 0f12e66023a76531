"""Step `time_slicing`: the plugin runs with the declared sharing, and the nodes offer that many slots."""

from __future__ import annotations

from labproof.checks.kubernetes_view import NodeView
from labproof.inventory.models import Cluster
from labproof.provision import cluster_manifests as manifests
from labproof.provision import device_plugin, runtime_class
from labproof.provision.bench import Bench
from labproof.provision.cluster_plan import LAYER, Draft, planned
from labproof.provision.plan import StepPlan

__all__ = ["LAYER", "NAME", "VERIFIED", "clusters", "plan"]

NAME = "time_slicing"
#: What must hold afterwards.
VERIFIED = (
    "K8S-CONF-001",
    "K8S-CONF-002",
    "K8S-CONF-003",
    "K8S-CONF-004",
    "K8S-CONF-005",
    "K8S-ALLOC-002",
    "K8S-LABEL-002",
)
#: Causes that another configuration of the plugin cures.
CURABLE = frozenset({"K01", "K02", "K03", "K04", "K05", "K06", "K07", "K08", "K10", "K12", "K93"})
_ANEW = "the plugin notices another configuration only when its pods start anew"


def clusters(bench: Bench) -> tuple[Cluster, ...]:
    """Clusters whose cards are shared."""
    return tuple(c for c in runtime_class.clusters(bench) if c.sharing.strategy != "none")


def plan(bench: Bench, cluster: Cluster, pending: bool = False) -> StepPlan:
    """What the cluster lacks. Reads only."""
    return planned(Draft(bench, cluster, NAME, pending, VERIFIED), _fill)


def _fill(draft: Draft) -> None:
    if draft.cluster.injection == "nri":
        return
    foreign = device_plugin.foreign(draft, "plugin")
    if foreign is not None:
        values = manifests.helm_values(draft.cluster, device_plugin.tolerations(draft))
        device_plugin.refuse_foreign(draft, foreign, VERIFIED, CURABLE, values)
        return
    config_map, *marked = manifests.sharing(draft.cluster)
    draft.want(config_map, "K8S-CONF-003", "the cards are not shared as declared")
    for obj in marked:
        draft.want(obj, "K8S-CONF-002", _ANEW, part=True)
    if draft.changes or draft.problems(VERIFIED):
        replicas = draft.cluster.sharing.replicas
        mark = marked[0]["spec"]["template"]["metadata"]["annotations"][manifests.CONFIG_DIGEST]
        resource = "nvidia.com/gpu.shared" if draft.cluster.sharing.rename else "nvidia.com/gpu"
        slots = {name: replicas * _cards(draft, name) for name in draft.nodes}
        labels = {"nvidia.com/gpu.replicas": str(replicas)} if draft.cluster.discovery.gfd else {}
        device_plugin.wait(
            draft, VERIFIED, what=f"{replicas} slots per card", mark=mark, replicas=replicas, nodes=slots,
            resource=resource, labels=labels,
        )  # fmt: skip


def _cards(draft: Draft, node: str) -> int:
    """Declared cards of a node, as the checks count them."""
    chain = next(c for c in draft.chains if c.node is not None and c.node.name == node)
    return NodeView(draft.bench.subject(chain)).cards
