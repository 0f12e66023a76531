"""nvidia-smi works in the pod, and the card is well."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("POD-SMI-001")
def test_nvidia_smi_works(judgement):
    """nvidia-smi in the pod MUST answer with status 0 and a whole report of at least one card.

    Preconditions: a pod with one slot runs
    Expected: `nvidia-smi -q -x` is a complete document with a <gpu>
    """
    assert_holds(judgement)


@clause("POD-HEALTH-001")
def test_card_is_well(judgement):
    """The card MUST report no memory damage, no slowdown by hardware and a compute mode that allows sharing.

    Preconditions: nvidia-smi works in the pod
    Expected: no uncorrectable errors or pending repair, no hw_slowdown, below the slowdown temperature, mode Default
    """
    assert_holds(judgement)
