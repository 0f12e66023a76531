"""Labs that work are green: no finding, nothing unchecked, nothing blocked; a GPU in use is told as that."""

import pytest

from labproof.simlab.world import known_labs, variations

HEALTHY = [(lab, variation) for lab in known_labs() for variation in (None, *sorted(variations(lab)))]

#: No slot is free for us: what needs one is unchecked, and nothing else is.
BUSY = {("t4-jellyfin", "all-slots-taken")}


@pytest.mark.parametrize(("lab", "variation"), HEALTHY, ids=[f"{lab}-{v or 'plain'}" for lab, v in HEALTHY])
def test_a_healthy_lab_has_no_finding(judged, lab, variation):
    outcome = judged((), variation, lab=lab)
    assert not outcome.of("fail") + outcome.of("blocked") + outcome.unchecked_but_not_busy(), outcome.describe()
    assert bool(outcome.of("unchecked")) == ((lab, variation) in BUSY), outcome.describe()
    assert outcome.of("pass")
