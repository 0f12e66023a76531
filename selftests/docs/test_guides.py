"""docs/guides.md speaks of clauses, causes, faults, labs and variations that there are."""

import re

import pytest

from labproof import places
from labproof.catalogue.causes import causes
from labproof.checks.registry import clauses
from labproof.simlab.faults import load_faults
from labproof.simlab.world import known_labs, variations

PAGE = (places.folder("suites").parent / "docs" / "guides.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| The guide", "| ---"))]


def test_there_is_a_table_of_every_guide_written_so_far():
    assert {"002", "003", "004"} <= set(re.findall(r"^## (\d{3}):", PAGE, re.MULTILINE))
    assert len(ROWS) >= 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:42])
def test_a_row_has_claim_fact_source_and_judge(row):
    claim, fact, source, judge = (cell.strip() for cell in row.strip("|").split(" | "))
    assert claim
    assert fact
    assert source.startswith("facts ")
    named = re.findall(r"\b(?:HOST|VM|TALOS|K8S|POD|CODEC|METRIC|APP|GITOPS)-[A-Z0-9]+-\d{3}\b", judge)
    assert set(named) <= set(clauses())
    assert named or "lint" in judge
    told = re.findall(r"\b([PTKWN]\d{2,3})\b", judge)
    assert set(told) <= set(causes())


def test_faults_labs_and_variations_exist():
    faults, labs = load_faults(), known_labs()
    for name in re.findall(r"faults? `([a-z0-9-]+)`", PAGE):
        assert name in faults, name
    for name in re.findall(r"^Lab `([a-z0-9-]+)`", PAGE, re.MULTILINE):
        assert name in labs, name
    every = {v for lab in labs for v in variations(lab)}
    for name in re.findall(r"variation ([a-z0-9.-]+)", PAGE):
        assert name in every, name


def test_a_cause_that_a_row_names_can_be_named_by_its_clause():
    """`CLAUSE CAUSE` side by side means that this clause names this cause."""
    for clause, cause in re.findall(r"([A-Z0-9]+-[A-Z0-9]+-\d{3}) ([PTKWN]\d{2,3})\b", PAGE):
        assert cause in clauses()[clause].causes, (clause, cause)
