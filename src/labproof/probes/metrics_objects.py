"""Objects of the metrics branch, trimmed to what is judged: exporter pods, Services, scrape objects, alert rules.

Sources: facts kubernetes-gpu 6; the Prometheus operator's and the VictoriaMetrics operator's API references.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labproof.facts.kubernetes_objects import Requirement
from labproof.facts.metrics import AlertRule, Exporter, ScrapeObject, ServiceSeen
from labproof.facts.pod_outcome import classify

Json = Mapping[str, Any]

PORT = 9400
#: The exporter's own default between two collections, in seconds (its README: 30000 ms).
INTERVAL_S = 30.0
_INTERVAL_ARGS = ("-c", "--collect-interval")


def is_exporter(raw: Json) -> bool:
    """Whether a pod runs dcgm-exporter: told by the image, the name is the owner's choice."""
    containers = (raw.get("spec") or {}).get("containers") or ()
    return any("dcgm-exporter" in str(c.get("image")) for c in containers)


def exporter(raw: Json, events: Sequence[Json], at: float) -> Exporter:
    """An exporter's pod."""
    meta, spec, status = raw.get("metadata") or {}, raw.get("spec") or {}, raw.get("status") or {}
    container = next(c for c in spec["containers"] if "dcgm-exporter" in str(c.get("image")))
    env = {str(e.get("name")): str(e.get("value") or "") for e in container.get("env") or ()}
    owner: Json = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), {})
    states = [s for s in status.get("containerStatuses") or () if s.get("name") == container.get("name")]
    return Exporter(
        namespace=str(meta.get("namespace") or ""),
        pod=str(meta.get("name") or ""),
        node=str(spec.get("nodeName") or ""),
        workload=str(owner.get("name") or ""),
        image=str(container.get("image") or ""),
        labels={str(k): str(v) for k, v in (meta.get("labels") or {}).items()},
        outcome=classify(raw, events, at),
        restarts=sum(int(s.get("restartCount") or 0) for s in states),
        interval_s=_interval(container, env),
        virtual_gpus=env.get("KUBERNETES_VIRTUAL_GPUS", "").lower() == "true",
    )


def _interval(container: Json, env: Mapping[str, str]) -> float:
    words = [*map(str, container.get("command") or ()), *map(str, container.get("args") or ())]
    told = env.get("DCGM_EXPORTER_INTERVAL", "")
    for number, word in enumerate(words):
        name, given, text = word.partition("=")
        if name in _INTERVAL_ARGS:
            told = text if given else next(iter(words[number + 1 : number + 2]), "")
    return float(told) / 1000 if told.isdigit() and int(told) else INTERVAL_S


def service(raw: Json) -> ServiceSeen:
    """A Service."""
    meta, spec = raw.get("metadata") or {}, raw.get("spec") or {}
    return ServiceSeen(
        str(meta.get("namespace") or ""),
        str(meta.get("name") or ""),
        _texts(meta.get("labels")),
        _texts(spec.get("selector")),
        tuple(str(p.get("name") or p.get("port") or "") for p in spec.get("ports") or ()),
    )


def scrape_object(kind: str, raw: Json) -> ScrapeObject:
    """A ServiceMonitor, PodMonitor, VMServiceScrape or VMPodScrape."""
    meta, spec = raw.get("metadata") or {}, raw.get("spec") or {}
    selector, spaces = spec.get("selector") or {}, spec.get("namespaceSelector") or {}
    pods = "podMetricsEndpoints" in spec
    endpoints = spec.get("podMetricsEndpoints" if pods else "endpoints") or ()
    return ScrapeObject(
        kind=kind,
        namespace=str(meta.get("namespace") or ""),
        name=str(meta.get("name") or ""),
        selects="Pod" if pods else "Service",
        any_namespace=bool(spaces.get("any")),
        namespaces=tuple(str(n) for n in spaces.get("matchNames") or ()),
        labels=_texts(selector.get("matchLabels")),
        requirements=tuple(
            Requirement(str(e.get("key") or ""), str(e.get("operator") or ""), tuple(map(str, e.get("values") or ())))
            for e in selector.get("matchExpressions") or ()
        ),
        ports=tuple(str(e.get("port") or e.get("targetPort") or "") for e in endpoints),
        job_label=str(spec.get("jobLabel") or ""),
    )


def alert_rules(kind: str, raw: Json) -> tuple[AlertRule, ...] | None:
    """Alerts of a PrometheusRule or VMRule whose expression speaks of dcgm-exporter; None when there are none."""
    meta = raw.get("metadata") or {}
    holder = f"{kind} {meta.get('namespace')}/{meta.get('name')}"
    found = []
    for group in (raw.get("spec") or {}).get("groups") or ():
        for rule in group.get("rules") or ():
            expression = " ".join(str(rule.get("expr") or "").split())
            if rule.get("alert") and "dcgm" in expression.lower():
                found.append(AlertRule(holder, str(rule["alert"]), expression))
    return tuple(found) or None


def _texts(raw: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in raw.items()} if isinstance(raw, Mapping) else {}
