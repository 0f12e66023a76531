"""Cluster steps from a bare cluster to a judged one and back to every object; the second plan is empty."""

import copy

import pytest
import yaml

from labproof.provision import cluster_manifests as manifests

DECLARED = {"clusters": {"moody": {"scheduling": {
    "labels": {"owner.example/gpu": "t4"}, "taints": [{"key": "gpu", "value": "t4", "effect": "PreferNoSchedule"}],
}}}}  # fmt: skip


def test_a_bare_cluster_is_brought_to_green_and_back(cluster_ground):
    ground = cluster_ground
    before = ground.objects()
    assert ("K8S-PLUGIN-001", "moody-good") in ground.red(("kubernetes",))
    outcome = ground.provision()
    assert outcome.complete, "\n".join(outcome.lines)
    assert ground.red() == {}
    second = ground.plan()
    assert second.empty, "\n".join(second.lines())
    assert ground.provision().changed == 0
    back = ground.undo()
    assert back.complete, "\n".join(back.lines)
    assert ground.objects() == before
    assert ground.journal.standing() == []


@pytest.mark.parametrize("variation", ["two-cards", "two-hosts", "talos-1.13"])
def test_other_cards_hosts_and_releases(cluster_ground, variation):
    ground = cluster_ground.reset(variation)
    before = ground.objects()
    outcome = ground.provision()
    assert outcome.complete, "\n".join(outcome.lines)
    assert ground.red(("kubernetes",)) == {}
    assert ground.plan().empty
    assert ground.undo().complete
    assert ground.objects() == before


def test_labels_and_taints_of_an_existing_node(cluster_ground):
    ground = cluster_ground
    ground.patch = DECLARED
    before = ground.objects()
    outcome = ground.provision()
    assert outcome.complete, "\n".join(outcome.lines)
    node = ground.cluster.store.get("nodes", "moody-good")
    assert node["metadata"]["labels"]["owner.example/gpu"] == "t4"
    assert {"key": "gpu", "value": "t4", "effect": "PreferNoSchedule"} in node["spec"]["taints"]
    assert ground.plan().empty
    assert ground.undo().complete
    assert ground.objects() == before


def test_another_count_of_slots_later(cluster_ground):
    """The configuration changes under the same key: the pods start anew, and only then it counts (K03)."""
    ground = cluster_ground
    assert ground.provision().complete
    ground.patch = {"clusters": {"moody": {"sharing": {"strategy": "time-slicing", "replicas": 5}}}}
    plan = ground.plan()
    text = "\n".join(plan.lines())
    assert [step.step for step in plan.steps if step.changes] == ["time_slicing"]
    assert "-       replicas: 4" in text or "replicas: 4" in text
    outcome = ground.provision()
    assert outcome.complete, "\n".join(outcome.lines)
    assert ground.cluster.store.get("nodes", "moody-good")["status"]["allocatable"]["nvidia.com/gpu"] == "5"
    assert ground.plan().empty


def test_without_sharing_and_discovery(cluster_ground):
    """No NFD: the plugin finds its nodes by a label that is set by the API."""
    ground = cluster_ground
    ground.patch = {"clusters": {"moody": {
        "sharing": {"strategy": "none", "replicas": 1}, "discovery": {"nfd": "none", "gfd": False}, "metrics": None,
    }}}  # fmt: skip
    before = ground.objects()
    outcome = ground.provision()
    assert outcome.complete, "\n".join(outcome.lines)
    node = ground.cluster.store.get("nodes", "moody-good")
    assert node["metadata"]["labels"]["nvidia.com/gpu.present"] == "true"
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "1"
    assert ground.red(("kubernetes",)) == {}
    assert ground.plan().empty
    assert ground.undo().complete
    assert ground.objects() == before


def test_what_clients_wrote_outlives_the_machines(cluster_ground):
    """A node that restarts finds its plugin again: the objects are in etcd, the pods are made anew."""
    ground = cluster_ground
    assert ground.provision().complete
    ground.sim._call(_restarted(ground.sim.world))
    assert ground.plan().empty
    assert ground.undo().complete


async def _restarted(world):
    world.pve["pve5"].stop(1105)
    world.pve["pve5"].start(1105)
    cluster = world.clusters["moody"]
    assert cluster.store.get("runtimeclasses.node.k8s.io", "nvidia") is not None


def test_a_plan_is_a_text_and_a_document(cluster_ground):
    before = cluster_ground.objects()
    plan = cluster_ground.plan()
    text = "\n".join(plan.lines())
    for word in (
        "kubernetes: runtime_class moody", "create RuntimeClass nvidia", "create DaemonSet nvidia-device-plugin/",
        "nvcr.io/nvidia/k8s-device-plugin:v0.18.2", "replicas: 4", "because K8S-CONF-003", "metrics: metrics moody",
        "+ pod-security.kubernetes.io/enforce: privileged", "no reboot",
    ):  # fmt: skip
        assert word in text, text
    steps = {step["step"]: step for step in plan.as_json()["steps"]}
    assert set(steps) == {"runtime_class", "device_plugin", "time_slicing", "metrics"}
    assert all(step["missing_allow"] == [] for step in steps.values())
    assert {change["scope"] for step in steps.values() for change in step["changes"]} == {"cluster"}
    assert cluster_ground.objects() == before


def test_the_finished_lab_needs_nothing(finished_ground):
    plan = finished_ground.plan()
    assert plan.empty, "\n".join(plan.lines())


@pytest.mark.parametrize("name", ["runtime-class", "namespace", "feature-discovery", "device-plugin", "time-slicing"])
def test_the_manifests_are_what_is_applied(cluster_ground, name):
    """As they lie there they suit the T4 lab, so a person may `kubectl apply` them instead."""
    with cluster_ground.bench() as bench:
        cluster = bench.lab.cluster("moody")
    filled = {
        "runtime-class": lambda: [manifests.runtime_class(cluster)],
        "namespace": lambda: manifests.objects("namespace", cluster),
        "feature-discovery": lambda: manifests.feature_discovery(cluster, []),
        "device-plugin": lambda: manifests.device_plugin(cluster, []),
        "time-slicing": lambda: manifests.sharing(cluster)[:1],
    }[name]()
    written = copy.deepcopy(list(manifests._documents(name)))
    for obj in (*filled, *written):
        if name == "time-slicing":  # the same configuration, however it is indented
            obj["data"] = {key: yaml.safe_load(text) for key, text in obj["data"].items()}
    assert filled == written


def test_the_journal_knows_what_it_made(cluster_ground):
    assert cluster_ground.provision().complete
    made = [entry.change for entry in cluster_ground.journal.entries() if entry.action == "object"]
    assert all(len(change["before"]) == 64 or change["before"] == "absent" for change in made)
    assert {change["manager"] for change in made} == {
        "labproof-runtime-class", "labproof-device-plugin", "labproof-time-slicing", "labproof-metrics",
    }  # fmt: skip
