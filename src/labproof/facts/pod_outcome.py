"""What became of a pod, as one typed outcome, from its JSON and its events.

The API has no field that says it. Phase alone lies both ways: a pod whose command does not exist is `Running` under
restartPolicy Always, a sandbox that can never start is merely `Pending`, and `CrashLoopBackOff` is shown for a tenth
of a second at a time since Kubernetes 1.36. So the order in which the fields are asked is fixed here, once.

Source: facts real-kubernetes, "Captured failure states" (Kubernetes 1.36.2, containerd 1.6.20 and 2.3.4), and
kubernetes-gpu 8.2 for the wordings of other releases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from labproof.facts.scheduler_message import Unschedulable, parse_unschedulable

Json = Mapping[str, Any]


class Outcome(StrEnum):
    """Where a pod stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    EXITED = "exited"  # a container ended with a status other than 0 and is not restarted
    OOM_KILLED = "out of memory"
    DEADLINE = "deadline exceeded"
    EVICTED = "evicted"  # by the kubelet, or preempted by a pod of higher priority
    WAITING = "waiting"  # nothing is wrong yet: not scheduled, or its sandbox and containers are being made
    UNSCHEDULABLE = "unschedulable"
    REJECTED = "rejected by the kubelet"  # bound to the node, then refused: Failed for good
    SANDBOX = "sandbox cannot be created"
    MOUNT = "volume cannot be mounted"
    CONFIG = "container configuration error"
    CREATE = "container cannot be created"
    START = "container cannot be started"
    CRASH_LOOP = "crash loop"
    IMAGE = "image cannot be had"
    INIT = "waiting in an init container"
    LOST = "node lost"


#: Outcomes that no further waiting changes; the others may still turn into RUNNING.
TERMINAL = frozenset(
    {Outcome.SUCCEEDED, Outcome.EXITED, Outcome.OOM_KILLED, Outcome.DEADLINE, Outcome.EVICTED, Outcome.REJECTED}
)


@dataclass(frozen=True)
class PodOutcome:
    """Where a pod stands and which field said so.

    Attributes:
        outcome: the class of outcome.
        reason: the API's own word (`UnexpectedAdmissionError`, `StartError`, `ErrImagePull`), empty when it gives none.
        text: the API's own message, unchanged.
        source: the field that decided, as a path in the pod (`status.reason`) or `event <reason>`.
        detail: our machine word for what the text means (`devices in use`, `no such runtime handler`), or empty.
        name: the name found in the text: runtime handler, resource, CDI device, path, executable.
        container: the container it is about, empty for the whole pod.
        exit_code: of the container that ended, None when none did.
        restarts: sum over all containers.
        unschedulable: the scheduler's reasons, for UNSCHEDULABLE only.
    """

    outcome: Outcome
    reason: str = ""
    text: str = ""
    source: str = ""
    detail: str = ""
    name: str = ""
    container: str = ""
    exit_code: int | None = None
    restarts: int = 0
    unschedulable: Unschedulable | None = None

    @property
    def terminal(self) -> bool:
        """Whether waiting longer cannot change it."""
        return self.outcome in TERMINAL


