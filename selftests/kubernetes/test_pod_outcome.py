"""Pod outcomes: every recording of a real cluster is classified rightly, and the texts of other releases too."""

import json
from pathlib import Path

import pytest

from labproof.facts.pod_outcome import Outcome, PodOutcome, classify, event_time, explain
from labproof.facts.refusal import Because, classify_refusal
from labproof.facts.scheduler_message import Why, parse_unschedulable

CAPTURES = Path(__file__).parents[1] / "captures" / "kubernetes"


def recorded(file: str, pod: str) -> PodOutcome:
    record = json.loads((CAPTURES / f"{file}.json").read_text())
    raw = next(p for p in record["pods"] if p["metadata"]["name"] == pod)
    events = [event for of_pod in record["events"].values() for event in of_pod]
    return classify(raw, events)


@pytest.mark.parametrize(
    ("file", "pod", "outcome", "detail", "name", "exit_code"),
    [
        ("s03b-fifth-after-slot-freed", "g4", Outcome.RUNNING, "", "", None),
        ("s05a-runtimeclass-ok", "rc-ok", Outcome.SUCCEEDED, "", "", 0),
        (
            "s05b-handler-not-in-containerd",
            "rc-missing",
            Outcome.SANDBOX,
            "no such runtime handler",
            "nvidia-missing",
            None,
        ),
        ("s07a-pull-fails", "pull", Outcome.IMAGE, "registry name does not resolve", "registry.example.invalid", None),
        ("s07b-pull-first", "pull1", Outcome.IMAGE, "registry name does not resolve", "registry.example.invalid", None),
        ("s07c-never-pull", "never", Outcome.IMAGE, "image not on the node", "localhost/absent:1", None),
        ("s08a-command-not-found", "nosmi", Outcome.START, "executable not found", "nvidia-smi", 128),
        ("s08a2-command-not-found-always", "nosmi2", Outcome.START, "executable not found", "nvidia-smi", 128),
        ("s08b-exit-1", "exit1", Outcome.EXITED, "", "", 1),
        ("s08c-crashloop", "crash", Outcome.CRASH_LOOP, "", "", 3),
        ("s08c2-crashloop-timeline", "crash2", Outcome.CRASH_LOOP, "", "", 3),
        ("s08d-oom", "oom", Outcome.OOM_KILLED, "", "", 137),
        ("s08e-configmap-missing", "nocm", Outcome.CONFIG, "object missing", "absent", None),
        (
            "s08f-hostpath-chardev-missing",
            "nodri",
            Outcome.MOUNT,
            "not a character device",
            "/dev/dri/renderD128",
            None,
        ),
        ("s09a-device-node-absent", "nodev", Outcome.CREATE, "device node missing", "/dev/nvidia0-absent", None),
        ("s09c-all-unhealthy", "h0", Outcome.RUNNING, "", "", None),
        ("s17a-cdi-device-unresolvable", "nocdi", Outcome.CREATE, "cdi device unresolvable", "nvidia.com/gpu=0", None),
    ],
)
def test_a_recorded_pod_is_classified(file, pod, outcome, detail, name, exit_code):
    found = recorded(file, pod)
    assert (found.outcome, found.detail, found.name, found.exit_code) == (outcome, detail, name, exit_code)
    assert found.source


@pytest.mark.parametrize(
    ("file", "pod", "reasons", "preemption"),
    [
        ("s02-gpu-requested-no-plugin-ever", "nogpu", [(Why.INSUFFICIENT, 1, "nvidia.com/gpu")], False),
        ("s03-four-run-fifth-pending", "g4", [(Why.INSUFFICIENT, 1, "nvidia.com/gpu")], True),
        ("s04d-more-than-node", "five", [(Why.INSUFFICIENT, 1, "nvidia.com/gpu")], False),
        ("s06a-nodeselector-mismatch", "sel", [(Why.AFFINITY, 1, "")], False),
        ("s06c-taint-not-tolerated", "taint", [(Why.TAINT, 1, "")], False),
        ("s06e-cordoned", "cord", [(Why.CORDONED, 1, "")], False),
        ("s13c-new-pod-when-node-dead", "onto", [(Why.TAINT, 1, "")], False),
        ("s18a-two-nodes-gpu5", "two", [(Why.INSUFFICIENT, 1, "nvidia.com/gpu"), (Why.TAINT, 1, "")], False),
        ("s18b-two-nodes-selector", "two2", [(Why.AFFINITY, 1, ""), (Why.TAINT, 1, "")], False),
    ],
)
def test_a_recorded_scheduler_message_is_counted(file, pod, reasons, preemption):
    found = recorded(file, pod)
    assert found.outcome is Outcome.UNSCHEDULABLE
    assert found.unschedulable is not None
    assert [(r.why, r.nodes, r.name) for r in found.unschedulable.reasons] == reasons
    assert found.unschedulable.preemption_helps is preemption
    assert found.unschedulable.nodes == (2 if file.startswith("s18") else 1)


