"""METRIC: dcgm-exporter runs on the GPU node, answers, and tells of this card what a card of its kind must tell."""

from __future__ import annotations

from labproof.catalogue.gpus import capability
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.facts.kubernetes_objects import DaemonSetFacts, NodeFacts
from labproof.facts.metrics import Exporter
from labproof.facts.pod_outcome import Outcome
from labproof.facts.prometheus import Series, by_card
from labproof.facts.reading import State, Unjudged, absent, need

#: What every card tells (facts kubernetes-gpu 6: in the default counters of 3.x and 4.x).
_EVERY_CARD = ("GPU_TEMP", "POWER_USAGE", "GPU_UTIL", "FB_USED", "FB_FREE", "XID_ERRORS")
_FIELD = "DCGM_FI_DEV_"


def values_of(subject: Subject, exporter: Exporter | None = None) -> tuple[tuple[str, str], ...]:
    """Placeholders for the catalogue's remedies."""
    found = {
        "node": subject.node.name,
        "resource": subject.cluster.plugin.resource_name,
        "namespace": exporter.namespace if exporter else "the exporter's namespace",
        "pod": exporter.pod if exporter else "",
        "host": subject.chain.host.name if subject.chain.host else "",
        "address": subject.chain.gpu.address or "",
        "device": subject.chain.gpu.device,
    }
    return tuple(sorted(found.items()))


def exporter_of(subject: Subject) -> Exporter | None:
    """The node's exporter: the one that runs, else any."""
    here = [e for e in need(subject.metrics_facts.exporters, "exporters") if e.node in ("", subject.node.name)]
    return next((e for e in here if e.outcome.outcome is Outcome.RUNNING), here[0] if here else None)


def series_of(subject: Subject) -> tuple[Exporter, tuple[Series, ...]]:
    """What the node's exporter answered.

    Raises:
        Unjudged: it did not (METRIC-EXPORTER-001 and METRIC-ANSWER-001 say why).
    """
    exporter = exporter_of(subject)
    if exporter is None:
        raise Unjudged(absent(subject.metrics_facts.exporters.source, f"no exporter on {subject.node.name}"))
    return exporter, need(exporter.series, "series of the exporter")


@clause_check(
    "METRIC-EXPORTER-001",
    title="dcgm-exporter runs on the GPU node",
    severity=DEGRADED,
    scope="node",
    reads=("metrics",),
    causes=("K15", "K16", "K60", "K105"),
    wants=("metrics",),
)
def exporter_runs(subject: Subject) -> Judgement:
    """A running pod on the node; else the DaemonSet's placement, or the pod's own log, tells why there is none."""
    facts = subject.metrics_facts
    exporter = exporter_of(subject)
    if exporter is not None and exporter.outcome.outcome is Outcome.RUNNING:
        return Pass((Evidence(facts.exporters.source, f"{exporter.full_name} runs ({exporter.image})"),))
    if exporter is not None:
        return Fail((_does_not_run(subject, exporter),))
    for daemonset in need(facts.daemonsets, "DaemonSets"):
        return Fail((_not_placed(subject, daemonset),))
    told = Evidence(facts.exporters.source, "no pod and no DaemonSet of dcgm-exporter in the cluster")
    return Fail((Problem("K105", subject.node.name, (told,), values_of(subject)),))


def _does_not_run(subject: Subject, exporter: Exporter) -> Problem:
    outcome = exporter.outcome
    evidence = [
        Evidence(f"pod {exporter.full_name}", f"{outcome.outcome.value} {outcome.reason} {outcome.text}".strip())
    ]
    log = exporter.log.value or ""
    told = next((line for line in reversed(log.splitlines()) if "nvml" in line.lower() or "dcgm" in line.lower()), "")
    if told:
        evidence.append(Evidence(exporter.log.source, told[:300]))
    no_nvml = any(word in log for word in ("NVML", "libnvidia-ml", "libdcgm"))
    return Problem("K60" if no_nvml else "K105", exporter.full_name, tuple(evidence), values_of(subject, exporter))


