"""Plugin, discovery and operator of the simulated cluster: symptoms follow from inputs and from the node."""

import json

import pytest

from labproof.simlab.faults import load_faults
from labproof.simlab.kube.plugin_config import ConfigError, parse_config
from labproof.simlab.world.inputs import load_inputs
from labproof.simlab.world.lab import World

NODE, SPACE, GPU = "moody-good", "nvidia-device-plugin", "nvidia.com/gpu"
MAIN = "nvidia-device-plugin-ctr"


def moody(fault=None, variation=None, change=None):
    inputs = load_inputs("t4-jellyfin", variation, [fault] if fault else [])
    if change:
        change(inputs)
    return World(inputs).clusters["moody"]


def numbers(cluster, resource=GPU):
    status = cluster.store.get("nodes", NODE)["status"]
    return status["capacity"].get(resource), status["allocatable"].get(resource)


def labels(cluster):
    return cluster.store.get("nodes", NODE)["metadata"]["labels"]


def run_of(cluster, container):
    for run in cluster.kubelets[NODE].runs.values():
        found = run.container(container)
        if found is not None:
            return run, found
    return None, None


def log_of(cluster, container=MAIN):
    _, found = run_of(cluster, container)
    entries = (found.previous.entries if found.previous else []) + found.log.entries
    return b"".join(chunk for _, _, chunk in entries).decode()


def warnings(cluster):
    return {(e["reason"], e["message"]) for e in cluster.store.all("events") if e["type"] == "Warning"}


def daemonset(cluster, name=SPACE):
    return cluster.store.get("daemonsets.apps", name, SPACE)["status"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("sharing: {timeSlicing: {replicas: 4}}", "no resources specified"),
        ("sharing: {timeSlicing: {resources: []}}", "no resources specified"),
        ("sharing: {timeSlicing: {resources: [{replicas: 4}]}}", "no resource name specified"),
        ("sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu}]}}", "no replicas specified"),
        ("sharing: {timeSlicing: {resources: [{name: gpu, replicas: 1}]}}", "number of replicas must be >= 2"),
        ("sharing: {timeSlicing: {resources: [{name: gpu, replicas: 2, devices: x}]}}", "devices set as 'x'"),
        ("version: v2", "unknown version: v2"),
    ],
)
def test_the_parser_refuses_what_the_real_one_refuses(text, error):
    with pytest.raises(ConfigError, match=error):
        parse_config(text)


def test_the_parser_ignores_unknown_keys_and_completes_names():
    text = "sharing: {timeSlicing: {resourceName: x, resources: [{name: gpu, replicas: 3, rename: y}]}}"
    parsed = parse_config(text)
    assert parsed.replicas() == 3
    assert parsed.advertised() == GPU


def test_the_healthy_lab_follows_from_its_inputs():
    cluster = moody()
    assert numbers(cluster) == ("4", "4")
    assert daemonset(cluster)["numberReady"] == daemonset(cluster)["desiredNumberScheduled"] == 1
    assert labels(cluster)["nvidia.com/gpu.product"] == "Tesla-T4-SHARED"
    assert labels(cluster)["nvidia.com/cuda.driver-version.full"] == "570.172.08"
    text = log_of(cluster).partition("Running with config:\n")[2]
    shown, _ = json.JSONDecoder().raw_decode(text)
    assert shown["sharing"]["timeSlicing"]["resources"][0]["replicas"] == 4
    assert "Registered device plugin for 'nvidia.com/gpu' with Kubelet" in log_of(cluster)
    kubelet = cluster.kubelets[NODE]
    held = [i for pod in kubelet.devices.held.values() for c in pod.values() for ids in c.values() for i in ids]
    assert len(held) == 1
    assert held[0].partition("::")[0] == kubelet.state.gpus[0].uuid


@pytest.mark.parametrize(
    ("fault", "container", "said"),
    [
        ("replicas-outside-resources", MAIN, "no resources specified"),
        ("replicas-outside-resources", "gpu-feature-discovery-ctr", "no resources specified"),
        ("one-replica", MAIN, "number of replicas must be >= 2"),
        ("plugin-config-label-unknown", "nvidia-device-plugin-init", "specified config transcode does not exist"),
        ("plugin-default-config-missing", "nvidia-device-plugin-init", "specified config  does not exist"),
        ("plugin-discovers-without-runtime", MAIN, "invalid device discovery strategy"),
        ("plugin-without-runtime-class", MAIN, "nvml init failed: ERROR_LIBRARY_NOT_FOUND"),
    ],
)
def test_a_plugin_that_cannot_start_crashes_and_says_why(fault, container, said):
    cluster = moody(fault)
    _, found = run_of(cluster, container)
    assert said in log_of(cluster, container)
    assert found.restarts > 5
    assert numbers(cluster) == ("0", "0")


