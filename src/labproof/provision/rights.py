"""Whether the API account may do what a plan wants, before anything is begun (facts proxmox 2.5)."""

from __future__ import annotations

from collections.abc import Iterable

from labproof.facts.reading import State
from labproof.facts.vm import PveFacts

#: Privilege for each key of a VM that a step may set.
RIGHT_OF = {
    "machine": "VM.Config.HWType",
    "bios": "VM.Config.Options",
    "cpu": "VM.Config.CPU",
    "balloon": "VM.Config.Memory",
}


def missing_privileges(pve: PveFacts, path: str, wanted: Iterable[str]) -> tuple[str, ...]:
    """Privileges the account lacks on a path; none where its permissions could not be read (PVE will tell)."""
    if pve.identity == "root@pam" or pve.permissions.state is not State.VALUE:
        return ()
    granted = pve.permissions.value or {}
    parts = [part for part in path.split("/") if part]
    for depth in range(len(parts), -1, -1):  # the deepest path that PVE lists counts
        here = "/" + "/".join(parts[:depth])
        if here in granted:
            return tuple(p for p in dict.fromkeys(wanted) if p not in granted[here])
    return tuple(dict.fromkeys(wanted))
