"""RuntimeClass and admission: what a GPU pod names exists, and the API server takes it."""

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("K8S-RTC-001")
def test_runtime_class_works(judgement):
    """The RuntimeClass of GPU pods MUST exist and name a handler that the node knows.

    Preconditions: runtime_class.expected is present
    Expected: the object is there and its handler is in the node's status.runtimeHandlers (where the release
    lists them)
    """
    assert_holds(judgement)


@clause("K8S-RTC-002")
def test_runtime_class_is_absent(judgement):
    """The RuntimeClass MUST NOT exist where the injection mode wants none; GPU pods MUST go without it.

    Preconditions: runtime_class.expected is absent
    Expected: no RuntimeClass of that name
    """
    assert_holds(judgement)


@clause("K8S-ADMIT-001")
def test_plugin_namespace_is_privileged(judgement):
    """The namespace of the GPU stack MUST admit pods with host paths.

    Preconditions: the plugin runs
    Expected: no enforced Pod Security level below privileged, and no refusal in the events of a DaemonSet that
    lacks pods
    """
    assert_holds(judgement)


@clause("K8S-ADMIT-002")
def test_probe_pod_is_admitted(judgement):
    """The API server MUST take a GPU pod in our own namespace.

    Preconditions: the RuntimeClass works; the namespace exists
    Expected: a server-side dry run of the pod is accepted (nothing is created)
    """
    assert_holds(judgement)
