"""Users, tokens, roles and ACLs: who may read or do what (facts proxmox 2.1, 2.5)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ALL = frozenset({
    "Sys.Audit", "Sys.Modify", "Sys.PowerMgmt", "Sys.Console", "VM.Audit", "VM.PowerMgmt", "VM.Migrate",
    "VM.Backup", "VM.Monitor",
    "VM.Config.HWType", "VM.Config.Options", "VM.Config.CPU", "VM.Config.Memory", "VM.Config.Disk", "VM.Config.Network",
    "VM.Config.Cloudinit", "VM.Config.CDROM", "Mapping.Audit", "Mapping.Use", "Mapping.Modify", "Datastore.Audit",
    "Datastore.AllocateSpace",
    "Permissions.Modify", "User.Modify",
})  # fmt: skip
BUILT_IN: Mapping[str, frozenset[str]] = {
    "Administrator": ALL,
    "NoAccess": frozenset(),
    "PVEAuditor": frozenset({"Sys.Audit", "VM.Audit", "Mapping.Audit", "Datastore.Audit"}),
    "PVEVMAdmin": frozenset(p for p in ALL if p.startswith("VM.")),
    "PVEMappingUser": frozenset({"Mapping.Use", "Mapping.Audit"}),
}

TICKET_LIFE_S = 7200


@dataclass(frozen=True)
class Identity:
    """Whoever sent a request: `root@pam`, or a token `labproof@pve!suite`."""

    name: str
    privileges_separated: bool = False

    @property
    def user(self) -> str:
        """The user without the token."""
        return self.name.partition("!")[0]

    @property
    def token(self) -> str | None:
        """The token's name."""
        return self.name.partition("!")[2] or None

    @property
    def is_root(self) -> bool:
        """Exactly root@pam: a token of root is not (facts proxmox 2.5)."""
        return self.name == "root@pam"


@dataclass
class Credentials:
    """Secrets of one PVE API, made at start: passwords and token values. They are no inputs and outlive a reset."""

    passwords: dict[str, str] = field(default_factory=dict, repr=False)
    tokens: dict[str, str] = field(default_factory=dict, repr=False)
    tickets: dict[str, tuple[str, float, str]] = field(default_factory=dict, repr=False)

    def password(self, user: str) -> str:
        """The password of a user, made on first use."""
        return self.passwords.setdefault(user, secrets.token_urlsafe(12))

    def token(self, token_id: str) -> str:
        """The value of a token, a UUID, made on first use."""
        text = secrets.token_hex(16)
        return self.tokens.setdefault(token_id, f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")

    def new_ticket(self, user: str) -> tuple[str, str]:
        """A ticket and its CSRF prevention token."""
        stamp = f"{int(time.time()):08X}"
        ticket = f"PVE:{user}:{stamp}::{secrets.token_urlsafe(64)}"
        prevention = f"{stamp}:{secrets.token_urlsafe(32)}"
        self.tickets[ticket] = (user, time.time() + TICKET_LIFE_S, prevention)
        return ticket, prevention


def privileges(pve: Mapping[str, Any], who: Identity, path: str) -> frozenset[str]:
    """Privileges of an identity on a path; a separated token has no more than its user has."""
    held = ALL if who.user == "root@pam" else _granted(pve, who.user, path)
    return held & _granted(pve, who.name, path) if who.privileges_separated else held


def _granted(pve: Mapping[str, Any], who: str, path: str) -> frozenset[str]:
    """The role of the deepest path with an entry for this id (a deeper entry replaces a higher one)."""
    roles = {**BUILT_IN, **{name: frozenset(p) for name, p in (pve.get("roles") or {}).items()}}
    acl = pve.get("acl") or {}
    parts = [p for p in path.split("/") if p]
    for depth in range(len(parts), -1, -1):
        role = (acl.get("/" + "/".join(parts[:depth])) or {}).get(who)
        if role:
            names = role if isinstance(role, list) else [role]
            return frozenset().union(*(roles.get(str(n), frozenset()) for n in names))
    return frozenset()


def identities(pve: Mapping[str, Any]) -> dict[str, Identity]:
    """All users and tokens by name."""
    found: dict[str, Identity] = {}
    for user, spec in (pve.get("users") or {}).items():
        found[user] = Identity(user)
        for token, options in ((spec or {}).get("tokens") or {}).items():
            name = f"{user}!{token}"
            found[name] = Identity(name, bool((options or {}).get("privsep", True)))
    return found
