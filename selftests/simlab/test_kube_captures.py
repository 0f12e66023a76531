"""The simulated cluster, set to 1.36.2, against recordings of a real one (selftests/captures/kubernetes).

Compared are fields, reasons and texts; ids, addresses, times and counts are not.
"""

import asyncio
import json
import re
from pathlib import Path

import pytest

from labproof.simlab.kube.admission import Refused
from labproof.simlab.kube.cluster import SimCluster
from labproof.simlab.kube.container_start import DeviceResponse
from labproof.simlab.kube.devices import Endpoint
from labproof.simlab.kube.nodes import stop_kubelet
from labproof.simlab.world.states import NodeState

CAPTURES = Path(__file__).parents[1] / "captures" / "kubernetes"
WORLD_TIME = 1_795_000_000.0
GPU = "nvidia.com/gpu"
UNLIMITED = "9007199254740988Ki"  # how cgroup v1 shows "no memory limit" in a pod's resources; Talos has v2


class Shell:
    """The few programs that the recorded pods ran."""

    def exists(self, argv0, pod):
        return argv0 in {"sh", "sleep", "true"}

    async def run(self, argv, pod, io):
        script = argv[2] if argv[:2] == ["sh", "-c"] else " ".join(argv)
        if "tail /dev/zero" in script:
            io.out_of_memory()
            return 137
        if "echo" in script:
            io.write_stdout(script.partition("echo ")[2].partition(";")[0].encode() + b"\n")
        slept = re.search(r"sleep (\d+)", script)
        if slept:
            await io.sleep(float(slept.group(1)) * 1000)
        left = re.search(r"exit (\d+)", script)
        return int(left.group(1)) if left else 0


def recorded(name):
    return json.loads((CAPTURES / f"{name}.json").read_text())


def node(name="h2-node"):
    return NodeState(
        name=name, address="10.244.0.1", up=True, os="linux", os_version="Debian GNU/Linux 12 (bookworm)",
        kernel="6.18.44", boot_id="6a407237-81b7-4cc8-9344-69ae4c4533d4", booted_at=WORLD_TIME - 600, stage="running",
        driver_version=None, driver_open=False, library_version=None, library_root="", modules=frozenset(), gpus=(),
        device_nodes=(), runtime_handlers=("runc", "nvidia"), default_runtime="runc",
    )  # fmt: skip


def cluster(two=True, **inputs):
    settings = {
        "version": "v1.36.2",
        "containerd": "2.3.4" if two else "1.6.20",
        "speed": 300.0,
        "history_s": 120,
        "resolver": "10.255.255.53",
        "images": {"localhost/ffmpeg:h2": {"cached": True}},
        "runtime_classes": {"nvidia": {}, "nvidia-missing": {}},
        "rbac": {"applied": False},
        "nodes": {"h2-node": {"capacity": {"cpu": 2, "memory_mib": 24000, "pods": 50}}},
    }
    settings |= inputs
    made = SimCluster("recorded", settings, {"h2-node": node()}, WORLD_TIME, Shell())
    made.attach(asyncio.get_running_loop())
    return made


def plug(made, healthy=4, total=4, response=None):
    """The recorded plugin: four shares of one device."""
    kubelet = made.kubelets["h2-node"]
    devices = {f"GPU-0::{n}": n < healthy for n in range(total)}
    kubelet.devices.register(Endpoint(GPU, devices, lambda ids: ""))
    kubelet.answers[GPU] = lambda ids: response or DeviceResponse({"NVIDIA_VISIBLE_DEVICES": "GPU-0"})
    made.post_node("h2-node")
    return kubelet


def create(made, raw):
    """The recorded pod as its author wrote it."""
    spec = {k: v for k, v in raw["spec"].items() if k not in {"nodeName", "serviceAccount"}}
    spec["volumes"] = [v for v in spec.get("volumes", []) if not v["name"].startswith("kube-api-access")]
    spec["containers"] = [
        {**c, "volumeMounts": [m for m in c.get("volumeMounts", []) if not m["name"].startswith("kube-api-access")]}
        for c in spec["containers"]
    ]
    if not spec["volumes"]:
        del spec["volumes"]
    for container in spec["containers"]:
        if not container["volumeMounts"]:
            del container["volumeMounts"]
    meta = {"name": raw["metadata"]["name"], "namespace": "default"}
    return made.create(made.pods_kind, {"metadata": meta, "spec": spec})[0]


