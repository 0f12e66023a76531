"""Clauses, causes, suites, faults and the catalogue page say the same."""

import ast
from pathlib import Path

import pytest

from labproof import places
from labproof.catalogue.causes import causes
from labproof.checks.registry import LAYERS, clauses
from labproof.cli.catalogue_page import catalogue_page, statements
from labproof.simlab.faults import load_faults

ROOT = Path(__file__).parents[2]


def test_every_clause_is_stated_by_exactly_one_test_and_back():
    assert set(statements()) == set(clauses())


@pytest.mark.parametrize("ident", sorted(clauses()))
def test_a_statement_says_must(ident):
    assert " MUST " in statements()[ident], f"{ident}: {statements()[ident]!r}"


@pytest.mark.parametrize("clause", clauses().values(), ids=lambda c: c.id)
def test_a_clause_names_known_causes_and_layers(clause):
    assert set(clause.causes) <= set(causes())
    assert clause.causes
    assert set(clause.reads) <= set(LAYERS)
    assert clause.scope in ("chain", "host", "node", "cluster", "app")
    known = clauses()
    assert all(known[other].layer in clause.reads for other in clause.after)


def test_the_280_catalogued_causes_are_there():
    for series, last in (("P", 63), ("T", 65), ("K", 84), ("W", 66), ("N", 2)):
        assert {f"{series}{n:02d}" for n in range(1, last + 1)} <= set(causes())


def test_every_cause_has_advice_without_open_placeholders():
    values = dict.fromkeys(("host", "address", "vm", "node", "device", "resource", "pod", "namespace"), "x")
    for cause in causes().values():
        assert cause.advice(values).strip()
        assert cause.severity in ("blocking", "degraded", "hygiene")


@pytest.mark.parametrize("fault", load_faults().values(), ids=lambda f: f.id)
def test_a_fault_expects_a_clause_that_can_name_its_cause(fault):
    assert fault.clause in clauses()
    assert fault.cause in clauses()[fault.clause].causes


def test_suites_are_one_line_at_the_edge():
    """No client, no shell text, no sleep in a suite: a clause's body is one statement besides its docstring."""
    for path in places.folder("suites").rglob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                assert len(node.body) == 2, f"{path.name}: {node.name}"
            else:
                assert isinstance(node, ast.Expr | ast.ImportFrom), f"{path.name}: {ast.unparse(node)[:60]}"


def test_the_committed_catalogue_is_current():
    assert (ROOT / "docs" / "catalogue.md").read_text() == catalogue_page(), "labproof catalogue > docs/catalogue.md"
