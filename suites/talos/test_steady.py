"""What a node that serves GPUs for weeks shows: one driver per card, and no reboot in sight."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("TALOS-ONLY-001")
def test_only_declared_drivers_are_loaded(judgement):
    """A GPU driver that lab.yaml does not declare MUST NOT be loaded.

    Preconditions: the Talos API answers
    Expected: of nvidia, nouveau, i915, xe, amdgpu and radeon only those of the declared modules and extensions
    """
    assert_holds(judgement)


@clause("TALOS-SOAK-001")
def test_node_is_past_the_boot_limit(judgement):
    """The node MUST have been up for more than 72 minutes, or have finished its boot sequence.

    Preconditions: the Talos API answers
    Expected: the uptime says so; an unfinished boot sequence ends in a reboot after 70 minutes, again and again
    """
    assert_holds(judgement)
