"""The PVE probe: GET only, one session per host, everything a declared VM needs in a fixed number of questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from labproof.facts.reading import Reading, State, absent, failed, unsupported, value
from labproof.facts.store import now
from labproof.facts.vm import Guest, PveFacts, StartTask, VmConfig, VmFacts
from labproof.probes import vm_parse as parse
from labproof.probes.patience import AFTER, Patience

if TYPE_CHECKING:
    from labproof.clients.pve import PveSession, PveTarget
    from labproof.inventory.models import Host, Lab, PveApi, Timings, Vm

T = TypeVar("T")

LOG_LINES = 500  # PVE gives 50 when not told


class _Api:
    """The session with failures as readings."""

    def __init__(self, session: PveSession) -> None:
        self._session = session
        self._patience = Patience()

    def read(self, path: str, shape: Callable[[Any], T], **params: Any) -> Reading[T]:
        """GET `path`; what the answer's shape defies is a failed reading of kind `protocol`."""
        from labproof.clients.errors import Kind, TransportFailure

        query = "&".join(f"{key}={text}" for key, text in params.items())
        source = f"pvesh get {path}" + (f"?{query}" if query else "")
        at = now()
        if self._patience.lost is not None:
            return failed(source, f"{AFTER}{self._patience.lost.text}", self._patience.lost.kind.value)
        try:
            answer = self._session.get(path, **params)
        except TransportFailure as failure:
            self._patience.failed(failure)
            if failure.kind is Kind.NOT_FOUND:
                return absent(source, failure.text, at)
            if failure.kind is Kind.UNSUPPORTED:  # PVE 7 has no mappings
                return unsupported(source, failure.text)
            return failed(source, failure.text, failure.kind.value, at)
        self._patience.answered()
        try:
            return value(shape(answer), source, at)
        except (KeyError, TypeError, ValueError, AttributeError) as odd:
            return failed(source, f"an answer of unexpected shape: {type(odd).__name__}", "protocol", at)


def probe_pve(lab: Lab, host: Host) -> Reading[PveFacts]:
    """Read one host's PVE API. Never raises for what the API or the network do.

    The version is asked first: when that gets no answer at all, nothing else is tried.

    Args:
        lab: for the VMs declared on this host, and the timings.
        host: a declared host with `pve`.
    """
    from labproof.clients.errors import TransportFailure
    from labproof.clients.pve import PveSession

    if host.pve is None:
        return failed(f"PVE API of {host.name}", "lab.yaml declares no PVE API for this host", "not declared")
    source = f"GET {host.pve.url}/api2/json"
    try:
        with PveSession(pve_target(host.pve, lab.timings)) as session:
            api = _Api(session)
            version = api.read("/version", parse.version_of)
            if version.state is not State.VALUE:
                return failed(source, version.why, version.kind or "protocol", version.at)
            return value(_read(api, lab, host, session.as_whom, version), source, now())
    except TransportFailure as failure:  # the credential itself is unusable (no secret, CA file unreadable)
        return failed(source, f"{failure.target}: {failure.text}", failure.kind.value, now())


def pve_target(api: PveApi, timings: Timings) -> PveTarget:
    """The declared API as the client wants it. Timeouts below PVE's usual 30 s are the owner's word."""
    from labproof.clients.pve import DEFAULT_PORT, PveTarget

    url = urlsplit(api.url if "//" in api.url else f"//{api.url}")
    user, _, token = (api.token_id or "").partition("!")
    return PveTarget(
        host=url.hostname or api.url,
        port=url.port or DEFAULT_PORT,
        user=api.user or user,
        token_name=token or None,
        token_value=api.token_secret.get_secret_value() if api.token_secret else None,
        password=api.password.get_secret_value() if api.password else None,
        ca_file=api.ca,
        timeout_s=timings.request_s,
        short_timeout=timings.request_s < 30,
    )


def _read(api: _Api, lab: Lab, host: Host, identity: str, version: Reading[Any]) -> PveFacts:
    node = (host.pve.node if host.pve else None) or host.name
    base = f"/nodes/{node}"
    nodes = api.read("/nodes", parse.node_names)
    guests = api.read("/cluster/resources", parse.guests_of, type="vm")
    # an empty blacklist shows bridges too, which group questions need
    pci = api.read(f"{base}/hardware/pci", parse.pci_of, **{"pci-class-blacklist": ""})
    mappings = api.read("/cluster/mapping/pci", parse.mappings_of, **{"check-node": node})
    configs, refused = _configs(api, node, guests)
    by_id = {config.vmid: config for config in configs}
    declared = [vm for vm in lab.vms if vm.host == host.name]
    return PveFacts(
        name=host.name,
        node=node,
        identity=identity,
        version=version,
        nodes=nodes,
        node_status=api.read(f"{base}/status", parse.node_status_of),
        pci=pci,
        guests=guests,
        mappings=mappings,
        backup_jobs=api.read("/cluster/backup", parse.backup_jobs_of),
        vms=tuple(_vm(api, node, vm, guests, by_id, refused) for vm in declared),
        configs=_all_configs(configs, refused, guests),
        permissions=api.read("/access/permissions", parse.permissions_of),
    )


