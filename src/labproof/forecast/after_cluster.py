"""One cluster after an upgrade: versions, the labels that carry them, and whom those labels no longer select."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from labproof.catalogue.versions import kernel_of
from labproof.facts.kubernetes import ClusterFacts
from labproof.facts.kubernetes_objects import DaemonSetFacts, NodeFacts, PodFacts
from labproof.facts.pod_outcome import Outcome, PodOutcome
from labproof.facts.reading import Reading
from labproof.facts.talos import TalosFacts
from labproof.forecast.after_talos import driver_after
from labproof.forecast.steps import Plan

_EXTENSION = "extensions.talos.dev/"
_NFD = "feature.node.kubernetes.io/"
#: Node name -> what its Talos told before the upgrade, and will tell after it.
TalosMoves = Mapping[str, tuple[TalosFacts, TalosFacts]]


def cluster_after(facts: ClusterFacts, name: str, plan: Plan, talos: TalosMoves) -> ClusterFacts:
    """What the cluster's API will answer.

    Args:
        facts: as of the run.
        name: the declared name of the cluster.
        plan: what moves.
        talos: nodes whose Talos moves.
    """
    step = plan.of("kubernetes", name)
    version = facts.version
    if step is not None and version.value is not None:
        _, plus, build = version.value.partition("+")
        version = replace(version, value=f"{step.after}{plus}{build}")
    nodes = _nodes(facts.nodes, plan, talos)
    daemonsets, pods = facts.daemonsets, facts.pods
    for component in ("plugin", "operator"):
        chart = plan.of(component, name)
        if chart is not None and component == "plugin" and daemonsets.value is not None:
            daemonsets = replace(daemonsets, value=tuple(_with_image(d, chart.after) for d in daemonsets.value))
    if talos and nodes.value is not None and facts.nodes.value is not None:
        before = {n.name: n.labels for n in facts.nodes.value}
        after = {n.name: n.labels for n in nodes.value if n.name in talos}
        if daemonsets.value is not None:
            gone = {
                (d.namespace, d.name, node)
                for d in daemonsets.value
                for node, labels in after.items()
                if d.selects(before[node]) and not d.selects(labels)
            }
            daemonsets = replace(daemonsets, value=tuple(_shrunk(d, gone) for d in daemonsets.value))
            pods = _without(pods, gone)
        pods = _placed_anew(pods, before, after)
    return replace(facts, version=version, nodes=nodes, daemonsets=daemonsets, pods=pods)


def _nodes(reading: Reading[tuple[NodeFacts, ...]], plan: Plan, talos: TalosMoves) -> Reading[tuple[NodeFacts, ...]]:
    if reading.value is None:
        return reading
    found = []
    for node in reading.value:
        moved = node
        kubelet = plan.of("kubelet", node.name)
        if kubelet is not None:
            moved = replace(moved, kubelet=kubelet.after)
        if node.name in talos:
            moved = _node_on(moved, *talos[node.name])
        found.append(moved)
    return replace(reading, value=tuple(found))


def _node_on(node: NodeFacts, before: TalosFacts, after: TalosFacts) -> NodeFacts:
    """The node's own words about its release, and the labels that carry a version."""
    tag = after.version.value.tag if after.version.value is not None else ""
    labels = dict(node.labels)
    for extension in after.extensions.value or ():
        if f"{_EXTENSION}{extension.name}" in labels:
            labels[f"{_EXTENSION}{extension.name}"] = extension.version
    kernel, driver = kernel_of(tag), driver_after(before, tag)
    if kernel is not None and f"{_NFD}kernel-version.full" in labels:
        labels[f"{_NFD}kernel-version.full"] = kernel
    if f"{_NFD}system-os_release.VERSION_ID" in labels:
        labels[f"{_NFD}system-os_release.VERSION_ID"] = tag
    if driver is not None and "nvidia.com/cuda.driver-version.full" in labels:
        labels["nvidia.com/cuda.driver-version.full"] = driver
        for part, text in zip(("major", "minor", "revision"), driver.split("."), strict=False):
            labels[f"nvidia.com/cuda.driver-version.{part}"] = text
    return replace(node, labels=labels, os_image=f"Talos ({tag})", kernel=kernel or node.kernel)


def _with_image(daemonset: DaemonSetFacts, version: str) -> DaemonSetFacts:
    if daemonset.role not in ("plugin", "gfd"):
        return daemonset
    images = tuple(f"{i.rpartition(':')[0]}:v{version}" if ":" in i else i for i in daemonset.images)
    return replace(daemonset, images=images)


def _shrunk(daemonset: DaemonSetFacts, gone: set[tuple[str, str, str]]) -> DaemonSetFacts:
    lost = sum(1 for namespace, name, _ in gone if (namespace, name) == (daemonset.namespace, daemonset.name))
    return replace(
        daemonset, desired=daemonset.desired - lost, current=daemonset.current - lost, ready=daemonset.ready - lost
    )


def _without(reading: Reading[tuple[PodFacts, ...]], gone: set[tuple[str, str, str]]) -> Reading[tuple[PodFacts, ...]]:
    """DaemonSets' pods leave a node that is no longer selected."""
    if reading.value is None:
        return reading
    left = tuple(p for p in reading.value if p.owner[0] != "DaemonSet" or (p.namespace, p.owner[1], p.node) not in gone)
    return replace(reading, value=left)


def _placed_anew(
    reading: Reading[tuple[PodFacts, ...]], before: Mapping[str, dict[str, str]], after: Mapping[str, dict[str, str]]
) -> Reading[tuple[PodFacts, ...]]:
    """The node reboots, so its other pods are made anew: one whose selector no longer fits waits."""
    if reading.value is None:
        return reading
    pods = []
    for pod in reading.value:
        labels = after.get(pod.node)
        fits = labels is None or pod.owner[0] in ("DaemonSet", "Node") or selects(pod, labels)
        if fits or pod.finished or not selects(pod, before[pod.node]):
            pods.append(pod)
            continue
        waits = PodOutcome(Outcome.UNSCHEDULABLE, text="no node will have the labels it selects", source="foretold")
        pods.append(replace(pod, node="", phase="Pending", outcome=waits))
    return replace(reading, value=tuple(pods))


def selects(pod: PodFacts, labels: Mapping[str, str]) -> bool:
    """Whether the pod may be placed on a node of these labels (node selector and required affinity)."""
    held = dict(labels)
    return all(held.get(k) == v for k, v in pod.node_selector.items()) and (
        not pod.affinity or any(all(r.matches(held) for r in term) for term in pod.affinity)
    )
