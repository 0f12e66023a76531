"""The card's power limit."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("POD-POWER-001")
def test_declared_power_limit_is_in_force(judgement):
    """The power limit in force MUST be the declared one.

    Preconditions: power_limit_watts is declared, and nvidia-smi works in the pod
    Expected: the enforced limit is within 1 W of it
    """
    assert_holds(judgement)
