"""K8S-OPER: the NVIDIA GPU operator, where it is the declared flavour."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.kubernetes_plugin_faults import among, placement_problem, pod_problem
from labproof.checks.kubernetes_view import NodeView
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.facts.kubernetes_objects import ClusterPolicyFacts, DaemonSetFacts
from labproof.facts.pod_outcome import Outcome
from labproof.facts.reading import State, need

#: Operands in the order in which they wait for each other (facts kubernetes-gpu 4).
_OPERANDS = ("driver", "toolkit", "validator", "plugin", "gfd", "dcgm", "dcgm-exporter", "mig-manager")
_OWN_CAUSES = (
    "K16", "K21", "K22", "K27", "K28", "K29", "K30", "K31", "K33", "K34", "K77", "K78", "K90", "K91",
)  # fmt: skip
_TOLD = ("driver.enabled", "toolkit.enabled", "hostPaths.driverInstallDir")
_EMPTY_READY = ("NFDLabelsMissing", "NoGPUNodes")


@clause_check(
    "K8S-OPER-001",
    title="The ClusterPolicy is reconciled and its operands run",
    severity=BLOCKING,
    scope="node",
    reads=("kubernetes",),
    causes=_OWN_CAUSES,
    wants=("plugin:gpu-operator",),
    after=("K8S-NODE-001", "K8S-CONF-001"),
)
def operator_is_reconciled(subject: Subject) -> Judgement:
    """Condition Ready with reason Reconciled; `state: ready` alone is also said of a cluster without GPU nodes."""
    view = NodeView(subject)
    reading = view.facts.cluster_policy
    if reading.state is State.ABSENT:
        return Fail((Problem("K90", view.cluster.name, (Evidence(reading.source, reading.why),), view.values()),))
    policies = need(reading, "ClusterPolicy")
    live = [p for p in policies if p.state != "ignored"]
    if not live:
        return Fail((Problem("K90", view.cluster.name, (_listed(reading.source, policies),), view.values()),))
    policy = live[0]
    told = Evidence(reading.source, _says(policy))
    down = _operator_down(view) or _operand_down(view)
    ready = next((c for c in policy.conditions if c.type == "Ready"), None)
    if ready is not None and ready.status == "True" and ready.reason in _EMPTY_READY:
        return Fail((Problem("K30", policy.name, (told,), view.values()),))
    if down is not None:
        own = among(down, _OWN_CAUSES)
        return Fail((Problem(own.cause, own.subject, (told, *own.evidence), own.values),))
    if ready is None or ready.status != "True" or ready.reason != "Reconciled":
        return Fail((Problem("K91", policy.name, (told,), view.values()),))
    return Pass((told,))


def _listed(source: str, policies: tuple[ClusterPolicyFacts, ...]) -> Evidence:
    names = ", ".join(f"{p.name} {p.state or '(no state)'}" for p in policies)
    return Evidence(source, f"ClusterPolicies: {names or 'none'}")


def _operator_down(view: NodeView) -> Problem | None:
    """Why the operator's own pod does not run: nobody reconciles anything then, and the ClusterPolicy is only paper."""
    pods = [p for p in view.pods if any(c.name == "gpu-operator" for c in p.containers) and not p.finished]
    for pod in sorted(pods, key=lambda p: -p.created):
        if pod.outcome.outcome is Outcome.RUNNING:
            return None
        said = Evidence(
            f"{view.facts.pods.source} {pod.full_name} {pod.outcome.source}",
            f"{pod.outcome.outcome.value} {pod.outcome.reason} {pod.outcome.text}"[:500],
        )
        cause = "K34" if pod.outcome.outcome is Outcome.IMAGE else "K91"
        return Problem(cause, pod.full_name, (said,), view.values(namespace=pod.namespace, pod=pod.name))
    return None


def _says(policy: ClusterPolicyFacts) -> str:
    conditions = "; ".join(f"{c.type}={c.status} {c.reason} {c.message}".strip() for c in policy.conditions)
    wanted = [f"{key} {policy.spec[key]}" for key in _TOLD if key in policy.spec]
    return f"{policy.name}: state {policy.state or 'not reported'}; {conditions}; {', '.join(wanted)}"[:600]


def _operands(view: NodeView, *roles: str) -> list[DaemonSetFacts]:
    """The operator's own DaemonSets: an exporter that the owner installed beside it is none of them."""
    own = view.cluster.plugin.namespace
    return [d for d in view.daemonsets(*roles) if own is None or d.namespace == own]


def _operand_down(view: NodeView) -> Problem | None:
    """The first operand in waiting order that does not run on this node.

    A driver DaemonSet on Talos is a fault of its own: the driver is an extension there, and this one can never start.
    """
    for role in _OPERANDS:
        for daemonset in _operands(view, role):
            if not daemonset.selects(view.node.labels) and role != "plugin":
                continue  # switched off for this node by its deploy label; who waits for the validator says so
            pods = [p for p in view.pods_of(daemonset) if not p.finished]
            problem = pod_problem(view, daemonset, pods[0]) if pods else placement_problem(view, daemonset)
            if problem is None:
                continue
            if role == "driver" and view.subject.node.os == "talos":
                return Problem("K31", problem.subject, problem.evidence, problem.values)
            return problem
    return None


@clause_check(
    "K8S-OPER-002",
    title="One ClusterPolicy rules, and every operand wants the GPU node",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K15", "K30", "K79"),
    wants=("plugin:gpu-operator",),
    after=("K8S-OPER-001",),
)
def operands_want_the_node(subject: Subject) -> Judgement:
    """A DaemonSet with desired 0, or a policy that the operator ignores: healthy in everybody's eyes, of no effect."""
    view = NodeView(subject)
    problems, seen = [], []
    reading = view.facts.cluster_policy
    policies = need(reading, "ClusterPolicy")
    if len(policies) > 1:
        problems.append(Problem("K79", view.cluster.name, (_listed(reading.source, policies),), view.values()))
    for daemonset in _operands(view, "plugin", "validator", "gfd", "dcgm-exporter"):
        told = Evidence(view.facts.daemonsets.source, f"{daemonset.full_name}: desired {daemonset.desired}")
        seen.append(told)
        if daemonset.desired == 0:
            cause = "K15" if daemonset.role == "dcgm-exporter" else "K30"
            problems.append(Problem(cause, daemonset.full_name, (told,), view.values()))
    return verdict_of(problems, seen)
