"""Chains and targets: the path of each GPU through the layers, and what a clause runs for.

A chain is host -> PCI device -> VM -> node -> resource -> pods. A lab may lack layers (bare metal has no VM, plain
Kubernetes no Talos); what is not declared has no clauses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from labproof.inventory.branches import App, Metrics
from labproof.inventory.models import Cluster, Gpu, Host, Lab, Node, Vm


@dataclass(frozen=True)
class Chain:
    """The path of one GPU. `id` is `<host or node>/<address or GPU name>`."""

    id: str
    gpu: Gpu
    host: Host | None
    vm: Vm | None
    node: Node | None
    cluster: Cluster | None

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers this chain has, from the bottom up."""
        have = []
        if self.host is not None and self.host.ssh is not None:
            have.append("host")
        if self.host is not None and self.vm is not None and self.host.pve is not None:
            have.append("vm")
        if self.node is not None and self.node.talos is not None:
            have.append("talos")
        if self.cluster is not None and self.node is not None:
            have += ["kubernetes", "workload"]
            if self.gpu_transcodes:
                have.append("transcode")
            if self.cluster.metrics is not None and self.gpu.device.startswith("10de:"):
                have.append("metrics")
            if self.cluster.apps:
                have.append("apps")
            if self.cluster.gitops is not None:
                have.append("gitops")
        return tuple(have)

    @property
    def gpu_transcodes(self) -> bool:
        """Whether transcode clauses apply; the capability table decides per codec."""
        return True


@dataclass(frozen=True)
class Target:
    """What one run of a clause speaks of: a chain, or a host, node or cluster with the chains that pass through it."""

    scope: str  # chain | host | node | cluster | app
    name: str
    chains: tuple[Chain, ...] = field(repr=False)  # a report that shows a test's parameters shows this repr


def chains_of(lab: Lab) -> tuple[Chain, ...]:
    """All chains of a lab, in the order in which the GPUs are declared."""
    found = []
    for gpu in lab.gpus:
        host = lab.host(gpu.host) if gpu.host else None
        vm = next((v for v in lab.vms if gpu.name in v.gpus), None)
        node = next((n for n in lab.nodes if gpu.name in n.gpus or (vm is not None and n.vm == vm.name)), None)
        cluster = lab.cluster(node.cluster) if node else None
        base = host.name if host else (node.name if node else "-")
        found.append(Chain(f"{base}/{gpu.address or gpu.name}", gpu, host, vm, node, cluster))
    return tuple(found)


def targets_of(lab: Lab, scope: str, layer: str) -> tuple[Target, ...]:
    """The targets of one scope whose chains have `layer`."""
    having = [c for c in chains_of(lab) if layer in c.layers]
    if scope == "chain":
        return tuple(Target("chain", c.id, (c,)) for c in having)
    if scope == "app":
        return tuple(_app_targets(lab, having))
    grouped: dict[str, list[Chain]] = {}
    for chain in having:
        thing = {"host": chain.host, "node": chain.node, "cluster": chain.cluster}[scope]
        if thing is not None:
            grouped.setdefault(thing.name, []).append(chain)
    return tuple(Target(scope, name, tuple(members)) for name, members in grouped.items())


def _app_targets(lab: Lab, having: list[Chain]) -> Iterator[Target]:
    """One target per declared app, with the chains of the node it names, else of its whole cluster."""
    for cluster in lab.clusters:
        for app in cluster.apps:
            through = [c for c in having if c.cluster is not None and c.cluster.name == cluster.name]
            own = [c for c in through if c.node is not None and app.node in (None, c.node.name)]
            if own:
                yield Target("app", app.name, tuple(own))


def features_of(lab: Lab, target: Target) -> frozenset[str]:
    """Names of the features declared for a target, against `Clause.wants`."""
    names: set[str] = {f"acts:{word}" for word in lab.rights.acts}
    for chain in target.chains:
        if chain.host is not None:
            names.add(f"host:{chain.host.kind}")
        if chain.gpu.device.startswith("10de:"):
            names.add("nvidia")
        if chain.gpu.device.startswith("8086:"):
            names.add("intel")
        if chain.gpu.device.startswith(("8086:", "1002:")):
            names.add("dri")
        if chain.gpu.power_limit_watts is not None:
            names.add("power-limit")
        if chain.gpu.functions:
            names.add("functions")
        if chain.vm is not None:
            names.add("vm")
            if chain.vm.mapping:
                names.add("mapping")
        if chain.node is not None and chain.node.talos is not None:
            names.add("talos")
        cluster = chain.cluster
        if cluster is None:
            continue
        names.add(f"plugin:{cluster.plugin.flavour}")
        names.add(f"injection:{cluster.injection}")
        names.add(f"runtime_class:{cluster.runtime_class.expected}")
        if cluster.discovery.nfd != "none":
            names.add("nfd")
        if cluster.discovery.gfd:
            names.add("gfd")
        if cluster.sharing.strategy != "none":
            names.add("sharing")
        if cluster.scheduling.taints:
            names.add("taints")
        if cluster.metrics is not None:
            names |= _metrics_features(cluster.metrics)
        if target.scope == "app":
            names |= _app_features(next(a for a in cluster.apps if a.name == target.name))
        if cluster.compute:
            names.add("compute")
        if cluster.workloads:
            names.add("workloads")
        names |= _of_media(cluster)
        if any(workload.vram_mib for workload in cluster.workloads):
            names.add("vram-budget")
        if cluster.compute and cluster.probe.vram_mib and cluster.probe.via == "pod":
            names.add("vram-allocation")
        if cluster.plugin.flavour not in ("hostpath",):
            names.add("device-plugin")
    return frozenset(names)


def _app_features(app: App) -> set[str]:
    names = {f"app:{app.kind}"}
    given = {name for name, wanted in app.expect.model_dump().items() if wanted is not None}
    return names | {f"app:{app.kind}:{name}" for name in given}


def _metrics_features(metrics: Metrics) -> set[str]:
    names = {"metrics"}
    if metrics.scrape != "none":
        names.add("metrics:scrape")
    if metrics.alerts:
        names.add("metrics:alerts")
    if metrics.pods:
        names.add("metrics:pods")
    return names


def _of_media(cluster: Cluster) -> set[str]:
    """What is declared about the pod we look into and about VA-API."""
    names = {"own-pod" if cluster.probe.via == "pod" else "owners-pod"}
    if cluster.probe.vainfo:
        names.add("vainfo")
    wanted = {"low-power": cluster.transcode.low_power, "qsv": cluster.transcode.qsv,
              "tone-mapping": cluster.transcode.tone_mapping, "subtitles": cluster.transcode.subtitles}  # fmt: skip
    return names | {name for name, declared in wanted.items() if declared}
