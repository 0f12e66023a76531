"""Killed between any two changes of a cluster: the next run converges, and undo gives every object back."""

import pytest

from labproof.provision import hands
from selftests.provision.conftest import FragileJournal, Killed

#: Changes from a bare cluster: RuntimeClass; namespace, NFD, plugin and the wait; sharing and its wait; metrics.
CHANGES = 29
#: Each change is announced (two moments), made, and noted (two moments).
ANNOUNCED, MADE = 1, 2


def killed(ground, change, moment):
    journal = FragileJournal(ground.journal.path.parent, 4 * change + moment)
    with pytest.raises(Killed):
        ground.provision(journal=journal)


def test_killed_after_every_change_and_run_again(cluster_ground):
    """One change a run, each run killed before it can note what it did; the last run finds nothing to do."""
    ground = cluster_ground
    before = ground.objects()
    for _ in range(CHANGES):
        journal = FragileJournal(ground.journal.path.parent, MADE)
        try:
            outcome = ground.provision(journal=journal)
        except Killed:
            continue
        assert outcome.complete
        break
    outcome = ground.provision()
    assert outcome.complete, "\n".join(outcome.lines)
    assert ground.plan().empty
    assert ground.undo().complete
    assert ground.objects() == before


@pytest.mark.parametrize(
    ("change", "moment"),
    [(0, ANNOUNCED), (0, MADE), (1, MADE), (4, MADE), (9, ANNOUNCED), (13, MADE), (17, MADE), (18, MADE), (19, MADE),
     (20, MADE), (22, ANNOUNCED), (23, MADE), (24, MADE), (27, MADE)],
)  # fmt: skip
def test_killed_and_taken_back(cluster_ground, change, moment):
    before = cluster_ground.objects()
    killed(cluster_ground, change, moment)
    back = cluster_ground.undo()
    assert back.complete, "\n".join(back.lines)
    assert cluster_ground.objects() == before


def test_there_are_so_many_changes(cluster_ground):
    assert cluster_ground.provision().changed == CHANGES


@pytest.mark.parametrize("calls", [1, 4, 9, 15])
def test_an_undo_that_is_killed_is_finished_by_the_next(cluster_ground, monkeypatch, calls):
    ground = cluster_ground
    before = ground.objects()
    assert ground.provision().complete
    left, take_back = [calls], hands.take_back

    def fragile(*args):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        take_back(*args)

    with monkeypatch.context() as patched:
        patched.setattr(hands, "take_back", fragile)
        with pytest.raises(Killed):
            ground.undo()
    back = ground.undo()
    assert back.complete, "\n".join(back.lines)
    assert ground.objects() == before
