"""The facts of a run as they will read after an upgrade: what versions decide is moved on, all else stays as it was."""

from __future__ import annotations

from typing import Any

from labproof.facts.bundle import Facts
from labproof.forecast.after_cluster import cluster_after
from labproof.forecast.after_host import host_after
from labproof.forecast.after_talos import talos_after
from labproof.forecast.steps import Plan
from labproof.inventory.models import Lab


def facts_after(today: Facts, lab: Lab, plan: Plan) -> Facts:
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
    return today.moved(moved)