def _not_placed(subject: Subject, daemonset: DaemonSetFacts) -> Problem:
    node = _node(subject)
    source = subject.metrics_facts.daemonsets.source
    told = [Evidence(source, f"{daemonset.full_name}: desired {daemonset.desired}, none on {subject.node.name}")]
    values = tuple(sorted({**dict(values_of(subject)), "namespace": daemonset.namespace}.items()))
    if not daemonset.selects(node.labels):
        terms = [f"{k}={v}" for k, v in daemonset.node_selector.items()]
        terms += [str(r) for term in daemonset.affinity for r in term]
        told.append(Evidence("its node selector and affinity", f"{', '.join(terms)}: not on {node.name}"))
        return Problem("K15", daemonset.full_name, tuple(told), values)
    kept_away = [
        t for t in node.taints
        if t.effect in ("NoSchedule", "NoExecute") and not any(x.tolerates(t) for x in daemonset.tolerations)
    ]  # fmt: skip
    if kept_away:
        told.append(Evidence("taints it does not tolerate", ", ".join(map(str, kept_away))))
        return Problem("K16", daemonset.full_name, tuple(told), values)
    return Problem("K105", daemonset.full_name, tuple(told), values)


def _node(subject: Subject) -> NodeFacts:
    nodes = need(subject.metrics_facts.nodes, "nodes")
    found = next((n for n in nodes if n.name == subject.node.name), None)
    return found or NodeFacts(subject.node.name, {}, {}, (), False, (), {}, {})


@clause_check(
    "METRIC-ANSWER-001",
    title="The exporter answers through the API server",
    severity=DEGRADED,
    scope="node",
    reads=("metrics",),
    causes=("K63",),
    wants=("metrics",),
    after=("METRIC-EXPORTER-001",),
)
def exporter_answers(subject: Subject) -> Judgement:
    """`/metrics` by the pod's proxy path; a status of 500 or more means the way to the pod, not our rights."""
    exporter = exporter_of(subject)
    if exporter is None:
        return Unchecked(f"no exporter on {subject.node.name}")
    if exporter.series.state is State.VALUE:
        return Pass((Evidence(exporter.series.source, f"{len(exporter.series.value or ())} series"),))
    if exporter.series.kind != "unavailable":
        need(exporter.series, "series of the exporter")
    told = Evidence(exporter.series.source, exporter.series.why)
    return Fail((Problem("K63", exporter.full_name, (told,), values_of(subject, exporter)),))


@clause_check(
    "METRIC-CARD-001",
    title="The series speak of this card, on this node",
    severity=DEGRADED,
    scope="chain",
    reads=("metrics",),
    causes=("K106", "K107"),
    wants=("metrics",),
    after=("METRIC-ANSWER-001",),
)
def series_name_the_card(subject: Subject) -> Judgement:
    """As many cards of the declared model as the node was given, each with a UUID, under the node's own name."""
    exporter, series = series_of(subject)
    row = capability(subject.chain.gpu.device)
    if row is None:
        return Unchecked(f"no capability data for {subject.chain.gpu.device}: add it to catalogue/gpus.yaml")
    cards = by_card(series)
    named = {uuid: next(iter(found.values())).labels for uuid, found in cards.items()}
    ours = [uuid for uuid, labels in named.items() if _same_model(labels.get("modelName", ""), row.name)]
    wanted = _place(subject)
    seen = ", ".join(f"{labels.get('modelName')} {uuid}" for uuid, labels in named.items()) or "no card"
    told = Evidence(exporter.series.source, f"{len(ours)} of {wanted} {row.name}: {seen}")
    if len(ours) < wanted:
        return Fail((Problem("K106", exporter.full_name, (told,), values_of(subject, exporter)),))
    hosts = {_host(labels) for labels in named.values()} - {""}
    strange = hosts - {subject.node.name, exporter.pod}
    if strange:
        where = Evidence(
            exporter.series.source, f"Hostname {', '.join(sorted(strange))}, the pod is on {exporter.node}"
        )
        return Fail((Problem("K107", exporter.full_name, (where,), values_of(subject, exporter)),))
    return Pass((told,))


def _place(subject: Subject) -> int:
    """The chain's place among the node's cards of its model, from 1: a lost second card is no fault of the first."""
    from labproof.inventory.chains import chains_of

    gpu = subject.chain.gpu
    here = [c for c in chains_of(subject.lab) if c.node is not None and c.node.name == subject.node.name]
    alike = [c.id for c in here if c.gpu.device == gpu.device]
    return alike.index(subject.chain.id) + 1


