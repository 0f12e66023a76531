"""Intel's device plugin and its operator."""

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("K8S-INTEL-001")
def test_operator_serves_the_node(judgement):
    """Where Intel's operator is used, a GpuDevicePlugin MUST serve the GPU node.

    Preconditions: flavour intel
    Expected: one whose pods are on the node; without the operator the plain DaemonSet is enough
    """
    assert_holds(judgement)


@clause("K8S-INTEL-002")
def test_one_plugin_serves_the_node(judgement):
    """One Intel plugin alone MUST serve the node.

    Preconditions: the plugin runs
    Expected: one DaemonSet with a pod there: two would overwrite each other's resource
    """
    assert_holds(judgement)


@clause("K8S-INTEL-003")
def test_asked_resources_are_offered(judgement):
    """Every Intel resource that a workload of the node asks for MUST be offered.

    Preconditions: the node offers the GPU resource
    Expected: i915 or xe by the driver, monitoring by the plugin's release
    """
    assert_holds(judgement)


@clause("K8S-INTEL-004")
def test_gpu_is_shared_as_declared(judgement):
    """The Intel plugin MUST share the GPU as lab.yaml declares.

    Preconditions: a GpuDevicePlugin serves the node
    Expected: sharedDevNum equals sharing.replicas, 1 where nothing is declared
    """
    assert_holds(judgement)
