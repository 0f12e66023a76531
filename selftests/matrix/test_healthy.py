"""Labs that work are green: no finding, nothing unchecked, nothing blocked."""

import pytest

from labproof.simlab.world import variations

VARIATIONS = [None, *sorted(variations("t4-jellyfin"))]


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda v: v or "plain")
def test_a_healthy_lab_has_no_finding(judged, variation):
    outcome = judged((), variation)
    assert not any(outcome.of(v) for v in ("fail", "unchecked", "blocked")), outcome.describe()
