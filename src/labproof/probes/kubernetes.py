"""Read one cluster: lists only, each a reading of its own, plus one server-side dry run that creates nothing.

How many requests are made depends on the cluster (pages, plugin pods and their containers), never on how many clauses
ask. A list that is forbidden or breaks fails alone; only when the very first question gets no answer is the whole
cluster a failed reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.kubernetes import KubeSession, KubeTarget
from labproof.clients.wait import wait_until
from labproof.facts.kubernetes import Admission, ClusterFacts, Sample
from labproof.facts.kubernetes_objects import ConfigMapFacts, DaemonSetFacts, PodFacts
from labproof.facts.plugin_log import PluginLog, read_plugin_log
from labproof.facts.pod_outcome import unix
from labproof.facts.reading import NOT_ASKED, Reading, State, absent, failed, value
from labproof.facts.refusal import Because, classify_refusal
from labproof.facts.store import now
from labproof.inventory.models import Cluster, Lab
from labproof.probes import kubernetes_objects as read
from labproof.probes.kubernetes_roles import role_of
from labproof.probes.patience import Patience
from labproof.probes.pods_manifest import Filling
from labproof.probes.pods_manifest import pod as pod_of_manifest

T = TypeVar("T")
Json = Mapping[str, Any]

NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
PODS = "/api/v1/pods"
DAEMONSETS = "/apis/apps/v1/daemonsets"
EVENTS = "/api/v1/events"
RUNTIME_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
CLUSTER_POLICIES = "/apis/nvidia.com/v1/clusterpolicies"
GPU_DEVICE_PLUGINS = "/apis/deviceplugin.intel.com/v1/gpudeviceplugins"
#: Roles whose logs decide a cause.
LOGGED_ROLES = frozenset({"plugin", "gfd", "validator"})
#: Warnings about these kinds are kept wherever they happen; of the rest only the GPU stack's and GPU pods' own.
_MEMBERS = frozenset({"DaemonSet", "Pod"})


def probe_cluster(lab: Lab, cluster: Cluster) -> Reading[ClusterFacts]:
    """Everything the kubernetes clauses judge about one cluster.

    Returns:
        A failed reading when the API gave no answer at all; otherwise facts in which each list tells by itself
        whether it could be read.
    """
    target = KubeTarget(cluster.kubeconfig, cluster.context, lab.timings.connect_s, lab.timings.request_s)
    try:
        with KubeSession(target) as session:
            return _ClusterReader(lab, cluster, session).read()
    except TransportFailure as failure:
        return failed(failure.target, f"{failure.target}: {failure.text}", failure.kind.value, now())


class _ClusterReader:
    def __init__(self, lab: Lab, cluster: Cluster, session: KubeSession) -> None:
        self.lab = lab
        self.cluster = cluster
        self.session = session
        self.gpu_nodes = frozenset(n.name for n in lab.nodes if n.cluster == cluster.name)
        self._raw_nodes: Reading[list[Json]] = NOT_ASKED
        self._patience = Patience()

    def read(self) -> Reading[ClusterFacts]:
        at = now()
        version = str(self.session.get_json("/version").get("gitVersion") or "")
        samples = self._samples()  # first: it takes its time, and everything else should be as fresh as its last look
        daemonsets = self._daemonsets()
        events = self._list(EVENTS, fieldSelector="type=Warning")
        pods = self._pods(daemonsets, events)
        where = f"{self.session.context.configuration.host} as {self.session.as_whom}"
        facts = ClusterFacts(
            name=self.cluster.name,
            endpoint=where,
            version=value(version, "GET /version", at),
            nodes=_each(self._raw_nodes, read.node),
            pods=pods,
            daemonsets=daemonsets,
            config_maps=self._config_maps(daemonsets),
            runtime_classes=_each(self._list(RUNTIME_CLASSES), read.runtime_class),
            namespaces=self._namespaces(daemonsets, pods),
            events=_each(events, read.event, lambda e: self._is_ours(e, daemonsets, pods)),
            samples=samples,
            admission=self._admission(),
            logs=tuple(self._logs(daemonsets, pods)),
            cluster_policy=self._cluster_policy(),
            gpu_device_plugins=self._gpu_device_plugins(),
        )
        return value(facts, where, at)

    # ---- lists

    def _list(self, path: str, **query: str) -> Reading[list[Json]]:
        at, source = now(), _source(path, query)
        asked: dict[str, Any] = dict(query)
        try:
            items = self._patience.ask(lambda: self.session.list_json(path, **asked)["items"])
        except TransportFailure as failure:
            return _not_read(source, failure, at)
        return value([i for i in items if isinstance(i, Mapping)], source, at)

    def _daemonsets(self) -> Reading[tuple[DaemonSetFacts, ...]]:
        flavour = self.cluster.plugin.flavour

        def of_the_stack(raw: Json) -> DaemonSetFacts | None:
            role = role_of(raw, flavour)
            return read.daemonset(raw, role) if role else None

        return _each(self._list(DAEMONSETS), of_the_stack)

    def _pods(
        self, daemonsets: Reading[tuple[DaemonSetFacts, ...]], events: Reading[list[Json]]
    ) -> Reading[tuple[PodFacts, ...]]:
        listed, at = self._list(PODS), now()
        if listed.state is not State.VALUE or listed.value is None:
            return Reading(listed.state, None, listed.source, listed.why, listed.at, listed.kind)
        by_uid: dict[str, list[Json]] = {}
        for event in events.value or ():
            by_uid.setdefault(str((event.get("involvedObject") or {}).get("uid")), []).append(event)
        stack = {d.namespace for d in daemonsets.value or ()} | {self.cluster.plugin.namespace or ""}
        declared = {w.name.partition("/")[0] for w in self.cluster.workloads}
        kept = []
        for raw in listed.value:
            uid = str((raw.get("metadata") or {}).get("uid"))
            pod = read.pod(raw, by_uid.get(uid, ()), at)
            if pod.requests or pod.node in self.gpu_nodes or pod.host_devices or pod.namespace in stack | declared:
                kept.append(pod)
        return value(tuple(kept), listed.source, listed.at)

    def _namespaces(
        self, daemonsets: Reading[tuple[DaemonSetFacts, ...]], pods: Reading[tuple[PodFacts, ...]]
    ) -> Reading[Any]:
        wanted = {d.namespace for d in daemonsets.value or ()} | {p.namespace for p in pods.value or () if p.requests}
        wanted |= {self.cluster.probe.namespace, self.cluster.plugin.namespace or ""}
        return _each(self._list("/api/v1/namespaces"), read.namespace, lambda n: n.name in wanted)

    def _is_ours(
        self, event: Any, daemonsets: Reading[tuple[DaemonSetFacts, ...]], pods: Reading[tuple[PodFacts, ...]]
    ) -> bool:
        if event.kind == "Node":
            return event.name in self.gpu_nodes
        stack = {d.namespace for d in daemonsets.value or ()}
        if event.kind in _MEMBERS and event.namespace in stack:
            return True
        return event.uid in {p.uid for p in pods.value or () if p.requests or p.host_devices}

    def _config_maps(self, daemonsets: Reading[tuple[DaemonSetFacts, ...]]) -> Reading[tuple[ConfigMapFacts, ...]]:
        """ConfigMaps the plugin and GFD mount, by name: no list of a namespace's other ConfigMaps is asked for."""
        if daemonsets.state is not State.VALUE:
            return Reading(daemonsets.state, None, daemonsets.source, daemonsets.why, daemonsets.at, daemonsets.kind)
        names = sorted({
            (d.namespace, name) for d in daemonsets.value or () if d.role in ("plugin", "gfd")
            for name in d.config_maps if name
        })  # fmt: skip
        at, found, sources = now(), [], []
        for namespace, name in names:
            path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
            sources.append(_source(path, {}))
            try:
                raw = self._patience.ask(lambda path=path: self.session.get_json(path))  # type: ignore[misc]
                found.append(read.config_map(raw))
            except TransportFailure as failure:
                if failure.kind is not Kind.NOT_FOUND:
                    return _not_read(_source(path, {}), failure, at)
        return value(tuple(found), ", ".join(sources) or "no ConfigMap is mounted by the plugin", at)

    def _cluster_policy(self) -> Reading[Any]:
        if self.cluster.plugin.flavour != "gpu-operator":
            return NOT_ASKED
        listed = self._list(CLUSTER_POLICIES)
        if listed.kind == Kind.NOT_FOUND.value:  # the resource type itself is not served: no operator
            return absent(listed.source, "no ClusterPolicy resource in this cluster", listed.at)
        return _each(listed, read.cluster_policy)

    def _gpu_device_plugins(self) -> Reading[Any]:
        if self.cluster.plugin.flavour != "intel":
            return NOT_ASKED
        listed = self._list(GPU_DEVICE_PLUGINS)
        if listed.kind == Kind.NOT_FOUND.value:  # the plain DaemonSet without an operator
            return absent(listed.source, "no GpuDevicePlugin resource in this cluster", listed.at)
        return _each(listed, read.gpu_device_plugin)

    # ---- looks at allocatable

    def _samples(self) -> Reading[tuple[Sample, ...]]:
        """`stable_reads` looks, `stable_interval_s` apart; the nodes of the last look are the facts' nodes."""
        timings, taken = self.lab.timings, list[Sample]()

        def look() -> int:
            at, self._raw_nodes = now(), self._list(NODES)
            nodes = [n for n in map(read.node, self._raw_nodes.value or ()) if n.name in self.gpu_nodes]
            leases = {
                str((lease.get("metadata") or {}).get("name")): unix((lease.get("spec") or {}).get("renewTime"))
                for lease in self._list(LEASES).value or ()
            }
            taken.append(
                Sample(
                    at,
                    {n.name: n.allocatable for n in nodes},
                    {n.name: n.capacity for n in nodes},
                    {name: renewed for name, renewed in leases.items() if name in self.gpu_nodes},
                )
            )
            return len(taken)

        every = timings.stable_interval_s
        wait_until(
            look,
            lambda looks: looks >= timings.stable_reads or self._raw_nodes.state is not State.VALUE,
            limit_s=every * timings.stable_reads + 2 * timings.request_s * timings.stable_reads + 1.0,
            every_s=every,
            what=f"{timings.stable_reads} looks at allocatable",
        )
        nodes = self._raw_nodes
        if nodes.state is not State.VALUE:
            return Reading(nodes.state, None, nodes.source, nodes.why, nodes.at, nodes.kind)
        return value(tuple(taken), f"{nodes.source}, {len(taken)} looks {every:g} s apart", now())

    # ---- logs

    def _logs(
        self, daemonsets: Reading[tuple[DaemonSetFacts, ...]], pods: Reading[tuple[PodFacts, ...]]
    ) -> Iterable[Reading[PluginLog]]:
        for daemonset in daemonsets.value or ():
            if daemonset.role not in LOGGED_ROLES:
                continue
            for pod in pods.value or ():
                mine = pod.owner == ("DaemonSet", daemonset.name) and pod.namespace == daemonset.namespace
                if not mine or pod.node not in self.gpu_nodes or pod.finished:
                    continue
                for container in pod.containers:
                    if container.state in ("running", "terminated") or container.restarts:
                        yield self._log(pod, container.name, daemonset.role, previous=False)
                    if container.restarts:
                        yield self._log(pod, container.name, daemonset.role, previous=True)

    def _log(self, pod: PodFacts, container: str, role: str, *, previous: bool) -> Reading[PluginLog]:
        at = now()
        source = f"kubectl -n {pod.namespace} logs {pod.name} -c {container}{' --previous' if previous else ''}"
        try:
            log = self._patience.ask(lambda: self.session.log(pod.namespace, pod.name, container, previous=previous))
        except TransportFailure as failure:
            return _not_read(source, failure, at)
        if log.content is None:
            why = log.reason or "no log"
            if "is waiting to start" in why or "previous terminated container" in why:
                return absent(source, why, at)
            return failed(source, why, "unavailable", at)
        text = log.content.decode("utf-8", "replace")
        whose = {"pod": pod.name, "namespace": pod.namespace, "node": pod.node, "container": container}
        told = read_plugin_log(text, **whose, role=role, previous=previous)
        return value(told, source, at)

    # ---- what admission says to our pod

    def _admission(self) -> Reading[Admission]:
        if self.cluster.probe.via == "exec":
            return Reading(State.NOT_ASKED, why="probe.via is exec: labproof creates no pod here")
        namespace, at = self.cluster.probe.namespace, now()
        path = f"/api/v1/namespaces/{namespace}/pods"
        source, body = f"POST {path}?dryRun=All", admission_pod(self.lab, self.cluster)
        runtime_class = str(body["spec"].get("runtimeClassName") or "")
        try:
            made = self._patience.ask(lambda: self.session.create(path, body, dry_run=True))
        except TransportFailure as failure:
            if failure.status not in (400, 403, 404, 409, 422):
                return _not_read(source, failure, at)
            refusal = classify_refusal(failure.status, failure.answer or failure.text)
            if refusal.because in (Because.NO_RIGHT, Because.NAMESPACE):
                return _not_read(source, failure, at)
            return value(Admission(namespace, refusal, runtime_class=runtime_class), source, at)
        spec = made.get("spec") or {}
        priority_class = str(spec.get("priorityClassName") or "")
        return value(Admission(namespace, None, spec.get("priority"), priority_class, runtime_class), source, at)


