"""Guests of a host around its reboot: shut down first, started again afterwards, remembered in between."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from labproof.facts.vm import PveFacts
from labproof.inventory.models import Host
from labproof.provision import scopes
from labproof.provision.bench import Bench
from labproof.provision.changes import CallChange
from labproof.provision.failure import StepFailed
from labproof.provision.plan import Refusal
from labproof.provision.rights import missing_privileges
from labproof.provision.start_timeout import start_timeout_s

if TYPE_CHECKING:
    from labproof.clients.pve import PveSession


def drain(bench: Bench, host: Host, refusals: list[Refusal]) -> CallChange | None:
    """Shut down what runs; None on a host without PVE or guests. `before` are the running ones, id -> name."""
    if host.pve is None:
        return None
    reading = bench.facts.pve(host.name)
    if reading.value is None or reading.value.guests.value is None:
        why = reading.why or (reading.value.guests.why if reading.value is not None else "")
        refusals.append(Refusal("P51", f"which guests run on {host.name} could not be read: {why}"))
        return None
    pve = reading.value
    running = {str(g.vmid): g.name for g in pve.guests.value or () if _is_ours(pve, g.node, g.kind, g.status)}
    for vmid in running:
        lacking = missing_privileges(pve, f"/vms/{vmid}", ("VM.PowerMgmt",))
        if lacking:
            refusals.append(Refusal("P51", f"{pve.identity} may not shut VM {vmid} down: it lacks {lacking[0]}"))
    if not running:
        return None
    names = ", ".join(f"{vmid} {name}" for vmid, name in running.items())
    return CallChange(
        target=host.name, scope=scopes.HOST_REBOOT, reason=f"{host.name} reboots", clause="HOST-IOMMU-001",
        name="drain", call=f"shut down the guests of {host.name}: {names}", before=running,
        detail={"node": pve.node}, seconds=(bench.limits.shutdown_s + 60) * len(running),
    )  # fmt: skip


def resume(bench: Bench, host: Host, vms: Mapping[str, str | None]) -> CallChange:
    """Wait for the guests that start with the host, and start those that ran and do not."""
    pve = bench.facts.pve(host.name).value
    configs = {str(c.vmid): c.keys for c in (pve.configs.value or () if pve is not None else ())}
    timeouts = {vmid: start_timeout_s(configs.get(vmid, {})) for vmid in vms}
    onboot = [vmid for vmid in vms if configs.get(vmid, {}).get("onboot") == "1"]
    names = ", ".join(f"{vmid} {name}" for vmid, name in vms.items())
    return CallChange(
        target=host.name, scope=scopes.HOST_REBOOT, reason="they ran before the reboot", clause="VM-START-001",
        name="resume", call=f"see the guests of {host.name} run again: {names}", before=dict(vms),
        detail={"node": pve.node if pve is not None else host.name, "timeouts": timeouts, "onboot": onboot},
        seconds=sum(timeouts.values()),
    )  # fmt: skip


def owed(bench: Bench, host: Host) -> dict[str, str | None]:
    """Guests that an earlier, interrupted run shut down and never saw running again, and that do not run now."""
    pending: dict[str, str | None] = {}
    for entry in bench.journal.entries():
        if entry.change["target"] != host.name:
            continue
        if entry.action == "drain":
            pending |= entry.change["before"]
        elif entry.action == "resume" and entry.done:
            pending.clear()
    if not pending:
        return {}
    pve = bench.facts.pve(host.name).value
    running = {str(g.vmid) for g in (pve.guests.value or () if pve is not None else ()) if g.status == "running"}
    return {vmid: name for vmid, name in pending.items() if vmid not in running}


def shut_down(bench: Bench, api: PveSession, node: str, vmid: str) -> None:
    """Shut a guest down and wait until it is; never by force.

    Raises:
        StepFailed: it still runs after the limit.
    """
    from labproof.clients.errors import WaitFailed

    if _status(api, node, vmid).get("status") == "stopped":
        return
    api.post(f"/nodes/{node}/qemu/{vmid}/status/shutdown", timeout=int(bench.limits.shutdown_s))
    try:
        bench.wait(
            f"VM {vmid} to stop", lambda: _status(api, node, vmid), lambda s: s.get("status") == "stopped",
            limit_s=bench.limits.shutdown_s + 60,
        )  # fmt: skip
    except WaitFailed as late:
        text = f"VM {vmid} did not shut down; labproof never cuts its power: look at it, then run this again ({late})"
        raise StepFailed(text) from None


def start(bench: Bench, api: PveSession, node: str, vmid: str, timeout_s: int) -> None:
    """Start a guest and wait for the task's end; a start that fails is told in the task's own words.

    Raises:
        StepFailed: the task failed or did not end in time.
    """
    from labproof.clients.errors import WaitFailed

    upid = str(api.post(f"/nodes/{node}/qemu/{vmid}/status/start", timeout=timeout_s))
    base = f"/nodes/{node}/tasks/{upid}"
    try:
        task = bench.wait(
            f"VM {vmid} to start", lambda: api.get(f"{base}/status"), lambda t: t.get("status") == "stopped",
            limit_s=timeout_s + 60,
        )  # fmt: skip
    except WaitFailed as late:
        raise StepFailed(f"the start of VM {vmid} did not end ({late})") from None
    ended = str(task.get("exitstatus", ""))
    if ended != "OK" and not ended.startswith("WARNINGS"):
        log = " / ".join(str(line.get("t", "")) for line in api.get(f"{base}/log", limit=500)[-4:])
        raise StepFailed(f"VM {vmid} did not start: {ended} ({log})")
    try:  # of a VM under HA the task is only the request: the manager starts it when its turn comes (facts proxmox 3)
        bench.wait(f"VM {vmid} to run", lambda: _status(api, node, vmid), _runs, limit_s=timeout_s + 60)
    except WaitFailed as late:
        raise StepFailed(f"VM {vmid} was told to start and does not run ({late})") from None


def see_running(bench: Bench, api: PveSession, change: Mapping[str, Any]) -> None:
    """The hand of `resume`.

    Raises:
        StepFailed: one does not run.
    """
    from labproof.clients.errors import WaitFailed

    detail = change["detail"]
    for vmid in change["before"]:
        limit = int(detail["timeouts"].get(vmid, 60))
        if vmid in detail["onboot"]:
            try:
                bench.wait(
                    f"VM {vmid} to start with its host", partial(_status, api, detail["node"], vmid), _runs,
                    limit_s=limit + 60,
                )  # fmt: skip
            except WaitFailed as late:
                raise StepFailed(f"VM {vmid} has onboot: 1 and did not start with its host ({late})") from None
        elif _status(api, detail["node"], vmid).get("status") != "running":
            start(bench, api, detail["node"], vmid, limit)


def _status(api: PveSession, node: str, vmid: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/nodes/{node}/qemu/{vmid}/status/current")
    return found


def _runs(status: dict[str, Any]) -> bool:
    return status.get("status") == "running"


def _is_ours(pve: PveFacts, node: str, kind: str, status: str) -> bool:
    return node == pve.node and kind == "qemu" and status == "running"
