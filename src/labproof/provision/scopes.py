"""Write scopes: what a change touches, and by which word of `--allow` an owner permits it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

HOST_FILES, HOST_BOOT, HOST_REBOOT = "host-files", "host-boot", "host-reboot"
VM_CONFIG, VM_RESTART = "vm-config", "vm-restart"
NODE_CONFIG, NODE_UPGRADE = "node-config", "node-upgrade"
#: Objects, labels and taints in a cluster: `--provision` itself permits it.
CLUSTER = "cluster"
#: What `--allow all` permits.
ORDINARY = (HOST_FILES, HOST_BOOT, HOST_REBOOT, VM_CONFIG, VM_RESTART, NODE_CONFIG, NODE_UPGRADE)

ACS, RMRR, UNSAFE_INTERRUPTS, CONSOLE_LOSS = "acs-override", "relax-rmrr", "unsafe-interrupts", "console-loss"
#: What gives up safety or the console: each by its own name, never by `all`.
OVERRIDES = (ACS, RMRR, UNSAFE_INTERRUPTS, CONSOLE_LOSS)


class UnknownScope(ValueError):
    """A word of `--allow` that names nothing."""


def allowed(words: Iterable[str]) -> frozenset[str]:
    """The scopes that words of `--allow` permit, `cluster` always.

    Raises:
        UnknownScope: a word that is neither a scope nor `all`; the text names the nearest.
    """
    found: set[str] = {CLUSTER}
    for word in (part for text in words for part in text.split(",")):
        if word == "all":
            found |= set(ORDINARY)
        elif word in ORDINARY or word in OVERRIDES or word == CLUSTER:
            found.add(word)
        else:
            near = difflib.get_close_matches(word, [*ORDINARY, *OVERRIDES, "all"], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UnknownScope(f"{word!r} is no write scope{hint} (all, {', '.join((*ORDINARY, *OVERRIDES))})")
    return frozenset(found)


def override_of(token: str) -> str | None:
    """The override that a kernel argument is, None for an ordinary one (facts proxmox 1.1, section 6)."""
    key, _, words = token.partition("=")
    if key == "pcie_acs_override":
        return ACS
    if key == "intel_iommu" and "relax_rmrr" in words.split(","):
        return RMRR
    if key.endswith("allow_unsafe_interrupts"):
        return UNSAFE_INTERRUPTS
    return None
