"""The probe: bounded questions, nothing created, each list fails alone, facts survive the store."""

import json

import pytest
from pydantic import TypeAdapter

from labproof.checks.judgement import Unchecked
from labproof.clients.errors import Kind, TransportFailure
from labproof.facts.kubernetes import ClusterFacts, free_slots, holders
from labproof.facts.reading import Reading, State
from labproof.inventory.models import Cluster
from labproof.probes.kubernetes import admission_pod, probe_cluster
from labproof.probes.kubernetes_objects import pod_requests
from labproof.probes.kubernetes_roles import role_of

from .world import NODE, PLUGIN_NS, daemonset, failing, healthy, judge, lab, pod, read

LISTS = {
    "/api/v1/nodes": "K8S-NODE-001",
    "/api/v1/pods": "K8S-HOLD-001",
    "/apis/apps/v1/daemonsets": "K8S-PLUGIN-001",
    "/apis/node.k8s.io/v1/runtimeclasses": "K8S-RTC-001",
    "/api/v1/namespaces": "K8S-ADMIT-001",
    "/api/v1/namespaces/labproof/pods": "K8S-ADMIT-002",
    f"/api/v1/namespaces/{PLUGIN_NS}/configmaps/nvidia-device-plugin-configs": "K8S-CONF-001",
}


def forbidden(path):
    text = f'nodes is forbidden: User "labproof" cannot list resource in API group "" ({path})'
    return TransportFailure(Kind.FORBIDDEN, "api", text, status=403, reason="Forbidden", answer=text)


@pytest.mark.parametrize(("path", "clause"), LISTS.items(), ids=LISTS.values())
def test_a_forbidden_list_makes_its_clauses_unchecked_and_no_other_fail(path, clause):
    world = healthy()
    world.refused[path] = forbidden(path)
    judgement = judge(clause, world)
    assert isinstance(judgement, Unchecked)
    assert "forbidden" in judgement.reason
    assert judgement.reading is not None and path in judgement.reading.source
    assert all(causes[0].startswith("unchecked") for causes in failing(world, lab()).values())


@pytest.mark.parametrize("kind", [Kind.TIMEOUT, Kind.RESET])
def test_a_peer_that_is_gone_is_not_asked_again(kind):
    world = healthy()
    world.refused["/api/v1/events"] = TransportFailure(kind, "api", "it broke", status=None)
    facts = read(world, lab()).value
    assert (facts.events.state, facts.events.kind) == (State.FAILED, kind.value)
    later = [r for r in (facts.pods, facts.namespaces, facts.admission) if r.state is State.FAILED]
    assert later
    assert all("not asked any more" in r.why for r in later)
    assert all(causes[0].startswith("unchecked") for causes in failing(world, lab()).values())


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.PROTOCOL])
def test_a_list_that_breaks_is_a_failed_reading_of_that_list_only(kind):
    world = healthy()
    world.refused["/api/v1/events"] = TransportFailure(kind, "api", "it broke", status=None)
    facts = read(world, lab()).value
    assert (facts.events.state, facts.events.kind) == (State.FAILED, kind.value)
    assert facts.pods.state is State.VALUE
    assert failing(world, lab()) == {}  # events only add evidence


def test_unreadable_leases_are_no_finding():
    world = healthy()
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    world.refused[path] = forbidden(path)
    assert failing(world, lab()) == {}


def test_a_missing_own_namespace_is_unchecked_with_the_servers_words():
    world = healthy()
    world.dry_run = (404, 'namespaces "labproof" not found')
    judgement = judge("K8S-ADMIT-002", world)
    assert isinstance(judgement, Unchecked)
    assert 'namespaces "labproof" not found' in judgement.reason


def test_without_a_right_to_create_pods_admission_is_unchecked():
    world = healthy()
    world.dry_run = (403, 'pods is forbidden: User "labproof" cannot create resource "pods" in API group ""')
    assert isinstance(judge("K8S-ADMIT-002", world), Unchecked)


def test_via_exec_no_pod_is_tried():
    world = healthy()
    made = lab(probe={"via": "exec", "pod": "media/jellyfin"})
    assert failing(world, made) == {}
    assert not any(path.endswith("/labproof/pods") for path in world.asked)


def test_the_number_of_questions_is_fixed():
    world = healthy()
    read(world, lab())
    before = list(world.asked)
    for n in range(40):
        world.pods.append(pod(f"idle-{n}", ("", ""), ["main"], namespace="media"))
    world.asked.clear()
    read(world, lab())
    assert world.asked == before
    assert len(before) <= 20


