"""Answers of the PVE API -> facts. Pure; unknown keys are ignored (PVE's lists are not closed schemas)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Mapping as JsonObject
from typing import Any

from labproof.facts.vm import (
    BackupJob,
    Guest,
    Mapping,
    NodeStatus,
    PendingKey,
    PvePci,
    PveVersion,
    StartTask,
    VmConfig,
    VmStatus,
)

Json = JsonObject[str, Any]

#: Keys of a configuration that are kept; others may hold passwords, SSH keys or private notes.
KEPT = re.compile(
    r"hostpci\d+|net\d+|name|machine|bios|cpu|cores|sockets|memory|balloon|numa|hugepages|keephugepages|vga|onboot"
    r"|startup|template|lock|smbios1|efidisk0|ostype|agent|hotplug|digest|parent|meta|tags"
)


def version_of(answer: Json) -> PveVersion:
    """GET /version."""
    return PveVersion(str(answer.get("version", "")), str(answer.get("release", "")), str(answer.get("repoid", "")))


def node_names(answer: Iterable[Json]) -> tuple[str, ...]:
    """GET /nodes; empty when the account may see none."""
    return tuple(str(row["node"]) for row in answer if "node" in row)


def node_status_of(answer: Json) -> NodeStatus:
    """GET /nodes/{node}/status. `available` is missing before PVE 8.3: then free is the honest lower bound."""
    boot = answer.get("boot-info") or {}
    memory = answer.get("memory") or {}
    kernel = (answer.get("current-kernel") or {}).get("release") or answer.get("kversion", "")
    secure = boot.get("secureboot")
    return NodeStatus(
        kernel=str(kernel),
        pve=str(answer.get("pveversion", "")),
        boot_mode=str(boot.get("mode", "")),
        secure_boot=bool(int(secure)) if secure is not None else None,
        memory_total=int(memory.get("total") or 0),
        memory_available=int(memory.get("available") or memory.get("free") or 0),
    )


def pci_of(answer: Iterable[Json]) -> tuple[PvePci, ...]:
    """GET hardware/pci; never matched by name, those come from the host's pci.ids."""
    found = []
    for row in answer:
        group = int(row.get("iommugroup", -1))
        found.append(
            PvePci(
                address=str(row["id"]),
                ids=f"{_hex(row.get('vendor'))}:{_hex(row.get('device'))}",
                pci_class=_hex(row.get("class")),
                iommu_group=group if group >= 0 else None,
                subsystem=f"{_hex(row.get('subsystem_vendor'))}:{_hex(row.get('subsystem_device'))}",
                physfn=row.get("physfn"),
            )
        )
    return tuple(found)


def guests_of(answer: Iterable[Json]) -> tuple[Guest, ...]:
    """GET /cluster/resources?type=vm."""
    return tuple(
        Guest(
            vmid=int(row["vmid"]),
            node=str(row.get("node", "")),
            kind=str(row.get("type", "qemu")),
            name=str(row.get("name", "")),
            status=str(row.get("status", "")),
            template=_true(row.get("template")),
            memory=int(row.get("maxmem") or 0),
        )
        for row in answer
        if "vmid" in row
    )


def config_of(vmid: int, answer: Json) -> VmConfig:
    """GET .../config: the kept keys as text."""
    return VmConfig(vmid, {key: str(text) for key, text in sorted(answer.items()) if KEPT.fullmatch(key)})


def pending_of(answer: Iterable[Json]) -> tuple[PendingKey, ...]:
    """GET .../pending: only what is not applied yet."""
    found = []
    for row in answer:
        if "pending" not in row and not row.get("delete"):
            continue
        key = str(row.get("key", ""))
        shown = KEPT.fullmatch(key) is not None
        value = str(row["value"]) if shown and "value" in row else None
        pending = str(row["pending"]) if shown and "pending" in row else None
        found.append(PendingKey(key, value, pending, bool(row.get("delete"))))
    return tuple(found)


def status_of(answer: Json) -> VmStatus:
    """GET .../status/current."""
    pid = answer.get("pid")
    return VmStatus(
        status=str(answer.get("status", "")),
        pid=int(pid) if pid is not None else None,
        uptime=int(answer.get("uptime") or 0),
        lock=answer.get("lock") or None,
        template=_true(answer.get("template")),
        running_machine=str(answer.get("running-machine", "")),
        running_qemu=str(answer.get("running-qemu", "")),
        ha_managed=_true((answer.get("ha") or {}).get("managed")),
    )


def newest_task(answer: Iterable[Json]) -> Json | None:
    """The newest of a task list, whatever order it came in."""
    return max(answer, key=lambda row: float(row.get("starttime") or 0), default=None)


def start_task_of(row: Json, status: Json, log: Iterable[Json]) -> StartTask:
    """A row of the task list, its status and its log. A running task has no exit status."""
    ended = row.get("endtime")
    lines = tuple(str(line.get("t", "")) for line in sorted(log, key=lambda line: int(line.get("n", 0))))
    over = status.get("status") == "stopped" or ended is not None
    return StartTask(
        upid=str(row.get("upid", "")),
        started=float(row.get("starttime") or 0),
        ended=float(ended) if ended is not None else None,
        exit_status=str(status.get("exitstatus") or row.get("status") or "unknown") if over else "running",
        user=str(row.get("user", "")),
        log=lines,
    )


def mappings_of(answer: Iterable[Json]) -> tuple[Mapping, ...]:
    """GET /cluster/mapping/pci?check-node=..: `map` items are property strings."""
    found = []
    for row in answer:
        entries = tuple(_properties(item) for item in row.get("map") or ())
        checks = tuple((str(c.get("severity", "")), str(c.get("message", ""))) for c in row.get("checks") or ())
        found.append(Mapping(str(row.get("id", "")), entries, checks))
    return tuple(found)


def backup_jobs_of(answer: Iterable[Json]) -> tuple[BackupJob, ...]:
    """GET /cluster/backup."""
    return tuple(
        BackupJob(
            id=str(row.get("id", "")),
            enabled=_true(row.get("enabled", 1)),
            all_guests=_true(row.get("all")),
            vmids=_ids(row.get("vmid")),
            exclude=_ids(row.get("exclude")),
            node=str(row.get("node") or ""),
        )
        for row in answer
    )


def permissions_of(answer: Json) -> dict[str, tuple[str, ...]]:
    """GET /access/permissions: path -> privileges held there."""
    return {str(path): tuple(sorted(privileges)) for path, privileges in answer.items()}


def smbios_uuid(config: VmConfig) -> str | None:
    """The uuid of `smbios1`, lower case."""
    match = re.search(r"(?:^|,)uuid=([0-9A-Fa-f-]{36})", config.keys.get("smbios1", ""))
    return match[1].lower() if match else None


def _properties(item: Any) -> dict[str, str]:
    if isinstance(item, dict):
        return {str(key): str(text) for key, text in item.items()}
    pairs = (part.partition("=") for part in str(item).split(","))
    return {key: text for key, _, text in pairs}


def _ids(text: Any) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", str(text or "")))


def _hex(text: Any) -> str:
    return str(text or "").removeprefix("0x").lower()


def _true(value: Any) -> bool:
    return str(value) in ("1", "True", "true")
