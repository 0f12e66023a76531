"""Why a node's device plugin does not do its work: ordered detectors, the most telling first.

Several clauses meet the same broken plugin (its workload, the resource, the labels); they all ask here, so one fault
has one cause. Sources: facts kubernetes-gpu section 11 (K01-K78), 1.3-1.7, 8.3.
"""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Problem
from labproof.checks.kubernetes_view import NodeView
from labproof.facts.kubernetes_objects import DaemonSetFacts, PodFacts
from labproof.facts.plugin_log import Line, PluginLog
from labproof.facts.pod_outcome import Outcome
from labproof.facts.refusal import Because, classify_refusal
from labproof.facts.scheduler_message import Why

#: Every cause these detectors can name: clauses that ask here list them.
PLACEMENT_CAUSES = ("K13", "K14", "K16", "K23", "K33", "K59", "K74", "K76", "K90", "K91", "K94")
POD_CAUSES = (
    "K01", "K02", "K04", "K05", "K20", "K21", "K22", "K26", "K34", "K49", "K75", "K91", "K93",
)  # fmt: skip
SILENT_CAUSES = ("K10", "K19", "K21", "K38", "K39", "K51", "K52", "K70", "K91")

# What a log line of a plugin that does not stay up means. The order decides: a configuration error is printed beside
# the generic "unable to load config", a missing runtime beside "invalid device discovery strategy".
_CRASH_LINES: tuple[tuple[Line, str], ...] = (
    (Line.NO_RESOURCES, "K01"),
    (Line.FEW_REPLICAS, "K02"),
    (Line.NO_SUCH_DEFAULT, "K05"),
    (Line.NO_SUCH_CONFIG, "K04"),
    (Line.NO_CONFIG_CHOSEN, "K05"),
    (Line.NO_DRIVER_ROOT, "K77"),
    (Line.NVML, "K21"),
    (Line.NO_STRATEGY, "K20"),
    (Line.NO_RUNTIME, "K20"),
    (Line.DRIVER_WAIT, "K27"),
    (Line.TOOLKIT_WAIT, "K28"),
    (Line.NO_API, "K75"),
    (Line.CONFIG_ERROR, "K93"),
)
_DETAIL_CAUSES = {
    "no such runtime handler": "K22",
    "runtime binary missing": "K22",  # the handler is configured, its binary is not on the node
    "driver not loaded": "K21",
    "cgroup device rules refused": "K49",
    "driver and libraries differ": "K21",
    "cdi hook missing": "K24",
    "cdi device unresolvable": "K25",
    "cdi device node missing": "K25",
    "device node missing": "K64",
    "not a character device": "K64",
    "host path missing": "K64",
    "object missing": "K05",
}


def placement_problem(view: NodeView, daemonset: DaemonSetFacts) -> Problem:
    """Why a DaemonSet has no pod on this node."""
    node, subject = view.node, daemonset.full_name
    source = view.facts.daemonsets.source
    counted = Evidence(source, f"{subject}: desired {daemonset.desired}, ready {daemonset.ready}")
    for event in view.warnings_about("DaemonSet", daemonset.namespace, daemonset.name):
        if event.reason != "FailedCreate":
            continue
        refusal = classify_refusal(403, event.message)
        cause = {Because.POD_SECURITY: "K33", Because.RUNTIME_CLASS: "K23"}.get(refusal.because, "K94")
        return Problem(cause, subject, (counted, _event(view, event.reason, event.message)), _of(view, daemonset))
    blocking = [t for t in view.untolerated if not any(x.tolerates(t) for x in daemonset.tolerations)]
    if blocking:
        told = Evidence(view.facts.nodes.source, f"{node.name} has taint {', '.join(map(str, blocking))}")
        return Problem("K16", subject, (counted, told), _of(view, daemonset))
    if not daemonset.selects(node.labels):
        return _selector_problem(view, daemonset, counted)
    fits = Evidence(view.facts.nodes.source, f"labels and taints of {node.name} suit {subject}")
    return Problem("K91", subject, (counted, fits), _of(view, daemonset))