def test_an_endpoint_that_does_not_answer_is_one_failed_reading(tmp_path):
    cluster = Cluster.model_validate(
        {"name": "c", "kubeconfig": str(tmp_path / "none"), "plugin": {"flavour": "nvidia-device-plugin"}}
    )
    reading = probe_cluster(lab(), cluster)
    assert (reading.state, reading.kind) == (State.FAILED, "not_found")


def test_facts_survive_the_store():
    reading = read(healthy(), lab())
    shape = TypeAdapter(Reading[ClusterFacts])
    saved = json.dumps(shape.dump_python(reading, mode="json"))
    assert shape.validate_python(json.loads(saved)) == reading


def test_no_secret_of_a_pods_environment_is_kept():
    world = healthy()
    main = world.the("pods", "jellyfin-6d4-abc")["spec"]["containers"][0]
    main["env"] = [
        {"name": "API_KEY", "value": "canary-1"},
        {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
        {"name": "NVIDIA_DRIVER_CAPABILITIES", "valueFrom": {"secretKeyRef": {"name": "s", "key": "canary-2"}}},
    ]
    world.config_maps[PLUGIN_NS, "other"] = {"password": "canary-3"}
    saved = json.dumps(TypeAdapter(Reading[ClusterFacts]).dump_python(read(world, lab()), mode="json"))
    assert "canary" not in saved
    assert "NVIDIA_VISIBLE_DEVICES" in saved


def test_the_pod_whose_admission_is_tried_is_the_suites_own():
    body = admission_pod(lab(), lab().clusters[0])
    assert body["spec"]["runtimeClassName"] == "nvidia"
    assert body["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert NODE in json.dumps(body["spec"]["affinity"])


# ---- who holds what


def test_finished_pods_hold_nothing_and_every_holder_is_named():
    world = healthy()
    done = pod("done", ("Job", "render"), ["main"], namespace="media", gpu="1")
    done["status"] = {"phase": "Succeeded"}
    world.pods.append(done)
    facts = read(world, lab()).value
    rows = holders(facts.pods.value, "nvidia.com/gpu", NODE)
    assert [(r.namespace, r.pod, r.slots, r.owner) for r in rows] == [
        ("media", "jellyfin-6d4-abc", 1, "ReplicaSet/jellyfin-6d4")
    ]
    assert rows[0].since > 0
    assert free_slots(facts.nodes.value[0], facts.pods.value, "nvidia.com/gpu") == 3


@pytest.mark.parametrize(
    ("spec", "slots"),
    [
        ({"containers": [_c := {"resources": {"limits": {"nvidia.com/gpu": "1"}}}, _c]}, 2),
        ({"containers": [_c], "initContainers": [{"resources": {"limits": {"nvidia.com/gpu": "3"}}}]}, 3),
        ({"containers": [_c], "initContainers": [_c | {"restartPolicy": "Always"}]}, 2),
    ],
    ids=["two containers", "a larger init container", "a sidecar"],
)
def test_requests_are_summed_as_the_scheduler_does(spec, slots):
    assert pod_requests(spec) == {"nvidia.com/gpu": slots}


# ---- what a DaemonSet is


def test_the_charts_plugin_and_gfd_are_told_apart_by_their_containers():
    assert role_of(daemonset("a", "nvidia-device-plugin-ctr", "x"), "nvidia-device-plugin") == "plugin"
    assert role_of(daemonset("a", "gpu-feature-discovery-ctr", "x"), "nvidia-device-plugin") == "gfd"
    assert role_of(daemonset("a", "mps-control-daemon-ctr", "x"), "nvidia-device-plugin") == "mps"


@pytest.mark.parametrize(
    ("container", "image", "flavour", "role"),
    [
        ("nvidia-device-plugin", "nvcr.io/nvidia/k8s-device-plugin:v0.18.1", "gpu-operator", "plugin"),
        ("intel-gpu-plugin", "mirror.lan/gpu:1", "intel", "plugin"),
        ("intel-gpu-plugin", "mirror.lan/gpu:1", "gpu-operator", "foreign-plugin"),
        ("main", "ghcr.io/squat/generic-device-plugin:latest", "generic", "plugin"),
        ("amdgpu-dp-cntr", "rocm/k8s-device-plugin", "generic", "plugin"),
        ("cilium-agent", "quay.io/cilium/cilium:v1", "nvidia-device-plugin", ""),
    ],
)
def test_roles_of_other_stacks(container, image, flavour, role):
    assert role_of(daemonset("a", container, image), flavour) == role
