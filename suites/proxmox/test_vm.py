"""The VM: visible, on its node, unlocked, running."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("VM-RIGHTS-001")
def test_account_sees_the_node(judgement):
    """The API account MUST see the nodes, VMs and PCI devices that the suite reads.

    Preconditions: a PVE API credential
    Expected: nothing is refused, and no list is empty that cannot be
    """
    assert_holds(judgement)


@clause("VM-EXISTS-001")
def test_vm_is_on_the_node(judgement):
    """The declared VM MUST be on its declared node.

    Preconditions: VM.Audit on the VM
    Expected: found by id or match, with the declared MAC where one is declared
    """
    assert_holds(judgement)


@clause("VM-LOCK-001")
def test_vm_is_not_locked(judgement):
    """The VM MUST NOT be locked.

    Preconditions: VM.Audit on the VM
    Expected: status/current has no lock
    """
    assert_holds(judgement)


@clause("VM-START-001")
def test_vm_runs(judgement):
    """The VM MUST run where it is declared to, and its last start MUST have ended well.

    Preconditions: VM.Audit on the VM, Sys.Audit for tasks of others
    Expected: it is running; if not, the log of its last start names the cause
    """
    assert_holds(judgement)


@clause("VM-START-002")
def test_last_start_reset_the_card(judgement):
    """The last start MUST have reset the GPU without a warning.

    Preconditions: Sys.Audit for tasks of others
    Expected: its log has no failed reset
    """
    assert_holds(judgement)


@clause("VM-HOLDS-001")
def test_qemu_holds_the_gpu(judgement):
    """The running QEMU MUST hold the GPU.

    Preconditions: the VM runs; root on the host to see open files
    Expected: its arguments, its open VFIO file and the reservation of PVE agree
    """
    assert_holds(judgement)
