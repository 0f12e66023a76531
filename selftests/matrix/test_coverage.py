"""What the faults cover: every clause fails somewhere, and no clause lists a cause that nothing produces."""

import pytest

from labproof.catalogue.causes import causes
from labproof.checks.registry import LAYERS, clauses
from labproof.cli.catalogue_page import catalogue_page
from labproof.simlab.faults import load_faults
from labproof.simlab.world import variations

FAULTS = load_faults()
#: Causes that clauses can name, and those the matrix really sees named (each fault asserts its own).
LISTED = {cause for clause in clauses().values() for cause in clause.causes}
PRODUCED = {cause for fault in FAULTS.values() for cause in (fault.cause, *fault.also_causes)}


def test_every_clause_is_failed_by_a_fault():
    failed = {f.clause for f in FAULTS.values()} | {c for f in FAULTS.values() for c in f.also}
    assert set(clauses()) - failed == set()


def test_every_listed_cause_is_produced_and_every_produced_one_is_listed():
    assert not LISTED - PRODUCED
    assert not PRODUCED - LISTED
    assert not LISTED - set(causes())


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda f: f.id)
def test_a_fault_speaks_of_what_there_is(fault):
    assert fault.cause in clauses()[fault.clause].causes
    others = {cause for ident in fault.also for cause in clauses()[ident].causes}
    assert set(fault.also_causes) <= others
    assert fault.variation is None or fault.variation in variations(fault.lab)
    assert set(fault.layers) <= set(LAYERS)
    assert not fault.layers or clauses()[fault.clause].layer in fault.layers


def test_the_catalogue_marks_what_nothing_produces():
    page = catalogue_page()
    marked = {
        block.split(" ", 1)[0] for block in page.split("## Causes", 1)[1].split("\n### ")[1:]
        if ", unproven" in block.split("\n")[2]
    }  # fmt: skip
    assert marked == set(causes()) - PRODUCED
    assert marked & LISTED == set()


def test_what_no_fault_produces_says_why():
    silent = {i for i, cause in causes().items() if i not in PRODUCED and not cause.not_simulated}
    assert silent == set()


def test_a_reason_is_given_for_what_is_not_produced_only():
    """A cause that a fault has come to produce needs no excuse any more."""
    assert {i for i in PRODUCED if causes()[i].not_simulated} == set()


def test_at_least_170_of_the_280_are_produced():
    last = {"P": 63, "T": 65, "K": 84, "W": 66, "N": 2}
    assert sum(1 for i in PRODUCED if int(i[1:]) <= last[i[0]]) >= 170
