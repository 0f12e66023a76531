"""The operator flavour, both ways, and plugins of other vendors."""

import pytest

from .world import NODE, PLUGIN_NS, World, daemonset, findings, healthy, healthy_node, lab, no_slots, pod, running_log

OPERANDS = {
    "nvidia-operator-validator": "nvidia-operator-validator",
    "nvidia-device-plugin-daemonset": "nvidia-device-plugin",
    "gpu-feature-discovery": "gpu-feature-discovery",
    "nvidia-dcgm-exporter": "nvidia-dcgm-exporter",
}
OPERATOR = {
    "plugin": {"flavour": "gpu-operator"}, "sharing": {}, "injection": "nri", "runtime_class": {"expected": "absent"},
}  # fmt: skip


def ready(state="ready", status="True", reason="Reconciled", **spec):
    return {
        "metadata": {"name": "cluster-policy"},
        "spec": spec,
        "status": {"state": state, "conditions": [{"type": "Ready", "status": status, "reason": reason}]},
    }


def operator_world() -> World:
    world = healthy()
    world.node["metadata"]["labels"] |= {
        "nvidia.com/gpu.replicas": "1", "nvidia.com/gpu.product": "Tesla-T4", "nvidia.com/gpu.sharing-strategy": "none",
    }  # fmt: skip
    no_slots(world, capacity="1", allocatable="1")
    world.config_maps, world.runtime_classes, world.policies = {}, [], [ready()]
    nfd = world.the("daemonsets", "nfd-worker")
    world.daemonsets = [nfd, *(daemonset(name, container, "nvcr.io/x:v1") for name, container in OPERANDS.items())]
    world.pods = [world.the("pods", "jellyfin-6d4-abc")] + [
        pod(f"{name}-x", ("DaemonSet", name), [container]) for name, container in OPERANDS.items()
    ]
    log = running_log({"version": "v1", "flags": {}, "sharing": {"timeSlicing": {}}})
    world.logs = {("nvidia-device-plugin-daemonset-x", "nvidia-device-plugin", False): log}
    return world


def waits_in_init(world, name, init, log):
    held = world.the("pods", f"{name}-x")
    held["spec"]["initContainers"] = [{"name": init, "image": "i"}]
    held["status"] = {
        "phase": "Pending",
        "initContainerStatuses": [{"name": init, "restartCount": 0, "state": {"running": {}}}],
        "containerStatuses": [
            {"name": OPERANDS[name], "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}
        ],
    }
    world.logs[f"{name}-x", init, False] = log


def validator_loops(w):
    w.policies = [ready("notReady", "False", "OperandNotReady")]
    waits_in_init(
        w, "nvidia-operator-validator", "driver-validation", "failed to validate the driver, retrying after 5 seconds"
    )


def toolkit_never_ready(w):
    w.policies = [ready("notReady", "False", "OperandNotReady")]
    waits_in_init(
        w, "nvidia-device-plugin-daemonset", "toolkit-validation", "waiting for nvidia container stack to be setup"
    )


def ready_of_nothing(w):
    w.policies = [ready(reason="NFDLabelsMissing")]


def no_operator(w):
    w.policies = None


def two_policies(w):
    w.policies = [ready(), ready("ignored", "False", "Error")]


def driver_on_talos(w):
    driver = daemonset("nvidia-driver-daemonset", "nvidia-driver-ctr", "nvcr.io/nvidia/driver:570")
    held = pod("driver-x", ("DaemonSet", "nvidia-driver-daemonset"), ["nvidia-driver-ctr"])
    held["status"]["containerStatuses"][0].update(
        ready=False, state={"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown"}}
    )
    w.daemonsets.append(driver)
    w.pods.append(held)


def toolkit_on_read_only_root(w):
    w.daemonsets.append(daemonset("nvidia-container-toolkit-daemonset", "nvidia-container-toolkit-ctr", "nvcr.io/t:1"))
    held = pod("toolkit-x", ("DaemonSet", "nvidia-container-toolkit-daemonset"), ["nvidia-container-toolkit-ctr"])
    message = "failed to generate spec: failed to mkdir: mkdir /etc/containerd/conf.d: read-only file system"
    held["status"]["containerStatuses"][0].update(
        ready=False, state={"waiting": {"reason": "CreateContainerError", "message": message}}
    )
    w.pods.append(held)


def operator_not_pulled(w):
    w.policies = [{"metadata": {"name": "cluster-policy"}, "spec": {}}]
    operator = pod("gpu-operator-x", ("ReplicaSet", "gpu-operator-1"), ["gpu-operator"])
    operator["status"]["containerStatuses"][0].update(
        ready=False, state={"waiting": {"reason": "ErrImagePull", "message": "gpu-operator:v9: not found"}}
    )
    w.pods.append(operator)


def policy_fails_for_another_reason(w):
    w.policies = [ready("notReady", "False", "ReconcileFailed")]


def exporter_wants_no_node(w):
    w.the("daemonsets", "nvidia-dcgm-exporter")["status"] = {}