def test_a_waiting_plugin_runs_and_offers_nothing():
    cluster = moody("plugin-waits-indefinitely")
    _, found = run_of(cluster, MAIN)
    assert found.running
    assert found.restarts == 0
    assert "No devices found. Waiting indefinitely." in log_of(cluster)
    assert numbers(cluster) == ("0", "0")


def test_an_edited_config_is_read_at_the_next_start_only():
    cluster = moody("plugin-config-edited")
    assert numbers(cluster) == ("5", "5")
    assert "replicas: 4" in cluster.store.get("configmaps", f"{SPACE}-configs", SPACE)["data"]["default"]
    pod = cluster.kubelets[NODE].pod(run_of(cluster, MAIN)[0])
    cluster.clock._anchor = None  # go on in virtual time
    cluster.delete_pod(pod)
    cluster.clock.run_history(cluster.clock.now() + 60)
    assert numbers(cluster) == ("4", "4")


def test_refusals_of_the_api_server_keep_daemonset_pods_away():
    cluster = moody("plugin-namespace-not-privileged")
    texts = [m for r, m in warnings(cluster) if r == "FailedCreate"]
    assert any('violates PodSecurity "baseline:latest": hostPath volumes' in t for t in texts)
    cluster = moody("runtime-class-absent")
    assert any('pod rejected: RuntimeClass "nvidia" not found' in m for _, m in warnings(cluster))
    assert daemonset(cluster)["desiredNumberScheduled"] == 1
    assert daemonset(cluster)["numberReady"] == 0


@pytest.mark.parametrize("fault", ["no-feature-discovery", "nfd-labels-class-and-vendor", "taint-without-toleration"])
def test_a_daemonset_nobody_selects_wants_no_pod(fault):
    cluster = moody(fault)
    assert daemonset(cluster)["desiredNumberScheduled"] == 0
    assert numbers(cluster) == ("0", "0")


def test_a_lost_stream_keeps_the_capacity_and_a_missed_restart_does_not():
    assert numbers(moody("plugin-stream-lost")) == ("4", "0")
    assert numbers(moody("kubelet-restart-unnoticed")) == ("0", "0")


def test_a_noticed_kubelet_restart_heals():
    def restart(inputs):
        inputs["clusters"]["moody"]["changes"]["restart"] = {"ago": 300, "kubelet_restart": NODE}

    cluster = moody(change=restart)
    assert numbers(cluster) == ("4", "4")
    assert "kubelet.sock created, restarting." in log_of(cluster)


def test_a_renamed_resource_leaves_the_old_name_at_zero():
    cluster = moody("resource-renamed")
    assert numbers(cluster, "nvidia.com/gpu.shared") == ("4", "4")
    assert numbers(cluster) == ("0", "0")
    assert labels(cluster)["nvidia.com/gpu.product"] == "Tesla-T4"


def test_a_broken_host_reaches_the_cluster():
    faults = load_faults("t4-jellyfin")
    if "vtd-off" not in faults:
        pytest.skip("the host layer has no such fault")
    cluster = moody("vtd-off")
    node = cluster.store.get("nodes", NODE)
    assert node["status"]["conditions"][-1]["message"] == "Kubelet stopped posting node status."
    jellyfin = cluster.store.all("pods", "media")[0]
    assert jellyfin["status"]["phase"] == "Pending"
    assert "untolerated taint {node.kubernetes.io/unreachable: }" in jellyfin["status"]["conditions"][0]["message"]


def test_the_operator_is_healthy_in_its_variation_and_waits_elsewhere():
    cluster = moody(variation="operator")
    status = cluster.store.all("clusterpolicies.nvidia.com")[0]["status"]
    assert (status["state"], status["conditions"][0]["reason"]) == ("ready", "Reconciled")
    assert numbers(cluster) == ("4", "4")
    for fault, variation in (("operator-driver-dir-wrong", "operator"), ("operator-on-talos-1.11", None)):
        cluster = moody(fault, variation)
        status = cluster.store.all("clusterpolicies.nvidia.com")[0]["status"]
        assert (status["state"], status["conditions"][0]["reason"]) == ("notReady", "OperandNotReady")
        assert "failed to validate the driver, retrying after 5 seconds" in log_of(cluster, "driver-validation")
    status = moody("operator-without-nfd", "operator").store.all("clusterpolicies.nvidia.com")[0]["status"]
    assert (status["state"], status["conditions"][0]["reason"]) == ("ready", "NFDLabelsMissing")
    assert numbers(moody("operator-empty-config", "operator")) == ("1", "1")


def test_every_fault_of_this_layer_changes_the_world():
    """Only inputs are touched, and each patch still fits them: no key that nothing reads."""
    for name, fault in load_faults("t4-jellyfin").items():
        if fault.layer == "kubernetes":
            assert set(fault.set) <= {"clusters", "nodes"} or fault.layers, name
            moody(name, fault.variation)
