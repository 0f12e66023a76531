"""Faults of who holds slots and of admission, and what lab.yaml declares beyond the T4 lab.

A fault changes raw API objects only.
"""

import pytest

from .world import (
    NODE,
    RUNNING,
    findings,
    healthy,
    lab,
    no_slots,
    pod,
    running_log,
)

MAIN = "nvidia-device-plugin-ctr"
PREFIX = "error starting plugins: unable to load config: unable to finalize config: unable to parse config file: "


# ---- holders


def kubelet_books_stale(w):
    message = ("Pod was rejected: Allocate failed due to requested number of devices unavailable for nvidia.com/gpu. "
               "Requested: 1, Available: 0, which is unexpected")  # fmt: skip
    refused = pod("late", ("", ""), ["main"], namespace="media", gpu="1")
    refused["metadata"]["creationTimestamp"] = "2026-11-20T12:00:00Z"
    refused["status"] = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": message}
    w.pods.append(refused)


def rejected_after_a_reboot(w):
    refused = pod("jellyfin-6d4-old", ("ReplicaSet", "jellyfin-6d4"), ["jellyfin"], namespace="media", gpu="1")
    refused["status"] = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": (
        "Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices "
        "nvidia.com/gpu, which is unexpected")}  # fmt: skip
    w.pods.append(refused)


def pending(w, message):
    waiting = w.the("pods", "jellyfin-6d4-abc")
    del waiting["spec"]["nodeName"]
    waiting["status"] = {"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}  # fmt: skip
    return waiting


def workload_scaled_to_zero(w):
    w.pods = [p for p in w.pods if p["metadata"]["namespace"] != "media"]


def workload_finds_no_slot(w):
    pending(w, "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available")
    w.pods.append(pod("greedy", ("", ""), ["main"], namespace="media", gpu="4"))


def workload_selects_the_unshared_name(w):
    waiting = pending(w, "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
    waiting["spec"]["nodeSelector"] = {"nvidia.com/gpu.product": "Tesla-T4"}


def workload_does_not_tolerate(w):
    w.node["spec"]["taints"] = [{"key": "gpu", "value": "true", "effect": "NoSchedule"}]
    for found in w.daemonsets:
        found["spec"]["template"]["spec"]["tolerations"] = [{"operator": "Exists"}]
    pending(w, "0/1 nodes are available: 1 node(s) had untolerated taint(s).")


def workload_asks_for_two(w):
    refused = w.the("pods", "jellyfin-6d4-abc")
    refused["status"] = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": (
        "Allocate failed due to rpc error: code = Unknown desc = maximum request size for shared resources is 1; "
        "found 2, which is unexpected")}  # fmt: skip


def workload_holds_more(w):
    w.pods.append(pod("jellyfin-6d4-def", ("ReplicaSet", "jellyfin-6d4"), ["jellyfin"], namespace="media", gpu="1"))


def log_rotated(w):
    w.logs["plugin-x", MAIN, False] = (
        "I1120 server.go:204] Registered device plugin for 'nvidia.com/gpu' with Kubelet\n"
    )


# ---- admission


def our_pod_refused(w):
    w.dry_run = (403, 'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true')