# Most specific first. Groups: the name worth telling. Sources: facts real-kubernetes (tables "Rejected by the
# kubelet", "Sandbox", "Containers"), kubernetes-gpu 1.2, 8.2 and K22-K49.
_DETAILS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("more than one replica asked", re.compile(r"maximum request size for shared resources is 1")),
    ("devices in use", re.compile(r"requested number of devices unavailable for ([^\s.]+(?:\.[^\s.]+)*)\. Requested")),
    ("no healthy device", re.compile(r"no healthy devices present; cannot allocate unhealthy devices ([^\s,]+)")),
    ("devices no longer healthy", re.compile(r"previously allocated devices are no longer healthy")),
    ("unregistered resource", re.compile(r"can(?:'t|not) allocate unregistered device ([^\s,]+)")),
    ("plugin refused", re.compile(r"Allocate failed due to rpc error: code = (\w+)")),
    ("no such runtime handler", re.compile(r'no runtime for "([^"]+)" is configured')),
    ("cdi hook missing", re.compile(r"createContainer hook #\d+: fork/exec (\S+): no such file or directory")),
    ("runtime binary missing", re.compile(r"fork/exec (\S+): no such file or directory")),
    ("cdi device unresolvable", re.compile(r"unresolvable CDI devices (\S+)")),
    ("cdi device node missing", re.compile(r'failed to stat CDI host device "([^"]+)"')),
    ("device node missing", re.compile(r"failed to generate spec: lstat (\S+): no such file or directory")),
    ("not a character device", re.compile(r"hostPath type check failed: (\S+) is not a character device")),
    ("host path missing", re.compile(r"hostPath (?:type check failed: )?(\S+) (?:doesn't|does not) exist")),
    ("cuda too new for driver", re.compile(r"unsatisfied condition: cuda>=([\d.]+)")),
    ("cgroup device rules refused", re.compile(r"failed to add device rules")),
    ("visible devices refused", re.compile(r"insufficient privileges to read device list from (\w+)")),
    ("driver not loaded", re.compile(r"nvml error: driver not loaded|Driver Not Loaded")),
    ("driver and libraries differ", re.compile(r"(?i)driver/library version mismatch")),
    ("executable not found", re.compile(r'exec: "([^"]+)": executable file not found')),
    ("no memory for the sandbox", re.compile(r"can't get final child's PID from pipe: EOF")),
    ("read-only root", re.compile(r"mkdir (\S+): read-only file system")),
    ("image name invalid", re.compile(r'couldn\'t parse image name "([^"]+)"')),
    ("registry name does not resolve", re.compile(r"lookup (\S+) on \S+: no such host")),
    ("registry refused", re.compile(r"(?i)unauthorized|denied: requested access|403 Forbidden")),
    ("registry rate limit", re.compile(r"(?i)toomanyrequests|429 Too Many Requests")),
    ("registry timeout", re.compile(r"i/o timeout|context deadline exceeded|TLS handshake timeout")),
    ("image not on the node", re.compile(r'Container image "([^"]+)" is not present with pull policy of Never')),
    ("no such image", re.compile(r"(?i)manifest unknown|: not found$|does not exist or")),
    ("object missing", re.compile(r'^(?:configmap|secret) "([^"]+)" not found')),
)

_IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError",
     "RegistryUnavailable", "SignatureValidationFailed"}
)  # fmt: skip
_START_REASONS = frozenset({"RunContainerError", "StartError", "ContainerCannotRun"})
_EVENT_OUTCOMES = {
    "FailedCreatePodSandBox": Outcome.SANDBOX,
    "FailedMount": Outcome.MOUNT,
    "FailedAttachVolume": Outcome.MOUNT,
}


def classify(pod: Json, events: Iterable[Json] = (), now: float | None = None) -> PodOutcome:
    """The outcome of one pod.

    Args:
        pod: the Pod as the API returns it (JSON, camelCase).
        events: events of any objects; those of this pod are chosen by `involvedObject.uid`, because the events of
            an earlier pod of the same name outlive it.
        now: Unix time in seconds; only needed to tell a crash loop between two crashes from a pod that recovered.
    """
    status: Json = pod.get("status") or {}
    own = events_of(pod, events)
    containers: Sequence[Json] = status.get("containerStatuses") or ()
    inits: Sequence[Json] = status.get("initContainerStatuses") or ()
    init_specs: Sequence[Json] = (pod.get("spec") or {}).get("initContainers") or ()
    sidecars = {c.get("name") for c in init_specs if c.get("restartPolicy") == "Always"}
    restarts = sum(int(c.get("restartCount") or 0) for c in (*containers, *inits))
    found = (
        _whole_pod(status)
        or _not_scheduled(pod, status)
        or _first(_init(c, now) for c in inits if c.get("name") not in sidecars)
        or _first(_container(c, own, now) for c in (*containers, *(c for c in inits if c.get("name") in sidecars)))
        or _failed_before_containers(status, own)
        or _by_phase(status, containers, inits)
    )
    return PodOutcome(
        found.outcome, found.reason, found.text, found.source, found.detail, found.name, found.container,
        found.exit_code, restarts, found.unschedulable,
    )  # fmt: skip


def explain(text: str) -> tuple[str, str]:
    """Our machine word for a kubelet or runtime message, and the name it speaks of; both empty when unknown."""
    for word, pattern in _DETAILS:
        match = pattern.search(text)
        if match:
            return word, (match.group(1).rstrip(",.") if pattern.groups else "")
    return "", ""