def state_of(pod):
    rows = pod["status"].get("containerStatuses") or [{}]
    state = rows[0].get("state") or {}
    name = next(iter(state), None)
    detail = (state.get(name) or {}).get("reason") if name else None
    reasons = [c.get("reason") for c in pod["status"].get("conditions", []) if c["type"] == "PodScheduled"]
    return pod["status"]["phase"], name, detail, rows[0].get("restartCount", 0), reasons


async def until(made, name, wanted, seconds=10.0):
    for _ in range(int(seconds * 1000)):
        pod = made.store.get("pods", name, "default")
        if pod is not None and state_of(pod) == wanted:
            return pod
        await asyncio.sleep(0.001)
    raise AssertionError(f"{name}: {state_of(pod)}, never {wanted}")


async def soon(check, seconds=5.0):
    """Repeat an assertion for a while: events follow states."""
    for _ in range(int(seconds * 1000)):
        try:
            return check()
        except AssertionError:
            await asyncio.sleep(0.001)
    return check()


def plain(value, key=""):
    """A value without what differs from run to run."""
    if isinstance(value, dict):
        found = {
            k: plain(v, k)
            for k, v in value.items()
            if not (k == "resources" and v == {"limits": {"memory": UNLIMITED}})
        }
        if "sources" in found:  # the recorded build was a downstream one
            found["sources"] = [s for s in value["sources"] if "openshift" not in json.dumps(s)]
        if key == "" and "qosClass" in found:  # pod-level resources, once more
            found.pop("resources", None)
        return found
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, str):
        if re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", value):
            return "<time>" if not value.startswith("1970") else value
        if key in {"hostIP", "podIP", "ip", "uid", "resourceVersion"}:
            return f"<{key}>"
        value = re.sub(r"kube-api-access-\w{5}", "kube-api-access-<x>", value)
        value = re.sub(r"[0-9a-f]{64}", "<id>", value)
        value = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "<uid>", value)
        return re.sub(r"GPU-0::\d", "GPU-0::<n>", value)
    return value


def events_of(made, name):
    rows = [e for e in made.store.all("events", "default") if e["involvedObject"]["name"] == name]
    return {event_shape(e) for e in rows}


def event_shape(event):
    return (
        event["type"], event["reason"], plain(event["message"]), event.get("action"), event["reportingComponent"],
        event["involvedObject"].get("fieldPath"), event.get("count") is None, event.get("eventTime") is None,
        event.get("firstTimestamp") is None, tuple(sorted(event["source"])),
    )  # fmt: skip


def assert_same(made, capture, index=0):
    raw = capture["pods"][index]
    name = raw["metadata"]["name"]
    ours = made.store.get("pods", name, "default")
    want, have = plain(raw["status"]), plain(ours["status"])
    want.pop("resources", None)
    have.pop("resources", None)
    assert have == want
    spec = plain(ours["spec"])
    assert {k: spec.get(k) for k in raw["spec"]} == plain(raw["spec"])
    if capture.get("events", {}).get(name):
        theirs = {event_shape(e) for e in capture["events"][name]}
        assert events_of(made, name) == theirs


SIMPLE = [  # pods without a GPU
    "s01-encode",
    "s05a-runtimeclass-ok",
    "s05b-handler-not-in-containerd",
    "s06a-nodeselector-mismatch",
    "s07a-pull-fails",
    "s07b-pull-first",
    "s07c-never-pull",
    "s08a-command-not-found",
    "s08a2-command-not-found-always",
    "s08b-exit-1",
    "s08c-crashloop",
    "s08c2-crashloop-timeline",
    "s08d-oom",
    "s08e-configmap-missing",
    "s08f-hostpath-chardev-missing",
    "s02-gpu-requested-no-plugin-ever",
]


@pytest.mark.parametrize("name", SIMPLE)
def test_a_pod_ends_up_as_recorded(name):
    capture = recorded(name)

    async def scenario():
        made = cluster(two="containerd 2" in capture["recorded_with"])
        create(made, capture["pods"][0])
        await until(made, capture["pods"][0]["metadata"]["name"], state_of(capture["pods"][0]))
        if name == "s07b-pull-first":  # its events were read a little later than its status
            ours = made.store.get("pods", "pull1", "default")
            assert plain(ours["status"]["containerStatuses"]) == plain(
                capture["pods"][0]["status"]["containerStatuses"]
            )
        else:
            await soon(lambda: assert_same(made, capture))
        made.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "healthy", "total"),
    [("s04d-more-than-node", 4, 4), ("s09d-pending-when-unhealthy", 0, 4), ("s09g-pending-plugin-gone", 0, 4)],
)
def test_a_gpu_pod_waits_as_recorded(name, healthy, total):
    capture = recorded(name)

    async def scenario():
        made = cluster()
        plug(made, healthy, total)
        create(made, capture["pods"][0])
        await until(made, capture["pods"][0]["metadata"]["name"], state_of(capture["pods"][0]))
        assert_same(made, capture)
        made.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("s06c-taint-not-tolerated", {"taints": {"nvidia.com/gpu": "present:NoSchedule"}}),
        ("s06d-taint-tolerated", {"taints": {"nvidia.com/gpu": "present:NoSchedule"}}),
        ("s06e-cordoned", {"cordoned": True}),
    ],
)
def test_taints_and_cordons_as_recorded(name, entry):
    capture = recorded(name)

    async def scenario():
        made = cluster(two=False, nodes={"h2-node": entry})
        create(made, capture["pods"][0])
        await until(made, capture["pods"][0]["metadata"]["name"], state_of(capture["pods"][0]))
        assert_same(made, capture)
        made.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["s18a-two-nodes-gpu5", "s18b-two-nodes-selector"])
