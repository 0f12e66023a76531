"""Labels: what discovery says about the node, where discovery is declared."""

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("K8S-LABEL-001")
def test_nfd_labels_the_card(judgement):
    """NFD MUST label the node with the PCI vendor of its card.

    Preconditions: discovery.nfd is declared
    Expected: pci-<vendor>.present is true (with stock NFD: pci-<class>_<vendor>.present)
    """
    assert_holds(judgement)


@clause("K8S-LABEL-002")
def test_gfd_labels_are_right(judgement):
    """The GFD labels MUST describe the card and how it is shared.

    Preconditions: discovery.gfd is declared
    Expected: gpu.count, gpu.replicas, gpu.memory, the sharing strategy and the product (with -SHARED exactly
    when shared) agree with the plugin's live configuration
    """
    assert_holds(judgement)


@clause("K8S-LABEL-003")
def test_declared_labels_are_present(judgement):
    """The labels declared in lab.yaml MUST be on the node.

    Preconditions: the node is in the cluster
    Expected: each declared label has its declared value
    """
    assert_holds(judgement)


@clause("K8S-NFD-001")
def test_only_one_nfd(judgement):
    """At most one NFD MUST label the nodes of the cluster.

    Preconditions: discovery.nfd is declared
    Expected: at most one NFD worker DaemonSet selects a node
    """
    assert_holds(judgement)
