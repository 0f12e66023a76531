"""Leases: proof that a run lives, and the lock that keeps two runs off one GPU.

A Lease `labproof-run-<run>` is renewed for as long as the run lives; the next run may sweep pods whose run's Lease is
stale or gone. A Lease `labproof-gpu-<node>` is held by one run at a time, because a card's counters count for the
whole card. Both survive `kill -9` only until they go stale.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.kubernetes import KubeSession
from labproof.probes.pods_manifest import MANAGED_BY, OWNER, RUN_LABEL

Json = Mapping[str, Any]

DURATION_S = 15
"""Lease length; renewed three times as often. A Lease is stale after twice this, which leaves room for clock skew."""

_ENDED: set[str] = set()
"""Runs of this process that have ended: a Lease they could not give back is nobody's."""


class LeaseHeld(Exception):
    """Another living run holds the node's Lease."""

    def __init__(self, name: str, holder: str) -> None:
        self.name = name
        self.holder = holder
        super().__init__(f"labproof run {holder} is working on this GPU (Lease {name})")


def micro(unix: float) -> str:
    """Unix seconds as a MicroTime of the API."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def is_stale(lease: Json, now: float) -> bool:
    """Whether nobody renews the Lease any more; one that was never renewed is stale."""
    spec = lease.get("spec") or {}
    renewed = spec.get("renewTime")
    if not isinstance(renewed, str):
        return True
    at = datetime.fromisoformat(renewed.replace("Z", "+00:00")).timestamp()
    return now - at > 2 * float(spec.get("leaseDurationSeconds") or DURATION_S)


def run_lease(run: str) -> str:
    """Name of a run's own Lease."""
    return f"labproof-run-{run}"


class Leases:
    """The Leases one run holds, renewed in the background until `release`."""

    def __init__(self, session: KubeSession, namespace: str, run: str) -> None:
        self._session = session
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace)}/leases"
        self._run = run
        self._held: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_stopped, name="labproof leases", daemon=True)

    @property
    def held(self) -> tuple[str, ...]:
        """Names of the Leases this run holds."""
        return tuple(self._held)

    def all(self) -> list[Json]:
        """All Leases labproof made in the namespace."""
        return list(self._session.list_json(self._path, labelSelector=f"{MANAGED_BY}={OWNER}")["items"])

    def take(self, name: str) -> None:
        """Take a Lease: create it, or take over a stale one.

        Raises:
            LeaseHeld: a living run holds it.
            TransportFailure: the API refuses or does not answer.
        """
        try:
            self._session.create(self._path, self._body(name))
        except TransportFailure as failure:
            if failure.status != 409:
                raise
            self._take_over(name)
        self._held.append(name)
        if not self._thread.is_alive():
            self._thread.start()

    def release(self) -> None:
        """Give all Leases back; one that cannot be deleted goes stale by itself."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=DURATION_S)
        for name in reversed(self._held):
            mine = self._is_mine(name)
            if mine is None:
                break  # out of reach, as the others will be: they go stale by themselves
            if mine:
                self.delete(name)
        self._held.clear()
        _ENDED.add(self._run)

    def _is_mine(self, name: str) -> bool | None:
        """Whether nobody took it over meanwhile: a run that slept too long may find another one in its place.

        None: the API does not answer.
        """
        try:
            spec = self._session.get_json(f"{self._path}/{quote(name)}").get("spec") or {}
        except TransportFailure as failure:
            return False if failure.kind is Kind.NOT_FOUND else None
        return spec.get("holderIdentity") == self._run

    def delete(self, name: str, uid: str | None = None) -> None:
        """Delete one Lease; that it is gone already, or cannot be reached, is no failure here."""
        try:
            self._session.delete(f"{self._path}/{quote(name)}", uid=uid)
        except TransportFailure:
            return  # gone, replaced by another run's, or unreachable: it goes stale after twice its duration

    def _take_over(self, name: str) -> None:
        try:
            lease = self._session.get_json(f"{self._path}/{quote(name)}")
        except TransportFailure as failure:
            if failure.kind is not Kind.NOT_FOUND:
                raise
            raise LeaseHeld(name, "just ended") from None  # released between our two questions: ask again
        holder = str((lease.get("spec") or {}).get("holderIdentity") or "unknown")
        if holder not in (self._run, *_ENDED) and not is_stale(lease, time.time()):
            raise LeaseHeld(name, holder)
        version = lease["metadata"].get("resourceVersion")
        patch = {"metadata": {"resourceVersion": version}, "spec": self._body(name)["spec"]}
        try:
            self._session.merge_patch(f"{self._path}/{quote(name)}", patch)
        except TransportFailure as failure:
            if failure.status in (404, 409):
                raise LeaseHeld(name, "another run that took it first") from None
            raise

    def _renew_until_stopped(self) -> None:
        while not self._stop.wait(DURATION_S / 3):
            for name in tuple(self._held):
                try:
                    self._session.merge_patch(
                        f"{self._path}/{quote(name)}",
                        {"spec": {"renewTime": micro(time.time())}},
                    )
                except TransportFailure:
                    continue  # the next round tries again; four may be missed before the Lease is stale

    def _body(self, name: str) -> dict[str, Any]:
        now = micro(time.time())
        labels = {MANAGED_BY: OWNER, RUN_LABEL: self._run}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "holderIdentity": self._run,
                "leaseDurationSeconds": DURATION_S,
                "acquireTime": now,
                "renewTime": now,
            },
        }
