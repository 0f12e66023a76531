"""How a run ends, as a number (DESIGN section 2, exit status)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PASSED, FAILED, NOTHING_RAN, UNCHECKED, BUSY = 0, 1, 5, 6, 7
#: pytest's own: interrupted, internal error, usage error. They stand.
PYTESTS_OWN = (2, 3, 4)
SEVERITIES = ("hygiene", "degraded", "blocking")


def exit_status(
    pytests: int,
    verdicts: Sequence[dict[str, Any]],
    missing: int,
    fail_on: str,
    others_failed: bool,
    drift: Sequence[dict[str, Any]] = (),
) -> int:
    """The exit status of a run.

    Args:
        pytests: what pytest would say.
        verdicts: records of the clauses that were judged.
        missing: clauses that were expected but have no verdict.
        fail_on: least severity that makes a run red.
        others_failed: a test that is no clause failed.
        drift: findings against the pinned baseline.
    """
    if pytests in PYTESTS_OWN:
        return pytests
    least = SEVERITIES.index(fail_on)
    failing = [*(v for v in verdicts if v["verdict"] == "fail"), *drift]
    red = [finding for finding in failing if SEVERITIES.index(finding["severity"]) >= least]
    if red or others_failed:
        return FAILED
    unchecked = [v for v in verdicts if v["verdict"] == "unchecked"]
    if missing or any(not v["busy"] for v in unchecked):
        return UNCHECKED
    if unchecked:
        return BUSY
    return PASSED if verdicts else NOTHING_RAN
