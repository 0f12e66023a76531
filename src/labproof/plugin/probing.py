"""Which probe reads which section of the facts."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from labproof.facts.reading import Reading, failed

if TYPE_CHECKING:
    from labproof.facts.store import FactsStore
    from labproof.inventory.chains import Chain
    from labproof.inventory.models import Cluster, Host, Lab, Node, Vm

Probe = Callable[[], Reading[Any]]


def add_probes(store: FactsStore, lab: Lab) -> None:
    """Tell the store how each section of this lab is read; nothing is contacted yet."""
    from labproof.inventory.chains import chains_of

    for host in lab.hosts:
        if host.ssh is not None:
            store.add_probe("host", host.name, _guarded(f"host probe of {host.name}", partial(_host, lab, host)))
        if host.pve is not None:
            store.add_probe("pve", host.name, _guarded(f"PVE probe of {host.name}", partial(_pve, lab, host)))
    for node in lab.nodes:
        if node.talos is not None:
            store.add_probe("talos", node.name, _guarded(f"Talos probe of {node.name}", partial(_talos, lab, node)))
            again = _guarded(f"kernel log of {node.name}", partial(_kernel_log, lab, node))
            store.add_probe("kernel_log", node.name, again)
    for cluster in lab.clusters:
        probe = _guarded(f"Kubernetes probe of {cluster.name}", partial(_cluster, lab, cluster))
        store.add_probe("cluster", cluster.name, probe)
        if cluster.metrics is not None:
            probe = _guarded(f"metrics probe of {cluster.name}", partial(_metrics, lab, cluster))
            store.add_probe("metrics", cluster.name, probe)
        if cluster.apps:
            probe = _guarded(f"apps of {cluster.name}", partial(_apps, lab, cluster))
            store.add_probe("apps", cluster.name, probe)
        if cluster.gitops is not None:
            probe = _guarded(f"Flux of {cluster.name}", partial(_gitops, lab, cluster))
            store.add_probe("gitops", cluster.name, probe)
    for chain in chains_of(lab):
        if chain.cluster is not None:
            store.add_probe("workload", chain.id, _guarded("workload probe", partial(_workload, lab, chain)))
            store.add_probe("transcode", chain.id, _guarded("transcode probe", partial(_transcode, lab, chain)))
    if "vm-restart" in lab.rights.acts:
        for vm in {c.vm.name: c.vm for c in chains_of(lab) if c.vm is not None}.values():
            store.add_probe("restart", vm.name, _guarded("two restarts", partial(_restart, store, lab, vm)))


def _guarded(what: str, probe: Probe) -> Probe:
    """A defect of a probe becomes a failed reading: one layer is unchecked, the rest of the run is not lost."""

    def read() -> Reading[Any]:
        try:
            return probe()
        except Exception as defect:  # whatever a probe forgot to handle, named as labproof's own defect
            last = traceback.extract_tb(defect.__traceback__)[-1]
            where = f"{last.filename.rsplit('labproof/', 1)[-1]}:{last.lineno}"
            return failed(what, f"defect of labproof itself: {type(defect).__name__} at {where}", "defect")

    return read


def _host(lab: Lab, host: Host) -> Reading[Any]:
    from labproof.probes.host import probe_host

    return probe_host(host, lab.timings)


def _pve(lab: Lab, host: Host) -> Reading[Any]:
    from labproof.probes.vm import probe_pve

    return probe_pve(lab, host)


def _talos(lab: Lab, node: Node) -> Reading[Any]:
    from labproof.probes.talos import probe_talos

    return probe_talos(lab, node)


def _kernel_log(lab: Lab, node: Node) -> Reading[Any]:
    from labproof.probes.talos import probe_kernel_log

    return probe_kernel_log(lab, node)


def _cluster(lab: Lab, cluster: Cluster) -> Reading[Any]:
    from labproof.probes.kubernetes import probe_cluster

    return probe_cluster(lab, cluster)


def _metrics(lab: Lab, cluster: Cluster) -> Reading[Any]:
    from labproof.probes.metrics import probe_metrics

    return probe_metrics(lab, cluster)


def _restart(store: FactsStore, lab: Lab, vm: Vm) -> Reading[Any]:
    """The last thing that is done to a lab: all else is read before, as it stood."""
    from labproof.facts.bundle import SHAPES
    from labproof.provision.second_start import probe_restart

    store.read_all({kind: shape for kind, shape in SHAPES.items() if kind != "restart"})
    calm = lab.model_copy(update={"rights": lab.rights.model_copy(update={"acts": ()})})
    return probe_restart(calm, vm, add_probes)


def _apps(lab: Lab, cluster: Cluster) -> Reading[Any]:
    from labproof.probes.apps import probe_apps

    return probe_apps(lab, cluster)


def _gitops(lab: Lab, cluster: Cluster) -> Reading[Any]:
    from labproof.probes.gitops import probe_gitops

    return probe_gitops(lab, cluster)


def _workload(lab: Lab, chain: Chain) -> Reading[Any]:
    from labproof.probes.workload import probe_workload

    return probe_workload(lab, chain)


def _transcode(lab: Lab, chain: Chain) -> Reading[Any]:
    from labproof.probes.transcode import probe_transcode

    return probe_transcode(lab, chain)
