"""Workloads that take the GPU by hostPath."""

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("K8S-HOSTPATH-001")
def test_workloads_do_not_mount_the_gpu(judgement):
    """A workload MUST get the GPU from a plugin or a claim, not by mounting its node.

    Preconditions: flavour hostpath
    Expected: no pod mounts a GPU's device node, or lab.yaml accepts the one that does, with its reason
    """
    assert_holds(judgement)


@clause("K8S-HOSTPATH-002")
def test_mounted_nodes_are_there(judgement):
    """A device node that a workload mounts MUST be on its node.

    Preconditions: flavour hostpath
    Expected: no pod hangs because its hostPath is missing or no character device
    """
    assert_holds(judgement)