def _same_model(seen: str, wanted: str) -> bool:
    """`Tesla T4` and `NVIDIA T4` are one card: brands changed with the driver, the model's own words did not."""
    brands = {"nvidia", "tesla", "geforce"}
    return set(seen.lower().split()) - brands == set(wanted.lower().split()) - brands


def _host(labels: dict[str, str]) -> str:
    return next((text for name, text in labels.items() if name.lower() == "hostname"), "")


@clause_check(
    "METRIC-SERIES-001",
    title="The metrics a card of this kind has are there",
    severity=DEGRADED,
    scope="chain",
    reads=("metrics",),
    causes=("K108",),
    wants=("metrics",),
    after=("METRIC-ANSWER-001",),
)
def needed_metrics_are_there(subject: Subject) -> Judgement:
    """By model: encoder and decoder use only where the chip has them; profiling metrics are nobody's duty."""
    exporter, series = series_of(subject)
    row = capability(subject.chain.gpu.device)
    wanted = list(_EVERY_CARD)
    if row is not None:
        wanted += [name for name, able in (("ENC_UTIL", row.encode), ("DEC_UTIL", row.decode)) if able]
    there = {one.name for one in series}
    missing = [name for name in wanted if f"{_FIELD}{name}" not in there]
    told = Evidence(exporter.series.source, f"{len(there)} metrics; missing: {', '.join(missing) or 'none'}")
    return verdict_of(
        [Problem("K108", exporter.full_name, (told,), values_of(subject, exporter))] if missing else [], (told,)
    )


@clause_check(
    "METRIC-POD-001",
    title="Every pod on a shared card is in the series",
    severity=HYGIENE,
    scope="node",
    reads=("metrics",),
    causes=("K62",),
    wants=("metrics:pods", "sharing"),
    after=("METRIC-ANSWER-001",),
)
def every_pod_is_named(subject: Subject) -> Judgement:
    """Pods that hold a slot against the `pod` labels: without virtual GPUs one of several stands for all."""
    exporter, series = series_of(subject)
    named = {f"{one.labels.get('namespace')}/{one.labels.get('pod')}" for one in series if one.labels.get("pod")}
    holding = subject.metrics_facts.gpu_pods.get(subject.node.name, ())
    unnamed = [pod for pod in holding if pod not in named and not pod.startswith(f"{subject.cluster.probe.namespace}/")]
    told = Evidence(
        exporter.series.source, f"named: {', '.join(sorted(named)) or 'none'}; holding: {', '.join(holding)}"
    )
    return verdict_of(
        [Problem("K62", exporter.full_name, (told,), values_of(subject, exporter))] if unnamed else [], (told,)
    )


@clause_check(
    "METRIC-ENCODER-001",
    title="Encoder utilisation rises while our transcode runs",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode", "metrics"),
    causes=("K61",),
    wants=("metrics",),
    after=("METRIC-ANSWER-001", "METRIC-SERIES-001", "METRIC-CARD-001", "CODEC-H264-001"),
)
def encoder_use_is_seen(subject: Subject) -> Judgement:
    """Of this card, by UUID: above what it was before our transcodes, within three of the exporter's intervals."""
    facts = subject.transcode_facts
    row = capability(subject.chain.gpu.device)
    if row is not None and not row.encode:
        return Pass((Evidence("catalogue/gpus.yaml", f"{row.name} has no encoder"),))
    if facts.exporter.state is State.NOT_ASKED and facts.via == "exec":
        return Pass((Evidence("lab.yaml probe.via: exec", facts.exporter.why),))
    watch = need(facts.exporter, "the exporter during our transcodes")
    told = []
    for uuid in facts.uuids or tuple(watch.before.encoder):
        before, highest = watch.before.encoder.get(uuid, 0.0), watch.highest(uuid)
        told.append(f"{uuid}: {before:g} % -> {highest:g} %")
        if highest > before:
            return Pass((Evidence(watch.exporter, f"DCGM_FI_DEV_ENC_UTIL {told[-1]}"),))
    seen = "; ".join(told) or "of no card"
    text = f"DCGM_FI_DEV_ENC_UTIL {seen} in {watch.watched_s:.0f} s, collected every {watch.interval_s:g} s"
    return Fail((Problem("K61", subject.chain.gpu.name, (Evidence(watch.exporter, text),), values_of(subject)),))