def admission_pod(lab: Lab, cluster: Cluster) -> dict[str, Any]:
    """The suite's own probe pod (`manifests/pods/probe.yaml`) as it would be made on the cluster's first GPU node."""
    node = next((n.name for n in lab.nodes if n.cluster == cluster.name), "")
    filling = Filling(cluster, "admission", node, cluster.probe.image, deadline_s=900, now=now())
    return pod_of_manifest("probe", "probe", filling, slots=0 if cluster.plugin.flavour == "hostpath" else 1)


def _each(
    listed: Reading[list[Json]], make: Callable[[Json], T | None], keep: Callable[[T], bool] = lambda item: True
) -> Reading[tuple[T, ...]]:
    """A list's objects as facts: those that `make` returns something for and `keep` wants."""
    if listed.state is not State.VALUE or listed.value is None:
        return Reading(listed.state, None, listed.source, listed.why, listed.at, listed.kind)
    made = (make(raw) for raw in listed.value)
    return value(tuple(item for item in made if item is not None and keep(item)), listed.source, listed.at)


def _source(path: str, query: Mapping[str, str]) -> str:
    return f"GET {path}" + ("?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else "")


def _not_read(source: str, failure: TransportFailure, at: float) -> Reading[Any]:
    why = failure.answer or failure.text
    return failed(source, why, failure.kind.value, at)
