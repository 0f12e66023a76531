"""Checks judge the recordings of a real cluster rightly: nodes, holders, refusals (Kubernetes 1.36.2)."""

import json
from pathlib import Path

import pytest

from .world import findings, healthy, healthy_node, judge, lab

CAPTURES = Path(__file__).parents[1] / "captures" / "kubernetes"


def record(name: str) -> dict:
    return json.loads((CAPTURES / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("file", "causes"),
    [
        ("s13-kubelet-stopped", ["K85"]),
        ("s15-containerd-stopped", ["K86"]),
        ("s13e-kubelet-back", []),
        ("s15b-back", []),
    ],
)
def test_recorded_node_conditions(file, causes):
    recorded, world = record(file), healthy()
    world.node["status"]["conditions"] = recorded["node_conditions"]
    world.node["spec"]["taints"] = recorded["node_taints"] or []
    assert findings(world, lab()) == ({"K8S-NODE-001": causes} if causes else {})


def test_a_recorded_node_is_read_whole():
    world = healthy()
    raw = record("s12-node-object")["node"]
    mine = healthy_node()
    raw["metadata"]["name"] = mine["metadata"]["name"]
    raw["metadata"]["labels"] |= mine["metadata"]["labels"]
    world.nodes = [raw]
    # Another machine, newer than the made server, and containerd 1.6 lists no handlers: no sandbox has failed, so that
    # is no finding.
    assert findings(world, lab()) == {"K8S-NODE-003": ["K88"], "K8S-SKEW-001": ["K130"]}


@pytest.mark.parametrize(("file", "cause"), [("s09c-all-unhealthy", "K38"), ("s09f-plugin-gone", "K38")])
def test_recorded_numbers_of_a_dead_plugin(file, cause):
    recorded, world = record(file), healthy()
    for key in ("capacity", "allocatable"):
        world.node["status"][key]["nvidia.com/gpu"] = recorded["node"][key]
    assert findings(world, lab()) == {"K8S-ALLOC-001": [cause]}


@pytest.mark.parametrize(
    ("file", "pod", "cause"),
    [
        ("s03-four-run-fifth-pending", "g4", "K43"),
        ("s06c-taint-not-tolerated", "taint", "K92"),  # our node has no such taint: it is another node's
        ("s17a-cdi-device-unresolvable", "nocdi", "K25"),
        ("s05b-handler-not-in-containerd", "rc-missing", "K22"),
        ("s07a-pull-fails", "pull", "K34"),
        ("s08a2-command-not-found-always", "nosmi2", "K92"),
    ],
)
def test_a_recorded_pod_of_a_declared_workload(file, pod, cause):
    recorded, world = record(file), healthy()
    raw = next(p for p in recorded["pods"] if p["metadata"]["name"] == pod)
    raw["metadata"] |= {"namespace": "media", "name": "jellyfin-1"}
    world.pods = [p for p in world.pods if p["metadata"]["namespace"] != "media"] + [raw]
    world.events = [e for e in recorded["events"][pod] if e["type"] == "Warning"]
    (problem,) = judge("K8S-HOLD-002", world).problems
    assert problem.cause == cause


@pytest.mark.parametrize(
    ("file", "clause", "cause"),
    [
        ("s05c-runtimeclass-object-missing", "K8S-ADMIT-002", "K23"),
        ("s10a-psa-baseline-privileged", "K8S-ADMIT-002", "K94"),
        ("s10c-psa-restricted-plain", "K8S-ADMIT-002", "K94"),
    ],
)
def test_a_recorded_refusal_of_our_pod(file, clause, cause):
    rejected, world = record(file)["rejected"], healthy()
    world.dry_run = (rejected["http"], rejected["body"]["message"])
    (problem,) = judge(clause, world).problems
    assert problem.cause == cause
    assert rejected["body"]["message"] in problem.evidence[0].text
