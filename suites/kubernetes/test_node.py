"""The GPU node itself: in the cluster, alive, open for pods, the declared machine."""

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("K8S-NODE-001")
def test_gpu_node_is_ready(judgement):
    """The GPU node MUST be in the cluster and Ready, and its kubelet MUST be alive.

    Preconditions: a node declared in lab.yaml
    Expected: the Ready condition is True, and the kubelet renewed its Lease while we looked (Ready outlives a
    dead kubelet)
    """
    assert_holds(judgement)


@clause("K8S-NODE-002")
def test_gpu_node_accepts_pods(judgement):
    """The GPU node MUST accept pods.

    Preconditions: the node is Ready
    Expected: spec.unschedulable is not set
    """
    assert_holds(judgement)


@clause("K8S-NODE-003")
def test_node_is_the_declared_machine(judgement):
    """The node MUST be the VM that lab.yaml joins it to.

    Preconditions: the VM is joined by its SMBIOS UUID
    Expected: the kubelet reports that UUID as systemUUID
    """
    assert_holds(judgement)


@clause("K8S-NODE-004")
def test_node_runs_the_declared_schematic(judgement):
    """The node MUST run the declared Talos schematic.

    Preconditions: a schematic is declared for the node
    Expected: the annotation extensions.talos.dev/schematic holds it, where this Talos writes one
    """
    assert_holds(judgement)