def events_of(pod: Json, events: Iterable[Json]) -> list[Json]:
    """Events of this very pod (by uid), oldest first."""
    uid = (pod.get("metadata") or {}).get("uid")
    return sorted((e for e in events if (e.get("involvedObject") or {}).get("uid") == uid), key=event_time)


def event_time(event: Json) -> float:
    """When an event was last seen, Unix seconds; 0 when it carries no time.

    The scheduler sets only `eventTime` (or `series`), the kubelet only `firstTimestamp` and `lastTimestamp`.
    """
    series = event.get("series") or {}
    return max(
        (unix(stamp) for stamp in (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))),
        default=0.0,
    )


def unix(stamp: object) -> float:
    """Unix seconds of an RFC 3339 time, 0 for None or for what is none."""
    if not isinstance(stamp, str):
        return 0.0
    try:
        return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def _first(found: Iterable[PodOutcome | None]) -> PodOutcome | None:
    return next((outcome for outcome in found if outcome is not None), None)


def _told(
    outcome: Outcome, reason: str, text: str, source: str, container: str = "", exit_code: int | None = None
) -> PodOutcome:
    detail, name = explain(text)
    return PodOutcome(outcome, reason, text, source, detail, name, container, exit_code)


def _whole_pod(status: Json) -> PodOutcome | None:
    """What the pod's own reason says: the kubelet's refusals and ends that concern no single container."""
    reason, text = str(status.get("reason") or ""), str(status.get("message") or "")
    if status.get("phase") == "Failed" and reason:
        if reason == "DeadlineExceeded":
            return _told(Outcome.DEADLINE, reason, text, "status.reason")
        if reason in ("Evicted", "Preempting", "Shutdown", "Terminated", "NodeShutdown"):
            return _told(Outcome.EVICTED, reason, text, "status.reason")
        if reason.startswith("OutOf"):
            return PodOutcome(
                Outcome.REJECTED, reason, text, "status.reason", "node lacks resource", reason.removeprefix("OutOf")
            )
        if not status.get("containerStatuses"):  # refused before anything was made, whatever the word for it
            return _told(Outcome.REJECTED, reason, text, "status.reason")
    if reason == "NodeLost" or status.get("phase") == "Unknown":
        return _told(Outcome.LOST, reason, text, "status.phase")
    return None


def _not_scheduled(pod: Json, status: Json) -> PodOutcome | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") != "PodScheduled" or condition.get("status") != "False":
            continue
        reason, text = str(condition.get("reason") or ""), str(condition.get("message") or "")
        where = "status.conditions[PodScheduled].message"
        if reason == "SchedulingGated":
            return PodOutcome(Outcome.WAITING, reason, text, where, "scheduling gate")
        return PodOutcome(Outcome.UNSCHEDULABLE, reason, text, where, unschedulable=parse_unschedulable(text))
    if status.get("phase") == "Pending" and not (pod.get("spec") or {}).get("nodeName"):
        return PodOutcome(Outcome.WAITING, "", "not looked at by a scheduler yet", "spec.nodeName", "no scheduler yet")
    return None


def _state(container: Json, which: str, of: str) -> Json:
    return ((container.get(which) or {}).get(of)) or {}


def _init(container: Json, now: float | None) -> PodOutcome | None:
    done = _state(container, "state", "terminated")
    if done and done.get("exitCode") == 0:
        return None
    ended = _container(container, (), now)
    if ended is not None and ended.outcome is not Outcome.EXITED:
        return ended
    name = str(container.get("name") or "")
    waiting = _state(container, "state", "waiting")
    if waiting and waiting.get("reason") in ("PodInitializing", "ContainerCreating"):
        return None  # the pod has not come so far; sandbox and mounts are asked later
    source = f"status.initContainerStatuses[{name}].state"
    if ended is not None:
        return PodOutcome(
            Outcome.INIT, ended.reason, ended.text, source, ended.detail, ended.name, name, ended.exit_code
        )
    return PodOutcome(Outcome.INIT, "", "", source, container=name)


