"""Kubernetes JSON -> typed facts. No request is made here; a field that is missing becomes its empty value.

What is kept, and nothing else: env variables by an allow-list (a pod's environment may hold secrets), ConfigMaps that
the GPU stack mounts, extended resources but not CPU and memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from labproof.facts.kubernetes_objects import (
    ClusterPolicyFacts,
    Condition,
    ConfigMapFacts,
    ContainerFacts,
    DaemonSetFacts,
    EventFacts,
    GpuDevicePluginFacts,
    NamespaceFacts,
    NodeFacts,
    NodeImage,
    PodFacts,
    Requirement,
    RuntimeClassFacts,
    Taint,
    Toleration,
)
from labproof.facts.pod_outcome import classify, event_time, unix

Json = Mapping[str, Any]

#: Variables that steer the plugin or the injection of a GPU (facts kubernetes-gpu 1.1-1.4, 3, K44-K48).
KEPT_ENV = frozenset(
    {
        "CONFIG_FILE", "CONFIG_FILE_DST", "CONFIG_FILE_SRCDIR", "DEFAULT_CONFIG", "FALLBACK_STRATEGIES",
        "NODE_LABEL", "DEVICE_DISCOVERY_STRATEGY", "DEVICE_LIST_STRATEGY", "DEVICE_ID_STRATEGY",
        "FAIL_ON_INIT_ERROR", "MIG_STRATEGY", "NVIDIA_CDI_HOOK_PATH", "NVIDIA_DRIVER_ROOT",
        "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "PASS_DEVICE_SPECS",
    }
)  # fmt: skip
_POD_SECURITY = "pod-security.kubernetes.io/"
_GPU_PATHS = ("/dev/dri", "/dev/nvidia", "/dev/kfd")


def extended(resources: Json | None) -> dict[str, int]:
    """Extended resources of a resource list: names with a domain that is not Kubernetes' own, as counts."""
    found = {}
    for name, quantity in (resources or {}).items():
        domain = name.partition("/")[0]
        if "/" in name and not domain.endswith("kubernetes.io") and str(quantity).isdigit():
            found[name] = int(quantity)
    return found


def node(raw: Json) -> NodeFacts:
    """One Node."""
    meta, spec, status = _part(raw, "metadata"), _part(raw, "spec"), _part(raw, "status")
    info, handlers = _part(status, "nodeInfo"), status.get("runtimeHandlers")
    return NodeFacts(
        name=str(meta.get("name") or ""),
        labels=_texts(meta.get("labels")),
        annotations={k: v for k, v in _texts(meta.get("annotations")).items() if len(v) <= 4096},
        taints=tuple(
            Taint(str(t.get("key") or ""), str(t.get("value") or ""), str(t.get("effect") or ""))
            for t in spec.get("taints") or ()
        ),
        unschedulable=bool(spec.get("unschedulable")),
        conditions=conditions(status.get("conditions")),
        capacity=extended(status.get("capacity")),
        allocatable=extended(status.get("allocatable")),
        runtime_handlers=None if handlers is None else tuple(str(h.get("name") or "") for h in handlers),
        system_uuid=str(info.get("systemUUID") or ""),
        boot_id=str(info.get("bootID") or ""),
        kernel=str(info.get("kernelVersion") or ""),
        os_image=str(info.get("osImage") or ""),
        runtime=str(info.get("containerRuntimeVersion") or ""),
        kubelet=str(info.get("kubeletVersion") or ""),
        images=tuple(
            NodeImage(tuple(str(n) for n in i.get("names") or ()), int(i.get("sizeBytes") or 0))
            for i in status.get("images") or ()
        ),
        addresses=tuple(str(a.get("address") or "") for a in status.get("addresses") or ()),
    )


def conditions(raw: Iterable[Json] | None) -> tuple[Condition, ...]:
    """Conditions of a node or a custom resource."""
    return tuple(
        Condition(
            str(c.get("type") or ""),
            str(c.get("status") or ""),
            str(c.get("reason") or ""),
            str(c.get("message") or ""),
            unix(c.get("lastTransitionTime")),
            unix(c.get("lastHeartbeatTime")),
        )
        for c in raw or ()
    )


def pod(raw: Json, events: Sequence[Json] = (), now: float | None = None) -> PodFacts:
    """One Pod; its events and the present tell what became of it."""
    meta, spec, status = _part(raw, "metadata"), _part(raw, "spec"), _part(raw, "status")
    owner: Json = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), {})
    return PodFacts(
        namespace=str(meta.get("namespace") or ""),
        name=str(meta.get("name") or ""),
        uid=str(meta.get("uid") or ""),
        node=str(spec.get("nodeName") or ""),
        phase=str(status.get("phase") or ""),
        owner=(str(owner.get("kind") or ""), str(owner.get("name") or "")),
        labels=_texts(meta.get("labels")),
        outcome=classify(raw, events, now),
        containers=_containers(spec, status),
        requests=pod_requests(spec),
        tolerations=tolerations(spec),
        node_selector=_texts(spec.get("nodeSelector")),
        affinity=required_affinity(spec),
        runtime_class=str(spec.get("runtimeClassName") or ""),
        priority=spec.get("priority"),
        priority_class=str(spec.get("priorityClassName") or ""),
        host_devices=tuple(p for p in _host_paths(spec) if p.startswith(_GPU_PATHS)),
        created=unix(meta.get("creationTimestamp")),
        slot_since=unix(status.get("startTime")),
        deleting=bool(meta.get("deletionTimestamp")),
    )


