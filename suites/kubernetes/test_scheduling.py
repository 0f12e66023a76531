"""Taints, tolerations and selectors."""

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("K8S-TAINT-001")
def test_gpu_daemonsets_tolerate_the_taints(judgement):
    """Every DaemonSet of the GPU stack MUST tolerate the taints of the GPU node.

    Preconditions: the plugin runs
    Expected: each DaemonSet that selects the node tolerates all its taints, also those set after its pods came
    """
    assert_holds(judgement)


@clause("K8S-TAINT-002")
def test_declared_taints_are_present(judgement):
    """The taints declared in lab.yaml MUST be on the node.

    Preconditions: taints are declared
    Expected: key, value and effect are there
    """
    assert_holds(judgement)


@clause("K8S-TAINT-003")
def test_gpu_workloads_tolerate_the_taints(judgement):
    """Every pod that asks for the GPU MUST tolerate the taints of the GPU node.

    Preconditions: the node is Ready
    Expected: no unfinished GPU pod would be Pending after its next restart
    """
    assert_holds(judgement)


@clause("K8S-SELECT-001")
def test_gpu_workloads_select_what_there_is(judgement):
    """Every pod that asks for the GPU MUST select labels and a resource that the node has.

    Preconditions: the node offers the resource
    Expected: no selector on the unshared product name, no request for the resource's other name
    """
    assert_holds(judgement)
