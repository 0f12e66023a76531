"""From a bare host to a green lab, and back to every byte; the second plan is empty."""

import pytest

WAYS = [None, "pve9-systemd-boot", "amd-host", "two-cards", "second-gpu", "partial-vfio-ids"]


@pytest.mark.parametrize("variation", WAYS, ids=lambda v: v or "plain")
def test_a_bare_lab_is_brought_to_green_and_back(ground, variation):
    ground.reset(variation)
    before = ground.world()
    assert ground.red(("host", "vm"))
    outcome = ground.provision()
    assert outcome.complete, "\n".join(outcome.lines)
    assert {key: r for key, r in ground.red().items()} == {}
    second = ground.plan()
    assert second.empty, second.lines()
    back = ground.undo()
    assert back.complete, back.lines
    assert ground.world() == before
    assert ground.journal.standing() == []
