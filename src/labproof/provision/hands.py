"""The hands: each performs one recorded change, forwards or backwards, and looks again before it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from labproof.inventory.models import Host
from labproof.provision import cluster_hands, drain, guests, mapping, talos_hands, vm_guard
from labproof.provision.bench import Bench
from labproof.provision.changes import file_state
from labproof.provision.failure import ChangedSince, StepFailed

if TYPE_CHECKING:
    from labproof.clients.pve import PveSession

Record = Mapping[str, Any]
#: Effects on a node, whose target is a node's name; all others are of a host.
NODE_EFFECTS: dict[str, Callable[[Bench, Record], None]] = {
    "node-drain": drain.drain,
    "node-resume": drain.see_again,
    "node-reboot": talos_hands.reboot,
}


def perform(bench: Bench, change: Record) -> None:
    """Make a change that the journal has announced.

    Raises:
        StepFailed, ChangedSince: it could not be made.
        TransportFailure: the host or its API did not answer.
    """
    action = change["action"]
    if action in talos_hands.ACTIONS:
        talos_hands.perform(bench, change)
        return
    if action in cluster_hands.ACTIONS:
        cluster_hands.perform(bench, change)
        return
    if action in NODE_EFFECTS:
        effect(bench, change)
        return
    host = bench.lab.host(str(change["target"]))
    if action == "file":
        bench.shell(host).replace(change["path"], file_state(change["before"]), file_state(change["after"]))
    elif action == "mapping":
        mapping.put(bench.api(host), change["detail"]["id"], change["before"]["map"], change["after"]["map"])
    elif action == "vm-config":
        configure(bench, host, change, change["before"], change["after"])
    else:
        effect(bench, change)


def effect(bench: Bench, change: Record) -> None:
    """What makes other changes effective; it is the same forwards and backwards."""
    action, limits = change["action"], bench.limits
    if action in NODE_EFFECTS:
        NODE_EFFECTS[action](bench, change)
        return
    host = bench.lab.host(str(change["target"]))
    if action == "refresh":
        bench.shell(host).run(change["command"], limits.refresh_s)
    elif action == "initramfs":
        bench.tell(f"{change['command']} on {host.name}, at most {limits.initramfs_s:.0f} s")
        bench.shell(host).run(change["command"], limits.initramfs_s)
    elif action == "drain":
        for vmid in change["before"]:
            guests.shut_down(bench, bench.api(host), change["detail"]["node"], vmid)
    elif action == "reboot":
        reboot(bench, host, change["command"])
    elif action == "resume":
        guests.see_running(bench, bench.api(host), change)
    elif action == "vm-restart":
        restart(bench, host, change)
    else:
        raise StepFailed(f"the journal names an unknown change {action!r}: it is of another version")


def state_of(bench: Bench, change: Record) -> str:
    """Whether a change stands: `after`, `before`, or `other` when somebody else's hand was there since."""
    action = change["action"]
    if action in talos_hands.ACTIONS:
        return talos_hands.state_of(bench, change)
    if action in cluster_hands.ACTIONS:
        return cluster_hands.state_of(bench, change)
    host = bench.lab.host(str(change["target"]))
    if action == "file":
        found = bench.shell(host).read(change["path"])
        sides = {side: file_state(change[side]) for side in ("after", "before")}
        return next((s for s, state in sides.items() if _same_file(found, state)), "other")
    if action == "mapping":
        now: str | None = mapping.current(bench.api(host), change["detail"]["id"])[0]
        return next((side for side in ("after", "before") if change[side]["map"] == now), "other")
    if action == "vm-config":
        config = _config(bench.api(host), change["detail"])
        for side in ("after", "before"):
            if _values(config, change[side]) == dict(change[side]):
                return side
        return "other"
    return "after"


def take_back(bench: Bench, change: Record) -> None:
    """Undo one file, mapping, configuration, image or object that stands."""
    if change["action"] in talos_hands.ACTIONS:
        talos_hands.take_back(bench, change)
        return
    if change["action"] in cluster_hands.ACTIONS:
        cluster_hands.take_back(bench, change)
        return
    host = bench.lab.host(str(change["target"]))
    if change["action"] == "file":
        bench.shell(host).replace(change["path"], file_state(change["after"]), file_state(change["before"]))
    elif change["action"] == "mapping":
        mapping.put(bench.api(host), change["detail"]["id"], change["after"]["map"], change["before"]["map"])
    else:
        configure(bench, host, change, change["after"], change["before"])


def _same_file(one: Any, other: Any) -> bool:
    return one.digest == other.digest and (one.content is None or one.mode == other.mode)


