"""What one check looks at: the facts and the lab, seen from one target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from labproof.facts.apps import AppFacts
from labproof.facts.bundle import Facts
from labproof.facts.gitops import GitOpsFacts
from labproof.facts.host import HostFacts
from labproof.facts.kubernetes import ClusterFacts
from labproof.facts.metrics import MetricsFacts
from labproof.facts.reading import Unjudged, absent, need
from labproof.facts.talos import TalosFacts
from labproof.facts.transcode import TranscodeFacts
from labproof.facts.vm import PveFacts
from labproof.facts.workload import WorkloadFacts
from labproof.inventory.branches import App
from labproof.inventory.chains import Chain, Target
from labproof.inventory.models import Cluster, Host, Lab, Node, Vm


@dataclass(frozen=True)
class Subject:
    """Facts and lab from one target's point of view.

    The `..._facts` properties raise `Unjudged` when their layer could not be read at all; the registry turns that
    into the verdict `unchecked`.
    """

    facts: Facts
    lab: Lab
    target: Target

    @property
    def chain(self) -> Chain:
        """The chain (for clauses of scope `chain`; else the first that passes through the target)."""
        return self.target.chains[0]

    @property
    def host(self) -> Host:
        """The host of the chain; clauses that use it are only run for chains that have one."""
        return _present(self.chain.host)

    @property
    def vm(self) -> Vm:
        """The VM of the chain."""
        return _present(self.chain.vm)

    @property
    def node(self) -> Node:
        """The node of the chain."""
        return _present(self.chain.node)

    @property
    def cluster(self) -> Cluster:
        """The cluster of the chain."""
        return _present(self.chain.cluster)

    @property
    def now(self) -> float:
        """Unix time in seconds at which this run's facts were begun; checks never ask the clock."""
        return self.facts.now

    @property
    def host_facts(self) -> HostFacts:
        """What the host probe read."""
        return need(self.facts.host(self.host.name), f"host {self.host.name}")

    @property
    def pve_facts(self) -> PveFacts:
        """What the PVE API answered."""
        return need(self.facts.pve(self.host.name), f"PVE API of {self.host.name}")

    @property
    def talos_facts(self) -> TalosFacts:
        """What the Talos API answered."""
        return need(self.facts.talos(self.node.name), f"Talos API of {self.node.name}")

    @property
    def cluster_facts(self) -> ClusterFacts:
        """What the Kubernetes API answered."""
        return need(self.facts.cluster(self.cluster.name), f"Kubernetes API of {self.cluster.name}")

    @property
    def workload_facts(self) -> WorkloadFacts:
        """What was observed in our own pods (or the declared pod)."""
        return need(self.facts.workload(self.chain.id), f"probe pod on {self.node.name}")

    @property
    def transcode_facts(self) -> TranscodeFacts:
        """What our transcodes did."""
        return need(self.facts.transcode(self.chain.id), f"transcodes on {self.node.name}")

    @property
    def app(self) -> App:
        """The declared app that the target is."""
        return next(a for a in self.cluster.apps if a.name == self.target.name)

    @property
    def app_facts(self) -> AppFacts:
        """How that app stands, and what it said."""
        found = need(self.facts.apps(self.cluster.name), f"apps of {self.cluster.name}").of(self.target.name)
        if found is None:
            raise Unjudged(absent("apps", f"{self.target.name} was not read"))
        return found

    @property
    def gitops_facts(self) -> GitOpsFacts:
        """The declared Flux objects."""
        return need(self.facts.gitops(self.cluster.name), f"Flux in {self.cluster.name}")

    @property
    def metrics_facts(self) -> MetricsFacts:
        """What dcgm-exporter and what scrapes it told."""
        return need(self.facts.metrics(self.cluster.name), f"GPU metrics of {self.cluster.name}")


_Thing = TypeVar("_Thing", Host, Vm, Node, Cluster)


def _present(thing: _Thing | None) -> _Thing:
    if thing is None:
        raise LookupError("this clause was run for a chain that lacks the layer it speaks of")
    return thing
