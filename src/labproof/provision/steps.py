"""The steps of provisioning in the order in which they are taken; undo takes them back in the opposite one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from labproof.inventory.chains import Chain
from labproof.inventory.models import Cluster
from labproof.provision import device_plugin, hostpci, metrics, runtime_class, talos_image, time_slicing, vfio
from labproof.provision.bench import Bench
from labproof.provision.plan import StepPlan


@dataclass(frozen=True)
class Step:
    """One step for all its targets.

    Attributes:
        name: as plans and journals call it.
        layer: layer it changes.
        verified: clauses that must hold afterwards.
        targets: declared names of what it is taken for (hosts, VMs, nodes, clusters).
        plan: what one target lacks; told whether something it rests on has changes of its own first.
        chains: chains through a target.
        rests_on: targets below whose steps must have ended well: (step's layer, name).
    """

    name: str
    layer: str
    verified: tuple[str, ...]
    targets: Callable[[Bench], tuple[str, ...]]
    plan: Callable[[Bench, str, bool], StepPlan]
    chains: Callable[[Bench, str], tuple[Chain, ...]]
    rests_on: Callable[[Bench, str], tuple[tuple[str, str], ...]]


def _nothing_below(bench: Bench, target: str) -> tuple[tuple[str, str], ...]:
    return ()


def _machine_of(bench: Bench, node: str) -> tuple[tuple[str, str], ...]:
    """The VM a node runs in, and its host."""
    vm = bench.lab.node(node).vm
    return ((hostpci.LAYER, vm), (vfio.LAYER, bench.lab.vm(vm).host)) if vm is not None else ()


VFIO = Step(
    vfio.NAME,
    vfio.LAYER,
    vfio.VERIFIED,
    targets=lambda bench: tuple(host.name for host in vfio.hosts(bench)),
    plan=lambda bench, host, pending: vfio.plan(bench, bench.lab.host(host)),
    chains=lambda bench, host: bench.chains(host=host),
    rests_on=_nothing_below,
)
HOSTPCI = Step(
    hostpci.NAME,
    hostpci.LAYER,
    hostpci.VERIFIED,
    targets=lambda bench: tuple(vm.name for vm in hostpci.vms(bench)),
    plan=lambda bench, vm, pending: hostpci.plan(bench, bench.lab.vm(vm), pending),
    chains=lambda bench, vm: bench.chains(vm=vm),
    rests_on=lambda bench, vm: ((vfio.LAYER, bench.lab.vm(vm).host),),
)
TALOS_IMAGE = Step(
    talos_image.NAME,
    talos_image.LAYER,
    talos_image.VERIFIED,
    targets=lambda bench: tuple(node.name for node in talos_image.nodes(bench)),
    plan=lambda bench, node, pending: talos_image.plan(bench, bench.lab.node(node), pending),
    chains=lambda bench, node: bench.chains(node=node),
    rests_on=_machine_of,
)


def _below_cluster(bench: Bench, cluster: str) -> tuple[tuple[str, str], ...]:
    """Nodes, VMs and hosts that bear the cluster's GPU nodes."""
    chains = bench.chains(cluster=cluster)
    nodes = [(talos_image.LAYER, chain.node.name) for chain in chains if chain.node is not None]
    vms = [(hostpci.LAYER, chain.vm.name) for chain in chains if chain.vm is not None]
    hosts = [(vfio.LAYER, chain.host.name) for chain in chains if chain.host is not None]
    return tuple(dict.fromkeys([*nodes, *vms, *hosts, (runtime_class.LAYER, cluster)]))


def _cluster_step(
    module: ModuleType,
    targets: Callable[[Bench], tuple[Cluster, ...]],
    plan: Callable[[Bench, Cluster, bool], StepPlan],
) -> Step:
    return Step(
        module.NAME,
        module.LAYER,
        module.VERIFIED,
        targets=lambda bench: tuple(cluster.name for cluster in targets(bench)),
        plan=lambda bench, cluster, pending: plan(bench, bench.lab.cluster(cluster), pending),
        chains=lambda bench, cluster: bench.chains(cluster=cluster),
        rests_on=_below_cluster,
    )


RUNTIME_CLASS = _cluster_step(runtime_class, runtime_class.clusters, runtime_class.plan)
DEVICE_PLUGIN = _cluster_step(device_plugin, device_plugin.clusters, device_plugin.plan)
TIME_SLICING = _cluster_step(time_slicing, time_slicing.clusters, time_slicing.plan)
METRICS = _cluster_step(metrics, metrics.clusters, metrics.plan)
STEPS: tuple[Step, ...] = (VFIO, HOSTPCI, TALOS_IMAGE, RUNTIME_CLASS, DEVICE_PLUGIN, TIME_SLICING, METRICS)


def step_of(name: str) -> Step:
    """The step of a journal's entry.

    Raises:
        LookupError: no step of this version has that name.
    """
    found = next((step for step in STEPS if step.name == name), None)
    if found is None:
        raise LookupError(f"the journal names an unknown step {name!r}: it is of another version")
    return found