def _container(container: Json, events: Iterable[Json], now: float | None) -> PodOutcome | None:
    name = str(container.get("name") or "")
    where = f"status.containerStatuses[{name}]"
    waiting, ended = _state(container, "state", "waiting"), _state(container, "state", "terminated")
    last = _state(container, "lastState", "terminated")
    restarts = int(container.get("restartCount") or 0)
    if waiting:
        reason, text = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        if reason in _IMAGE_REASONS:
            return _told(Outcome.IMAGE, reason, text, f"{where}.state.waiting", name)
        if reason == "CreateContainerConfigError":
            return _told(Outcome.CONFIG, reason, text, f"{where}.state.waiting", name)
        if reason in ("CreateContainerError", "PreCreateHookError", "PostStartHookError"):
            return _told(Outcome.CREATE, reason, text, f"{where}.state.waiting", name)
        if reason in _START_REASONS or last.get("reason") in _START_REASONS:
            said = text if reason in _START_REASONS else str(last.get("message") or text)
            return _told(Outcome.START, reason, said, f"{where}.state.waiting", name, _code(last))
        if reason == "CrashLoopBackOff" or (restarts and last):
            return _crashing(name, reason, text, f"{where}.state.waiting", last)
        return None
    if ended:
        reason, text = str(ended.get("reason") or ""), str(ended.get("message") or "")
        if reason in _START_REASONS:
            return _told(Outcome.START, reason, text, f"{where}.state.terminated", name, _code(ended))
        if restarts or any(_is_restart_backoff(e, name) for e in events):
            return _crashing(name, reason, text, f"{where}.state.terminated", ended)
        if reason == "OOMKilled":
            return _told(Outcome.OOM_KILLED, reason, text, f"{where}.state.terminated", name, _code(ended))
        if ended.get("exitCode") != 0:
            return _told(Outcome.EXITED, reason, text, f"{where}.state.terminated", name, _code(ended))
        return None
    running = _state(container, "state", "running")
    if running and restarts >= 2 and now is not None and not _outlived(running, last, now):
        return _crashing(name, "", "running between two crashes", f"{where}.lastState.terminated", last)
    return None


def _outlived(running: Json, last: Json, now: float) -> bool:
    """Whether this run has clearly lasted longer than the one that crashed, so that the crash is history."""
    if not last:
        return True
    crashed_after = max(0.0, unix(last.get("finishedAt")) - unix(last.get("startedAt")))
    return now - unix(running.get("startedAt")) > 60.0 + 2.0 * crashed_after


def _crashing(name: str, reason: str, text: str, source: str, ended: Json) -> PodOutcome:
    detail, what = explain(str(ended.get("message") or ""))
    if ended.get("reason") == "OOMKilled":
        detail = "out of memory"
    return PodOutcome(Outcome.CRASH_LOOP, reason, text, source, detail, what, name, _code(ended))


def _is_restart_backoff(event: Json, container: str) -> bool:
    text = str(event.get("message") or "")
    return event.get("reason") == "BackOff" and text.startswith(f"Back-off restarting failed container {container} ")


def _code(ended: Json) -> int | None:
    code = ended.get("exitCode")
    return code if isinstance(code, int) else None


def _failed_before_containers(status: Json, events: Sequence[Json]) -> PodOutcome | None:
    """Sandbox and mount failures: the pod only says ContainerCreating, the newest event tells why."""
    if status.get("phase") != "Pending":
        return None
    for event in reversed(events):
        outcome = _EVENT_OUTCOMES.get(str(event.get("reason")))
        if outcome is not None:
            return _told(outcome, str(event["reason"]), str(event.get("message") or ""), f"event {event['reason']}")
    return None


def _by_phase(status: Json, containers: Sequence[Json], inits: Sequence[Json]) -> PodOutcome:
    phase = str(status.get("phase") or "")
    if phase == "Succeeded":
        return PodOutcome(Outcome.SUCCEEDED, source="status.phase", exit_code=0)
    if phase == "Failed":
        return _told(Outcome.EXITED, str(status.get("reason") or ""), str(status.get("message") or ""), "status.phase")
    if phase == "Running" and any(_state(c, "state", "running") for c in containers):
        return PodOutcome(Outcome.RUNNING, source="status.containerStatuses[].state.running")
    waiting = next((w for c in (*inits, *containers) if (w := _state(c, "state", "waiting"))), {})
    reason, text = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    return PodOutcome(Outcome.WAITING, reason, text, "status.phase")
