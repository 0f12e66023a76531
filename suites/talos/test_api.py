"""The node's Talos API, what the guest sees of its cards, and the release that runs."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("TALOS-API-001")
def test_api_answers_a_reader(judgement):
    """The node's Talos API MUST answer a certificate with the role os:reader.

    Preconditions: a talosconfig whose endpoint is a control plane, and the node declared in lab.yaml
    Expected: version, services and resources are answered; no call needs a wider role
    """
    assert_holds(judgement)


@clause("TALOS-GUEST-001")
def test_guest_sees_every_passed_card(judgement):
    """The guest MUST see every GPU that lab.yaml passes to it.

    Preconditions: the VM runs (or the node is the metal itself)
    Expected: the declared vendor:device ids are among the node's PCI devices, as often as declared
    """
    assert_holds(judgement)


@clause("TALOS-GUEST-002")
def test_guest_sees_the_further_functions(judgement):
    """The guest MUST see the audio and USB functions that lab.yaml declares for the card.

    Preconditions: `functions` is declared for the GPU, and the guest sees the card itself
    Expected: each declared vendor:device id is among the node's PCI devices, once per card of that model
    """
    assert_holds(judgement)


@clause("TALOS-VERSION-001")
def test_node_runs_the_declared_version(judgement):
    """The node MUST run the Talos version that lab.yaml declares.

    Preconditions: `talos.version` is declared
    Expected: the tag the node answers is the declared one; a fallback after a failed upgrade shows here
    """
    assert_holds(judgement)