# ------------------------------------------------------------------ VM


def configure(bench: Bench, host: Host, change: Record, old: Record, new: Record) -> None:
    """Set keys of a VM from `old` to `new`, with the digest; a concurrent edit of other keys is met by one more try.

    Raises:
        ChangedSince: one of these keys is no longer what it was.
    """
    from labproof.clients.errors import TransportFailure

    api, detail = bench.api(host), change["detail"]
    path = f"/nodes/{detail['node']}/qemu/{detail['vmid']}/config"
    for last in (False, True):
        config = _config(api, detail)
        _guard(bench, detail, config)
        found = _values(config, old)
        if found == dict(new):
            return
        if found != dict(old):
            raise ChangedSince(f"VM {detail['vmid']}: {_odd(found, old)} was changed by somebody else")
        gone = ",".join(key for key, value in new.items() if value is None)
        values = {key: value for key, value in new.items() if value is not None}
        try:
            api.put(path, digest=config["digest"], **values, **({"delete": gone} if gone else {}))
            return
        except TransportFailure as refused:
            if last or "checksum mismatch" not in (refused.answer or ""):
                raise


def _config(api: PveSession, detail: Record) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/nodes/{detail['node']}/qemu/{detail['vmid']}/config")
    return found


def _values(config: Mapping[str, Any], keys: Record) -> dict[str, str | None]:
    return {key: str(config[key]) if key in config else None for key in keys}


def _odd(found: Mapping[str, Any], wanted: Record) -> str:
    return ", ".join(f"{key} ({found[key]})" for key in wanted if found[key] != wanted[key])


def _guard(bench: Bench, detail: Record, config: Mapping[str, Any]) -> None:
    wrong = vm_guard.wrong_vm(bench.lab.vm(detail["vm"]), config)
    if wrong:
        raise StepFailed(f"VM {detail['vmid']}: {wrong}")
    if config.get("lock"):
        raise StepFailed(f"VM {detail['vmid']} is locked ({config['lock']}): wait for whoever works on it")


def restart(bench: Bench, host: Host, change: Record) -> None:
    """Shut the VM down, wait until its devices are released, start it with the computed timeout."""
    api, detail = bench.api(host), change["detail"]
    _guard(bench, detail, _config(api, detail))
    vmid = str(detail["vmid"])
    guests.shut_down(bench, api, detail["node"], vmid)
    if host.ssh is not None:
        _wait_released(bench, host, vmid)
    guests.start(bench, api, detail["node"], vmid, int(detail["timeout"]))


def _wait_released(bench: Bench, host: Host, vmid: str) -> None:
    from labproof.clients.errors import WaitFailed

    shell = bench.shell(host)

    def holds() -> bool:
        lines = shell.read("/run/qemu-server/pci-id-reservations").text.splitlines()
        return any(line.split()[1:2] == [vmid] for line in lines)

    try:
        bench.wait(f"VM {vmid} to release its devices", holds, lambda held: not held, limit_s=60)
    except WaitFailed as late:
        raise StepFailed(f"VM {vmid} is stopped and its devices are still reserved ({late})") from None


# ------------------------------------------------------------------ host


def reboot(bench: Bench, host: Host, command: str) -> None:
    """Reboot and wait for another boot id, then for the API.

    Raises:
        StepFailed: it did not come back within the limit.
    """
    from labproof.clients.errors import Kind, TransportFailure, WaitFailed

    shell, limit = bench.shell(host), bench.limits.reboot_s
    away = (Kind.REFUSED, Kind.TIMEOUT, Kind.RESET, Kind.DNS, Kind.UNAVAILABLE, Kind.PROTOCOL)
    before = shell.boot_id()
    try:
        shell.run(command, bench.lab.timings.command_s)
    except TransportFailure as dropped:
        if dropped.kind not in away:
            raise
    try:
        bench.wait(
            f"{host.name} to come back from its reboot", shell.boot_id, lambda now: now not in ("", before),
            limit_s=limit, through=away,
        )  # fmt: skip
        if host.pve is not None:
            api = bench.api(host)
            bench.wait(
                f"the PVE API of {host.name}", lambda: api.get("/version"), bool, limit_s=limit,
                through=(*away, Kind.AUTH),
            )  # fmt: skip
    except WaitFailed as late:
        text = (
            f"{host.name} did not come back within {limit:.0f} s ({late}). Look at its console; in the boot menu the "
            "previous kernel arguments can be typed. When it is up again: run this again to go on, --undo to go back"
        )
        raise StepFailed(text) from None
