"""Slots are a limit, and without one there is no GPU."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("POD-OVERFLOW-001")
def test_overflow_pod_waits(judgement):
    """A pod that asks for more slots than are free MUST wait, and MUST run once a slot is free.

    Preconditions: a device plugin offers the resource
    Expected: Pending for `Insufficient <resource>`; where lab.yaml lets us fill the card, running later
    """
    assert_holds(judgement)


@clause("POD-OVERREQ-001")
def test_two_slots_are_refused(judgement):
    """A pod that asks for two slots of a shared card MUST be refused.

    Preconditions: sharing is declared, and two slots may be held
    Expected: the kubelet rejects it: the maximum request for shared resources is 1
    """
    assert_holds(judgement)


@clause("POD-LEAK-001")
def test_no_request_no_gpu(judgement):
    """A pod that asks for no GPU MUST see none, whatever its image's environment says.

    Preconditions: one pod without RuntimeClass (NVIDIA_VISIBLE_DEVICES=all), one with the GPU RuntimeClass (void)
    Expected: no /dev/nvidia* and no card in nvidia-smi -L
    """
    assert_holds(judgement)


@clause("POD-LEAK-002")
def test_nobody_takes_the_gpu_unaccounted(judgement):
    """A workload MUST NOT take the GPU by its RuntimeClass without asking for a slot.

    Preconditions: a GPU RuntimeClass is declared
    Expected: every pod on the node that names it asks for the resource, is a DaemonSet's, or asks for no device
    """
    assert_holds(judgement)
