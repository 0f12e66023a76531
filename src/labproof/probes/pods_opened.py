"""What every probe that works in pods of ours does first and last: open, observe, tell why not, say what was left."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from labproof.clients.errors import TransportFailure
from labproof.facts.reading import Reading, failed, value
from labproof.facts.store import now
from labproof.inventory.chains import Chain
from labproof.inventory.models import Cluster, Lab
from labproof.probes.pods import Busy, OwnPods

T = TypeVar("T")


def in_own_pods(
    lab: Lab,
    chain: Chain,
    observe: Callable[[OwnPods, Lab, Chain], Reading[T]],
    finish: Callable[[T, OwnPods], T],
) -> Reading[T]:
    """Observe one chain with pods of ours.

    Args:
        observe: what is done while they are there.
        finish: notes in the facts what was made and what could not be removed, once they are gone.

    Returns:
        The facts; failed with kind `busy` when another run holds the GPU, or the transport's kind when the cluster
        does not answer.
    """
    cluster, node = chain.cluster, chain.node
    if cluster is None or node is None:
        return failed("lab.yaml", "this chain has no Kubernetes node")
    where = f"pods in {cluster.probe.namespace} on {node.name}"
    try:
        with OwnPods(lab, cluster, node.name) as pods:
            reading = observe(pods, lab, chain)
    except Busy as busy:
        return failed(where, str(busy), "busy", now())
    except TransportFailure as failure:
        return failed(where, explain(failure, cluster), failure.kind.value, now())
    if reading.value is None:
        return reading
    return value(finish(reading.value, pods), where, reading.at or now())


def explain(failure: TransportFailure, cluster: Cluster) -> str:
    """The failure in the owner's words, with what to do where we know."""
    namespace = cluster.probe.namespace
    if failure.status == 404 and f'namespaces "{namespace}" not found' in (failure.answer or ""):
        make = f"kubectl create namespace {namespace}"
        return f"namespace {namespace} does not exist; {make}, then the role of manifests/rbac.yaml"
    return str(failure)