def namespace_enforces_baseline(w):
    w.namespaces[0]["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "baseline"}


def gfd_does_not_tolerate(w):
    w.node["spec"]["taints"] = [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]
    w.the("pods", "jellyfin-6d4-abc")["spec"]["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    w.the("daemonsets", "nfd-worker")["spec"]["template"]["spec"]["tolerations"] = []


FAULTS = [
    (kubelet_books_stale, {"K8S-HOLD-001": ["K40"], "K8S-HOLD-003": ["K42"]}),
    (rejected_after_a_reboot, {"K8S-HOLD-003": ["K42"]}),
    (workload_scaled_to_zero, {"K8S-HOLD-002": ["K92"]}),
    (workload_finds_no_slot, {"K8S-HOLD-002": ["K43"]}),
    (workload_selects_the_unshared_name, {"K8S-HOLD-002": ["K09"], "K8S-SELECT-001": ["K09"]}),
    (workload_does_not_tolerate, {"K8S-HOLD-002": ["K17"], "K8S-TAINT-003": ["K17"]}),
    (workload_asks_for_two, {"K8S-HOLD-002": ["K11"], "K8S-HOLD-003": ["K42"]}),
    (workload_holds_more, {"K8S-HOLD-002": ["K93"]}),
    (our_pod_refused, {"K8S-ADMIT-002": ["K94"]}),
    (namespace_enforces_baseline, {"K8S-ADMIT-001": ["K33"]}),
    (gfd_does_not_tolerate, {"K8S-TAINT-001": ["K16"]}),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS, ids=[f"{n}-{f.__name__}" for n, (f, _) in enumerate(FAULTS)])
def test_a_fault_has_exactly_these_findings(fault, expected):
    world = healthy()
    fault(world)
    assert findings(world, lab()) == expected


# ---- what lab.yaml declares beyond the T4 lab


def test_declared_labels_and_taints_are_wanted():
    scheduling = {"labels": {"drmoo.io/gpu": "nvidia-t4"}, "taints": [{"key": "gpu", "value": "true"}]}
    world = healthy()
    assert findings(world, lab(scheduling=scheduling)) == {"K8S-LABEL-003": ["K93"], "K8S-TAINT-002": ["K18"]}
    world.node["metadata"]["labels"]["drmoo.io/gpu"] = "nvidia-t4"
    world.node["spec"]["taints"] = [{"key": "gpu", "value": "true", "effect": "NoSchedule"}]
    for made in [d["spec"]["template"] for d in world.daemonsets] + world.pods:
        made["spec"]["tolerations"] = [{"key": "gpu", "operator": "Exists"}]
    assert findings(world, lab(scheduling=scheduling)) == {}


def test_an_absent_runtime_class_is_wanted_absent():
    nri = {"injection": "nri", "runtime_class": {"expected": "absent"}}
    world = healthy()
    assert findings(world, lab(**nri)) == {"K8S-RTC-002": ["K25"]}
    world.runtime_classes = []
    assert findings(world, lab(**nri)) == {}


@pytest.mark.parametrize("state", ["on-demand", "parked"])
def test_a_workload_that_may_be_off_is_no_finding(state):
    world = healthy()
    workload_scaled_to_zero(world)
    assert findings(world, lab(workloads=[{"name": "media/jellyfin", "state": state}])) == {}


def test_hand_typed_labels_are_enough_where_no_discovery_is_declared():
    world = healthy()
    world.node["metadata"]["labels"] = {"kubernetes.io/hostname": NODE, "nvidia.com/gpu.present": "true"}
    world.daemonsets = [world.the("daemonsets", "nvidia-device-plugin")]
    assert findings(world, lab(discovery={"nfd": "none", "gfd": False})) == {}


def test_no_sharing_is_one_slot_a_card():
    world = healthy()
    world.config_maps.clear()
    world.the("daemonsets", "nvidia-device-plugin")["spec"]["template"]["spec"]["volumes"] = []
    world.logs["plugin-x", MAIN, False] = running_log(RUNNING | {"sharing": {}})
    no_slots(world, capacity="1", allocatable="1")
    world.node["metadata"]["labels"] |= {
        "nvidia.com/gpu.replicas": "1", "nvidia.com/gpu.product": "Tesla-T4", "nvidia.com/gpu.sharing-strategy": "none",
    }  # fmt: skip
    assert findings(world, lab(sharing={})) == {}


def test_a_rotated_plugin_log_is_no_finding_while_the_numbers_agree():
    world = healthy()
    log_rotated(world)
    assert findings(world, lab()) == {}
    no_slots(world, capacity="2", allocatable="2")
    found = findings(world, lab())
    assert found["K8S-CONF-002"][0].startswith("unchecked")


def test_all_slots_held_is_normal():
    world = healthy()
    for n in range(3):
        world.pods.append(pod(f"app-{n}", ("", ""), ["main"], namespace="media", gpu="1"))
    assert findings(world, lab()) == {}


def test_a_generic_plugin_of_an_nvidia_card_is_not_judged_by_nvidias_rules():
    world = healthy()
    container = world.the("daemonsets", "nvidia-device-plugin")["spec"]["template"]["spec"]["containers"]
    container[0] |= {"name": "main", "image": "ghcr.io/squat/generic-device-plugin:latest"}
    world.node["status"] |= {"capacity": {"squat.ai/gpu": "4"}, "allocatable": {"squat.ai/gpu": "4"}}
    world.logs.clear()
    generic = {"flavour": "generic", "resource": "squat.ai/gpu"}
    made = lab(plugin=generic, discovery={}, sharing={"strategy": "time-slicing", "replicas": 4}, workloads=[])
    assert findings(world, made) == {}


def test_a_pod_that_waits_for_another_gpu_node_is_not_ours():
    world = healthy()
    world.node["spec"]["taints"] = [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]
    world.the("pods", "jellyfin-6d4-abc")["spec"]["tolerations"] = [{"operator": "Exists"}]
    world.the("daemonsets", "nfd-worker")["spec"]["template"]["spec"]["tolerations"] = [{"operator": "Exists"}]
    other = pod("other", ("", ""), ["main"], namespace="ai", node="", gpu="1", nodeSelector={"gpu": "b"})
    other["status"] = {"phase": "Pending"}
    world.pods.append(other)
    assert findings(world, lab()) == {}
    other["spec"]["nodeSelector"] = {}
    assert findings(world, lab()) == {"K8S-TAINT-003": ["K17"]}