def config_named_without_default(w):
    """K06: a configuration is named, none is chosen, an empty one is applied without a word."""
    w.policies = [ready(devicePlugin={"config": {"name": "time-slicing"}})]
    w.config_maps[PLUGIN_NS, "time-slicing"] = {
        "t4": "sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 4}]}}"
    }
    spec = w.the("daemonsets", "nvidia-device-plugin-daemonset")["spec"]["template"]["spec"]
    spec["volumes"] = [{"name": "time-slicing", "configMap": {"name": "time-slicing"}}]
    w.logs["nvidia-device-plugin-daemonset-x", "nvidia-device-plugin", False] += (
        "Falling back to an empty configuration\n"
    )


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (lambda w: None, {}),
        (validator_loops, {"K8S-OPER-001": ["K27"]}),
        (toolkit_never_ready, {"K8S-OPER-001": ["K28"]}),
        (ready_of_nothing, {"K8S-OPER-001": ["K30"]}),
        (no_operator, {"K8S-OPER-001": ["K90"]}),
        (two_policies, {"K8S-OPER-002": ["K79"]}),
        (driver_on_talos, {"K8S-OPER-001": ["K31"]}),
        (toolkit_on_read_only_root, {"K8S-OPER-001": ["K29"]}),
        (operator_not_pulled, {"K8S-OPER-001": ["K34"]}),
        (policy_fails_for_another_reason, {"K8S-OPER-001": ["K91"]}),
        (exporter_wants_no_node, {"K8S-OPER-002": ["K15"]}),
        (config_named_without_default, {"K8S-CONF-002": ["K06"]}),
    ],
    ids=lambda what: getattr(what, "__name__", ""),
)
def test_an_operator_fault_has_exactly_these_findings(fault, expected):
    world = operator_world()
    fault(world)
    assert findings(world, lab(**OPERATOR)) == expected


# ---- plugins of other vendors


def intel_lab():
    made = lab(
        plugin={"flavour": "intel"}, sharing={}, discovery={}, runtime_class={"expected": "absent"}, workloads=[]
    )
    gpu = made.gpus[0].model_copy(update={"device": "8086:56a0"})
    return made.model_copy(update={"gpus": (gpu,)})


def intel_world() -> World:
    plugin = daemonset("intel-gpu-plugin-x", "intel-gpu-plugin", "intel/intel-gpu-plugin:0.36.0", affinity={})
    plugin["spec"]["template"]["spec"]["nodeSelector"] = {"intel.feature.node.kubernetes.io/gpu": "true"}
    node = healthy_node()
    node["metadata"]["labels"] = {"kubernetes.io/hostname": NODE, "intel.feature.node.kubernetes.io/gpu": "true"}
    for key in ("capacity", "allocatable"):
        node["status"][key] = {"gpu.intel.com/i915": "1"}
    return World(
        nodes=[node], daemonsets=[plugin], runtime_classes=[],
        pods=[pod("intel-x", ("DaemonSet", "intel-gpu-plugin-x"), ["intel-gpu-plugin"])],
    )  # fmt: skip


def test_a_named_configuration_that_nobody_chose_is_one_finding():
    """The lab wants four slots, one is written down for it, none is chosen: K06, and no drift beside it."""
    world = operator_world()
    config_named_without_default(world)
    shared = OPERATOR | {"sharing": {"strategy": "time-slicing", "replicas": 4}}
    assert findings(world, lab(**shared)) == {"K8S-CONF-002": ["K06"]}


def test_an_intel_plugin_is_judged_by_its_own_rules():
    assert findings(intel_world(), intel_lab()) == {}


def test_an_intel_plugin_that_selects_a_missing_label():
    world = intel_world()
    world.pods = []
    del world.node["metadata"]["labels"]["intel.feature.node.kubernetes.io/gpu"]
    assert findings(world, intel_lab()) == {"K8S-PLUGIN-001": ["K74"]}


def test_an_intel_plugin_without_a_drm_device():
    world = intel_world()
    world.node["status"]["allocatable"] = {}
    world.node["status"]["capacity"] = {}
    world.logs["intel-x", "intel-gpu-plugin", False] = "W gpu_plugin.go Can't read sysfs folder: /sys/class/drm\n"
    assert findings(world, intel_lab()) == {"K8S-ALLOC-001": ["K52"]}


def test_a_selector_on_a_version_valued_label():
    world = healthy()
    found = world.the("daemonsets", "nvidia-device-plugin")
    found["spec"]["template"]["spec"]["nodeSelector"] = {"extensions.talos.dev/nvidia": "570.1-v1.11.5"}
    world.pods = [p for p in world.pods if p["metadata"]["name"] != "plugin-x"]
    assert findings(world, lab()) == {"K8S-PLUGIN-001": ["K76"]}


def test_another_vendors_plugin_does_not_count_as_the_declared_one():
    world = intel_world()
    made = lab(discovery={}, sharing={}, runtime_class={"expected": "absent"}, workloads=[])
    assert findings(world, made)["K8S-PLUGIN-001"] == ["K90"]
