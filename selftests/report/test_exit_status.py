"""The exit status says what a nightly needs to know: red, incomplete, busy, nothing, green."""

import pytest

from labproof.report.exit_status import exit_status


def verdict(word, severity="blocking", busy=False):
    return {"verdict": word, "severity": severity, "busy": busy}


@pytest.mark.parametrize(
    ("verdicts", "missing", "fail_on", "status"),
    [
        ([verdict("pass")], 0, "degraded", 0),
        ([verdict("pass"), verdict("blocked")], 0, "degraded", 0),
        ([verdict("excepted")], 0, "degraded", 0),
        ([verdict("fail")], 0, "degraded", 1),
        ([verdict("fail", "degraded")], 0, "degraded", 1),
        ([verdict("fail", "hygiene")], 0, "degraded", 0),
        ([verdict("fail", "hygiene")], 0, "hygiene", 1),
        ([verdict("fail", "degraded")], 0, "blocking", 0),
        ([verdict("fail"), verdict("unchecked")], 3, "degraded", 1),
        ([verdict("pass"), verdict("unchecked")], 0, "degraded", 6),
        ([verdict("pass")], 1, "degraded", 6),
        ([verdict("pass"), verdict("unchecked", busy=True)], 0, "degraded", 7),
        ([verdict("unchecked"), verdict("unchecked", busy=True)], 0, "degraded", 6),
        ([], 0, "degraded", 5),
    ],
)
def test_a_run_ends_as_its_verdicts_say(verdicts, missing, fail_on, status):
    assert exit_status(0, verdicts, missing, fail_on, others_failed=False) == status


@pytest.mark.parametrize("own", [2, 3, 4])
def test_pytests_own_errors_stand(own):
    assert exit_status(own, [verdict("fail")], 0, "degraded", others_failed=False) == own


def test_another_test_that_failed_is_red_too():
    assert exit_status(1, [verdict("pass")], 0, "degraded", others_failed=True) == 1
