"""The life of our own pods: made under a lock, watched, worked in, and gone afterwards.

Everything made here carries `app.kubernetes.io/managed-by: labproof`, the run's id and a deadline, and ends by itself
(activeDeadlineSeconds) even after `kill -9`. The next run sweeps only pods past their deadline or whose run's Lease
is stale: never those of a run that lives (DESIGN 6).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout

from labproof.clients.errors import Kind, TransportFailure, WaitFailed
from labproof.clients.kubernetes import KubeSession, KubeTarget
from labproof.clients.wait import ask_again, wait_until
from labproof.facts.pod_command import Ran
from labproof.facts.pod_outcome import Outcome, PodOutcome, classify
from labproof.facts.reading import Reading, failed, value
from labproof.facts.refusal import classify_refusal
from labproof.facts.workload import PodSeen
from labproof.inventory.models import Cluster, Lab
from labproof.probes.patience import Patience
from labproof.probes.pods_lease import LeaseHeld, Leases, is_stale, run_lease
from labproof.probes.pods_manifest import DEADLINE, RUN_LABEL, SELECTOR, Filling, pod
from labproof.probes.pods_run import run_in

Json = Mapping[str, Any]

#: Outcomes that may pass (a pull is tried again, a slot gets free) but are given up after `timings.pod_pending_s`.
STUCK = frozenset(
    {Outcome.UNSCHEDULABLE, Outcome.SANDBOX, Outcome.MOUNT, Outcome.CONFIG, Outcome.CREATE, Outcome.START,
     Outcome.CRASH_LOOP, Outcome.IMAGE, Outcome.INIT}
)  # fmt: skip
_GONE_S = 60.0
#: An API server that does not answer is looked past for so long at most while a pod is waited for.
_SILENT_S = 30.0
_PASSING = (Kind.RESET, Kind.UNAVAILABLE, Kind.RATE_LIMITED)


class Busy(Exception):
    """Somebody else works on this GPU; the text names who."""


class OwnPods:
    """Our pods on one node, for one run. Use as a context manager: leaving it removes everything.

    Attributes:
        run: id of this run.
        created: names of the pods made, namespace/name.
        left_behind: pods that were still there when we had to stop waiting for their end.
        swept: what was removed of dead runs when this one began.

    Raises (on entering):
        Busy: another run, or another worker of this one, holds the GPU for too long.
        TransportFailure: the cluster refuses or does not answer.
    """

    def __init__(self, lab: Lab, cluster: Cluster, node: str) -> None:
        self.lab = lab
        self.cluster = cluster
        self.node = node
        self.namespace = cluster.probe.namespace
        self.run = uuid.uuid4().hex[:10]
        self.created: list[str] = []
        self.left_behind: list[str] = []
        self.swept: list[str] = []
        self.session = open_session(lab, cluster)
        self.patience = Patience()
        self._unreachable = False  # the API gave no answer lately: it is asked once more, not three times
        self._uids: dict[str, str] = {}
        self._made_at: dict[str, float] = {}
        self._leases = Leases(self.session, self.namespace, self.run)
        self._lock = FileLock(str(lock_file(cluster, node)))
        self._base = f"/api/v1/namespaces/{quote(self.namespace)}"

    def __enter__(self) -> OwnPods:
        try:
            self._enter()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._find_unanswered()
            self.remove(*tuple(self._uids))
            self.left_behind = [f"{self.namespace}/{name}" for name in self._uids]
        finally:
            self._leases.release()
            self.session.close()
            if self._lock.is_locked:
                self._lock.release()

    def _enter(self) -> None:
        wait_s = self.lab.timings.pod_start_s + self.lab.timings.transcode_s  # another run's pods, then its transcodes
        try:
            self._lock.acquire(timeout=wait_s)
        except Timeout:
            raise Busy(f"another labproof process on this machine works on {self.node}") from None
        self._leases.take(run_lease(self.run))
        name = f"labproof-gpu-{self.node}"

        def try_once() -> str:
            try:
                self._leases.take(name)
            except LeaseHeld as held:
                return str(held)
            return ""

        try:
            wait_until(
                try_once, lambda held: not held, limit_s=wait_s, every_s=max(0.2, self.lab.timings.poll_s),
                what=f"the lock on the GPU of {self.node}",
            )  # fmt: skip
        except WaitFailed as waited:
            raise Busy(str(waited.last)) from None
        self._sweep()  # only now: while we waited for a dead run's lock, its Lease went stale

    # ---------------------------------------------------------------- making and removing

    def make(self, manifest: str, role: str, image: str, slots: int = 0) -> PodSeen:
        """Create a pod; it is not waited for. A refusal by the API server is a PodSeen with `refused` set.

        Raises:
            TransportFailure: no answer, or our own account may not create pods.
        """
        body = self.fill(manifest, role, image, slots)
        name = str(body["metadata"]["name"])
        try:
            made = self.session.create(f"{self._base}/pods", body)
        except TransportFailure as failure:
            refusal = refused(failure)
            if refusal is None:
                raise
            because, text = refusal
            return PodSeen(role, "", self.namespace, image, slots, None, because, text)
        self._uids[name] = str(made["metadata"]["uid"])
        self._made_at[name] = time.monotonic()
        self.created.append(f"{self.namespace}/{name}")
        return PodSeen(role, name, self.namespace, image, slots, None)

    def fill(self, manifest: str, role: str, image: str, slots: int = 0) -> dict[str, Any]:
        """The Pod as it would be created."""
        timings = self.lab.timings
        deadline_s = int(timings.pod_start_s + 2 * timings.transcode_s)
        filling = Filling(self.cluster, self.run, self.node, image, deadline_s, time.time())
        return pod(manifest, role, filling, slots)

    def priority_of(self, manifest: str, image: str, slots: int) -> int:
        """The priority the API server would give the pod (server-side dry run: nothing is created)."""
        body = self.fill(manifest, "probe", image, slots)
        answer = self.session.create(f"{self._base}/pods", body, dry_run=True)
        return int((answer.get("spec") or {}).get("priority") or 0)

    def remove(self, *names: str) -> None:
        """Delete pods of ours and wait until they are gone: at most a minute for all of them.

        What could not be deleted is tried again when the run ends, and then noted in `left_behind`.
        """
        asked = [name for name in names if name in self._uids and self._delete(name)]
        deadline = time.monotonic() + min(_GONE_S, self.lab.timings.pod_start_s)
        for name in asked:
            uid = self._uids[name]
            try:
                wait_until(
                    lambda name=name: self._uid_now(name), lambda now, uid=uid: now != uid,  # type: ignore[misc]
                    limit_s=max(0.0, deadline - time.monotonic()), every_s=min(0.5, self.lab.timings.poll_s),
                    what=f"the end of pod {name}",
                )  # fmt: skip
            except (WaitFailed, TransportFailure):
                continue  # looked at once more when the run ends
            del self._uids[name]

    def _find_unanswered(self) -> None:
        """Pods of this run whose creation was never answered: the API may have made them all the same."""
        if not self._leases.held:
            return  # nothing was made before the run's own Lease
        try:
            items = self.session.list_json(f"{self._base}/pods", labelSelector=f"{RUN_LABEL}={self.run}")["items"]
        except TransportFailure:
            self._unreachable = True
            return  # their deadlines end them, the next run sweeps them
        for found in items:
            name = str(found["metadata"]["name"])
            if name not in self._uids and not found["metadata"].get("deletionTimestamp"):
                self._uids[name] = str(found["metadata"]["uid"])

    def _delete(self, name: str) -> bool:
        """Ask for a pod's end; whether the API took it (or it is gone already). The uid keeps namesakes safe."""
        path, uid = f"{self._base}/pods/{name}", self._uids[name]
        try:
            ask_again(
                lambda: self.session.delete(path, grace_s=1, uid=uid), pause_s=self.session.target.retry_pause_s,
                tries=1 if self._unreachable else 3,
            )  # fmt: skip
        except TransportFailure as failure:
            self._unreachable = failure.status not in (404, 409)
            return not self._unreachable
        self._unreachable = False
        return True

    def _uid_now(self, name: str) -> str:
        try:
            return str(self.session.get_json(f"{self._base}/pods/{name}")["metadata"]["uid"])
        except TransportFailure as failure:
            if failure.kind is Kind.NOT_FOUND:
                return ""
            raise

    def _sweep(self) -> None:
        """Remove what dead runs left: pods past their deadline or without a living run, and stale run Leases.

        Pods are listed before the Leases: a run makes its Lease first, so no pod of a run that begins meanwhile can
        be taken for a dead one's.
        """
        pods = self.session.list_json(f"{self._base}/pods", labelSelector=SELECTOR)["items"]
        now = time.time()
        runs = [lease for lease in self._leases.all() if str(lease["metadata"]["name"]).startswith("labproof-run-")]
        alive = {str((run.get("spec") or {}).get("holderIdentity")) for run in runs if not is_stale(run, now)}
        dead = []
        for found in pods:
            metadata = found["metadata"]
            run = (metadata.get("labels") or {}).get(RUN_LABEL)
            late = _past((metadata.get("annotations") or {}).get(DEADLINE), now)
            if run is None or (run in alive and not late):
                continue  # a person's own `kubectl apply` carries no run; a living run keeps what is its own
            dead.append(str(metadata["name"]))
            self._uids[dead[-1]] = str(metadata["uid"])
        self.remove(*dead)  # waited for: they hold slots until they are gone
        self.swept = [f"{self.namespace}/{name}" for name in dead if name not in self._uids]
        for lease in runs:
            if is_stale(lease, now):
                self._leases.delete(str(lease["metadata"]["name"]), lease["metadata"].get("uid"))

    # ---------------------------------------------------------------- looking

    def look(self, name: str) -> PodOutcome:
        """Where a pod stands now; events are read only when the pod itself does not say enough."""
        found = self.session.get_json(f"{self._base}/pods/{name}")
        now = time.time()
        outcome = classify(found, (), now)
        unclear = outcome.outcome in (Outcome.WAITING, Outcome.CRASH_LOOP) and (found.get("spec") or {}).get("nodeName")
        if not unclear:
            return outcome
        uid = found["metadata"]["uid"]
        events = self.session.list_json(f"{self._base}/events", fieldSelector=f"involvedObject.uid={uid}")["items"]
        return classify(found, events, now)

    def settle(self, seen: PodSeen, until: Callable[[PodOutcome], bool] | None = None) -> PodSeen:
        """Wait until a pod runs (or `until` holds), has ended, or is stuck for `timings.pod_pending_s`.

        Returns:
            The pod with its last outcome; a limit that passes is an outcome too, never an exception.
        """
        if not seen.name:
            return seen
        timings = self.lab.timings
        wanted = until or (lambda outcome: outcome.outcome is Outcome.RUNNING)
        started = time.monotonic()
        # pods made together wait together: one limit for all of them, counted from their creation
        limit_s = max(2 * timings.pod_pending_s, self._made_at[seen.name] + timings.pod_start_s - started)
        stuck_since: float | None = None
        silent_since: float | None = None
        bears_s = 0.0 if self._unreachable else min(_SILENT_S, timings.pod_start_s / 4)

        def look() -> PodOutcome | TransportFailure:
            nonlocal silent_since
            try:
                outcome = self.look(seen.name)
            except TransportFailure as failure:
                if failure.kind not in _PASSING:
                    raise
                silent_since = silent_since if silent_since is not None else time.monotonic()
                if time.monotonic() - silent_since < bears_s:
                    raise  # an API server that restarts is away for a while
                return failure
            silent_since, self._unreachable = None, False
            return outcome

        def over(outcome: PodOutcome | TransportFailure) -> bool:
            nonlocal stuck_since
            if isinstance(outcome, TransportFailure):
                return True
            if outcome.terminal or wanted(outcome):
                return True
            # restartPolicy Never: a container that could not start has ended for good
            if outcome.outcome is Outcome.START and "terminated" in outcome.source:
                return True
            if outcome.outcome not in STUCK:
                stuck_since = None
                return False
            stuck_since = stuck_since if stuck_since is not None else time.monotonic()
            return time.monotonic() - stuck_since >= timings.pod_pending_s

        try:
            last = wait_until(
                look, over, limit_s=limit_s, every_s=min(0.5, timings.poll_s), what=f"pod {seen.name}",
                through=_PASSING,
            )  # fmt: skip
        except WaitFailed as waited:
            if not isinstance(waited.last, PodOutcome):
                raise waited.failure or waited from None
            last = waited.last
        except TransportFailure as failure:
            if failure.kind is not Kind.NOT_FOUND:
                raise
            last = PodOutcome(Outcome.EVICTED, "Deleted", "the pod was deleted while we waited for it", "GET pod")
        if isinstance(last, TransportFailure):
            self._unreachable = True
            raise last
        return _with(seen, last, time.monotonic() - started)

    def log(self, seen: PodSeen) -> Reading[str]:
        """A pod's whole log; failed when it cannot be had, which is not the same as empty."""
        source = f"kubectl -n {self.namespace} logs {seen.name}"
        try:
            log = self.session.log(self.namespace, seen.name)
        except TransportFailure as failure:
            return failed(source, failure.text, failure.kind.value, time.time())
        if log.content is None:
            return failed(source, log.reason or "there is no log", "unavailable", time.time())
        return value(log.content.decode("utf-8", "replace"), source, time.time())

    # ---------------------------------------------------------------- working in it

    def exec(self, seen: PodSeen, argv: Sequence[str], timeout_s: float | None = None) -> Ran:
        """Run a command in one of our pods, once."""
        limit_s = timeout_s or self.lab.timings.command_s
        return run_in(self.session, self.namespace, seen.name, None, argv, limit_s, self.patience)


