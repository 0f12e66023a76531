"""The second start, by `--allow vm-restart` only."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("CODEC-RESTART-001")
def test_card_survives_restarts_of_its_vm(judgement):
    """After its VM was shut down and started twice, the GPU MUST be back: card, driver, plugin and transcode.

    Preconditions: `--allow vm-restart` by that name; a transcode stays on the card
    Expected: after both starts every blocking clause holds; another VM with this card was refused meanwhile
    """
    assert_holds(judgement)
