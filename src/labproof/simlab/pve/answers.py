"""Bodies of the PVE API, computed from a node: unordered, with keys nobody documented (facts proxmox 2.1, 2.2)."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from labproof.simlab.pve.hostpci import entries_of, mapping_problem
from labproof.simlab.pve.node import PveNode

#: Classes left out of hardware/pci unless asked for: memory controllers, bridges, processors.
CLASS_BLACKLIST = "05;06;0b"


def version(node: PveNode) -> dict[str, Any]:
    """GET /version; repoid says in-band that this is simulated."""
    pve = node.host.inputs["pve"]
    return {"version": str(pve["version"]), "release": str(pve["release"]), "repoid": "sim"}


def node_status(node: PveNode) -> dict[str, Any]:
    """GET /nodes/{n}/status; sizes in bytes."""
    host = node.host
    total = int(host.inputs["memory"]["mib"]) << 20
    used = (int(host.inputs["memory"].get("host_mib", 0)) + sum(q.memory_mib for q in host.qemus.values())) << 20
    cpu, firmware = host.inputs["cpu"], host.inputs["firmware"]
    info: dict[str, Any] = {"mode": "efi" if firmware.get("mode") == "efi" else "legacy-bios"}
    if firmware.get("mode") == "efi":
        info["secureboot"] = 1 if firmware.get("secureboot") else 0
    return {
        "uptime": int(time.time() - host.booted_at), "loadavg": ["1.42", "1.30", "1.22"],
        "kversion": f"Linux {host.kernel} #1 SMP PREEMPT_DYNAMIC PMX",
        "current-kernel": {"sysname": "Linux", "release": host.kernel, "version": "#1 SMP PREEMPT_DYNAMIC PMX",
        "machine": "x86_64"},
        "boot-info": info, "pveversion": f"pve-manager/{host.inputs['pve']['version']}/sim", "idle": 0,
        "wait": 0.0012, "cpu": 0.031,
        "cpuinfo": {"model": cpu["model"], "cores": cpu["cores"], "cpus": cpu["threads"], "sockets": cpu["sockets"],
        "hvm": "1",
                    "mhz": cpu.get("mhz", "2600.000"), "user_hz": 100, "flags": "vmx lm pdpe1gb"},
        "memory": {"total": total, "used": used, "free": max(total - used, 0), "available": max(total - used, 0)},
        "swap": {"total": 8589930496, "used": 0, "free": 8589930496}, "ksm": {"shared": 0},
        "rootfs": {"total": 100861726720, "used": 14973050880, "avail": 80718061568, "free": 85888675840},
    }  # fmt: skip


def node_row(node: PveNode) -> dict[str, Any]:
    """Element of GET /nodes."""
    return {
        "node": node.host.name, "status": "online", "type": "node", "id": f"node/{node.host.name}", "level": "",
        "maxcpu": node.host.inputs["cpu"]["threads"],
        "ssl_fingerprint": ":".join(f"{b:02X}" for b in hashlib.sha256(node.host.name.encode()).digest()),
    }  # fmt: skip


def hardware_pci(node: PveNode, blacklist: str, verbose: bool) -> list[dict[str, Any]]:
    """GET /nodes/{n}/hardware/pci; the driver is not in it."""
    hidden = [c for c in blacklist.replace(",", ";").split(";") if c]
    rows = []
    for address, device in node.host.devices.items():
        code = str(device["class"])
        if any(code[2:].startswith(c) for c in hidden):
            continue
        row: dict[str, Any] = {"id": address}
        if verbose:
            vendor, number = str(device["id"]).split(":")
            row |= {
                "class": code,
                "vendor": f"0x{vendor}",
                "device": f"0x{number}",
                "iommugroup": node.host.group_of.get(address, -1),
            }
            if device.get("vendor_name"):
                row |= {"vendor_name": device["vendor_name"], "device_name": device.get("device_name")}
            if device.get("subsystem"):
                sub_vendor, sub_device = str(device["subsystem"]).split(":")
                row |= {"subsystem_vendor": f"0x{sub_vendor}", "subsystem_device": f"0x{sub_device}"}
            if device.get("physfn"):
                row["physfn"] = device["physfn"]
            children = sorted(a for a, d in node.host.devices.items() if d.get("physfn") == address)
            if children:
                row["virtfns"] = {f"virtfn{n}": child for n, child in enumerate(children)}
        rows.append(row)
    return sorted(rows, key=lambda r: hashlib.sha1(r["id"].encode(), usedforsecurity=False).digest())


def mapping_rows(node: PveNode, check: str | None) -> list[dict[str, Any]]:
    """GET /cluster/mapping/pci, with `checks` where `check-node` was given."""
    rows = []
    for name, mapping in node.mappings.items():
        lines = [",".join(f"{k}={v}" for k, v in sorted(entry.items())) for entry in mapping.get("map", ())]
        row: dict[str, Any] = {"id": name, "map": lines, "type": "pci", "digest": mapping_digest(node)}
        if mapping.get("description"):
            row["description"] = mapping["description"]
        if check is not None:
            row["checks"] = _checks(node, name, mapping, check)
        rows.append(row)
    return rows


def mapping_digest(node: PveNode) -> str:
    """Digest of /etc/pve/mapping/pci.cfg."""
    return hashlib.sha1(repr(sorted(node.mappings.items())).encode(), usedforsecurity=False).hexdigest()


def _checks(node: PveNode, name: str, mapping: dict[str, Any], check: str) -> list[dict[str, str]]:
    entries = entries_of(mapping, check)
    if not entries:
        return [{"severity": "warning", "message": f"No mapping for node {check}."}]
    found = []
    for entry in entries:
        problem = mapping_problem(node.host, name, entry)
        if problem:
            found.append({"severity": "error", "message": f"Invalid configuration: {problem}\n"})
    return found


def vm_row(node: PveNode, vmid: int) -> dict[str, Any]:
    """Element of GET /nodes/{n}/qemu."""
    config = node.effective_config(vmid)
    qemu = node.host.qemus.get(vmid)
    memory = int(str(config.get("memory", 512)).split(",", maxsplit=1)[0].removeprefix("current=")) << 20
    row: dict[str, Any] = {
        "vmid": vmid, "name": config.get("name", f"VM {vmid}"), "status": "running" if qemu else "stopped",
        "cpus": int(config.get("cores", 1)) * int(config.get("sockets", 1)), "maxmem": memory, "maxdisk": 483183820800,
        "uptime": int(time.time() - qemu.started_at) if qemu else 0, "mem": memory * 9 // 10 if qemu else 0,
        "cpu": 0.02 if qemu else 0,
        "disk": 0, "diskread": 0, "diskwrite": 0, "netin": 0, "netout": 0,
    }  # fmt: skip
    if config.get("tags"):
        row["tags"] = config["tags"]
    if config.get("template"):
        row["template"] = 1
    if config.get("lock"):
        row["lock"] = config["lock"]
    if qemu:
        row["pid"] = qemu.pid
    return row


def vm_status(node: PveNode, vmid: int) -> dict[str, Any]:
    """GET /nodes/{n}/qemu/{id}/status/current."""
    config = node.effective_config(vmid)
    qemu = node.host.qemus.get(vmid)
    ha = (node.host.inputs["pve"].get("ha") or {}).get(str(vmid)) or {}
    status = vm_row(node, vmid) | {
        "qmpstatus": "running" if qemu else "stopped",
        "ha": {"managed": 1 if ha.get("managed") else 0, **({"state": ha["state"]} if ha.get("state") else {})},
    }
    if str(config.get("agent", "0")).split(",", maxsplit=1)[0].removeprefix("enabled=") == "1":
        status["agent"] = 1
    if qemu:
        status |= {
            "running-machine": qemu.machine, "running-qemu": str(node.host.inputs["pve"].get("qemu", "9.2.0")),
            "proxmox-support": {"pbs-dirty-bitmap": True}, "balloon": 0,
        }  # fmt: skip
    return status


def vm_config(node: PveNode, vmid: int, *, current: bool) -> dict[str, Any]:
    """GET /nodes/{n}/qemu/{id}/config: with pending applied, or what the running VM was configured with."""
    config = node.section(vmid) if current else node.effective_config(vmid)
    return {**config, "digest": node.digest(vmid)}


def vm_pending(node: PveNode, vmid: int) -> list[dict[str, Any]]:
    """GET /nodes/{n}/qemu/{id}/pending."""
    config, pending = node.section(vmid), node.pending(vmid)
    rows: list[dict[str, Any]] = []
    for key in [*config, *(k for k in pending if k not in config)]:
        row: dict[str, Any] = {"key": key}
        if key in config:
            row["value"] = config[key]
        if key in pending:
            row |= {"delete": 1} if pending[key] is False else {"pending": pending[key]}
        rows.append(row)
    rows.append({"key": "digest", "value": node.digest(vmid)})
    return rows
