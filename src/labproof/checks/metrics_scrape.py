"""METRIC: something scrapes the exporter, and GPU alerts can fire.

A rule is not evaluated: what is decided is whether its selectors can match the exporter's real series, its absent()
can be quiet, and its numbers are in the metric's unit (facts wild 5 K80; memory is in MiB, facts kubernetes-gpu V9).
"""

from __future__ import annotations

from labproof.catalogue.gpus import capability
from labproof.checks.judgement import Evidence, Fail, Judgement, Problem, Unchecked, verdict_of
from labproof.checks.metrics_exporter import exporter_of, values_of
from labproof.checks.registry import DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.facts.metrics import AlertRule, Exporter, ScrapeObject, ServiceSeen
from labproof.facts.prometheus import Selector, Series, comparisons, gpu_selectors
from labproof.facts.reading import State, need

#: Labels that Prometheus or its operator puts on from outside: what they hold is not known here, they decide nothing.
_OUTSIDE = frozenset(
    {"pod", "namespace", "container", "service", "instance", "endpoint", "cluster", "prometheus", "node",
     "exported_pod", "exported_namespace", "exported_container"}
)  # fmt: skip
#: A card's memory times this is more than any reading in MiB can be.
_BEYOND = 2


@clause_check(
    "METRIC-SCRAPE-001",
    title="A scrape object selects the exporter",
    severity=DEGRADED,
    scope="node",
    reads=("metrics",),
    causes=("K109",),
    wants=("metrics:scrape",),
    after=("METRIC-EXPORTER-001",),
)
def exporter_is_scraped(subject: Subject) -> Judgement:
    """Selector, namespace and port: each alone can make a ServiceMonitor select nothing, and no object says so."""
    exporter = exporter_of(subject)
    if exporter is None:
        return Unchecked(f"no exporter on {subject.node.name}")
    facts = subject.metrics_facts
    monitors = need(facts.monitors, "scrape objects")
    services = [s for s in need(facts.services, "Services") if _carries(s, exporter)]
    chosen = [m for m in monitors if _job(m, services, exporter) is not None]
    names = ", ".join(f"{s.namespace}/{s.name} {s.labels}" for s in services) or "no Service selects the pod"
    if chosen:
        return verdict_of([], (Evidence(facts.monitors.source, f"{chosen[0].full_name} selects it ({names})"),))
    told = (
        Evidence(facts.monitors.source, f"{len(monitors)} objects, none selects the exporter: {_near(monitors)}"),
        Evidence(facts.services.source, names),
    )
    return Fail((Problem("K109", exporter.full_name, told, values_of(subject, exporter)),))


def _near(monitors: tuple[ScrapeObject, ...]) -> str:
    near = [m for m in monitors if "dcgm" in f"{m.name} {m.labels}".lower()]
    return (
        "; ".join(f"{m.full_name} wants {m.labels} port {','.join(m.ports) or 'any'}" for m in near[:3]) or "none near"
    )


def _carries(service: ServiceSeen, exporter: Exporter) -> bool:
    return (
        service.namespace == exporter.namespace
        and bool(service.selector)
        and service.selector.items() <= exporter.labels.items()
    )


def _job(monitor: ScrapeObject, services: list[ServiceSeen], exporter: Exporter) -> str | None:
    """The `job` that this object's scrape of the exporter would carry, None when it does not select it."""
    if monitor.selects == "Pod":
        if not monitor.selects_labels(exporter.namespace, exporter.labels):
            return None
        return exporter.labels.get(monitor.job_label, "") or f"{monitor.namespace}/{monitor.name}"
    for service in services:
        if monitor.selects_labels(service.namespace, service.labels):
            wanted = [p for p in monitor.ports if p]
            if not wanted or set(wanted) & set(service.ports):
                return service.labels.get(monitor.job_label, "") or service.name
    return None


@clause_check(
    "METRIC-ALERT-001",
    title="GPU alerts can fire, and can be quiet",
    severity=HYGIENE,
    scope="cluster",
    reads=("metrics",),
    causes=("K80",),
    wants=("metrics:alerts",),
    after=("METRIC-ANSWER-001", "METRIC-SCRAPE-001"),
)
def alerts_can_fire(subject: Subject) -> Judgement:
    """Every selector of every GPU alert against the series of all exporters: an alert may speak of one node."""
    facts = subject.metrics_facts
    exporters = need(facts.exporters, "exporters")
    answering = [
        e for e in exporters if e.series.state is not State.NOT_ASKED
    ]  # one that does not run: METRIC-ANSWER-001
    series = tuple(one for e in answering or exporters for one in need(e.series, f"series of {e.full_name}"))
    rules = need(facts.rules, "alert rules")
    jobs = _jobs(subject, exporters)
    row = capability(subject.chain.gpu.device)
    problems = []
    for rule in rules:
        wrong = _wrong_selector(rule, series, jobs) or _wrong_unit(rule, row.memory_mib if row is not None else None)
        if wrong:
            told = Evidence(facts.rules.source, f"{rule.alert}: {rule.expression[:200]}: {wrong}")
            problems.append(Problem("K80", f"{rule.holder} {rule.alert}", (told,), values_of(subject)))
    none = " (no alert speaks of dcgm-exporter)" if not rules else ""
    return verdict_of(problems, (Evidence(facts.rules.source, f"{len(rules)} GPU alerts{none}"),))


def _jobs(subject: Subject, exporters: tuple[Exporter, ...]) -> frozenset[str] | None:
    """Jobs under which the exporter is scraped; None where lab.yaml does not say what scrapes it."""
    facts = subject.metrics_facts
    if facts.monitors.value is None or facts.services.value is None:
        return None
    services = facts.services.value
    found = (
        _job(m, [s for s in services if _carries(s, exporter)], exporter)
        for m in facts.monitors.value
        for exporter in exporters
    )
    return frozenset(job for job in found if job is not None)


def _wrong_selector(rule: AlertRule, series: tuple[Series, ...], jobs: frozenset[str] | None) -> str:
    for selector in gpu_selectors(rule.expression):
        if selector.metric.startswith("DCGM_EXP_"):
            continue  # counted from events: not there before the first one
        found = _selects(selector, series, jobs)
        if found is False:
            return f"{selector} selects nothing, so it {'always fires' if selector.absent else 'can never fire'}"
    return ""


def _selects(selector: Selector, series: tuple[Series, ...], jobs: frozenset[str] | None) -> bool | None:
    """Whether anything is selected; None when that cannot be told from here."""
    for_job = [m for m in selector.matchers if m.label == "job"]
    if for_job and jobs is not None and not any(all(m.accepts({"job": job}) for m in for_job) for job in jobs):
        return False
    if selector.metric == "up":
        return None
    own = [m for m in selector.matchers if m.label != "job" and m.label not in _OUTSIDE]
    return any(one.name == selector.metric and all(m.accepts(one.labels) for m in own) for one in series)


def _wrong_unit(rule: AlertRule, memory_mib: int | None) -> str:
    for compared in comparisons(rule.expression):
        is_memory = compared.metric.startswith("DCGM_FI_DEV_FB_")
        if memory_mib is None or not is_memory or compared.number <= memory_mib * _BEYOND:
            continue
        if compared.operator in (">", ">="):
            return f"{compared.metric} is in MiB, of {memory_mib}: it is never above {compared.number:g}"
        if compared.operator in ("<", "<="):
            return f"{compared.metric} is in MiB, of {memory_mib}: it is always below {compared.number:g}"
    return ""
