"""The machine behind the SSH address."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("HOST-ID-001")
def test_ssh_reaches_the_declared_node(judgement):
    """The machine reached over SSH MUST be the declared Proxmox VE node, with its cluster file system mounted.

    Preconditions: SSH access to the host; `kind: proxmox`
    Expected: the host name is the PVE node name, and /etc/pve is mounted
    """
    assert_holds(judgement)
