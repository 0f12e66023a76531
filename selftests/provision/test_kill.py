"""Killed between any two changes: the next run converges, and undo gives every byte back."""

import pytest

from labproof.provision import hands
from selftests.provision.conftest import FragileJournal, Killed

#: Changes of a whole run from bare: two own files, arguments, refresh, initramfs, guests, reboot, guests; mapping,
#: configuration, restart.
CHANGES = 11
#: Each change is announced (two moments: before and after the line is on the disk), made, and noted (two moments).
ANNOUNCED, MADE = 1, 2


def killed(ground, change, moment):
    """A run that dies at that moment of that change."""
    journal = FragileJournal(ground.journal.path.parent, 4 * change + moment)
    with pytest.raises(Killed):
        ground.provision(journal=journal)


@pytest.mark.parametrize("moment", [ANNOUNCED, MADE], ids=["announced", "made"])
@pytest.mark.parametrize("change", range(CHANGES))
def test_a_killed_run_can_be_taken_back_or_finished(ground, change, moment):
    before = ground.world()
    killed(ground, change, moment)
    back = ground.undo()
    assert back.complete, "\n".join(back.lines)
    assert ground.world() == before
    killed(ground, change, moment)
    outcome = ground.provision()
    assert outcome.complete, "\n".join(outcome.lines)
    assert ground.plan().empty
    assert ground.red(("host", "vm")) == {}


def test_there_are_so_many_changes(ground):
    assert ground.provision().changed == CHANGES


def test_a_line_cut_short_is_one_that_was_never_written(ground):
    killed(ground, 3, ANNOUNCED)
    text = ground.journal.path.read_bytes()
    ground.journal.path.write_bytes(text[:-20])
    assert ground.provision().complete
    assert ground.undo().complete
    assert ground.plan().steps[0].changes


@pytest.mark.parametrize("calls", [0, 1, 2, 4, 6, 8])
def test_an_undo_that_is_killed_is_finished_by_the_next(ground, monkeypatch, calls):
    """Killed before its n-th call of a hand; then the next one does the rest."""
    before = ground.world()
    assert ground.provision().complete
    left = [calls]

    def fragile(hand):
        def take(*args):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return hand(*args)

        return take

    with monkeypatch.context() as patched:
        for name in ("take_back", "effect"):
            patched.setattr(hands, name, fragile(getattr(hands, name)))
        with pytest.raises(Killed):
            ground.undo()
    back = ground.undo()
    assert back.complete, "\n".join(back.lines)
    assert ground.world() == before
