"""Killed between any two changes: the next run converges, and undo gives every byte back."""

import pytest

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


def test_an_undo_that_is_killed_is_finished_by_the_next(ground):
    before = ground.world()
    assert ground.provision().complete
    count = len(ground.journal.entries())
    for lives in range(0, 2 * count, 5):
        with pytest.raises(Killed):
            ground.undo(journal=FragileJournal(ground.journal.path.parent, lives))
    assert ground.undo().complete
    assert ground.world() == before
