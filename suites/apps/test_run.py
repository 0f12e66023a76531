"""The declared apps run and answer."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("APP-RUN-001")
def test_app_runs(judgement):
    """A declared app MUST run, unless its owner put it to rest.

    Preconditions: apps are declared for the cluster
    Expected: a running pod of the workload; replicas 0, `parked` and an idle on-demand app are no fault
    """
    assert_holds(judgement)


@clause("APP-ANSWER-001")
def test_app_answers(judgement):
    """A running app MUST answer on its port.

    Preconditions: the app runs
    Expected: an answer through the API server or at its URL; a refused key is unchecked, not a finding
    """
    assert_holds(judgement)


@clause("APP-IMAGE-001")
def test_images_have_a_version(judgement):
    """An app's images MUST name a version.

    Preconditions: the app has a pod
    Expected: a digest, or a tag other than latest
    """
    assert_holds(judgement)
