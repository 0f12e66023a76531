"""Killed between any two changes: the next run converges, and undo gives every byte back."""

import pytest

from labproof.provision import hands
from selftests.provision.conftest import FragileJournal, Killed

#: Changes of a whole run from bare. Host: two own files, arguments, refresh, initramfs, node drained, guests shut
#: down, reboot, guests, node back. VM: mapping, configuration, drained, restart, back. Talos: schematic,
#: configuration, drained, upgrade, back.
CHANGES = 20
#: Each change is announced (two moments: before and after the line is on the disk), made, and noted (two moments).
ANNOUNCED, MADE = 1, 2


def killed(ground, change, moment):
    """A run that dies at that moment of that change."""
    journal = FragileJournal(ground.journal.path.parent, 4 * change + moment)
    with pytest.raises(Killed):
        ground.provision(journal=journal)


def test_there_are_so_many_changes(ground):
    assert ground.provision().changed == CHANGES


def test_killed_at_every_change_one_after_the_other_the_runs_converge(ground):
    """Every second run gets one change further than the one before; the last one finds nothing to do."""
    before = ground.world()
    for deaths in range(4 * CHANGES):
        lives = 4 * (deaths // 2) + (ANNOUNCED, MADE)[deaths % 2]
        try:
            outcome = ground.provision(journal=FragileJournal(ground.journal.path.parent, lives))
        except Killed:
            continue
        break
    assert deaths >= 8
    assert outcome.complete, "\n".join(outcome.lines)
    assert ground.plan().empty
    assert ground.red(("host", "vm", "talos")) == {}
    back = ground.undo()
    assert back.complete, "\n".join(back.lines)
    assert ground.world() == before


@pytest.mark.parametrize("change", range(CHANGES))
def test_a_killed_run_can_be_taken_back(ground, change):
    """Every other change dies announced, the others made: the chain of deaths above has both of each."""
    before = ground.world()
    killed(ground, change, (ANNOUNCED, MADE)[change % 2])
    back = ground.undo()
    assert back.complete, "\n".join(back.lines)
    assert ground.world() == before


@pytest.mark.parametrize("change", [16, 18])
def test_a_node_that_was_staged_or_upgraded_is_taken_back(ground, change):
    """The changes of a node that have an effect at a boot only, died after they were made."""
    before = ground.world()
    killed(ground, change, MADE)
    back = ground.undo()
    assert back.complete, "\n".join(back.lines)
    assert ground.world() == before


@pytest.mark.parametrize("change", [7, 18])
def test_a_killed_run_can_be_finished(ground, change):
    killed(ground, change, MADE)
    outcome = ground.provision()
    assert outcome.complete, "\n".join(outcome.lines)
    assert ground.plan().empty
    assert ground.red(("host", "vm", "talos")) == {}


def test_a_line_cut_short_is_one_that_was_never_written(ground):
    killed(ground, 3, ANNOUNCED)
    text = ground.journal.path.read_bytes()
    ground.journal.path.write_bytes(text[:-20])
    assert ground.provision().complete
    assert ground.undo().complete
    assert ground.plan().steps[0].changes


@pytest.mark.parametrize("calls", [0, 2, 5, 10, 14])
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
