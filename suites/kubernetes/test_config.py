"""The plugin's configuration: valid as written, live as written, as declared."""

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("K8S-CONF-001")
def test_configuration_is_valid(judgement):
    """The plugin's configuration MUST be valid by the rules of its parser.

    Preconditions: the plugin mounts a ConfigMap
    Expected: the key chosen for the node exists; sharing has resources[] with names and replicas of 2 or more;
    the version is v1
    """
    assert_holds(judgement)


@clause("K8S-CONF-002")
def test_live_configuration_is_the_written_one(judgement):
    """The plugin MUST run with the configuration that its ConfigMap holds.

    Preconditions: the plugin runs
    Expected: the JSON in its log says the same about sharing as the ConfigMap's chosen key
    """
    assert_holds(judgement)


@clause("K8S-CONF-003")
def test_sharing_is_as_declared(judgement):
    """Sharing MUST be configured as lab.yaml declares it.

    Preconditions: the plugin runs
    Expected: strategy, replicas and renaming are those of `sharing:`
    """
    assert_holds(judgement)


@clause("K8S-CONF-004")
def test_shared_slots_are_taken_one_at_a_time(judgement):
    """A container that asks for two shared slots MUST be refused.

    Preconditions: the card is time-sliced
    Expected: failRequestsGreaterThanOne is true in the live configuration
    """
    assert_holds(judgement)


@clause("K8S-CONF-005")
def test_configuration_has_no_dead_keys(judgement):
    """The plugin's configuration MUST have no key that the plugin ignores.

    Preconditions: the plugin mounts a ConfigMap
    Expected: every key is known to the parser and has an effect
    """
    assert_holds(judgement)


@clause("K8S-CONF-006")
def test_discovery_strategy_is_as_declared(judgement):
    """The plugin's discovery strategy MUST be the declared one.

    Preconditions: plugin.discovery is declared
    Expected: the live configuration (or the DaemonSet's environment) says so
    """
    assert_holds(judgement)
