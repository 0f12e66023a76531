"""`--bare`: the inputs of a lab before anybody provisioned it, from those of the finished one.

The host boots with the IOMMU off, as kernels did before it became the default (facts real-host, pitfall 3), nothing
binds the cards, no VM has one, and the API account may configure the declared VM. Works on any variation.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from labproof.simlab.world.bare_cluster import bare_cluster
from labproof.simlab.world.bare_talos import bare_node

#: What can be bare: the hosts with their VMs; the Talos nodes; the clusters.
PARTS = ("passthrough", "talos", "cluster")
OLD_DEFAULT = "/etc/default/grub.d/00-old-default.cfg"
ROLE = "LabproofProvisioner"
PRIVILEGES = ("VM.Config.HWType", "VM.Config.Options", "VM.Config.CPU", "VM.Config.Memory", "VM.PowerMgmt",
              "Mapping.Use", "Mapping.Modify")  # fmt: skip
_ABOUT_PASSTHROUGH = re.compile(r"vfio|nouveau|nvidia(?!fb)|i915|xe\b", re.IGNORECASE)
_IOMMU_TOKEN = re.compile(r"\s?\b(?:intel_iommu|amd_iommu)=[\w,]+")


def bare(inputs: dict[str, Any], parts: Collection[str] = PARTS) -> dict[str, Any]:
    """Take out what provisioning brings, of these parts of the lab. Changes and returns `inputs`."""
    if "passthrough" in parts:
        for host in (inputs.get("hosts") or {}).values():
            if host.get("kind", "proxmox") == "proxmox":
                _bare_host(host)
                _bare_guests(host)
    if "talos" in parts:
        for node in (inputs.get("nodes") or {}).values():
            bare_node(node)
    for cluster in (inputs.get("clusters") or {}).values():
        cluster["rbac"] = {**(cluster.get("rbac") or {}), "drain": True}
        if "cluster" in parts:
            bare_cluster(cluster)
    return inputs


def _bare_host(host: dict[str, Any]) -> None:
    files: dict[str, Any] = host["files"]
    for path, entry in list(files.items()):
        text = (entry or {}).get("text")
        if not isinstance(text, str):
            continue
        if path.startswith(
            ("/etc/modprobe.d/", "/etc/driverctl.d/", "/etc/udev/rules.d/")
        ) and _ABOUT_PASSTHROUGH.search(text):
            del files[path]
        elif path.startswith("/etc/modules"):
            kept = [line for line in text.splitlines() if not line.startswith("vfio")]
            files[path] = {"text": "".join(f"{line}\n" for line in kept)}
        elif path.startswith(("/etc/default/grub", "/etc/kernel/cmdline")):
            files[path] = {"text": _IOMMU_TOKEN.sub("", text)}
    off = "amd_iommu=off" if host["cpu"].get("vendor") == "amd" else "intel_iommu=off"
    if host["boot"].get("loader") == "systemd-boot":
        line = files["/etc/kernel/cmdline"]["text"].rstrip("\n")
        files["/etc/kernel/cmdline"] = {"text": f"{line} {off}\n"}
    else:
        files[OLD_DEFAULT] = {"text": f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {off}"\n'}
    host["boot"].pop("cmdline_at_boot", None)


def _bare_guests(host: dict[str, Any]) -> None:
    pve = host["pve"]
    pve["mapping"] = {}
    pve.setdefault("roles", {})[ROLE] = list(PRIVILEGES)
    for holders in (pve.get("acl") or {}).values():
        for who, role in list(holders.items()):
            roles = role if isinstance(role, list) else [role]
            holders[who] = [*roles, *([ROLE] if who.startswith("labproof@pve") else [])]
    for entry in (host.get("vms") or {}).values():
        config = entry["config"]
        passed = [key for key in config if key.startswith("hostpci")]
        for key in passed:
            del config[key]
        if passed:  # the VM as its owner made it before a card was thought of
            config.pop("machine", None)
            config |= {"cpu": "x86-64-v2-AES", "balloon": int(config.get("memory", 2048)) // 2}
