"""Faults of the device plugin, its configuration, its numbers and its labels: each gives exactly its findings.

A fault changes raw API objects only.
"""

import json

import pytest

from .world import (
    PLUGIN_NS,
    RUNNING,
    SHARED,
    crash,
    daemonset,
    event,
    findings,
    healthy,
    lab,
    no_plugin_pod,
    no_slots,
    running_log,
)

MAIN = "nvidia-device-plugin-ctr"
PREFIX = "error starting plugins: unable to load config: unable to finalize config: unable to parse config file: "


# ---- the configuration


def config(w, text):
    w.config_maps[PLUGIN_NS, "nvidia-device-plugin-configs"] = {"default": text}


def replicas_outside_resources(w):
    config(w, "version: v1\nsharing:\n  timeSlicing:\n    replicas: 4\n")
    crash(w, "plugin-x", PREFIX + "error parsing config file: unmarshal error: no resources specified")
    no_slots(w)


def crash_text_without_config_map(w):
    w.the("daemonsets", "nvidia-device-plugin")["spec"]["template"]["spec"]["volumes"] = []
    crash(w, "plugin-x", PREFIX + "no resources specified")
    no_slots(w)


def one_replica(w):
    config(w, SHARED.replace("replicas: 4", "replicas: 1"))


def two_replicas_written_and_live(w):
    config(w, SHARED.replace("replicas: 4", "replicas: 2"))
    live = json.loads(json.dumps(RUNNING).replace('"replicas": 4', '"replicas": 2'))
    w.logs["plugin-x", MAIN, False] = running_log(live)
    no_slots(w, capacity="2", allocatable="2")
    w.node["metadata"]["labels"]["nvidia.com/gpu.replicas"] = "2"


def edited_but_not_restarted(w):
    w.logs["plugin-x", MAIN, False] = running_log(RUNNING | {"sharing": {"timeSlicing": {}}})
    no_slots(w, capacity="1", allocatable="1")
    w.node["metadata"]["labels"] |= {
        "nvidia.com/gpu.replicas": "1", "nvidia.com/gpu.product": "Tesla-T4", "nvidia.com/gpu.sharing-strategy": "none",
    }  # fmt: skip


def label_names_no_config(w):
    w.node["metadata"]["labels"]["nvidia.com/device-plugin.config"] = "t4x"


def default_names_no_config(w):
    spec = w.the("daemonsets", "nvidia-device-plugin")["spec"]["template"]["spec"]
    spec["containers"][0]["env"] = [{"name": "DEFAULT_CONFIG", "value": "gone"}]


def several_configs_no_default(w):
    w.config_maps[PLUGIN_NS, "nvidia-device-plugin-configs"] = {"a": SHARED, "b": SHARED}


def many_allowed(w):
    live = json.loads(
        json.dumps(RUNNING).replace('"failRequestsGreaterThanOne": true', '"failRequestsGreaterThanOne": false')
    )
    w.logs["plugin-x", MAIN, False] = running_log(live)


def dead_key(w):
    config(w, SHARED + "resourceName: nvidia.com/gpu-shared\n")


def discovery_auto(w):
    live = RUNNING | {"flags": RUNNING["flags"] | {"deviceDiscoveryStrategy": "auto"}}
    w.logs["plugin-x", MAIN, False] = running_log(live)


# ---- the plugin's workload


def no_workload(w):
    w.daemonsets = [
        d for d in w.daemonsets if "plugin-ctr" not in d["spec"]["template"]["spec"]["containers"][0]["name"]
    ]
    w.pods = [p for p in w.pods if p["metadata"]["name"] != "plugin-x"]
    no_slots(w, capacity=None, allocatable=None)


def no_label_and_no_nfd(w):
    no_plugin_pod(w)
    w.daemonsets = [d for d in w.daemonsets if d["metadata"]["name"] != "nfd-worker"]
    del w.node["metadata"]["labels"]["feature.node.kubernetes.io/pci-10de.present"]


def stock_nfd(w):
    no_plugin_pod(w)
    labels = w.node["metadata"]["labels"]
    del labels["feature.node.kubernetes.io/pci-10de.present"]
    labels["feature.node.kubernetes.io/pci-0302_10de.present"] = "true"


def nfd_label_vanished(w):
    no_plugin_pod(w)
    del w.node["metadata"]["labels"]["feature.node.kubernetes.io/pci-10de.present"]


def taint_not_tolerated_by_the_stack(w):
    no_plugin_pod(w)
    w.node["spec"]["taints"] = [{"key": "dedicated", "value": "ai", "effect": "NoSchedule"}]
    w.the("pods", "jellyfin-6d4-abc")["spec"]["tolerations"] = [{"key": "dedicated", "operator": "Exists"}]


def refuse(w, why):
    text = f'Error creating: pods "x" is forbidden: {why}'
    w.events = [event("DaemonSet", "nvidia-device-plugin", "FailedCreate", text)]


def psa_refuses_the_plugin(w):
    no_plugin_pod(w)["status"]["desiredNumberScheduled"] = 1
    w.namespaces[0]["metadata"]["labels"] = {}
    refuse(w, 'violates PodSecurity "baseline:latest": hostPath volumes')


