"""The node's kernel log since the boot."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("TALOS-LOG-001")
def test_no_card_was_lost_or_hung(judgement):
    """The kernel log MUST NOT show a card that was lost, hung or failed to initialise.

    Preconditions: the device nodes exist (they stay when a card is lost)
    Expected: no Xid of a lost or hung card, no RmInitAdapter failure; a log that was rotated proves no fault
    """
    assert_holds(judgement)


@clause("TALOS-LOG-002")
def test_no_memory_or_link_errors(judgement):
    """The kernel log MUST NOT show memory or link errors of the card.

    Preconditions: the card is not lost
    Expected: no Xid 48, 63, 64, 74, 92, 94 or 95; those of programs are told as evidence only
    """
    assert_holds(judgement)