def test_two_nodes_as_recorded(name):
    capture = recorded(name)

    async def scenario():
        control = {"role": "control-plane", "taints": {"node-role.kubernetes.io/control-plane": ":NoSchedule"}}
        made = cluster(nodes={"h2-node": {}, "cp": control})
        plug(made)
        create(made, capture["pods"][0])
        await until(made, capture["pods"][0]["metadata"]["name"], state_of(capture["pods"][0]))
        assert_same(made, capture)
        made.close()

    asyncio.run(scenario())


def test_four_run_and_the_fifth_waits_until_one_is_gone():
    capture, later = recorded("s03-four-run-fifth-pending"), recorded("s03b-fifth-after-slot-freed")

    async def scenario():
        made = cluster()
        plug(made)
        for n in range(4):
            raw = json.loads(json.dumps(capture["pods"][0]))
            raw["metadata"]["name"] = f"g{n}"
            create(made, raw)
        for n in range(4):
            await until(made, f"g{n}", ("Running", "running", None, 0, [None]))
        create(made, capture["pods"][1])
        await until(made, "g4", state_of(capture["pods"][1]))
        assert_same(made, capture, 0)
        assert_same(made, capture, 1)
        ours = made.store.get("nodes", "h2-node")["status"]
        assert set(ours["allocatable"]) == set(capture["node"])
        assert ours["allocatable"][GPU] == capture["node"][GPU]
        made.delete(made.pods_kind, "g2", "default", 0)
        await until(made, "g4", state_of(later["pods"][0]))
        assert_same(made, later)
        made.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "response"),
    [
        ("s09a-device-node-absent", DeviceResponse(devices=["/dev/nvidia0-absent"])),
        ("s17a-cdi-device-unresolvable", DeviceResponse(cdi=["nvidia.com/gpu=0"])),
        ("s17b-cdi-ok", DeviceResponse(cdi=["vendor.example/gpu=0"])),
    ],
)
def test_device_injection_as_recorded(name, response):
    capture = recorded(name)

    async def scenario():
        made = cluster()
        plug(made, response=response).specs["vendor.example/gpu"] = ("0",)
        create(made, capture["pods"][0])
        await until(made, capture["pods"][0]["metadata"]["name"], state_of(capture["pods"][0]))
        assert_same(made, capture)
        made.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["s09c-all-unhealthy", "s09f-plugin-gone"])
def test_a_running_pod_outlives_its_device(name):
    capture = recorded(name)

    async def scenario():
        made = cluster()
        kubelet = plug(made)
        pod = create(made, capture["pods"][0])
        await until(made, "h0", ("Running", "running", None, 0, [None]))
        endpoint = kubelet.devices.endpoints[GPU]
        if name == "s09c-all-unhealthy":
            endpoint.devices = dict.fromkeys(endpoint.devices, False)
        else:
            kubelet.devices.stop(GPU)
        made.post_node("h2-node")
        kubelet.report(kubelet.run_of(pod))
        assert_same(made, capture)
        status = made.store.get("nodes", "h2-node")["status"]
        assert {k: status[k][GPU] for k in ("capacity", "allocatable")} == capture["node"]
        made.close()

    asyncio.run(scenario())


REFUSED = [
    "s04a-fraction",
    "s04c-request-ne-limit",
    "s05c-runtimeclass-object-missing",
    "s10a-psa-baseline-privileged",
    "s10c-psa-restricted-plain",
]