def quota_refuses_the_plugin(w):
    no_plugin_pod(w)["status"]["desiredNumberScheduled"] = 1
    refuse(w, "exceeded quota: q, requested: pods=1")


def runtime_class_missing(w):
    w.runtime_classes = []
    w.dry_run = (403, 'pods "x" is forbidden: pod rejected: RuntimeClass "nvidia" not found')
    no_plugin_pod(w)["status"]["desiredNumberScheduled"] = 1
    refuse(w, 'pod rejected: RuntimeClass "nvidia" not found')


def handler_unknown(w):
    w.node["status"]["runtimeHandlers"] = [{"name": ""}, {"name": "runc"}]


def handler_unknown_on_an_old_release(w):
    del w.node["status"]["runtimeHandlers"]
    broken = w.the("pods", "plugin-x")
    broken["status"] = {"phase": "Pending", "containerStatuses": [
        {"name": MAIN, "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}]}  # fmt: skip
    w.events = [event("Pod", "plugin-x", "FailedCreatePodSandBox", uid="uid-plugin-x", message=(
        'Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for '
        '"nvidia" is configured'))]  # fmt: skip


def crashing(log, **more):
    def mutate(w):
        crash(w, "plugin-x", log, **more)
        no_slots(w)

    mutate.__name__ = "crashing"
    return mutate


def plugin_without_runtime_class(w):
    del w.the("daemonsets", "nvidia-device-plugin")["spec"]["template"]["spec"]["runtimeClassName"]
    crashing("nvml init failed: ERROR_LIBRARY_NOT_FOUND")(w)


def idle_without_runtime_class(w):
    del w.the("daemonsets", "nvidia-device-plugin")["spec"]["template"]["spec"]["runtimeClassName"]
    idle(NVML + "\nNo devices found. Waiting indefinitely.")(w)


def start_error(text):
    def mutate(w):
        status = w.the("pods", "plugin-x")["status"]["containerStatuses"][0]
        ended = {"exitCode": 128, "reason": "StartError", "message": text}
        status.update(ready=False, state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState={"terminated": ended})
        no_slots(w)

    mutate.__name__ = "start_error"
    return mutate


def nfd_refused_too(w):
    """NFD lives in the plugin's namespace: what refuses it takes the labels away, and the plugin with them."""
    no_plugin_pod(w)
    no_plugin_pod(w, "nfd-worker", "nfd-x")
    del w.node["metadata"]["labels"]["feature.node.kubernetes.io/pci-10de.present"]
    refuse(w, 'violates PodSecurity "baseline:latest": hostPath volumes')
    w.events[0]["involvedObject"]["name"] = "nfd-worker"


def image_not_pulled(w):
    status = w.the("pods", "plugin-x")["status"]
    status["phase"] = "Pending"
    status["containerStatuses"][0].update(
        ready=False,
        state={"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image: ... i/o timeout"}},
    )


def idle(log):
    def mutate(w):
        w.logs["plugin-x", MAIN, False] = running_log().partition("I1120 server.go")[0] + log
        no_slots(w, capacity=None, allocatable=None)

    mutate.__name__ = "idle"
    return mutate


def old_plugin(w):
    for c in w.the("daemonsets", "nvidia-device-plugin")["spec"]["template"]["spec"]["containers"]:
        c["image"] = "nvcr.io/nvidia/k8s-device-plugin:v0.17.4"


# ---- numbers


def renamed_resource(w):
    shared = SHARED.replace("timeSlicing:\n", "timeSlicing:\n    renameByDefault: true\n")
    config(w, shared)
    live = json.loads(json.dumps(RUNNING))
    live["sharing"]["timeSlicing"]["renameByDefault"] = True
    w.logs["plugin-x", MAIN, False] = running_log(live)
    no_slots(w, capacity="0", allocatable="0")
    for key in ("capacity", "allocatable"):
        w.node["status"][key]["nvidia.com/gpu.shared"] = "4"
    w.node["metadata"]["labels"]["nvidia.com/gpu.product"] = "Tesla-T4"


def plugin_connection_gone(w):
    no_slots(w)


def kubelet_restart_missed(w):
    no_slots(w, capacity="0", allocatable="0")


def device_unhealthy(w):
    no_slots(w, allocatable="3")
    w.logs["plugin-x", MAIN, False] += "XidCriticalError: Xid=79 on Device=GPU-1, the device will go unhealthy.\n"


def flapping(w):
    w.allocatable_series = ["4", "0", "4"]


def all_devices_unhealthy(w):
    no_slots(w)
    w.logs["plugin-x", MAIN, False] += "'nvidia.com/gpu' device marked unhealthy: GPU-1::0\n"


# ---- labels


def gfd_labels_missing(w):
    labels = w.node["metadata"]["labels"]
    for key in [k for k in labels if k.startswith("nvidia.com/gpu.")]:
        del labels[key]


def not_shared_product(w):
    w.node["metadata"]["labels"]["nvidia.com/gpu.product"] = "Tesla-T4"


def second_nfd(w):
    second = daemonset("nfd-own", "worker", "registry.k8s.io/nfd/node-feature-discovery:v0.16.0", affinity={})
    second["spec"]["template"]["spec"]["containers"][0]["args"] = ["nfd-worker"]
    w.daemonsets.append(second)


def declared_label_missing(w):
    pass


NVML = "E1120 factory.go:77] Failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND."
NO_STRATEGY = "E1120 Incompatible strategy detected auto\nerror starting plugins: invalid device discovery strategy"
FAULTS = [
    (replicas_outside_resources, {"K8S-CONF-001": ["K01"]}),
    (crash_text_without_config_map, {"K8S-PLUGIN-001": ["K01"]}),
    (one_replica, {"K8S-CONF-001": ["K02"]}),
    (two_replicas_written_and_live, {"K8S-CONF-003": ["K08"]}),
    (edited_but_not_restarted, {"K8S-CONF-002": ["K03"]}),
    (label_names_no_config, {"K8S-CONF-001": ["K04"]}),
    (default_names_no_config, {"K8S-CONF-001": ["K05"]}),
    (several_configs_no_default, {"K8S-CONF-001": ["K07"]}),
    (many_allowed, {"K8S-CONF-004": ["K12"]}),
    (dead_key, {"K8S-CONF-005": ["K93"]}),
    (discovery_auto, {"K8S-CONF-006": ["K93"]}),
    (no_workload, {"K8S-PLUGIN-001": ["K90"]}),
    (no_label_and_no_nfd, {"K8S-PLUGIN-001": ["K13"]}),
    (stock_nfd, {"K8S-PLUGIN-001": ["K14"]}),
    (nfd_label_vanished, {"K8S-PLUGIN-001": ["K59"]}),
    (taint_not_tolerated_by_the_stack, {"K8S-PLUGIN-001": ["K16"]}),
    (psa_refuses_the_plugin, {"K8S-PLUGIN-001": ["K33"]}),
    (quota_refuses_the_plugin, {"K8S-PLUGIN-001": ["K94"]}),
    (runtime_class_missing, {"K8S-RTC-001": ["K23"]}),
    (handler_unknown, {"K8S-RTC-001": ["K22"]}),
    (handler_unknown_on_an_old_release, {"K8S-RTC-001": ["K22"]}),
    (crashing(NO_STRATEGY), {"K8S-PLUGIN-001": ["K20"]}),
    (crashing(NVML), {"K8S-PLUGIN-001": ["K21"]}),
    (crashing("dial tcp 10.96.0.1:443: i/o timeout"), {"K8S-PLUGIN-001": ["K75"]}),
    (crashing("specified config t4 does not exist"), {"K8S-PLUGIN-001": ["K04"]}),
    (crashing("specified config  does not exist"), {"K8S-PLUGIN-001": ["K05"]}),
    (crashing("", code=139), {"K8S-PLUGIN-001": ["K26"]}),
    (crashing("panic: who knows"), {"K8S-PLUGIN-001": ["K91"]}),
    (plugin_without_runtime_class, {"K8S-PLUGIN-001": ["K20"]}),
    (idle_without_runtime_class, {"K8S-ALLOC-001": ["K19"]}),
    (
        start_error("nvidia-container-cli: initialization error: nvml error: driver not loaded"),
        {"K8S-PLUGIN-001": ["K21"]},
    ),
    (
        start_error("fork/exec /usr/local/nvidia/toolkit/nvidia-container-runtime: no such file or directory"),
        {"K8S-PLUGIN-001": ["K22"]},
    ),
    (nfd_refused_too, {"K8S-PLUGIN-001": ["K33"]}),
    (image_not_pulled, {"K8S-PLUGIN-001": ["K34"]}),
    (idle("Incompatible platform detected\nNo devices found. Waiting indefinitely."), {"K8S-ALLOC-001": ["K19"]}),
    (idle(NVML + "\nNo devices found. Waiting indefinitely."), {"K8S-ALLOC-001": ["K21"]}),
    (idle("Starting Plugins."), {"K8S-ALLOC-001": ["K91"]}),
    (old_plugin, {"K8S-PLUGIN-002": ["K71"]}),
    (renamed_resource, {"K8S-ALLOC-001": ["K10"], "K8S-CONF-003": ["K10"]}),
    (plugin_connection_gone, {"K8S-ALLOC-001": ["K38"]}),
    (kubelet_restart_missed, {"K8S-ALLOC-001": ["K70"]}),
    (all_devices_unhealthy, {"K8S-ALLOC-001": ["K39"]}),
    (device_unhealthy, {"K8S-ALLOC-002": ["K39"]}),
    (flapping, {"K8S-ALLOC-002": ["K41"]}),
    (gfd_labels_missing, {"K8S-LABEL-002": ["K58"]}),
    (not_shared_product, {"K8S-LABEL-002": ["K58"]}),
    (second_nfd, {"K8S-NFD-001": ["K89"]}),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS, ids=[f"{n}-{f.__name__}" for n, (f, _) in enumerate(FAULTS)])
def test_a_fault_has_exactly_these_findings(fault, expected):
    world = healthy()
    fault(world)
    assert findings(world, lab()) == expected
