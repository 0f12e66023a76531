"""Faults of the node itself: each gives exactly its findings, and the healthy cluster none.

A fault changes raw API objects only.
"""

import pytest

from .world import (
    findings,
    healthy,
    lab,
)

MAIN = "nvidia-device-plugin-ctr"
PREFIX = "error starting plugins: unable to load config: unable to finalize config: unable to parse config file: "


def test_the_healthy_cluster_has_no_finding():
    assert findings(healthy(), lab()) == {}


# ---- the node


def node_absent(w):
    w.node["metadata"]["name"] = "renamed"


def kubelet_dead(w):
    w.node["status"]["conditions"] = [
        {
            "type": "Ready",
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
        }
    ]


def kubelet_silent_but_ready(w):
    w.lease_age_s = 600.0


def no_cni(w):
    w.node["status"]["conditions"] = [
        {"type": "Ready", "status": "False", "reason": "KubeletNotReady",
         "message": "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady"}
    ]  # fmt: skip


def cordoned(w):
    w.node["spec"]["unschedulable"] = True


def other_machine(w):
    w.node["status"]["nodeInfo"]["systemUUID"] = "00000000-0000-0000-0000-000000000001"


def other_schematic(w):
    w.node["metadata"]["annotations"]["extensions.talos.dev/schematic"] = "cd" * 32


def kubelet_too_old(w):
    w.node["status"]["nodeInfo"]["kubeletVersion"] = "v1.30.1"


def kubelet_newer_than_its_server(w):
    w.node["status"]["nodeInfo"]["kubeletVersion"] = "v1.35.0"


def talos_too_old(w):
    w.node["status"]["nodeInfo"]["osImage"] = "Talos (v1.10.4)"


FAULTS = [
    (node_absent, {"K8S-NODE-001": ["K88"]}),
    (kubelet_dead, {"K8S-NODE-001": ["K85"]}),
    (kubelet_silent_but_ready, {"K8S-NODE-001": ["K85"]}),
    (no_cni, {"K8S-NODE-001": ["K86"]}),
    (cordoned, {"K8S-NODE-002": ["K87"]}),
    (other_machine, {"K8S-NODE-003": ["K88"]}),
    (other_schematic, {"K8S-NODE-004": ["T03"]}),
    (kubelet_too_old, {"K8S-SKEW-001": ["K130"]}),
    (kubelet_newer_than_its_server, {"K8S-SKEW-001": ["K130"]}),
    (talos_too_old, {"K8S-SKEW-001": ["K131"]}),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS, ids=[f"{n}-{f.__name__}" for n, (f, _) in enumerate(FAULTS)])
def test_a_fault_has_exactly_these_findings(fault, expected):
    world = healthy()
    fault(world)
    assert findings(world, lab()) == expected
