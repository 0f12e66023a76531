"""One card, from the declaration to the pod."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("POD-IDENT-001")
def test_pod_got_the_declared_card(judgement):
    """The pod MUST see exactly the cards it asked for, of the declared vendor:device, by one UUID.

    Preconditions: nvidia-smi works in the pod
    Expected: -q, -L and, where it holds UUIDs, NVIDIA_VISIBLE_DEVICES name the same cards
    """
    assert_holds(judgement)


@clause("POD-IDENT-002")
def test_card_is_at_the_guest_address(judgement):
    """The bus id in the pod MUST be the address at which Talos sees the declared card.

    Preconditions: the node runs Talos and its API answers
    Expected: nvidia-smi's pci_bus_id is among the node's addresses of the declared vendor:device
    """
    assert_holds(judgement)


@clause("POD-IDENT-003")
def test_product_label_names_the_card(judgement):
    """The node's product label, where there is one, MUST name the card that the pod sees.

    Preconditions: GPU feature discovery is declared
    Expected: nvidia.com/gpu.product is the product name with dashes, with -SHARED under sharing
    """
    assert_holds(judgement)
