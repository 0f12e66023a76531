"""K8S-HOSTPATH: workloads that take the GPU by a hostPath, without anybody who counts."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.kubernetes_view import NodeView
from labproof.checks.registry import BLOCKING, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.facts.kubernetes_objects import PodFacts

_MOUNT = ("not a character device", "host path missing", "device node missing")


def _takers(view: NodeView) -> list[PodFacts]:
    """Unfinished pods of the node (or meant for it) that mount a GPU's device node; the GPU stack itself left out."""
    return [
        p for p in view.pods
        if p.host_devices and not p.finished and p.node in (view.name, "") and p.owner[0] != "DaemonSet"
    ]  # fmt: skip


def _owner(pod: PodFacts) -> str:
    """namespace/name as the owner calls it: without the suffixes of ReplicaSet and pod."""
    name = pod.name.rsplit("-", 2)[0] if pod.owner[0] == "ReplicaSet" else pod.name
    return f"{pod.namespace}/{name}"


@clause_check(
    "K8S-HOSTPATH-001",
    title="Workloads get the GPU from a plugin, not by hostPath",
    severity=HYGIENE,
    scope="node",
    reads=("kubernetes",),
    causes=("K103",),
    wants=("plugin:hostpath",),
    after=("K8S-NODE-001",),
)
def workloads_do_not_mount_the_gpu(subject: Subject) -> Judgement:
    """Nobody counts who mounts a device node, and opening it takes privileged, which opens all of the host's."""
    view = NodeView(subject)
    problems, seen = [], [Evidence(view.facts.pods.source, f"pods on {view.name} that mount a GPU's node")]
    for pod in _takers(view):
        powers = "privileged" if any(c.privileged for c in pod.containers) else "unprivileged"
        told = Evidence(f"{view.facts.pods.source} {pod.full_name}", f"{powers}, mounts {', '.join(pod.host_devices)}")
        problems.append(Problem("K103", _owner(pod), (told,), view.values(namespace=pod.namespace, pod=pod.name)))
    return verdict_of(problems, seen)


@clause_check(
    "K8S-HOSTPATH-002",
    title="Device nodes that workloads mount are there",
    severity=BLOCKING,
    scope="node",
    reads=("kubernetes",),
    causes=("K64",),
    wants=("plugin:hostpath",),
    after=("K8S-NODE-001",),
)
def mounted_nodes_are_there(subject: Subject) -> Judgement:
    """With `type: CharDevice` a missing node is a visible FailedMount; without it a folder of that name (V18)."""
    view = NodeView(subject)
    takers = _takers(view)
    stuck = [p for p in takers if p.outcome.detail in _MOUNT]
    if not stuck:
        names = ", ".join(p.full_name for p in takers) or "none"
        return Pass((Evidence(view.facts.pods.source, f"pods that mount a GPU's node: {names}"),))
    return Fail(
        tuple(
            Problem(
                "K64", _owner(pod), (Evidence(f"{view.facts.pods.source} {pod.full_name}", pod.outcome.text[:400]),),
                view.values(namespace=pod.namespace, pod=pod.name),
            )
            for pod in stuck
        )
    )  # fmt: skip
