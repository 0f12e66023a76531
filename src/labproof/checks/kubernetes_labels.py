"""K8S-LABEL, K8S-NFD: what discovery says about the node, where discovery is declared."""

from __future__ import annotations

import re

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.kubernetes_plugin_faults import (
    has_class_vendor_label,
    placement_problem,
    pod_problem,
)
from labproof.checks.kubernetes_view import NodeView
from labproof.checks.registry import DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject

NFD = "feature.node.kubernetes.io/pci-"
GFD = "nvidia.com/gpu."


@clause_check(
    "K8S-LABEL-001",
    title="NFD labels the node with the card's PCI vendor",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K14", "K59"),
    wants=("nfd",),
    after=("K8S-PLUGIN-001",),
)
def nfd_labels_the_card(subject: Subject) -> Judgement:
    """`vendor` labelling gives pci-10de.present, stock NFD pci-0302_10de.present (facts kubernetes-gpu 2.2)."""
    view = NodeView(subject)
    labels = view.node.labels
    vendors = sorted({c.gpu.device.partition(":")[0] for c in subject.target.chains})
    held = sorted(k for k in labels if k.startswith(NFD))
    seen = Evidence(view.facts.nodes.source, f"{view.name}: {', '.join(held) or 'no PCI label of NFD'}")
    problems = []
    for vendor in vendors:
        by_vendor = labels.get(f"{NFD}{vendor}.present") == "true"
        by_class = has_class_vendor_label(labels, vendor)
        if by_vendor or (by_class and subject.cluster.discovery.nfd == "stock"):
            continue
        problems.append(Problem("K14" if by_class else "K59", view.name, (seen,), view.values()))
    return verdict_of(problems, [seen])


@clause_check(
    "K8S-LABEL-002",
    title="GFD labels describe the card and its sharing",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K58",),
    wants=("gfd", "nvidia"),
    after=("K8S-ALLOC-001",),
    whole=True,
)
def gfd_labels_are_right(subject: Subject) -> Judgement:
    """Count, product with `-SHARED`, memory, replicas and strategy against the plugin's live configuration."""
    view = NodeView(subject)
    labels = view.node.labels
    held = {k: v for k, v in labels.items() if k.startswith(GFD)}
    shown = ", ".join(f"{k}={v}" for k, v in sorted(held.items())) or "no GFD label"
    seen = Evidence(view.facts.nodes.source, f"{view.name}: {shown}")
    wrong = _wrong_labels(view, held)
    if not wrong:
        return Pass((seen,))
    down = _gfd_down(view)
    told = Evidence(view.facts.nodes.source, "; ".join(wrong))
    problem = Problem("K58", view.name, (told, seen, *(down.evidence if down else ())), view.values())
    return Fail((problem,), (seen,))


def _wrong_labels(view: NodeView, held: dict[str, str]) -> list[str]:
    """What does not fit, each in one phrase."""
    wanted = {"count": view.cards}
    live = view.live_config
    declared = view.cluster.sharing
    strategy, replicas, renamed = str(declared.strategy), declared.replicas, declared.rename
    if live is not None:
        strategy, renamed = live[0].strategy, live[0].rename
        replicas = live[0].slots_per_card(view.cluster.plugin.resource_name)
    wanted["replicas"] = replicas if strategy != "none" else 1
    wrong = []
    for name, number in wanted.items():
        told = held.get(GFD + name, "")
        if told != str(number):
            wrong.append(f"gpu.{name} is {told or 'not set'}, {number} is right")
    told_strategy = held.get(f"{GFD}sharing-strategy")
    if told_strategy is not None and told_strategy != strategy:  # the label is younger than 0.14
        wrong.append(f"gpu.sharing-strategy is {told_strategy}, {strategy} is live")
    product = held.get(f"{GFD}product", "")
    shared = strategy != "none" and wanted["replicas"] > 1 and not renamed
    if not product:
        wrong.append("gpu.product is not set")
    elif product.endswith("-SHARED") != shared:
        wrong.append(f"gpu.product is {product}, {'with' if shared else 'without'} -SHARED is right")
    if not re.fullmatch(r"[1-9]\d*", held.get(f"{GFD}memory", "")):
        wrong.append(f"gpu.memory is {held.get(GFD + 'memory') or 'not set'}, a number of MiB is right")
    return wrong


def _gfd_down(view: NodeView) -> Problem | None:
    """Why GFD itself does not run on the node; None when it does, or when there is none to ask."""
    for daemonset in view.daemonsets("gfd"):
        pods = [p for p in view.pods_of(daemonset) if not p.finished]
        return pod_problem(view, daemonset, pods[0]) if pods else placement_problem(view, daemonset)
    return None


@clause_check(
    "K8S-LABEL-003",
    title="The declared labels are on the node",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K93",),
    after=("K8S-NODE-001",),
)
def declared_labels_are_present(subject: Subject) -> Judgement:
    """Labels the owner types into the machine configuration, with their values."""
    view = NodeView(subject)
    wanted = subject.cluster.scheduling.labels
    held = view.node.labels
    missing = {k: v for k, v in sorted(wanted.items()) if held.get(k) != v}
    there = f"{len(wanted) - len(missing)} of {len(wanted)} declared labels"
    seen = Evidence(view.facts.nodes.source, f"{view.name}: {there}")
    if not missing:
        return Pass((seen,))
    lacks = ", ".join(f"{k}={v} (it has {held.get(k, 'none')})" for k, v in missing.items())
    typed = " ".join(f"{k}={v}" for k, v in missing.items())
    remedy = (
        "Set them where the node gets its labels (Talos: `machine.nodeLabels`), or by hand:\n"
        f"  kubectl label node {view.name} --overwrite {typed}"
    )
    told = Evidence(view.facts.nodes.source, f"{view.name} lacks {lacks}")
    return Fail((Problem("K93", view.name, (told,), view.values(), remedy),), (seen,))


@clause_check(
    "K8S-NFD-001",
    title="One NFD labels the cluster",
    severity=HYGIENE,
    scope="cluster",
    reads=("kubernetes",),
    causes=("K89",),
    wants=("nfd",),
)
def only_one_nfd(subject: Subject) -> Judgement:
    """An own NFD beside a chart's subchart: both write the same labels with different fields."""
    view = NodeView(subject)
    workers = view.daemonsets("nfd-worker")
    seen = Evidence(view.facts.daemonsets.source, f"NFD workers: {', '.join(d.full_name for d in workers) or 'none'}")
    twice = [d for d in workers if sum(d.selects(n.labels) for n in view.facts.nodes.value or ()) > 0]
    return verdict_of([Problem("K89", twice[-1].full_name, (seen,), view.values())] if len(twice) > 1 else [], [seen])
