"""Slots: how many the node offers, and who holds them."""

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("K8S-ALLOC-001")
def test_node_offers_the_resource(judgement):
    """The node MUST offer the GPU resource.

    Preconditions: the plugin runs on the node
    Expected: allocatable of the resource is above zero (capacity alone proves nothing)
    """
    assert_holds(judgement)


@clause("K8S-ALLOC-002")
def test_allocatable_is_exact_and_stable(judgement):
    """Allocatable MUST be cards times replicas at every look.

    Preconditions: the node offers the resource
    Expected: several looks, some seconds apart, all show exactly declared cards x live replicas
    """
    assert_holds(judgement)


@clause("K8S-HOLD-001")
def test_every_slot_has_a_holder(judgement):
    """Every held slot MUST have a named holder.

    Preconditions: the node offers the resource
    Expected: the unfinished pods of the node account for every slot; the kubelet refused none while slots were
    free
    """
    assert_holds(judgement)


@clause("K8S-HOLD-002")
def test_declared_workloads_hold_their_slots(judgement):
    """A workload declared with `state: always` MUST hold its slots.

    Preconditions: workloads are declared
    Expected: its Running pods hold exactly the declared number; others are only listed
    """
    assert_holds(judgement)


@clause("K8S-HOLD-003")
def test_no_rejected_pods_are_left(judgement):
    """GPU pods that the kubelet rejected MUST NOT be left lying.

    Preconditions: a device plugin is declared
    Expected: no Failed pod with UnexpectedAdmissionError or OutOf<resource> asks for the resource
    """
    assert_holds(judgement)