def open_session(lab: Lab, cluster: Cluster) -> KubeSession:
    """A session with the declared cluster and timings."""
    timings = lab.timings
    return KubeSession(KubeTarget(cluster.kubeconfig, cluster.context, timings.connect_s, timings.request_s))


def refused(failure: TransportFailure) -> tuple[str, str] | None:
    """The refusal of a pod (class, text), or None when it is our account or the transport that failed."""
    if failure.status is None or not 400 <= failure.status < 500 or failure.status in (401, 404, 409, 429):
        return None
    refusal = classify_refusal(failure.status, failure.answer or failure.text)
    if refusal.because.value in ("no right", "no such namespace"):
        return None
    return refusal.because.value, refusal.text


def _with(seen: PodSeen, outcome: PodOutcome, seconds: float) -> PodSeen:
    return PodSeen(
        seen.role, seen.name, seen.namespace, seen.image, seen.asked, outcome, seen.refused, seen.text, seen.log,
        round(seconds, 2),
    )  # fmt: skip


def _past(deadline: object, now: float) -> bool:
    if not isinstance(deadline, str):
        return False
    try:
        return datetime.fromisoformat(deadline.replace("Z", "+00:00")).timestamp() < now
    except ValueError:
        return False


def lock_file(cluster: Cluster, node: str) -> Path:
    """A lock file of this user for this node, shared by xdist workers and by runs started side by side."""
    key = hashlib.sha256(f"{Path(cluster.kubeconfig).expanduser()}|{cluster.context}|{node}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"labproof-{os.getuid()}-gpu-{key}.lock"


__all__ = ["Busy", "OwnPods", "lock_file", "open_session", "refused", "run_in"]