def pod_requests(spec: Json) -> dict[str, int]:
    """Extended resources that the scheduler counts for a pod.

    Main containers and sidecars (restartable init containers) add up; an ordinary init container counts alone, with
    the sidecars before it: the larger of both (k8s.io/component-helpers resource.PodRequests).
    """
    steady: dict[str, int] = {}
    peak: dict[str, int] = {}
    sidecars: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        asked = _asked(container)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, asked)
        else:
            for name, count in asked.items():
                peak[name] = max(peak.get(name, 0), count + sidecars.get(name, 0))
    _add(steady, sidecars)
    for container in spec.get("containers") or ():
        _add(steady, _asked(container))
    return {name: max(steady.get(name, 0), peak.get(name, 0)) for name in {**steady, **peak}}


def tolerations(spec: Json) -> tuple[Toleration, ...]:
    """A pod spec's tolerations."""
    return tuple(
        Toleration(
            str(t.get("key") or ""),
            str(t.get("operator") or "Equal"),
            str(t.get("value") or ""),
            str(t.get("effect") or ""),
        )
        for t in spec.get("tolerations") or ()
    )


def required_affinity(spec: Json) -> tuple[tuple[Requirement, ...], ...]:
    """Required node affinity: terms (any of), each of requirements (all of)."""
    node_affinity = _part(_part(spec, "affinity"), "nodeAffinity")
    required = _part(node_affinity, "requiredDuringSchedulingIgnoredDuringExecution")
    return tuple(
        tuple(
            Requirement(str(e.get("key") or ""), str(e.get("operator") or ""), tuple(map(str, e.get("values") or ())))
            for e in term.get("matchExpressions") or ()
        )
        for term in required.get("nodeSelectorTerms") or ()
    )


def daemonset(raw: Json, role: str) -> DaemonSetFacts:
    """One DaemonSet of the GPU stack, of the role decided for it."""
    meta, spec, status = _part(raw, "metadata"), _part(raw, "spec"), _part(raw, "status")
    template = _part(_part(spec, "template"), "spec")
    every = [*(template.get("initContainers") or ()), *(template.get("containers") or ())]
    env: dict[str, str] = {}
    for container in every:
        env.update(_env(container))
    return DaemonSetFacts(
        chart=_texts(meta.get("labels")).get("helm.sh/chart", ""),
        namespace=str(meta.get("namespace") or ""),
        name=str(meta.get("name") or ""),
        uid=str(meta.get("uid") or ""),
        role=role,
        desired=int(status.get("desiredNumberScheduled") or 0),
        current=int(status.get("currentNumberScheduled") or 0),
        ready=int(status.get("numberReady") or 0),
        updated=int(status.get("updatedNumberScheduled") or 0),
        generation=int(meta.get("generation") or 0),
        observed_generation=int(status.get("observedGeneration") or 0),
        containers=tuple(str(c.get("name") or "") for c in every),
        images=tuple(str(c.get("image") or "") for c in every),
        env=env,
        tolerations=tolerations(template),
        node_selector=_texts(template.get("nodeSelector")),
        affinity=required_affinity(template),
        runtime_class=str(template.get("runtimeClassName") or ""),
        config_maps=tuple(
            str(v["configMap"].get("name") or "") for v in template.get("volumes") or () if v.get("configMap")
        ),
        host_paths=_host_paths(template),
    )


