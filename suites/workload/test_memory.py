"""Card memory: what the declared workloads need together, and what can really be taken."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("POD-VRAM-001")
def test_workloads_fit_together(judgement):
    """Workloads that may run at once MUST fit into the card's memory together.

    Preconditions: a workload declares vram_mib, and nvidia-smi works in the pod
    Expected: the sum of those declared `always` and those that hold a slot now is no more than the card has
    """
    assert_holds(judgement)


@clause("POD-VRAM-002")
def test_declared_memory_can_be_taken(judgement):
    """The card memory that lab.yaml declares for a pod MUST be allocatable.

    Preconditions: probe.vram_mib is declared, a CUDA kernel runs, and nobody is starved by it
    Expected: frames of that size are held on the card for a moment, and the driver's own count shows it
    """
    assert_holds(judgement)
