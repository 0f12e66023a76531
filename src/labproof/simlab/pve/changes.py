"""Writes to VM configurations and mappings: rights per key, digest, pending (facts proxmox 2.5, 3.1)."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from labproof.simlab.pve.answers import mapping_digest
from labproof.simlab.pve.hostpci import properties

if TYPE_CHECKING:
    from labproof.simlab.pve.server import Answer, Request

_RIGHT = {
    "machine": "VM.Config.HWType", "vga": "VM.Config.HWType", "hotplug": "VM.Config.HWType",
    "bios": "VM.Config.Options",
    "agent": "VM.Config.Options", "onboot": "VM.Config.Options", "ostype": "VM.Config.Options",
    "name": "VM.Config.Options",
    "tags": "VM.Config.Options", "boot": "VM.Config.Options", "startup": "VM.Config.Options", "cpu": "VM.Config.CPU",
    "numa": "VM.Config.CPU", "cores": "VM.Config.CPU", "sockets": "VM.Config.CPU", "memory": "VM.Config.Memory",
    "balloon": "VM.Config.Memory", "efidisk0": "VM.Config.Disk",
}  # fmt: skip
_ROOT_ONLY = ("args", "hugepages", "keephugepages", "lock")
_HOT = ("name", "tags", "onboot", "startup", "description", "boot", "lock")  # take effect without a restart


def change(request: Request, refuse: type[Answer], *, as_task: bool = False) -> Any:
    """PUT or POST of a VM configuration; what a running VM cannot take goes to pending."""
    node, vmid = request.node, request.vmid
    parameters = dict(request.parameters)
    digest = parameters.pop("digest", None)
    deletions = [k for k in re.split(r"[,;\s]+", parameters.pop("delete", "")) if k]
    reverts = [k for k in re.split(r"[,;\s]+", parameters.pop("revert", "")) if k]
    for word in ("background_delay", "skiplock", "force"):
        parameters.pop(word, None)
    current = node.section(vmid)
    if "lock" in current and deletions != ["lock"]:
        raise refuse(500, f"VM is locked ({current['lock']})")
    for key in [*parameters, *deletions, *reverts]:
        _check_right(request, refuse, key, parameters.get(key))
    if digest is not None and digest != node.digest(vmid):
        raise refuse(500, "checksum mismatch (file change by other user?)")
    entry = node.vms[str(vmid)]
    pending = dict(entry.get("pending") or {})
    for key in reverts:
        pending.pop(key, None)
    changed: dict[str, Any] = {**parameters, **dict.fromkeys(deletions, False)}
    running = vmid in node.host.qemus
    for key, value in changed.items():
        if running and key not in _HOT:
            pending[key] = value
        elif value is False:
            current.pop(key, None)
            pending.pop(key, None)
        else:
            current[key] = value
            pending.pop(key, None)
    entry["pending"] = {k: v for k, v in pending.items() if (v if v is not False else None) != current.get(k)}
    node.host.revision += 1
    if not as_task:
        return None
    task = node.new_task("qmconfig", vmid, request.who.name, time.time())
    task.finish()
    return task.upid


def _check_right(request: Request, refuse: type[Answer], key: str, value: str | None) -> None:
    path = f"/vms/{request.vmid}"
    if key in _ROOT_ONLY and not request.who.is_root:
        raise refuse(500, f"only root can set '{key}' config")
    if key.startswith("hostpci"):
        for text in (value, request.node.section(request.vmid).get(key)):
            options = properties(str(text)) if text else {}
            if "host" in options and not request.who.is_root:
                raise refuse(500, f"only root can set '{key}' config for non-mapped devices")
            if "romfile" in options and not request.who.is_root:
                raise refuse(400, "Parameter verification failed.", {key: "only root@pam can set 'romfile' option"})
            if "mapping" in options:
                request.need(f"/mapping/pci/{options['mapping']}", "Mapping.Use")
        request.need(path, "VM.Config.HWType")
        if value is not None:
            _check_hostpci(refuse, key, value)
        return
    request.need(path, _RIGHT.get(key, "VM.Config.Options"))


def _check_hostpci(refuse: type[Answer], key: str, value: str) -> None:
    known = {"host", "mapping", "pcie", "rombar", "x-vga", "legacy-igd", "mdev", "romfile", "vendor-id", "device-id",
             "sub-vendor-id", "sub-device-id", "driver"}  # fmt: skip
    for word in properties(value):
        if word not in known:
            reason = (
                f"invalid format - format error\n{word}: property is not defined in schema and the schema does not "
                "allow additional properties\n"
            )
            raise refuse(400, "Parameter verification failed.", {key: reason})


def create_mapping(request: Request, refuse: type[Answer]) -> None:
    """POST /cluster/mapping/pci."""
    request.need("/mapping/pci", "Mapping.Modify")
    name = request.parameters.get("id", "")
    if not name or "map" not in request.parameters:
        missing = "id" if not name else "map"
        raise refuse(400, "Parameter verification failed.", {missing: "property is missing and it is not optional"})
    mappings = request.node.host.inputs["pve"].setdefault("mapping", {})
    if name in mappings:
        raise refuse(500, f"PCI ID '{name}' is already defined")
    entry: dict[str, Any] = {"map": _map_items(request.parameters["map"])}
    if "description" in request.parameters:
        entry["description"] = request.parameters["description"]
    mappings[name] = entry
    request.node.host.revision += 1


def update_mapping(request: Request, refuse: type[Answer]) -> None:
    """PUT /cluster/mapping/pci/{id}: given properties replace the old ones, `delete` names those to drop."""
    name = request.values["id"]
    request.need(f"/mapping/pci/{name}", "Mapping.Modify")
    mappings = request.node.host.inputs["pve"].get("mapping") or {}
    if name not in mappings:
        raise refuse(500, f"mapping '{name}' does not exist")
    digest = request.parameters.get("digest")
    if digest is not None and digest != mapping_digest(request.node):
        raise refuse(500, "checksum mismatch (file change by other user?)")
    entry = dict(mappings[name])
    for key in re.split(r"[,;\s]+", request.parameters.get("delete", "")):
        entry.pop(key, None)
    if "map" in request.parameters:
        entry["map"] = _map_items(request.parameters["map"])
    if "description" in request.parameters:
        entry["description"] = request.parameters["description"]
    mappings[name] = entry
    request.node.host.revision += 1


def _map_items(text: str) -> list[dict[str, str]]:
    """Items of a repeated `map` parameter, one a line."""
    return [properties(item, "node") for item in text.split("\n") if item]


def delete_mapping(request: Request, refuse: type[Answer]) -> None:
    """DELETE /cluster/mapping/pci/{id}."""
    request.need("/mapping/pci", "Mapping.Modify")
    digest = request.parameters.get("digest")
    if digest is not None and digest != mapping_digest(request.node):
        raise refuse(500, "checksum mismatch (file change by other user?)")
    request.node.host.inputs["pve"].get("mapping", {}).pop(request.values["id"], None)
    request.node.host.revision += 1