def gpu_device_plugin(raw: Json) -> GpuDevicePluginFacts:
    """A GpuDevicePlugin of Intel's operator."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    return GpuDevicePluginFacts(
        str((raw.get("metadata") or {}).get("name") or ""),
        str(spec.get("image") or ""),
        int(spec.get("sharedDevNum") or 1),
        bool(spec.get("enableMonitoring")),
        str(spec.get("monitoringMode") or ""),
        {str(k): str(v) for k, v in (spec.get("nodeSelector") or {}).items()},
        str((status.get("controlledDaemonSet") or {}).get("name") or ""),
        int(status.get("desiredNumberScheduled") or 0),
        int(status.get("numberReady") or 0),
        tuple(str(n) for n in status.get("nodeNames") or ()),
    )


def config_map(raw: Json) -> ConfigMapFacts:
    """One ConfigMap."""
    meta = _part(raw, "metadata")
    edits = [unix(m.get("time")) for m in meta.get("managedFields") or ()]
    return ConfigMapFacts(
        str(meta.get("namespace") or ""),
        str(meta.get("name") or ""),
        _texts(raw.get("data")),
        max([unix(meta.get("creationTimestamp")), *edits]),
    )


def runtime_class(raw: Json) -> RuntimeClassFacts:
    """One RuntimeClass."""
    return RuntimeClassFacts(
        str(_part(raw, "metadata").get("name") or ""),
        str(raw.get("handler") or ""),
        _texts(_part(raw, "scheduling").get("nodeSelector")),
    )


def namespace(raw: Json) -> NamespaceFacts:
    """One Namespace with its Pod Security labels."""
    meta = _part(raw, "metadata")
    labels = _texts(meta.get("labels"))
    return NamespaceFacts(
        str(meta.get("name") or ""),
        {k.removeprefix(_POD_SECURITY): v for k, v in labels.items() if k.startswith(_POD_SECURITY)},
    )


def event(raw: Json) -> EventFacts:
    """One Event."""
    about = _part(raw, "involvedObject")
    series = _part(raw, "series")
    return EventFacts(
        namespace=str(about.get("namespace") or _part(raw, "metadata").get("namespace") or ""),
        kind=str(about.get("kind") or ""),
        name=str(about.get("name") or ""),
        uid=str(about.get("uid") or ""),
        reason=str(raw.get("reason") or ""),
        message=str(raw.get("message") or ""),
        count=int(raw.get("count") or series.get("count") or 1),
        last=event_time(raw),
    )


_POLICY_FIELDS = (
    "driver.enabled", "toolkit.enabled", "toolkit.installDir", "hostPaths.driverInstallDir", "cdi.enabled",
    "cdi.default", "cdi.nriPluginEnabled", "devicePlugin.enabled", "devicePlugin.config.name",
    "devicePlugin.config.default", "gfd.enabled", "dcgmExporter.enabled", "dcgm.enabled", "nodeStatusExporter.enabled",
    "migManager.enabled", "sandboxWorkloads.enabled",
)  # fmt: skip


def cluster_policy(raw: Json) -> ClusterPolicyFacts:
    """The operator's ClusterPolicy, its spec cut to the fields that decide."""
    spec, status = _part(raw, "spec"), _part(raw, "status")
    kept = {}
    for path in _POLICY_FIELDS:
        at: Any = spec
        for step in path.split("."):
            at = at.get(step) if isinstance(at, Mapping) else None
        if at is not None:
            kept[path] = str(at).lower() if isinstance(at, bool) else str(at)
    meta = _part(raw, "metadata")
    return ClusterPolicyFacts(
        str(meta.get("name") or ""),
        str(status.get("state") or ""),
        conditions(status.get("conditions")),
        kept,
        unix(meta.get("creationTimestamp")),
    )


def _containers(spec: Json, status: Json) -> tuple[ContainerFacts, ...]:
    found = []
    for init, key in ((True, "initContainers"), (False, "containers")):
        states = {s.get("name"): s for s in status.get("initContainerStatuses" if init else "containerStatuses") or ()}
        found += [_container(c, states.get(c.get("name")) or {}, init) for c in spec.get(key) or ()]
    return tuple(found)


def _container(spec: Json, status: Json, init: bool) -> ContainerFacts:
    state = _part(status, "state")
    word = next((w for w in ("running", "waiting", "terminated") if state.get(w) is not None), "")
    now, last = _part(state, word), _part(_part(status, "lastState"), "terminated")
    ended = now if word == "terminated" else last
    exit_code = ended.get("exitCode")
    return ContainerFacts(
        name=str(spec.get("name") or ""),
        image=str(spec.get("image") or ""),
        init=init,
        requests=_asked(spec),
        env=_env(spec),
        state=word,
        reason=str(now.get("reason") or ""),
        ready=bool(status.get("ready")),
        restarts=int(status.get("restartCount") or 0),
        started=unix(now.get("startedAt")),
        last_exit=exit_code if isinstance(exit_code, int) else None,
        last_reason=str(ended.get("reason") or ""),
        privileged=bool(_part(spec, "securityContext").get("privileged")),
        devices=tuple(
            (str(r.get("name") or ""), str(d.get("resourceID") or ""), str(d.get("health") or ""))
            for r in status.get("allocatedResourcesStatus") or ()
            for d in r.get("resources") or ()
        ),
    )


def _asked(container: Json) -> dict[str, int]:
    """A limit alone is also the request: the API server fills it in, a simulator or a template may not."""
    resources = _part(container, "resources")
    return extended(resources.get("limits")) | extended(resources.get("requests"))


def _env(container: Json) -> dict[str, str]:
    return {
        str(e["name"]): str(e["value"])
        for e in container.get("env") or ()
        if e.get("name") in KEPT_ENV and e.get("value") is not None
    }


def _host_paths(spec: Json) -> tuple[str, ...]:
    return tuple(str(v["hostPath"].get("path") or "") for v in spec.get("volumes") or () if v.get("hostPath"))


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


def _part(raw: Json, key: str) -> Json:
    found = raw.get(key)
    return found if isinstance(found, Mapping) else {}


def _texts(raw: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in raw.items()} if isinstance(raw, Mapping) else {}