@pytest.mark.parametrize(
    ("message", "reasons"),
    [
        # Releases that name the taint (facts kubernetes-gpu 8.2).
        (
            "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint {gpu: true}. "
            "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
            [(Why.INSUFFICIENT, 1, "nvidia.com/gpu"), (Why.TAINT, 2, "gpu: true")],
        ),
        ('0/1 nodes are available: persistentvolumeclaim "media" not found. not found', [(Why.VOLUME, 0, "")]),
        ("0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory.",
         [(Why.INSUFFICIENT, 1, "cpu"), (Why.INSUFFICIENT, 1, "memory")]),
    ],
)  # fmt: skip
def test_other_releases_wordings(message, reasons):
    assert [(r.why, r.nodes, r.name) for r in parse_unschedulable(message).reasons] == reasons


@pytest.mark.parametrize(
    ("message", "detail", "name"),
    [
        ("Pod was rejected: Allocate failed due to requested number of devices unavailable for nvidia.com/gpu. "
         "Requested: 1, Available: 0, which is unexpected", "devices in use", "nvidia.com/gpu"),
        ("Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices "
         "nvidia.com/gpu, which is unexpected", "no healthy device", "nvidia.com/gpu"),
        ("Pod was rejected: Allocate failed due to rpc error: code = Unknown desc = no driver on this host, which is "
         "unexpected", "plugin refused", "Unknown"),
        ("Allocate failed due to rpc error: code = Unknown desc = request for 'nvidia.com/gpu: 2' too large: maximum "
         "request size for shared resources is 1, which is unexpected", "more than one replica asked", ""),
    ],
)  # fmt: skip
def test_a_kubelets_refusal_is_told_apart(message, detail, name):
    pod = {"status": {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": message}}
    found = classify(pod)
    assert (found.outcome, found.detail, found.name) == (Outcome.REJECTED, detail, name)
    assert found.terminal


def test_out_of_resource_is_a_refusal():
    pod = {
        "status": {"phase": "Failed", "reason": "OutOfnvidia.com/gpu", "message": "Node didn't have enough resource"}
    }
    assert (classify(pod).outcome, classify(pod).name) == (Outcome.REJECTED, "nvidia.com/gpu")


def test_events_of_a_namesake_are_not_this_pods():
    event = {
        "reason": "FailedCreatePodSandBox", "message": 'no runtime for "nvidia" is configured',
        "involvedObject": {"uid": "earlier"}, "lastTimestamp": "2026-11-20T18:25:50Z",
    }  # fmt: skip
    waiting = {"name": "m", "state": {"waiting": {"reason": "ContainerCreating"}}}
    pod = {
        "metadata": {"uid": "this"},
        "spec": {"nodeName": "n"},
        "status": {"phase": "Pending", "containerStatuses": [waiting]},
    }
    assert classify(pod, [event]).outcome is Outcome.WAITING
    assert classify(pod, [event | {"involvedObject": {"uid": "this"}}]).outcome is Outcome.SANDBOX


def test_scheduler_and_kubelet_events_sort_together():
    assert event_time({"eventTime": "2026-11-20T18:25:45.5Z", "lastTimestamp": None}) == pytest.approx(
        event_time({"lastTimestamp": "2026-11-20T18:25:45Z"}) + 0.5
    )


@pytest.mark.parametrize(
    ("ran_s", "outcome"),
    [(5, Outcome.CRASH_LOOP), (3600, Outcome.RUNNING)],
    ids=["between two crashes", "recovered long ago"],
)
def test_a_pod_between_two_crashes_is_still_crashing(ran_s, outcome):
    status = {
        "name": "main", "restartCount": 4, "state": {"running": {"startedAt": "2026-11-20T18:00:00Z"}},
        "lastState": {"terminated": {"exitCode": 3, "reason": "Error", "startedAt": "2026-11-20T17:58:00Z",
                                     "finishedAt": "2026-11-20T17:58:01Z"}},
    }  # fmt: skip
    pod = {"spec": {"nodeName": "n"}, "status": {"phase": "Running", "containerStatuses": [status]}}
    began = event_time({"eventTime": "2026-11-20T18:00:00Z"})
    assert classify(pod, (), began + ran_s).outcome is outcome


def test_an_init_container_that_waits_is_told():
    pod = {
        "spec": {"nodeName": "n"},
        "status": {
            "phase": "Pending",
            "initContainerStatuses": [{"name": "toolkit-validation", "started": True, "state": {"running": {"x": 1}}}],
            "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "PodInitializing"}}}],
        },
    }
    assert (classify(pod).outcome, classify(pod).container) == (Outcome.INIT, "toolkit-validation")


def test_a_sidecar_that_runs_is_not_waited_for():
    pod = {
        "spec": {"nodeName": "n", "initContainers": [{"name": "log", "restartPolicy": "Always"}]},
        "status": {
            "phase": "Running",
            "initContainerStatuses": [{"name": "log", "state": {"running": {"startedAt": "x"}}}],
            "containerStatuses": [{"name": "main", "state": {"running": {"startedAt": "x"}}}],
        },
    }
    assert classify(pod).outcome is Outcome.RUNNING


@pytest.mark.parametrize(
    ("file", "because", "name"),
    [
        ("s04a-fraction", Because.INVALID, ""),
        ("s04c-request-ne-limit", Because.INVALID, ""),
        ("s05c-runtimeclass-object-missing", Because.RUNTIME_CLASS, "nope"),
        ("s10a-psa-baseline-privileged", Because.POD_SECURITY, "baseline:latest"),
        ("s10c-psa-restricted-plain", Because.POD_SECURITY, "restricted:latest"),
    ],
)
def test_a_recorded_refusal_is_classified(file, because, name):
    rejected = json.loads((CAPTURES / f"{file}.json").read_text())["rejected"]
    body = rejected.get("body", rejected)
    body = json.loads(body) if isinstance(body, str) else body
    found = classify_refusal(body.get("code") or rejected["status"], body["message"])
    assert (found.because, found.name) == (because, name)


@pytest.mark.parametrize(
    ("status", "message", "because", "name"),
    [
        (403, 'pods "q2" is forbidden: exceeded quota: q, requested: requests.nvidia.com/gpu=2', Because.QUOTA, "q"),
        (404, 'namespaces "absent-ns" not found', Because.NAMESPACE, "absent-ns"),
        (403, 'pods is forbidden: User "me" cannot create resource "pods" in API group ""', Because.NO_RIGHT, "me"),
        (500, 'failed calling webhook "vgpudeviceplugin.kb.io": timeout', Because.WEBHOOK, "vgpudeviceplugin.kb.io"),
    ],
)
def test_other_refusals(status, message, because, name):
    assert (classify_refusal(status, message).because, classify_refusal(status, message).name) == (because, name)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (
            "error running createContainer hook #0: fork/exec /usr/bin/nvidia-ctk: no such file or directory",
            "cdi hook missing",
        ),
        (
            "fork/exec /usr/local/nvidia/toolkit/nvidia-container-runtime: no such file or directory",
            "runtime binary missing",
        ),
        ("requirement error: unsatisfied condition: cuda>=12.8, please update", "cuda too new for driver"),
        ("hostPath /dev/dri/renderD128 doesn't exist", "host path missing"),
        ("everything is fine", ""),
    ],
)
def test_runtime_texts_are_explained(text, word):
    assert explain(text)[0] == word
