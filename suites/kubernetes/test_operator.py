"""The NVIDIA GPU operator, where it is declared."""

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("K8S-OPER-001")
def test_operator_is_reconciled(judgement):
    """The ClusterPolicy MUST be Ready with reason Reconciled, and its operands MUST run on the GPU node.

    Preconditions: plugin.flavour is gpu-operator
    Expected: one ClusterPolicy, Ready=True Reconciled (`state: ready` alone is also said of nothing), no
    operand stuck
    """
    assert_holds(judgement)


@clause("K8S-OPER-002")
def test_operands_want_the_node(judgement):
    """There MUST be one ClusterPolicy, and every operand that is switched on MUST want the GPU node.

    Preconditions: the ClusterPolicy is reconciled
    Expected: no second ClusterPolicy; desired is at least 1 for plugin, validator, GFD and dcgm-exporter
    """
    assert_holds(judgement)
