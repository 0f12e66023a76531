"""The device plugin: what makes the GPU a resource."""

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("K8S-PLUGIN-001")
def test_plugin_runs_on_the_node(judgement):
    """The device plugin MUST want a pod on the GPU node, and that pod MUST be ready.

    Preconditions: the node is Ready; the plugin's configuration is valid; its RuntimeClass works
    Expected: its workload is found by its containers (an empty selection fails), desired is at least 1, and its
    pod on this node is Running and ready
    """
    assert_holds(judgement)


@clause("K8S-PLUGIN-002")
def test_plugin_has_no_label_race(judgement):
    """The device plugin MUST be a release in which config-manager's label race is fixed.

    Preconditions: the plugin runs with a configuration
    Expected: its image is 0.18.2 or later
    """
    assert_holds(judgement)
