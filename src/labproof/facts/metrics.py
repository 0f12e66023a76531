"""Facts of the metrics branch: the exporters of one cluster, what they answered, what scrapes them, and the alerts."""

from __future__ import annotations

from dataclasses import dataclass, field

from labproof.facts.kubernetes_objects import DaemonSetFacts, NodeFacts, Requirement
from labproof.facts.pod_outcome import PodOutcome
from labproof.facts.prometheus import Series
from labproof.facts.reading import NOT_ASKED, Reading


@dataclass(frozen=True)
class Exporter:
    """One dcgm-exporter pod.

    Attributes:
        namespace, pod, node: where it is; `node` empty while it has none.
        workload: name of the DaemonSet it belongs to.
        labels: the pod's own.
        interval_s: seconds between two collections (the exporter's default is 30: its README).
        virtual_gpus: KUBERNETES_VIRTUAL_GPUS is set: every pod of a shared card gets series of its own.
        log: its last lines, read only where it does not run or does not answer.
        series: what `/metrics` answered through the API server.
    """

    namespace: str
    pod: str
    node: str
    workload: str
    image: str
    labels: dict[str, str]
    outcome: PodOutcome
    restarts: int = 0
    interval_s: float = 30.0
    virtual_gpus: bool = False
    log: Reading[str] = NOT_ASKED
    series: Reading[tuple[Series, ...]] = NOT_ASKED

    @property
    def full_name(self) -> str:
        """`namespace/pod`."""
        return f"{self.namespace}/{self.pod}"


@dataclass(frozen=True)
class ServiceSeen:
    """A Service of a namespace in which an exporter runs."""

    namespace: str
    name: str
    labels: dict[str, str]
    selector: dict[str, str]
    ports: tuple[str, ...]


@dataclass(frozen=True)
class ScrapeObject:
    """A ServiceMonitor, PodMonitor, VMServiceScrape or VMPodScrape.

    Attributes:
        selects: `Service` or `Pod`.
        namespaces: where it looks; empty with `any_namespace`, else its own when nothing is named.
        labels, requirements: its selector.
        ports: names (or numbers) of its endpoints' ports; empty: any.
        job_label: label of the Service whose value becomes `job`; empty: the Service's name does.
    """

    kind: str
    namespace: str
    name: str
    selects: str
    any_namespace: bool
    namespaces: tuple[str, ...]
    labels: dict[str, str]
    requirements: tuple[Requirement, ...] = ()
    ports: tuple[str, ...] = ()
    job_label: str = ""

    @property
    def full_name(self) -> str:
        """`Kind namespace/name`."""
        return f"{self.kind} {self.namespace}/{self.name}"

    def selects_labels(self, namespace: str, labels: dict[str, str]) -> bool:
        """Whether a Service or pod of these labels in that namespace is selected."""
        looks = self.namespaces or (self.namespace,)
        if not self.any_namespace and namespace not in looks:
            return False
        return all(labels.get(k) == v for k, v in self.labels.items()) and all(
            r.matches(labels) for r in self.requirements
        )


@dataclass(frozen=True)
class AlertRule:
    """One alert whose expression speaks of dcgm-exporter."""

    holder: str  # `PrometheusRule monitoring/gpu`
    alert: str
    expression: str


@dataclass(frozen=True)
class MetricsFacts:
    """What was read of one cluster's GPU metrics.

    Attributes:
        daemonsets: those of dcgm-exporter.
        services: of the namespaces in which it runs; read where a scrape is declared.
        monitors, rules: read where lab.yaml declares them; absent when the resource type is not served.
        gpu_pods: running pods that ask for a GPU, namespace/name by node.
    """

    name: str
    nodes: Reading[tuple[NodeFacts, ...]] = NOT_ASKED
    daemonsets: Reading[tuple[DaemonSetFacts, ...]] = NOT_ASKED
    exporters: Reading[tuple[Exporter, ...]] = NOT_ASKED
    services: Reading[tuple[ServiceSeen, ...]] = NOT_ASKED
    monitors: Reading[tuple[ScrapeObject, ...]] = NOT_ASKED
    rules: Reading[tuple[AlertRule, ...]] = NOT_ASKED
    gpu_pods: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class EncoderLook:
    """What the exporter said of the encoders at one moment: percent by card."""

    at: float
    encoder: dict[str, float]


@dataclass(frozen=True)
class EncoderWatch:
    """The exporter, looked at while our transcodes ran.

    Attributes:
        before: the look just before the first of them.
        looks: those that differ from the one before them, so that a long run stays short in the facts.
        watched_s: seconds from the first to the last look.
        interval_s: the exporter's own collection interval.
    """

    exporter: str
    before: EncoderLook
    looks: tuple[EncoderLook, ...]
    watched_s: float
    interval_s: float

    def highest(self, uuid: str) -> float:
        """The highest encoder utilisation seen of a card, in percent."""
        return max((look.encoder.get(uuid, 0.0) for look in self.looks), default=0.0)
