"""The metrics probe: dcgm-exporter's pods, their answers through the API server, and what scrapes and alerts on them.

Reads only. Each list is a reading of its own; scrape objects and rules are read only where lab.yaml declares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.kubernetes import KubeSession, KubeTarget
from labproof.facts.metrics import Exporter, MetricsFacts
from labproof.facts.pod_outcome import Outcome
from labproof.facts.prometheus import Series, parse_series
from labproof.facts.reading import Reading, absent, failed, value
from labproof.facts.store import now
from labproof.inventory.models import Cluster, Lab
from labproof.probes import kubernetes_objects as read
from labproof.probes import metrics_objects
from labproof.probes.kubernetes_roles import role_of
from labproof.probes.patience import Patience

T = TypeVar("T")
Json = Mapping[str, Any]

#: Metrics of dcgm-exporter begin so; everything else in a scrape is the Go runtime's.
PREFIX = "DCGM_"
_LOG_LINES = 60
_SCRAPES = {
    "prometheus-operator": ("monitoring.coreos.com/v1", ("ServiceMonitor", "PodMonitor"), "PrometheusRule"),
    "victoriametrics": ("operator.victoriametrics.com/v1beta1", ("VMServiceScrape", "VMPodScrape"), "VMRule"),
}


def probe_metrics(lab: Lab, cluster: Cluster) -> Reading[MetricsFacts]:
    """Everything the metrics clauses judge about one cluster.

    Returns:
        A failed reading when the API gave no answer at all.
    """
    target = KubeTarget(cluster.kubeconfig, cluster.context, lab.timings.connect_s, lab.timings.request_s)
    try:
        with KubeSession(target) as session:
            where = f"{session.context.configuration.host} as {session.as_whom}"
            return value(_Reader(lab, cluster, session).read(), where, now())
    except TransportFailure as failure:
        return failed(failure.target, f"{failure.target}: {failure.text}", failure.kind.value, now())


class _Reader:
    def __init__(self, lab: Lab, cluster: Cluster, session: KubeSession) -> None:
        self.cluster = cluster
        self.session = session
        self.gpu_nodes = frozenset(n.name for n in lab.nodes if n.cluster == cluster.name)
        self._patience = Patience()

    def read(self) -> MetricsFacts:
        nodes = self._list("/api/v1/nodes", read.node)
        daemonsets = self._list("/apis/apps/v1/daemonsets", self._exporter_daemonset)
        pods = self._list("/api/v1/pods", _mapping)
        exporters = self._exporters(pods)
        facts = MetricsFacts(
            self.cluster.name, nodes, daemonsets, exporters, gpu_pods=_gpu_pods(pods.value or (), self.gpu_nodes)
        )
        wanted = self.cluster.metrics
        if wanted is None:
            return facts
        if wanted.scrape != "none":
            namespaces = sorted({e.namespace for e in exporters.value or ()})
            facts = replace(facts, services=self._services(namespaces), monitors=self._monitors(wanted.scrape))
        if wanted.alerts:
            facts = replace(facts, rules=self._rules(wanted.scrape))
        return facts

    def _exporter_daemonset(self, raw: Json) -> Any:
        role = role_of(raw, self.cluster.plugin.flavour)
        return read.daemonset(raw, role) if role == "dcgm-exporter" else None

    # ---- exporters

    def _exporters(self, pods: Reading[tuple[Json, ...]]) -> Reading[tuple[Exporter, ...]]:
        if pods.value is None:
            return Reading(pods.state, None, pods.source, pods.why, pods.at, pods.kind)
        found = [self._look(raw) for raw in pods.value if metrics_objects.is_exporter(raw)]
        return value(tuple(e for e in found if e.node in ("", *self.gpu_nodes)), pods.source, pods.at)

    def _look(self, raw: Json) -> Exporter:
        exporter = metrics_objects.exporter(raw, (), now())
        if exporter.outcome.outcome is not Outcome.RUNNING:
            uid = str((raw.get("metadata") or {}).get("uid"))
            events = self._list("/api/v1/events", _mapping, fieldSelector=f"involvedObject.uid={uid}")
            exporter = metrics_objects.exporter(raw, events.value or (), now())
            return replace(exporter, log=self._log(exporter))
        return replace(exporter, series=scrape(self._patience, self.session, exporter))

    def _log(self, exporter: Exporter) -> Reading[str]:
        at, source = now(), f"kubectl -n {exporter.namespace} logs {exporter.pod}"
        for previous in (True, False) if exporter.restarts else (False,):
            try:
                log = self._patience.ask(
                    lambda previous=previous: self.session.log(  # type: ignore[misc]
                        exporter.namespace, exporter.pod, previous=previous, tail_lines=_LOG_LINES
                    )
                )
            except TransportFailure as failure:
                return failed(source, failure.answer or failure.text, failure.kind.value, at)
            if log.content:
                return value(log.content.decode("utf-8", "replace"), source, at)
        return absent(source, "no log", at)

    # ---- what scrapes them

    def _services(self, namespaces: Sequence[str]) -> Reading[Any]:
        found: list[Any] = []
        sources = []
        for namespace in namespaces:
            listed = self._list(f"/api/v1/namespaces/{namespace}/services", metrics_objects.service)
            if listed.value is None:
                return listed
            found += listed.value
            sources.append(listed.source)
        return value(tuple(found), ", ".join(sources) or "no exporter, no Service", now())

    def _monitors(self, scrape_by: str) -> Reading[Any]:
        version, kinds, _ = _SCRAPES[scrape_by]
        found: list[Any] = []
        sources = []
        for kind in kinds:
            listed = self._list(f"/apis/{version}/{kind.lower()}s", partial(metrics_objects.scrape_object, kind))
            sources.append(listed.source)
            if listed.kind == Kind.NOT_FOUND.value:
                continue  # an installation without the pod kind; without both the list below stays empty
            if listed.value is None:
                return listed
            found += listed.value
        return value(tuple(found), ", ".join(sources), now())

    def _rules(self, scrape_by: str) -> Reading[Any]:
        found: list[Any] = []
        sources = []
        for name, (version, _, kind) in _SCRAPES.items():
            if scrape_by not in ("none", name):
                continue
            listed = self._list(f"/apis/{version}/{kind.lower()}s", partial(metrics_objects.alert_rules, kind))
            sources.append(listed.source)
            if listed.kind == Kind.NOT_FOUND.value:
                continue
            if listed.value is None:
                return listed
            found += [rule for rules in listed.value for rule in rules]
        return value(tuple(found), ", ".join(sources), now())

    def _list(self, path: str, make: Callable[[Json], T | None], **query: str) -> Reading[tuple[T, ...]]:
        at = now()
        source = f"GET {path}" + ("?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else "")
        asked: dict[str, Any] = dict(query)
        try:
            items = self._patience.ask(lambda: self.session.list_json(path, **asked)["items"])
        except TransportFailure as failure:
            return failed(source, failure.answer or failure.text, failure.kind.value, at)
        made = (make(raw) for raw in items if isinstance(raw, Mapping))
        return value(tuple(item for item in made if item is not None), source, at)


def scrape(patience: Patience, session: KubeSession, exporter: Exporter) -> Reading[tuple[Series, ...]]:
    """One look at an exporter's `/metrics`, through the API server; only its own series are kept."""
    at = now()
    port = metrics_objects.PORT
    source = f"GET /api/v1/namespaces/{exporter.namespace}/pods/{exporter.pod}:{port}/proxy/metrics"
    try:
        text = patience.ask(lambda: session.through(exporter.namespace, exporter.pod, port, "metrics"))
    except TransportFailure as failure:
        return failed(source, failure.answer or failure.text, failure.kind.value, at)
    return value(parse_series(text.decode("utf-8", "replace"), PREFIX), source, at)


def running_exporter(session: KubeSession, node: str) -> Exporter | None:
    """The exporter that runs on a node, None when there is none."""
    listed = session.list_json("/api/v1/pods", fieldSelector=f"spec.nodeName={node}")["items"]
    found = [metrics_objects.exporter(raw, (), now()) for raw in listed if metrics_objects.is_exporter(raw)]
    return next((e for e in found if e.outcome.outcome is Outcome.RUNNING), None)


def _mapping(raw: Json) -> Json:
    return raw


def _gpu_pods(pods: Sequence[Json], nodes: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Running pods that ask for an extended resource, by node."""
    found: dict[str, tuple[str, ...]] = {}
    for raw in pods:
        meta, spec = raw.get("metadata") or {}, raw.get("spec") or {}
        node = str(spec.get("nodeName") or "")
        running = (raw.get("status") or {}).get("phase") == "Running"
        if node in nodes and running and read.pod_requests(spec):
            found[node] = (*found.get(node, ()), f"{meta.get('namespace')}/{meta.get('name')}")
    return found
