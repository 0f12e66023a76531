"""Memory that is pinned from the start."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("VM-MEMORY-001")
def test_memory_suffices(judgement):
    """The host MUST have the memory to start the VM.

    Preconditions: Sys.Audit on the node; only judged while the VM is off
    Expected: available memory covers the VM and a margin
    """
    assert_holds(judgement)


@clause("VM-MEMORY-002")
def test_running_vms_leave_memory(judgement):
    """The running VMs MUST leave the host memory of its own.

    Preconditions: Sys.Audit on the node
    Expected: the sum of their memory is below that of the host
    """
    assert_holds(judgement)


@clause("VM-HUGEPAGES-001")
def test_hugepages_can_be_had(judgement):
    """Hugepages that the VM asks for MUST be there to be had.

    Preconditions: hugepages configured; without them it passes
    Expected: numa: 1, and free pages before a start
    """
    assert_holds(judgement)
