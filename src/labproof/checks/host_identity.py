"""The machine behind the SSH address is the declared Proxmox VE node."""

from __future__ import annotations

from labproof.checks.host_devices import seen
from labproof.checks.judgement import Fail, Judgement, Pass, Problem
from labproof.checks.registry import BLOCKING, clause_check
from labproof.checks.subject import Subject
from labproof.facts.reading import need


@clause_check(
    "HOST-ID-001",
    title="SSH reaches the declared Proxmox VE node",
    severity=BLOCKING,
    scope="host",
    reads=("host",),
    causes=("P64",),
    wants=("host:proxmox",),
)
def ssh_reaches_the_declared_node(subject: Subject) -> Judgement:
    """H1: the node name equals the declared one, and /etc/pve is mounted (without it the node starts no VM)."""
    host = subject.host_facts
    declared = (subject.host.pve.node if subject.host.pve else None) or subject.host.name
    name = need(host.hostname, "host name").split(".")[0]
    mounted = need(host.pve_mounted, "/etc/pve")
    shown = (
        seen(subject, "cat /proc/sys/kernel/hostname", name),
        seen(subject, "grep /etc/pve /proc/mounts", "mounted" if mounted else "not mounted"),
    )
    values = (("host", subject.host.name),)
    if name != declared:
        remedy = f"The address leads to {name}, declared is {declared}: correct hosts[].ssh.address or the name."
        return Fail((Problem("P64", subject.host.name, shown, values, remedy),))
    if not mounted:
        remedy = (
            f"On {subject.host.name}: `systemctl status pve-cluster`, `journalctl -u pve-cluster -b`. "
            "A Linux host without PVE is declared with `kind: linux`."
        )
        return Fail((Problem("P64", subject.host.name, shown, values, remedy),))
    return Pass(shown)
