"""Who holds what: the GPU slots of the nodes this lab speaks of, from recorded facts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from labproof.facts.bundle import Facts
from labproof.facts.kubernetes import holders
from labproof.inventory.chains import Chain


def holdings(facts: Facts, chains: Iterable[Chain]) -> list[dict[str, Any]]:
    """A record for each resource of each GPU node: how many slots there are, and who holds them.

    Facts of the Kubernetes API are read before the run makes pods of its own, so those never show up here.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for chain in chains:
        if chain.cluster is None or chain.node is None:
            continue
        here = facts.cluster(chain.cluster.name).value
        node = next((n for n in here.nodes.value or () if n.name == chain.node.name), None) if here else None
        if here is None or node is None:
            continue
        resource = chain.cluster.plugin.resource_name
        record = found.setdefault(
            (node.name, resource),
            {
                "cluster": chain.cluster.name,
                "node": node.name,
                "resource": resource,
                "allocatable": node.allocatable.get(resource),
                "pods_read": here.pods.value is not None,
                "chains": [],
                "holders": [],
            },
        )
        record["chains"].append(chain.id)
        record["holders"] = [
            {
                "namespace": row.namespace,
                "pod": row.pod,
                "app": f"{row.namespace}/{app_of(row.owner, row.pod)}",
                "slots": row.slots,
                "since": _time(row.since),
                "priority": row.priority,
            }
            for row in holders(here.pods.value or (), resource, node.name)
        ]
    return list(found.values())


def app_of(owner: str, pod: str) -> str:
    """Name of the workload behind a pod: a Deployment is its ReplicaSet less the hash, a bare pod is itself."""
    kind, _, name = owner.partition("/")
    if kind == "ReplicaSet":
        return re.sub(r"-[a-z0-9]{5,10}$", "", name)
    return name or pod


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else ""
