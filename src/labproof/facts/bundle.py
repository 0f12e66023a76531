"""All facts of a run, by layer and target, read lazily from the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from labproof.facts.apps import AppsFacts
from labproof.facts.gitops import GitOpsFacts
from labproof.facts.host import HostFacts
from labproof.facts.kubernetes import ClusterFacts
from labproof.facts.metrics import MetricsFacts
from labproof.facts.reading import Reading
from labproof.facts.restart import RestartFacts
from labproof.facts.store import FactsStore
from labproof.facts.talos import KernelLog, TalosFacts
from labproof.facts.transcode import TranscodeFacts
from labproof.facts.vm import PveFacts
from labproof.facts.workload import WorkloadFacts

#: Section kind of each layer's probe, and the shape it returns.
SHAPES: dict[str, type] = {
    "host": HostFacts,
    "pve": PveFacts,
    "talos": TalosFacts,
    "cluster": ClusterFacts,
    "workload": WorkloadFacts,
    "transcode": TranscodeFacts,
    "kernel_log": KernelLog,
    "metrics": MetricsFacts,
    "restart": RestartFacts,
    "apps": AppsFacts,
    "gitops": GitOpsFacts,
}

#: Section kind of each layer, from the bottom up.
KIND_OF = {
    "host": "host",
    "vm": "pve",
    "talos": "talos",
    "kubernetes": "cluster",
    "workload": "workload",
    "transcode": "transcode",
    "metrics": "metrics",
    "apps": "apps",
    "gitops": "gitops",
}


class Facts:
    """The facts of one run. Every answer is a Reading: a layer that could not be read is a failed one."""

    def __init__(self, store: FactsStore, now: float) -> None:
        self._store = store
        self.now = now

    def drop(self, layer: str) -> None:
        """Forget what was read of a layer and of all above it, because it was changed."""
        layers = list(KIND_OF)
        self._store.drop("kernel_log", *(KIND_OF[above] for above in layers[layers.index(layer) :]))

    def moved(self, sections: Mapping[tuple[str, str], Any]) -> Facts:
        """The same facts with the values of some sections, (kind, name), replaced: as they would read then."""
        return Facts(_Moved(self._store, sections), self.now)

    def host(self, name: str) -> Reading[HostFacts]:
        """The host probe's facts, by the host's declared name."""
        return self._store.section("host", name, HostFacts)

    def pve(self, host: str) -> Reading[PveFacts]:
        """The PVE API's facts, by the host's declared name."""
        return self._store.section("pve", host, PveFacts)

    def talos(self, node: str) -> Reading[TalosFacts]:
        """The Talos API's facts, by node name."""
        return self._store.section("talos", node, TalosFacts)

    def kernel_log(self, node: str) -> Reading[KernelLog]:
        """The node's kernel log once more; ask after what was done there, for it is read when first asked for."""
        return self._store.section("kernel_log", node, KernelLog)

    def cluster(self, name: str) -> Reading[ClusterFacts]:
        """The Kubernetes API's facts, by cluster name."""
        return self._store.section("cluster", name, ClusterFacts)

    def workload(self, chain: str) -> Reading[WorkloadFacts]:
        """What our pods on this chain saw."""
        return self._store.section("workload", chain, WorkloadFacts)

    def transcode(self, chain: str) -> Reading[TranscodeFacts]:
        """What our transcodes on this chain did."""
        return self._store.section("transcode", chain, TranscodeFacts)

    def restart(self, vm: str) -> Reading[RestartFacts]:
        """What stood after each of two restarts of a VM, by its declared name."""
        return self._store.section("restart", vm, RestartFacts)

    def metrics(self, cluster: str) -> Reading[MetricsFacts]:
        """GPU metrics of a cluster, by its declared name."""
        return self._store.section("metrics", cluster, MetricsFacts)

    def apps(self, cluster: str) -> Reading[AppsFacts]:
        """The declared apps of a cluster, by its declared name."""
        return self._store.section("apps", cluster, AppsFacts)

    def gitops(self, cluster: str) -> Reading[GitOpsFacts]:
        """The declared Flux objects of a cluster, by its declared name."""
        return self._store.section("gitops", cluster, GitOpsFacts)


class _Moved(FactsStore):
    """Sections of a run, some of them moved on."""

    def __init__(self, today: FactsStore, sections: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(today.folder, frozen=True)
        self._today, self._sections = today, dict(sections)

    def section(self, kind: str, name: str, shape: type[Any]) -> Reading[Any]:
        """As it was, or as it will be."""
        reading = self._today.section(kind, name, shape)
        moved = self._sections.get((kind, name))
        return reading if moved is None else replace(reading, value=moved)
