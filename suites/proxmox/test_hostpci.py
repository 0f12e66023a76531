"""What the VM is given."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("VM-HOSTPCI-001")
def test_vm_is_given_the_gpu(judgement):
    """The VM MUST have a hostpci entry for the declared GPU.

    Preconditions: VM.Audit on the VM
    Expected: an entry names the declared mapping, or the address of the GPU
    """
    assert_holds(judgement)


@clause("VM-HOSTPCI-002")
def test_options_suit_the_card(judgement):
    """The options of the entry MUST suit the card.

    Preconditions: the entry exists
    Expected: no x-vga on a card without display, no overridden ids, every declared function passed
    """
    assert_holds(judgement)


@clause("VM-HOSTPCI-003")
def test_entry_can_be_started(judgement):
    """Every hostpci entry MUST meet the conditions without which it cannot start.

    Preconditions: the entry exists
    Expected: legacy-igd conditions hold, and no physical function is passed while it has virtual ones
    """
    assert_holds(judgement)


@clause("VM-MAPPING-001")
def test_mapping_fits(judgement):
    """The PCI resource mapping MUST fit the hardware of this node by Proxmox VE's own check.

    Preconditions: `mapping` declared; Mapping.Audit
    Expected: an entry for this node, and no complaint of check-node
    """
    assert_holds(judgement)


@clause("VM-PENDING-001")
def test_nothing_is_pending(judgement):
    """No change of the VM that concerns the GPU MUST be waiting for a restart.

    Preconditions: VM.Audit on the VM
    Expected: no pending hostpci, machine, firmware, CPU or memory key
    """
    assert_holds(judgement)
