"""Nobody else has the card or will take it."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("VM-OWNER-001")
def test_no_other_vm_has_the_gpu(judgement):
    """No other running VM MUST have the GPU.

    Preconditions: VM.Audit on all VMs of the node
    Expected: none that names the card runs while ours is off
    """
    assert_holds(judgement)


@clause("VM-OWNER-002")
def test_no_other_vm_wants_the_gpu(judgement):
    """No other VM MUST be set up to take the GPU.

    Preconditions: VM.Audit on all VMs of the node
    Expected: no other configuration names the card, unless the lab declares that they take turns; never onboot on both
    """
    assert_holds(judgement)


@clause("VM-BACKUP-001")
def test_no_backup_takes_the_gpu(judgement):
    """No backup job MUST start another VM that names the GPU.

    Preconditions: Sys.Audit for backup jobs
    Expected: no enabled job covers a stopped VM with the card
    """
    assert_holds(judgement)
