"""The card on the bus: where it is declared, answering, complete."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("HOST-DEVICE-001")
def test_gpu_is_at_its_address(judgement):
    """The declared GPU MUST be at its declared PCI address.

    Preconditions: SSH access to the host
    Expected: vendor:device at that address is the declared one; found elsewhere, the new address is reported
    """
    assert_holds(judgement)


@clause("HOST-DEVICE-002")
def test_gpu_answers(judgement):
    """The GPU MUST answer when its configuration space is read.

    Preconditions: the GPU is on the bus
    Expected: the first bytes are its ids, not ff, and no power-state error names it
    """
    assert_holds(judgement)


@clause("HOST-DEVICE-003")
def test_declared_functions_are_there(judgement):
    """Every function of the card that lab.yaml declares MUST be on the bus.

    Preconditions: the GPU is on the bus
    Expected: the slot shows the declared audio, USB and other functions
    """
    assert_holds(judgement)


@clause("HOST-LINK-001")
def test_link_has_full_width(judgement):
    """The PCIe link of the GPU MUST have the width the card can use.

    Preconditions: the GPU is on the bus
    Expected: current_link_width equals max_link_width; the speed of an idle card is not judged
    """
    assert_holds(judgement)
