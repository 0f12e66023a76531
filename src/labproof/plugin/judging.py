"""From judgement to verdict: judged once per item, recorded, and shown without a traceback."""

from __future__ import annotations

import inspect
import time
from dataclasses import dataclass
from typing import Any

import pytest

from labproof.checks.assertion import ClauseFailed
from labproof.checks.gate import Ruling
from labproof.checks.judgement import Unchecked
from labproof.checks.subject import Subject
from labproof.plugin import collect
from labproof.plugin.run import open_run
from labproof.report.verdict import explain, record_of

RECORD = pytest.StashKey[dict[str, Any]]()


class ClauseUnchecked(Exception):
    """A clause that was expected could not be judged: an error, never a skip (CI takes skips for fine)."""


@dataclass(frozen=True)
class Judged:
    """What a clause's test asserts on."""

    verdict: str
    record: dict[str, Any]
    accepted_because: str = ""

    def explain(self) -> str:
        """Cause, evidence and remedy as a person reads them."""
        return explain(self.record)


def subject_of_item(item: pytest.Item) -> Subject:
    """Facts and lab from the point of view of the item's target."""
    target = collect.target_of(item)
    if target is None:
        raise LookupError(f"{item.nodeid}: this lab declares nothing that the clause speaks of")
    run = open_run(item.config)
    return Subject(run.facts, run.lab, target)


def judge_item(item: pytest.Item) -> Judged:
    """Judge the item's clause for its target and put the verdict on record."""
    __tracebackhide__ = True
    clause, target = collect.clause_of(item), collect.target_of(item)
    if clause is None or target is None:
        raise LookupError(f"{item.nodeid}: `judgement` needs @clause and a declared target")
    began = time.perf_counter()
    ruling = open_run(item.config).gate.rule(clause, target)
    record = record_of(clause, target, ruling, _statement(item))
    record["seconds"] = round(time.perf_counter() - began, 4)
    item.stash[RECORD] = record
    for key in ("clause", "layer", "target", "severity", "verdict"):
        item.user_properties.append((key, str(record[key])))
    for problem in record["problems"]:
        item.user_properties.append(("cause", str(problem["cause"])))
        item.user_properties.append(("remedy", str(problem["remedy"])))
    if item.config.getoption("allure_report_dir", None):
        from labproof.report.allure import describe_item

        describe_item(item, record)
    if ruling.verdict == "blocked":
        pytest.skip(f"{record['reason']} on {record['blocked_on']}")
    if ruling.verdict == "unchecked":
        raise ClauseUnchecked(record["reason"])
    return Judged(ruling.verdict, record, ruling.accepted_because)


def _statement(item: pytest.Item) -> str:
    text = inspect.getdoc(getattr(item, "function", None)) or ""
    return text.split("\n\n", 1)[0].replace("\n", " ").strip()


def decorate(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Put the verdict on the report that decides, with its explanation instead of a traceback."""
    ident, target = collect.clause_id_of(item), collect.target_of(item)
    if ident is None or target is None:
        return
    decides = report.when == "call" or (report.when == "setup" and not report.passed)
    record = item.stash.get(RECORD, None)
    error = call.excinfo.value if call.excinfo is not None else None
    if isinstance(error, ClauseFailed):
        report.longrepr = str(error)
    elif isinstance(error, ClauseUnchecked) and record is not None:
        report.longrepr = explain(record)
    elif decides and error is not None and report.failed and record is None:
        clause = collect.clause_of(item)
        assert clause is not None
        reason = f"defect of labproof itself: {type(error).__name__}: {error}"
        record = record_of(clause, target, Ruling("unchecked", Unchecked(reason)), _statement(item))
    if decides and record is not None:
        report.labproof = record  # type: ignore[attr-defined]  # read again by run.gather, also across xdist