def _configs(
    api: _Api, node: str, guests: Reading[tuple[Guest, ...]]
) -> tuple[list[VmConfig], dict[int, Reading[VmConfig]]]:
    """Configurations of every VM of the node, and the readings of those that were refused."""
    found: list[VmConfig] = []
    refused: dict[int, Reading[VmConfig]] = {}
    for guest in guests.value or ():
        if guest.node != node or guest.kind != "qemu":
            continue
        reading = _config(api, node, guest.vmid)
        if reading.value is not None:
            found.append(reading.value)
        else:
            refused[guest.vmid] = reading
    return found, refused


def _config(api: _Api, node: str, vmid: int, **params: Any) -> Reading[VmConfig]:
    return api.read(f"/nodes/{node}/qemu/{vmid}/config", lambda a: parse.config_of(vmid, a), **params)


def _all_configs(
    found: list[VmConfig], refused: dict[int, Reading[VmConfig]], guests: Reading[tuple[Guest, ...]]
) -> Reading[tuple[VmConfig, ...]]:
    """All configurations, or which one is missing: "nobody else" needs every one of them."""
    if guests.state is not State.VALUE:
        return Reading(guests.state, None, guests.source, guests.why, guests.at, guests.kind)
    if refused:
        reading = refused[min(refused)]
        why = f"configurations of VMs {', '.join(map(str, sorted(refused)))} were not given: {reading.why}"
        return failed(reading.source, why, reading.kind or "unreadable", reading.at)
    return value(tuple(found), "pvesh get /nodes/{node}/qemu/{vmid}/config", guests.at)


def _vm(
    api: _Api,
    node: str,
    vm: Vm,
    guests: Reading[tuple[Guest, ...]],
    configs: dict[int, VmConfig],
    refused: dict[int, Reading[VmConfig]],
) -> VmFacts:
    vmid = find_vm(vm, node, guests, configs, refused)
    if vmid.value is None:
        return VmFacts(vm.name, vmid)
    number = vmid.value
    base = f"/nodes/{node}/qemu/{number}"
    known = configs.get(number)
    config = value(known, f"pvesh get {base}/config", vmid.at) if known else refused.get(number)
    return VmFacts(
        name=vm.name,
        vmid=vmid,
        config=config if config is not None else _config(api, node, number),
        current=_config(api, node, number, current=1),
        pending=api.read(f"{base}/pending", parse.pending_of),
        status=api.read(f"{base}/status/current", parse.status_of),
        start_task=_start_task(api, node, number),
    )


def find_vm(
    vm: Vm,
    node: str,
    guests: Reading[tuple[Guest, ...]],
    configs: dict[int, VmConfig],
    refused: Mapping[int, Reading[VmConfig]] | None = None,
) -> Reading[int]:
    """Which VM of the node is the declared one: by id, else by mapping, SMBIOS uuid or name pattern.

    Exactly one must match; with several the declaration is ambiguous and nothing is guessed.
    """
    if vm.id is not None:
        return value(vm.id, "lab.yaml", guests.at)
    if guests.state is not State.VALUE:
        return Reading(guests.state, None, guests.source, guests.why, guests.at, guests.kind)
    match = vm.match
    here = [g for g in guests.value or () if g.node == node and g.kind == "qemu" and not g.template]
    hits: list[int] = []
    how = ""
    for guest in here:
        config = configs.get(guest.vmid)
        tests: list[bool] = []
        if match is None or (match.mapping is None and match.smbios_uuid is None and match.name is None):
            how = f"name {vm.name}"
            tests.append(guest.name == vm.name)
        else:
            how = "match"
            if match.mapping is not None:
                tests.append(config is not None and any(h.mapping == match.mapping for h in config.hostpci))
            if match.smbios_uuid is not None:
                uuid = parse.smbios_uuid(config) if config is not None else None
                tests.append(uuid == match.smbios_uuid.lower())
            if match.name is not None:
                tests.append(fnmatchcase(guest.name, match.name))
        if tests and all(tests):
            hits.append(guest.vmid)
    source = f"{guests.source} ({how or 'no VM on this node'})"
    if len(hits) == 1:
        return value(hits[0], source, guests.at)
    by_config = match is not None and (match.mapping is not None or match.smbios_uuid is not None)
    if not hits and by_config and refused:  # the declared one may be among those we could not look at
        unread = refused[min(refused)]
        return failed(unread.source, unread.why, unread.kind, unread.at)
    if hits:
        return failed(source, f"{len(hits)} VMs match the declaration: {', '.join(map(str, hits))}", "ambiguous")
    return absent(source, f"no VM of {node} matches the declaration of {vm.name}", guests.at)


def _start_task(api: _Api, node: str, vmid: int) -> Reading[StartTask]:
    """The newest start, whoever made it (`source=all`: reboots, HA and onboot start VMs too)."""
    base = f"/nodes/{node}/tasks"
    newest = api.read(base, parse.newest_task, vmid=vmid, typefilter="qmstart", source="all")
    if newest.state is not State.VALUE:
        return Reading(newest.state, None, newest.source, newest.why, newest.at, newest.kind)
    if newest.value is None:
        return absent(newest.source, "no start of this VM is on record", newest.at)
    upid = quote(str(newest.value.get("upid", "")), safe=":@!")
    row = newest.value
    status: Reading[dict[str, Any]] = api.read(f"{base}/{upid}/status", dict)
    log: Reading[list[Any]] = api.read(f"{base}/{upid}/log", list, limit=LOG_LINES)
    for part in (status, log):
        if part.state is not State.VALUE:
            return Reading(part.state, None, part.source, part.why, part.at, part.kind)
    task = parse.start_task_of(row, status.value or {}, log.value or [])
    return value(task, log.source, log.at)
