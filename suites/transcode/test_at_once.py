"""All slots at once."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("CODEC-CONCURRENT-001")
def test_all_slots_transcode_at_once(judgement):
    """As many transcodes as slots may be held MUST run at once, each whole and at real time.

    Preconditions: sharing is declared, and two slots or more may be held
    Expected: they overlap, as many encoder sessions are seen, memory stays below the ceiling
    """
    assert_holds(judgement)
