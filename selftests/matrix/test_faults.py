"""Every fault changes inputs of the simulated world only; the suite must name its cause and nothing else."""

import pytest

from labproof.checks.registry import LAYERS, clauses
from labproof.simlab.faults import load_faults

FAULTS = load_faults()


def test_there_are_sixty_faults():
    assert len(FAULTS) >= 60


#: Those of layer `variations` may break one of two chains: test_variations.py. One lab after the other.
ALONE = sorted((f for f in FAULTS.values() if f.layer != "variations"), key=lambda f: f.lab)


@pytest.mark.parametrize("fault", ALONE, ids=lambda f: f.id)
def test_a_fault_leads_to_its_cause_and_nothing_else(judged, fault):
    clause = clauses()[fault.clause]
    outcome = judged([fault.id], fault.variation, fault.layers or LAYERS, fault.lab)
    told = outcome.describe()
    assert fault.cause in outcome.causes(fault.clause), told
    assert set(fault.also_causes) <= {c for clause in fault.also for c in outcome.causes(clause)}, told
    assert str(clause.severity) == fault.finding
    expected = {fault.clause, *fault.also}
    assert set(outcome.of("fail")) == expected, told
    assert outcome.unchecked_but_not_busy() == [], told
    if clause.severity == "blocking":
        assert outcome.first_broken() == (fault.clause, fault.cause), told
        failed = {key for key, r in outcome.rulings.items() if key[0] == fault.clause and r.verdict == "fail"}
        broken = frozenset().union(*(outcome.chains[key] for key in failed))
        above = [
            r.verdict for key, r in outcome.rulings.items()
            if clause.layer in clauses()[key[0]].below and outcome.chains[key] <= broken
        ]  # fmt: skip
        assert set(above) <= {"blocked"}, told
    else:
        assert outcome.first_broken() is None, told
        for (ident, _), ruling in outcome.rulings.items():  # only by their `after`
            if ruling.verdict == "blocked":
                assert clause.layer in clauses()[ident].reads or ruling.blocker.clause in fault.also, told