def _selector_problem(view: NodeView, daemonset: DaemonSetFacts, counted: Evidence) -> Problem:
    labels = view.node.labels
    missing = [f"{k}={v}" for k, v in daemonset.node_selector.items() if labels.get(k) != v]
    wanted = [str(r) for term in daemonset.affinity for r in term if not r.matches(labels)]
    told = Evidence(view.facts.nodes.source, f"{view.name} lacks what it selects: {' | '.join(missing + wanted)}")
    keys = {k for k in daemonset.node_selector if labels.get(k) != daemonset.node_selector[k]}
    keys |= {r.key for term in daemonset.affinity for r in term}
    cause = "K13"
    if any(k.startswith("extensions.talos.dev/") for k in keys if k in daemonset.node_selector):
        cause = "K76"
    elif any(k.startswith("intel.feature.node.kubernetes.io/") for k in keys):
        cause = "K74"  # the chart's own selector, which only NFD with its rule satisfies
    elif "feature.node.kubernetes.io/pci-10de.present" in keys and has_class_vendor_label(labels, "10de"):
        cause = "K14"
    elif any(k.startswith("feature.node.kubernetes.io/") for k in keys) and view.daemonsets("nfd-worker"):
        below = _nfd_problem(view) if daemonset.role != "nfd-worker" else None
        if below is not None:
            return Problem(below.cause, below.subject, (counted, told, *below.evidence), below.values)
        cause = "K59"  # there is an NFD and it runs, so the card was labelled once
    return Problem(cause, daemonset.full_name, (counted, told), _of(view, daemonset))


def _nfd_problem(view: NodeView) -> Problem | None:
    """Why no NFD worker runs on this node: what keeps it away keeps the labels away, and the plugin with them."""
    found: list[Problem] = []
    for daemonset in view.daemonsets("nfd-worker"):
        pods = [p for p in view.pods_of(daemonset) if not p.finished]
        problem = pod_problem(view, daemonset, pods[0]) if pods else placement_problem(view, daemonset)
        if problem is None:
            return None
        found.append(problem)
    return next((p for p in found if p.cause in PLACEMENT_CAUSES), None)


def has_class_vendor_label(labels: dict[str, str], vendor: str) -> bool:
    """Whether stock NFD labelled a device of that vendor (`pci-0302_10de.present`)."""
    head, tail = "feature.node.kubernetes.io/pci-", f"_{vendor}.present"
    return any(k.startswith(head) and k.endswith(tail) for k in labels)


def pod_problem(view: NodeView, daemonset: DaemonSetFacts, pod: PodFacts) -> Problem | None:
    """Why a DaemonSet's pod on this node does not run; None when it runs and is ready."""
    outcome = pod.outcome
    if outcome.outcome is Outcome.RUNNING and all(c.ready for c in pod.containers if not c.init):
        return None
    said = Evidence(
        f"{view.facts.pods.source} {pod.full_name} {outcome.source}".strip(),
        " ".join(x for x in (outcome.outcome.value, outcome.reason, outcome.text) if x)[:500],
    )
    values = _of(view, daemonset, pod.name)
    if outcome.detail in _DETAIL_CAUSES:
        return Problem(_DETAIL_CAUSES[outcome.detail], pod.full_name, (said,), values)
    if outcome.detail == "read-only root":
        cause = "K29" if "containerd" in outcome.name else "K78"
        return Problem(cause, pod.full_name, (said,), values)
    if outcome.outcome is Outcome.IMAGE:
        return Problem("K34", pod.full_name, (said,), values)
    if outcome.outcome is Outcome.UNSCHEDULABLE:
        tainted = outcome.unschedulable is not None and outcome.unschedulable.count(Why.TAINT)
        return Problem("K16" if tainted else "K91", pod.full_name, (said,), values)
    if outcome.exit_code == 139:
        return Problem("K26", pod.full_name, (said,), values)
    logs = [log for log in view.facts.logs if log.value is not None and log.value.pod == pod.name]
    for kind, cause in _CRASH_LINES:
        for reading in logs:
            line = reading.value.line(kind) if reading.value is not None else None
            if line is not None:
                no_runtime = kind is Line.NVML and _lacks_runtime(view, daemonset, line.text)
                return Problem(
                    "K20" if no_runtime else cause, pod.full_name, (said, Evidence(reading.source, line.text)), values
                )
    tail = [Evidence(r.source, " / ".join(r.value.tail[-3:])) for r in logs if r.value is not None and r.value.tail]
    return Problem("K91", pod.full_name, (said, *tail[:2]), values)