@pytest.mark.parametrize("name", REFUSED)
def test_the_api_server_refuses_as_recorded(name):
    capture = recorded(name)

    async def scenario():
        level = "restricted" if "restricted" in name else "baseline"
        made = cluster(pod_security={"enforce": level})
        spec = capture["spec"] if "spec" not in capture["spec"] else capture["spec"]["spec"]
        meta = {"name": capture["rejected"]["body"]["details"]["name"], "namespace": "default"}
        with pytest.raises(Refused) as refused:
            made.create(made.pods_kind, {"metadata": meta, "spec": spec})
        assert refused.value.code == capture["rejected"]["http"]
        assert refused.value.status() == capture["rejected"]["body"]
        made.close()

    asyncio.run(scenario())


def test_baseline_takes_a_gpu_pod():
    capture = recorded("s10d-psa-baseline-gpu-runtimeclass-allowed")

    async def scenario():
        made = cluster(pod_security={"enforce": "baseline"})
        made.create(made.pods_kind, {"metadata": {"name": "ok", "namespace": "default"}, "spec": capture["spec"]})
        made.close()

    asyncio.run(scenario())


def test_the_node_object_has_the_recorded_fields():
    raw = recorded("s12-node-object")["node"]

    async def scenario():
        made = cluster(two=False)
        plug(made)
        ours = made.store.get("nodes", "h2-node")
        assert ours["metadata"]["labels"] == raw["metadata"]["labels"]
        assert ours["metadata"]["annotations"] == raw["metadata"]["annotations"]
        for key in ("conditions", "addresses", "daemonEndpoints", "declaredFeatures"):
            assert plain(ours["status"][key]) == plain(raw["status"][key])
        for key in ("capacity", "allocatable", "nodeInfo"):
            assert set(ours["status"][key]) == set(raw["status"][key])
        made.close()

    asyncio.run(scenario())


def test_a_dead_kubelet_as_recorded():
    stopped, onto = recorded("s13-kubelet-stopped"), recorded("s13c-new-pod-when-node-dead")
    running = recorded("s13b-running-pod-on-dead-node")

    async def scenario():
        made = cluster(two=False)
        plug(made)
        create(made, running["pods"][0])
        await until(made, "keep", ("Running", "running", None, 0, [None]))
        stop_kubelet(made, "h2-node")
        for _ in range(3000):
            ours = made.store.get("nodes", "h2-node")
            if ours["status"]["conditions"][-1]["status"] == "Unknown":
                break
            await asyncio.sleep(0.001)
        assert plain(ours["status"]["conditions"]) == plain(stopped["node_conditions"])
        assert plain(ours["spec"]["taints"]) == plain(stopped["node_taints"])
        assert ours["status"]["capacity"][GPU] == ours["status"]["allocatable"][GPU] == "4"
        assert_same(made, running)
        create(made, onto["pods"][0])
        await until(made, "onto", state_of(onto["pods"][0]))
        assert_same(made, onto)
        made.close()

    asyncio.run(scenario())


def test_a_dead_containerd_as_recorded():
    raw = recorded("s15-containerd-stopped")

    async def scenario():
        made = cluster(nodes={"h2-node": {"containerd": {"running": False}}})
        ours = made.store.get("nodes", "h2-node")
        assert plain(ours["status"]["conditions"]) == plain(raw["node_conditions"])
        assert plain(ours["spec"]["taints"]) == plain(raw["node_taints"])
        made.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("name", "what"), [("s13e-kubelet-back", "kubelet"), ("s15b-back", "containerd")])
def test_a_node_that_came_back_as_recorded(name, what):
    raw = recorded(name)

    async def scenario():
        inputs = {"h2-node": {"containerd": {"running": what != "containerd"}}}
        made = cluster(two=False, nodes=inputs)
        plug(made)
        if what == "kubelet":
            stop_kubelet(made, "h2-node")
            for _ in range(3000):
                if made.store.get("nodes", "h2-node")["status"]["conditions"][-1]["status"] == "Unknown":
                    break
                await asyncio.sleep(0.001)
            made.kubelets["h2-node"].stopped = False
        else:
            inputs["h2-node"]["containerd"]["running"] = True
        made.post_node("h2-node")
        ours = made.store.get("nodes", "h2-node")
        assert plain(ours["status"]["conditions"]) == plain(raw["node_conditions"])
        assert (ours["spec"].get("taints") or None) == raw["node_taints"]
        ready, taints, numbers = raw["observed"][-1][1]
        assert [ours["status"]["conditions"][-1][key] for key in ("status", "reason", "message")] == ready[0:3]
        assert taints == []
        assert [ours["status"][part][GPU] for part in ("capacity", "allocatable")] == numbers
        made.close()

    asyncio.run(scenario())
