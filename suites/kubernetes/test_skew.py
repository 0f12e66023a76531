"""Releases that go together: API server, kubelet, Talos."""

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("K8S-SKEW-001")
def test_releases_go_together(judgement):
    """API server, kubelet and Talos MUST be of releases that are supported together.

    Preconditions: the node is Ready
    Expected: the kubelet is at most three minors older than the API server and not newer, and its minor is one of the
    six that the node's Talos release supports
    """
    assert_holds(judgement)