def _lacks_runtime(view: NodeView, daemonset: DaemonSetFacts, line: str) -> bool:
    """Whether NVML's library is missing only because the pod does not name the RuntimeClass that would inject it.

    A node whose driver is broken says other codes (ERROR_DRIVER_NOT_LOADED, ERROR_LIB_RM_VERSION_MISMATCH).
    """
    runtime = view.cluster.runtime_class
    legacy = view.cluster.injection == "legacy" and runtime.default_runtime != runtime.name
    return legacy and not daemonset.runtime_class and "LIBRARY_NOT_FOUND" in line.upper()


def workload_problem(view: NodeView) -> Problem | None:
    """Why no device plugin works on this node: no workload, no pod, or a pod that does not run. None when one does."""
    plugins = view.daemonsets("plugin")
    if not plugins:
        seen = Evidence(view.facts.daemonsets.source, f"no DaemonSet of flavour {view.cluster.plugin.flavour}")
        return Problem("K90", view.name, (seen,), view.values())
    found: list[Problem] = []
    for daemonset in plugins:
        pods = [p for p in view.pods_of(daemonset) if not p.finished]
        problem = pod_problem(view, daemonset, pods[0]) if pods else placement_problem(view, daemonset)
        if problem is None:
            return None  # several plugins (per-card DaemonSets) are fine as long as one serves this node
        found.append(problem)
    return found[0]


def silent_problem(view: NodeView) -> Problem:
    """Why a plugin that runs offers nothing on this node."""
    node, resource = view.node, view.resource
    logs = view.logs("plugin")
    offered = {k: v for k, v in node.allocatable.items() if k.partition("/")[0] == resource.partition("/")[0]}
    numbers = Evidence(
        view.facts.nodes.source,
        f"{node.name}: capacity {node.capacity.get(resource, 'no')} {resource}, allocatable {offered or 'none'}",
    )
    twin = resource.removesuffix(".shared") if resource.endswith(".shared") else f"{resource}.shared"
    if node.allocatable.get(twin, 0) > 0:
        return Problem("K10", node.name, (numbers,), view.values())
    domain = f"{resource.partition('/')[0]}/"
    drivers = [k for k, n in node.allocatable.items() if k.startswith(domain) and n > 0 and "monitoring" not in k]
    if view.cluster.plugin.flavour == "intel" and drivers:  # i915 asked for, the node runs xe, or the other way round
        return Problem("K51", node.name, (numbers,), view.values())
    for kind, cause in (
        (Line.NO_DRM, "K52"),
        (Line.NVML, "K21"),
        (Line.NO_RUNTIME, "K19"),
        (Line.NO_DEVICES, "K19"),
        (Line.XID, "K39"),
        (Line.UNHEALTHY, "K39"),
    ):
        said = last_line(logs, kind)
        if said is not None:
            no_runtime = kind is Line.NVML and any(
                _lacks_runtime(view, d, said.text) for d in view.daemonsets("plugin")
            )
            return Problem("K19" if no_runtime else cause, node.name, (numbers, said), view.values(pod=logs[0].pod))
    registered = last_line(logs, Line.REGISTERED)
    values = view.values(pod=logs[0].pod if logs else "")
    if node.capacity.get(resource, 0) > 0:
        return Problem("K38", node.name, (numbers,), values)
    if registered is not None:
        # Registered once, and the kubelet knows nothing of it: the kubelet restarted and was not noticed.
        return Problem("K70", node.name, (numbers, registered), values)
    return Problem("K91", node.name, (numbers,), values)


def among(problem: Problem, causes: tuple[str, ...]) -> Problem:
    """The problem under a cause its clause lists: one of another layer's or the operator's own counts as K91 here."""
    if problem.cause in causes:
        return problem
    return Problem("K91", problem.subject, problem.evidence, problem.values)


def last_line(logs: tuple[PluginLog, ...], *kinds: Line) -> Evidence | None:
    """The last line of one of these kinds, current logs before previous ones, as evidence."""
    for log in logs:
        line = log.line(*kinds)
        if line is not None:
            return Evidence(log_source(log), line.text)
    return None


def log_source(log: PluginLog) -> str:
    """The command that shows this log."""
    previous = " --previous" if log.previous else ""
    return f"kubectl -n {log.namespace} logs {log.pod} -c {log.container}{previous}"


def _event(view: NodeView, reason: str, message: str) -> Evidence:
    return Evidence(f"{view.facts.events.source} {reason}", message[:500])


def _of(view: NodeView, daemonset: DaemonSetFacts, pod: str = "") -> tuple[tuple[str, str], ...]:
    return view.values(namespace=daemonset.namespace, pod=pod)
