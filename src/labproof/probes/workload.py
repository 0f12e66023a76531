"""The workload probe: a pod of ours with one slot, looked at from inside, and the pods that must get nothing.

It acts (write scope `pod`): see `labproof.probes.pods` for what it makes and how that goes away again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from labproof.clients.errors import TransportFailure
from labproof.facts.plugin_config import pod_resource
from labproof.facts.pod_command import Ran
from labproof.facts.pod_outcome import Outcome, PodOutcome
from labproof.facts.reading import Reading, State, failed, value
from labproof.facts.store import now
from labproof.facts.workload import ImageChoice, LeakSeen, PodSeen, Slots, WorkloadFacts
from labproof.inventory.chains import Chain
from labproof.inventory.models import Cluster, Lab
from labproof.probes.pods import OwnPods, refused
from labproof.probes.pods_card import settle_on_card
from labproof.probes.pods_opened import in_own_pods
from labproof.probes.pods_run import run_in
from labproof.probes.pods_slots import asked_by, choose_image, disk_pressure, read_slots
from labproof.probes.workload_dri import inspect_card, is_nvidia, nodes_without_a_request
from labproof.probes.workload_inspect import Inspected, list_devices, read_list
from labproof.probes.workload_memory import take_memory
from labproof.probes.workload_slots import over_request, overflow


@dataclass(frozen=True)
class Ground:
    """What is known before the first pod: slots, image, how many slots we may hold, and why not more."""

    slots: Slots
    image: ImageChoice
    limit: int
    busy: str


def probe_workload(lab: Lab, chain: Chain) -> Reading[WorkloadFacts]:
    """Observe one chain from inside a pod.

    Returns:
        The facts; failed with kind `busy` when another run holds the GPU, `refused` when acting would do harm, or the
        transport's kind when the cluster does not answer.
    """
    return in_own_pods(lab, chain, _observe, _left)


def _left(facts: WorkloadFacts, pods: OwnPods) -> WorkloadFacts:
    return replace(facts, created=tuple(pods.created), left_behind=tuple(pods.left_behind), swept=tuple(pods.swept))


def survey(pods: OwnPods, lab: Lab) -> Ground | Reading[Any]:
    """Count slots, choose the image, resolve the priority; a failed reading when acting would do harm."""
    cluster, probe = pods.cluster, pods.cluster.probe
    slots, node = read_slots(pods.session, cluster, pods.node)
    image = choose_image(node, probe.image)
    if not image.on_node and disk_pressure(node):
        return failed("node.status.conditions", f"{pods.node} has DiskPressure and lacks the image: no pull", "refused")
    limit, busy = slots_allowed(slots, cluster)
    others = [h for h in slots.holders if not h.ours]
    if others:
        try:
            priority = pods.priority_of("probe", image.reference, 1)
        except TransportFailure as failure:
            if refused(failure) is None:
                raise
            return Ground(slots, image, limit, busy)  # creating the pod will say the same, as an outcome
        lowest = min(others, key=lambda h: h.priority)
        if priority > lowest.priority:
            why = (
                f"our pods would have priority {priority}, above {lowest.name} ({lowest.priority}), and could evict it;"
                f" let pods of namespace {probe.namespace} have no more than that"
            )
            return failed("server-side dry run", why, "refused")
    return Ground(slots, image, limit, busy)


def slots_allowed(slots: Slots, cluster: Cluster) -> tuple[int, str]:
    """How many slots our pods may hold at once, and why no more.

    All free ones but one; all that lab.yaml allows by `probe.max_slots`; the only one of an unshared card nobody
    uses. A node without the resource allows one, so that the scheduler can say what is wrong.
    """
    told = cluster.probe.max_slots
    if not slots.allocatable:
        return 1, ""
    if slots.free == 0:
        return 0, f"all {slots.allocatable} slots of {slots.resource} on {slots.node} are held: {slots.by_whom()}"
    if told is not None:
        return min(told, slots.free), f"probe.max_slots is {told}"
    expected = any(w.slots and w.state == "always" for w in cluster.workloads)
    if slots.free == 1 and slots.held == 0 and not expected:
        return 1, ""
    return slots.free - 1, (
        f"{slots.free} of {slots.allocatable} slots of {slots.resource} on {slots.node} are free and one stays so"
        f" (held: {slots.by_whom()}); probe.max_slots: {slots.free} would allow it"
    )


def not_asked(why: str) -> Reading[Any]:
    """A reading that was left out on purpose."""
    return Reading(State.NOT_ASKED, why=why)


def _observe(pods: OwnPods, lab: Lab, chain: Chain) -> Reading[WorkloadFacts]:
    cluster, probe = pods.cluster, pods.cluster.probe
    ground = survey(pods, lab)
    if isinstance(ground, Reading):
        return ground
    image = ground.image.reference
    leak = pods.make("leak", "leak", image)
    bare = None
    if cluster.runtime_class.expected == "present":
        bare = pods.make("runtime-class-only", "runtime-class-only", image)
    facts = WorkloadFacts(
        chain.id, pods.node, ground.slots.resource, probe.namespace, probe.via, pods.run, now(), ground.slots,
        ground.image, failed("pods", ground.busy, "busy"),
    )  # fmt: skip
    facts, inspected = (
        _exec_in_declared(pods, chain, facts) if probe.via == "exec" else _in_own_pod(pods, chain, facts, ground)
    )
    facts = replace(facts, leak=_without(pods, chain, leak))
    if bare is not None:
        facts = replace(facts, runtime_class_only=_without(pods, chain, bare))
    pods.remove(leak.name, bare.name if bare else "", facts.probe.value.name if facts.probe.value else "")
    works = facts.probe.value is not None and runs(facts.probe.value.outcome)
    if probe.via == "pod" and facts.probe.value is not None and not works:
        return value(facts)  # a second pod would fail as the first did
    short = inspected.floors.value.short_of if inspected is not None and inspected.floors.value is not None else ""
    return value(
        replace(
            facts,
            vector_add=_vector_add(pods, chain, ground, short),
            over_request=over_request(pods, image, ground.limit, ground.busy),
            overflow=overflow(pods, image),
        )
    )


def _in_own_pod(
    pods: OwnPods, chain: Chain, facts: WorkloadFacts, ground: Ground
) -> tuple[WorkloadFacts, Inspected | None]:
    seen: PodSeen | Reading[Any] = failed("slots", ground.busy, "busy")
    if ground.limit >= 1:
        seen = settle_on_card(pods, chain, ground.slots, ground.image.reference, ground.limit, ground.busy)
    if isinstance(seen, Reading):
        busy = seen
        return (
            replace(
                facts, probe=busy, nvidia_smi=busy, listed=busy, env=busy, uid=busy, devices=busy, libraries=busy,
                floors=busy, vram=busy,
            ),
            None,
        )  # fmt: skip
    facts = replace(facts, probe=value(seen, f"pod {seen.namespace}/{seen.name}"))
    if not runs(seen.outcome):
        nothing = not_asked("the probe pod does not run")
        return replace(
            facts, nvidia_smi=nothing, listed=nothing, env=nothing, uid=nothing, devices=nothing, libraries=nothing,
            floors=nothing, vector_add=nothing, over_request=nothing, overflow=nothing,
        ), None  # fmt: skip
    found = inspect_card(chain, lambda argv: pods.exec(seen, argv), pods.cluster.probe)
    facts = _with(facts, found)
    left = found.floors.value
    if not is_nvidia(chain):
        return facts, found
    if left is not None and left.short_of:
        facts = replace(facts, vram=failed("nvidia-smi -q -x", f"not started: {left.short_of}", "busy"))
    elif pods.cluster.compute and left is not None:
        free = left.free_vram_mib
        probe, timings = pods.cluster.probe, pods.lab.timings
        run = partial(pods.exec, seen)
        facts = replace(facts, vram=take_memory(run, probe, timings, facts.slots, free))
    return facts, found


def _exec_in_declared(pods: OwnPods, chain: Chain, facts: WorkloadFacts) -> tuple[WorkloadFacts, Inspected | None]:
    found = declared_pod(pods)
    if isinstance(found, Reading):
        return replace(facts, probe=found, nvidia_smi=found, listed=found, env=found, uid=found, devices=found,
                       libraries=found, floors=found), None  # fmt: skip
    seen, run = found
    inspected = inspect_card(chain, run, pods.cluster.probe)
    return _with(replace(facts, probe=value(seen, f"pod {seen.namespace}/{seen.name}")), inspected), inspected


def declared_pod(pods: OwnPods) -> tuple[PodSeen, Any] | Reading[Any]:
    """The pod lab.yaml names for `via: exec`, running on this node, and how to run an argv in it."""
    probe = pods.cluster.probe
    namespace, slash, name = (probe.pod or "").partition("/")
    if not slash:
        return failed("lab.yaml", "probe.via is exec, but probe.pod is not namespace/name")
    path = f"/api/v1/namespaces/{namespace}/pods"
    items = pods.session.list_json(path, fieldSelector=f"spec.nodeName={pods.node}")["items"]
    running = [p for p in items if (p.get("status") or {}).get("phase") == "Running"]
    names = sorted(str(p["metadata"]["name"]) for p in running)
    found = next((n for n in names if n == name), None) or next((n for n in names if n.startswith(f"{name}-")), None)
    if found is None:
        return failed(f"GET {path}", f"no pod {namespace}/{name} (or {name}-...) runs on {pods.node}", "not_found")
    body = next(p for p in running if p["metadata"]["name"] == found)
    containers = body["spec"]["containers"]
    container = probe.container or str(containers[0]["name"])
    image = next((str(c.get("image", "")) for c in containers if c["name"] == container), "")
    limit_s = pods.lab.timings.command_s

    def run(argv: Sequence[str], timeout_s: float | None = None) -> Ran:
        return run_in(pods.session, namespace, found, container, argv, timeout_s or limit_s, pods.patience)

    outcome = PodOutcome(Outcome.RUNNING, source="status.phase")
    return PodSeen("probe", found, namespace, image, asked_by(body, pod_resource(pods.cluster)), outcome), run


def runs(outcome: PodOutcome | None) -> bool:
    """Whether a pod was seen running."""
    return outcome is not None and outcome.outcome is Outcome.RUNNING


def _with(facts: WorkloadFacts, found: Inspected) -> WorkloadFacts:
    return replace(
        facts, nvidia_smi=found.nvidia_smi, listed=found.listed, env=found.env, uid=found.uid, devices=found.devices,
        libraries=found.libraries, floors=found.floors, dri=found.dri, vainfo=found.vainfo, opencl=found.opencl,
    )  # fmt: skip


def _without(pods: OwnPods, chain: Chain, made: PodSeen) -> Reading[LeakSeen]:
    """What a pod without a request sees."""
    seen = pods.settle(made)
    source = f"pod {seen.namespace}/{seen.name or seen.role}"
    if not runs(seen.outcome):
        nothing = not_asked("the pod did not run")
        return value(LeakSeen(seen, nothing, nothing), source)
    devices = list_devices(lambda argv: pods.exec(seen, argv))
    paths = (
        value(tuple(path for path, *_ in devices.value), devices.source)
        if devices.value is not None
        else failed(devices.source, devices.why, devices.kind)
    )
    listed = read_list(lambda argv: pods.exec(seen, argv))
    nodes = nodes_without_a_request(chain, lambda argv: pods.exec(seen, argv))
    return value(LeakSeen(seen, paths, listed, nodes), source)


def _vector_add(pods: OwnPods, chain: Chain, ground: Ground, short: str) -> Reading[PodSeen]:
    """NVIDIA's vectorAdd in a pod of its own; its log is read at once, before a clean-up job takes the pod."""
    if not chain.gpu.device.startswith("10de:"):
        return not_asked("vectorAdd is NVIDIA's")
    if not pods.cluster.compute:
        return not_asked("lab.yaml says compute: false")
    if ground.limit < 1:
        return failed("slots", ground.busy, "busy")
    if short:
        return failed("nvidia-smi -q -x", f"not started: {short}", "busy")
    made = pods.make("vector-add", "vector-add", pods.cluster.probe.cuda_image, 1)
    seen = pods.settle(made, lambda outcome: outcome.terminal)
    if seen.outcome is not None and seen.outcome.terminal:
        log = pods.log(seen)
        if log.value is None:
            pods.remove(seen.name)
            return failed(log.source, log.why, log.kind, log.at)
        seen = replace(seen, log=log.value[-4000:])
    pods.remove(seen.name)
    return value(seen, f"pod {seen.namespace}/{seen.name}")
