"""A pod that asks for a slot starts."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("POD-PAIR-001")
def test_request_does_not_break_the_pod(judgement):
    """A pod that asks for a GPU MUST start where the same pod without the request starts.

    Preconditions: the two pods differ by the resource limit only
    Expected: both run, or neither does; where only the asking one fails, the injection into it is named
    """
    assert_holds(judgement)


@clause("POD-RUN-001")
def test_pod_with_one_slot_runs(judgement):
    """A pod that asks for one slot MUST run on the declared node.

    Preconditions: at least one slot that may be held is free
    Expected: its container is running; else the field and text that tell why not
    """
    assert_holds(judgement)
