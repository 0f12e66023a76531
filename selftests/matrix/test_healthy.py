"""Labs that work are green: no finding, nothing unchecked, nothing blocked; a GPU in use is told as that."""

import pytest

from labproof.simlab.world import variations

VARIATIONS = [None, *sorted(variations("t4-jellyfin"))]


#: No slot is free for us: what needs one is unchecked, and nothing else is.
BUSY = ("all-slots-taken",)


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda v: v or "plain")
def test_a_healthy_lab_has_no_finding(judged, variation):
    outcome = judged((), variation)
    assert not outcome.of("fail") + outcome.of("blocked") + outcome.unchecked_but_not_busy(), outcome.describe()
    assert bool(outcome.of("unchecked")) == (variation in BUSY), outcome.describe()
