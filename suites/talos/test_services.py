"""The node's services and its way through the boot."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("TALOS-SERVICE-001")
def test_persistence_daemon_runs(judgement):
    """The NVIDIA persistence daemon MUST run.

    Preconditions: the extensions fit the release and the modules are configured
    Expected: ext-nvidia-persistenced is Running; waiting for a card it lets the node reboot every 70 minutes
    """
    assert_holds(judgement)


@clause("TALOS-SERVICE-002")
def test_extension_services_are_up(judgement):
    """Every other extension service MUST be up.

    Preconditions: the Talos API answers
    Expected: each ext- service is Running or Finished, so that the boot sequence can end
    """
    assert_holds(judgement)


@clause("TALOS-STAGE-001")
def test_node_has_finished_its_boot(judgement):
    """The node MUST have finished its boot.

    Preconditions: all extension services are up
    Expected: the machine's stage is running and it is ready, with no unmet condition
    """
    assert_holds(judgement)


@clause("TALOS-CDI-001")
def test_cdi_specification_exists(judgement):
    """The node MUST have a CDI specification of its cards.

    Preconditions: pods get the GPU by CDI (Talos 1.13 and newer)
    Expected: ext-nvidia-cdi-gen is Finished, /run/cdi/nvidia.yaml is there, and so are the hooks in /usr/bin
    """
    assert_holds(judgement)
