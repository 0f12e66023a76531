"""The facts of a run as they will read after an upgrade: what versions decide is moved on, all else stays as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from labproof.facts.bundle import Facts
from labproof.facts.host import HostFacts
from labproof.facts.kubernetes import ClusterFacts
from labproof.facts.reading import Reading
from labproof.facts.talos import TalosFacts
from labproof.facts.transcode import TranscodeFacts
from labproof.facts.vm import PveFacts
from labproof.facts.workload import WorkloadFacts
from labproof.forecast.after_cluster import cluster_after
from labproof.forecast.after_host import host_after
from labproof.forecast.after_talos import talos_after
from labproof.forecast.steps import Plan
from labproof.inventory.models import Lab

_Section = TypeVar("_Section")


class FactsAfter(Facts):
    """Facts of a run with the sections that an upgrade moves replaced."""

    def __init__(self, today: Facts, moved: Mapping[tuple[str, str], Any]) -> None:
        self._today = today
        self._moved = dict(moved)
        self.now = today.now

    def _section(self, kind: str, name: str, today: Reading[_Section]) -> Reading[_Section]:
        moved = self._moved.get((kind, name))
        return today if moved is None else replace(today, value=moved)

    def host(self, name: str) -> Reading[HostFacts]:
        """As `Facts.host`, after the upgrade."""
        return self._section("host", name, self._today.host(name))

    def pve(self, host: str) -> Reading[PveFacts]:
        """As `Facts.pve`: the API's own answers do not hang on the version."""
        return self._today.pve(host)

    def talos(self, node: str) -> Reading[TalosFacts]:
        """As `Facts.talos`, after the upgrade."""
        return self._section("talos", node, self._today.talos(node))

    def cluster(self, name: str) -> Reading[ClusterFacts]:
        """As `Facts.cluster`, after the upgrade."""
        return self._section("cluster", name, self._today.cluster(name))

    def workload(self, chain: str) -> Reading[WorkloadFacts]:
        """As `Facts.workload`: what pods will see is not foretold, only what keeps them from running."""
        return self._today.workload(chain)

    def transcode(self, chain: str) -> Reading[TranscodeFacts]:
        """As `Facts.transcode`, for the same reason as it was."""
        return self._today.transcode(chain)


def facts_after(today: Facts, lab: Lab, plan: Plan) -> FactsAfter:
    """Project every section that a step of the plan moves."""
    moved: dict[tuple[str, str], Any] = {}
    for host in lab.hosts:
        step = plan.of("kernel", host.name)
        facts = today.host(host.name).value
        if step is not None and facts is not None:
            moved["host", host.name] = host_after(facts, step.after)
    for node in lab.nodes:
        step = plan.of("talos", node.name)
        talos = today.talos(node.name).value
        if step is not None and talos is not None:
            moved["talos", node.name] = talos_after(talos, step.after)
    for cluster in lab.clusters:
        read = today.cluster(cluster.name).value
        if read is not None:
            talos_of = {
                n.name: (before, moved["talos", n.name])
                for n in lab.nodes
                if ("talos", n.name) in moved and (before := today.talos(n.name).value) is not None
            }
            moved["cluster", cluster.name] = cluster_after(read, cluster.name, plan, talos_of)
    return FactsAfter(today, moved)
