"""What a command changed in a generated root, applied to the world: files, refreshes, rebuilds, reboots, guests."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from labproof.simlab.host import bootfiles, standins
from labproof.simlab.host.machine import Host

#: Folders of the root whose files belong to the world's inputs.
TRACKED = "/etc"
WRITABLE = ("/etc/", "/tmp/", "/root/")  # noqa: S108 - inside the generated root
SETTLED_S = 180.0  # that long after the last guest's start a rebooted host is looked at
_DERIVED = ("/etc/pve/", "/etc/alternatives/")


def snapshot(root: Path) -> dict[str, str]:
    """Tracked files with a mark that changes when they do."""
    found: dict[str, str] = {}
    for folder, _, names in os.walk(f"{root}{TRACKED}"):
        for name in names:
            real = f"{folder}/{name}"
            path = real[len(str(root)) :]
            if not path.startswith(_DERIVED):
                state = os.lstat(real)
                found[path] = f"{state.st_mtime_ns} {state.st_size} {state.st_mode}"
    return found


def apply(world: Any, name: str, root: Path, before: dict[str, str]) -> list[str]:
    """Bring the world in line with what a command left behind; `before` is updated.

    Returns:
        The requests of the stand-ins, in order.
    """
    host: Host = world.hosts[name]
    after = snapshot(root)
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            real = Path(f"{root}{path}")
            regular = path in after and real.is_file() and not real.is_symlink()
            text = real.read_text(encoding="utf-8", errors="replace") if regular else None
            write_file(host, path, text, f"{real.lstat().st_mode & 0o777:04o}" if regular else "0644")
    before.clear()
    before.update(after)
    queue = Path(f"{root}{standins.REQUESTS}")
    requests = queue.read_text(encoding="utf-8").splitlines() if queue.is_file() else []
    queue.unlink(missing_ok=True)
    for request in requests:
        perform(world, name, request)
    return requests


def write_file(host: Host, path: str, text: str | None, mode: str = "0644") -> None:
    """A file of the host changes now; what boot menu and initramfs hold stays as it was."""
    entry = dict(host.inputs["files"].get(path) or {})
    old: str | bool = entry.get("text", False) if isinstance(entry.get("text"), str) else False
    if bootfiles.is_boot_file(path):
        entry.setdefault("at_refresh", old)
    elif path.startswith("/etc/modprobe.d/"):
        entry.setdefault("in_initramfs", old)
        entry.setdefault("booted_with", entry["in_initramfs"])
    else:
        entry.setdefault("booted_with", old)
    entry |= {"text": text if text is not None else False, "mode": mode, "changed": time.time() - host.booted_at}
    host.inputs["files"][path] = entry
    host.revision += 1


def perform(world: Any, name: str, request: str) -> None:
    """One request of a stand-in, e.g. `update-grub`, `reboot`, `qm start 1105`."""
    host: Host = world.hosts[name]
    verb, *rest = request.split()
    grub = host.inputs["boot"].get("loader") != "systemd-boot"
    if verb in ("update-grub", "refresh"):
        for path, entry in host.inputs["files"].items():
            if bootfiles.is_boot_file(path) and (grub or verb == "refresh"):
                entry.pop("at_refresh", None)
        host.inputs["boot"].setdefault("cmdline_at_boot", host.cmdline)
    elif verb == "update-initramfs":
        for entry in host.inputs["files"].values():
            if "in_initramfs" in entry:
                entry.setdefault("booted_with", entry["in_initramfs"])
                del entry["in_initramfs"]
        host.inputs["kernel"]["initramfs_made"] = time.time() - host.booted_at
    elif verb in ("reboot", "kexec", "shutdown"):
        reboot(world, name)
    elif verb == "kernel-pin":
        host.inputs["kernel"]["pinned"] = rest[0] if rest else None
    elif verb == "kernel-unpin":
        host.inputs["kernel"].pop("pinned", None)
    elif verb == "modprobe" and rest[:1] == ["load"]:
        host.drivers.load(rest[1], host.modprobe_now)
    elif verb == "qm" and name in world.pve:
        node, vmid = world.pve[name], int(rest[1])
        if rest[0] == "start":
            node.start(vmid)
        else:
            node.stop(vmid, f"qm{rest[0]}")
    host.revision += 1


def reboot(world: Any, name: str) -> None:
    """Reboot the host: what was configured is now what it boots with."""
    host: Host = world.hosts[name]
    if name in world.pve:
        for vmid in list(host.qemus):  # its guests are shut down first, which applies what was pending
            world.pve[name].stop(vmid, "qmshutdown")
    host.inputs["boot"].pop("cmdline_at_boot", None)
    for entry in host.inputs["files"].values():
        entry.pop("booted_with", None)
        if "changed" in entry:  # relative to the boot
            entry["changed"] = float(entry["changed"]) - (time.time() - host.booted_at)
    if "initramfs_made" in host.inputs["kernel"]:
        host.inputs["kernel"]["initramfs_made"] -= time.time() - host.booted_at
    host.inputs["uptime_s"] = 90
    pinned = host.inputs["kernel"].get("pinned")
    if pinned:
        host.inputs["kernel"]["version"] = pinned
    now = time.time()
    world.boot_host(name, now)
    late = max((q.started_at for q in world.hosts[name].qemus.values()), default=now) + SETTLED_S - now
    if late > 0:  # a reboot takes no time here, so what its guests' starts take lies behind it
        host.inputs["uptime_s"] = float(host.inputs["uptime_s"]) + late
        world.boot_host(name, now)
    if host.inputs["firmware"].get("hangs_at_reboot"):
        world.hosts[name].up = False
