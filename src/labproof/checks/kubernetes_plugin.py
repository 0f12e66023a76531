"""K8S-PLUGIN: what makes the GPU a resource runs on the node."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.kubernetes_plugin_faults import PLACEMENT_CAUSES, POD_CAUSES, among, workload_problem
from labproof.checks.kubernetes_view import NodeView, image_version
from labproof.checks.registry import BLOCKING, HYGIENE, clause_check
from labproof.checks.subject import Subject

#: The race between config-manager and an unset node label was fixed in 0.18.2 (DP CHANGELOG).
LABEL_RACE_FIXED = (0, 18, 2)
_CAUSES = tuple(sorted({*PLACEMENT_CAUSES, *POD_CAUSES}))


@clause_check(
    "K8S-PLUGIN-001",
    title="The device plugin runs on the GPU node",
    severity=BLOCKING,
    scope="node",
    reads=("kubernetes",),
    causes=_CAUSES,
    wants=("device-plugin",),
    after=("K8S-NODE-001", "K8S-RTC-001", "K8S-CONF-001", "K8S-OPER-001"),
)
def plugin_runs_on_the_node(subject: Subject) -> Judgement:
    """Its workload exists, wants a pod here, and that pod is ready: an empty selection is a failure, never a pass."""
    view = NodeView(subject)
    problem = workload_problem(view)
    if problem is not None:
        return Fail((among(problem, _CAUSES),))
    rows = []
    for daemonset in view.daemonsets("plugin"):
        for pod in view.pods_of(daemonset)[:1]:
            restarts = sum(c.restarts for c in pod.containers)
            rows.append(f"{daemonset.full_name}: pod {pod.name} ready on {view.name}, restarts {restarts}")
    return Pass(tuple(Evidence(view.facts.pods.source, row) for row in rows))


@clause_check(
    "K8S-PLUGIN-002",
    title="The plugin release has the label race fixed",
    severity=HYGIENE,
    scope="cluster",
    reads=("kubernetes",),
    causes=("K71",),
    wants=("nvidia", "plugin:nvidia-device-plugin"),
    after=("K8S-PLUGIN-001",),
)
def plugin_has_no_label_race(subject: Subject) -> Judgement:
    """Only where config-manager runs: without a configuration there is nothing to race for."""
    view = NodeView(subject)
    problems, seen = [], []
    for daemonset in view.daemonsets("plugin"):
        told = Evidence(
            view.facts.daemonsets.source, f"{daemonset.full_name}: {', '.join(sorted(set(daemonset.images)))}"
        )
        seen.append(told)
        versions = [v for v in map(image_version, daemonset.images) if v is not None]
        managed = len(daemonset.containers) > 1  # init and sidecar are config-manager's (facts 1.4)
        if managed and versions and max(versions) < LABEL_RACE_FIXED:
            problems.append(Problem("K71", daemonset.full_name, (told,), view.values()))
    return verdict_of(problems, seen)
