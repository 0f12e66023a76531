"""Step `metrics`: dcgm-exporter on the GPU nodes, and what collects from it, where lab.yaml declares metrics."""

from __future__ import annotations

from labproof.inventory.models import Cluster
from labproof.provision import cluster_manifests as manifests
from labproof.provision import device_plugin, runtime_class
from labproof.provision.bench import Bench
from labproof.provision.cluster_plan import Draft, planned
from labproof.provision.plan import StepPlan

NAME, LAYER = "metrics", "metrics"
#: What must hold afterwards.
VERIFIED = ("METRIC-EXPORTER-001", "METRIC-ANSWER-001", "METRIC-SCRAPE-001")
#: Causes that other values of the exporter's chart cure.
CURABLE = frozenset({"K15", "K16", "K60", "K62", "K109"})
_EXPORTER = "dcgm-exporter"


def clusters(bench: Bench) -> tuple[Cluster, ...]:
    """Clusters that declare metrics."""
    return tuple(c for c in runtime_class.clusters(bench) if c.metrics is not None)


def plan(bench: Bench, cluster: Cluster, pending: bool = False) -> StepPlan:
    """What the cluster lacks. Reads only."""
    return planned(Draft(bench, cluster, NAME, pending, VERIFIED, layer=LAYER), _fill)


def _fill(draft: Draft) -> None:
    tolerated = device_plugin.tolerations(draft)
    foreign = device_plugin.foreign(draft, _EXPORTER)
    if foreign is not None:
        values = manifests.exporter_values(draft.cluster, tolerated)
        device_plugin.refuse_foreign(draft, foreign, VERIFIED, CURABLE, values)
        return
    for obj in manifests.exporter(draft.cluster, tolerated):
        draft.want(obj, "METRIC-EXPORTER-001", "nobody tells what the cards do")
    for obj in manifests.monitors(draft.cluster):
        draft.want(obj, "METRIC-SCRAPE-001", "nobody collects what the exporter tells")
    if draft.changes or draft.problems(VERIFIED):
        device_plugin.wait(
            draft, VERIFIED, what="dcgm-exporter to run on the GPU nodes", namespace=manifests.METRICS_NAMESPACE,
            daemonsets=[_EXPORTER], labels={}, workloads=[],
        )  # fmt: skip
