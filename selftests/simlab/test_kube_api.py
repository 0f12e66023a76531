"""The simulated API server, asked by the official client and by kubectl."""

import asyncio
import contextlib
import json
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config, watch
from kubernetes.stream import stream

from labproof.simlab.kube import protobuf_bodies
from labproof.simlab.kube.cluster import SimCluster
from labproof.simlab.kube.patch import merge_patch
from labproof.simlab.kube.server import kubeconfig, serve
from labproof.simlab.world.pki import Pki
from labproof.simlab.world.states import Card, DeviceNode, GuestPci, NodeGpu, NodeState

ROOT = Path(__file__).parents[2]
LAB = ROOT / "labs" / "t4-jellyfin" / "world"
GPU = "nvidia.com/gpu"
HERE = {"kubernetes.io/hostname": "moody-good"}


def t4_node(now, **other):
    inputs = yaml.safe_load((LAB / "cards.yaml").read_text())["cards"]["t4"]
    card = Card("t4", inputs, "0000:3b:00.0")
    names = ("nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
    settings = {
        "name": "moody-good", "address": "192.168.8.123", "up": True, "os": "talos", "os_version": "v1.11.6",
        "kernel": "6.12.62-talos", "boot_id": "b", "booted_at": now - 3000, "stage": "running",
        "driver_version": "570.172.08", "driver_open": False, "library_version": "570.172.08",
        "library_root": "/usr/local/glibc/usr/lib", "modules": frozenset({"nvidia", "nvidia_uvm"}),
        "gpus": (NodeGpu(card, "0000:01:00.0", inputs["uuid"], 0),),
        "device_nodes": tuple(DeviceNode(f"/dev/{n}", 0o666) for n in names),
        "runtime_handlers": ("runc", "nvidia"), "default_runtime": "runc",
        "pci": (GuestPci("0000:01:00.0", "0000:3b:00.0", "10de:1eb8", "10de:12a2", "0x030200", card),),
        "node_labels": (("drmoo.io/gpu", "nvidia-t4"),), "toolkit": "1.17.8", "bpf_jit_harden": 1,
    }  # fmt: skip
    return NodeState(**settings | other)


def t4_cluster(patch=None, **node):
    now = time.time()
    inputs = yaml.safe_load((LAB / "clusters.yaml").read_text())["clusters"]["moody"]
    return SimCluster("moody", merge_patch(inputs, patch or {}), {"moody-good": t4_node(now, **node)}, now)


class Served:
    """A server in a thread; `world.clusters` may be replaced."""

    def __init__(self):
        self.clusters = {"moody": t4_cluster()}
        self.pki = Pki()
        self.port = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    def _run(self):
        async def main():
            server = await serve(lambda: self, "moody", self.pki)
            self.port = server.port
            self._stop = asyncio.Event()
            self._ready.set()
            await self._stop.wait()
            await server.close()

        self._loop.run_until_complete(main())

    def close(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def kubeconfig(self, folder, user):
        path = folder / f"{user}.kubeconfig"
        path.write_text(kubeconfig(self.pki, "moody", self.port, user))
        return str(path)

    def api(self, user):
        loaded = yaml.safe_load(kubeconfig(self.pki, "moody", self.port, user))
        return client.ApiClient(config.new_client_from_config_dict(loaded).configuration)


@pytest.fixture(scope="module")
def served():
    made = Served()
    yield made
    made.close()


@pytest.fixture
def fresh(served):
    served.clusters["moody"] = t4_cluster()
    return served


@pytest.fixture
def core(fresh):
    return client.CoreV1Api(fresh.api("labproof"))


def manifest(name, **more):
    pod = yaml.safe_load((ROOT / "manifests" / "pods" / "probe.yaml").read_text())
    pod["metadata"]["name"] = name
    pod["spec"] |= more
    return pod


def until(look, seconds=10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("never")


def running(core, name):
    return until(
        lambda: (p := core.read_namespaced_pod(name, "labproof", _request_timeout=5)).status.phase == "Running" and p
    )


def test_it_says_that_it_is_simulated(fresh):
    version = client.VersionApi(fresh.api("labproof")).get_code(_request_timeout=5)
    assert version.git_version == "v1.34.3+sim"


def test_the_healthy_lab(core):
    node = core.read_node("moody-good", _request_timeout=5)
    assert node.status.allocatable[GPU] == node.status.capacity[GPU] == "4"
    assert node.metadata.labels["nvidia.com/gpu.product"] == "Tesla-T4-SHARED"
    assert node.metadata.labels["nvidia.com/gpu.machine"] == "Standard-PC-Q35-ICH9-2009"
    pods = core.list_pod_for_all_namespaces(_request_timeout=5).items
    assert {p.status.phase for p in pods} == {"Running"}
    assert any(p.metadata.namespace == "media" for p in pods)


def test_lists_are_paged_and_selected(core):
    first = core.list_pod_for_all_namespaces(limit=2, _request_timeout=5)
    seen, token = [p.metadata.name for p in first.items], first.metadata._continue
    while token:
        page = core.list_pod_for_all_namespaces(limit=2, _continue=token, _request_timeout=5)
        seen += [p.metadata.name for p in page.items]
        token = page.metadata._continue
    assert sorted(seen) == sorted(p.metadata.name for p in core.list_pod_for_all_namespaces(_request_timeout=5).items)
    labelled = core.list_pod_for_all_namespaces(label_selector="role in (worker),role!=gc", _request_timeout=5).items
    assert [p.metadata.labels["role"] for p in labelled] == ["worker"]
    mine = core.list_pod_for_all_namespaces(field_selector="spec.nodeName=cp-1", _request_timeout=5).items
    assert {p.spec.node_name for p in mine} == {"cp-1"}


def test_the_shipped_role_is_enforced(core):
    with pytest.raises(client.ApiException) as refused:
        core.list_secret_for_all_namespaces(_request_timeout=5)
    body = json.loads(refused.value.body)
    assert refused.value.status == 403
    assert body["message"] == (
        'secrets is forbidden: User "labproof" cannot list resource "secrets" in API group "" at the cluster scope'
    )
    with pytest.raises(client.ApiException) as refused:
        core.delete_node("moody-good", _request_timeout=5)
    assert 'nodes "moody-good" is forbidden: User "labproof" cannot delete' in json.loads(refused.value.body)["message"]


def test_a_pod_is_created_watched_logged_and_deleted(core):
    seen = []
    core.create_namespaced_pod("labproof", manifest("watched"), _request_timeout=5)
    watcher = watch.Watch()
    for event in watcher.stream(
        core.list_namespaced_pod, "labproof", field_selector="metadata.name=watched", timeout_seconds=5
    ):
        seen.append((event["type"], event["object"].status.phase))
        if event["object"].status.phase == "Running":
            watcher.stop()
    assert seen[0] == ("ADDED", "Pending")
    assert seen[-1] == ("MODIFIED", "Running")
    raw = core.read_namespaced_pod_log("watched", "labproof", _preload_content=False, _request_timeout=5)
    assert raw.data == b""
    core.delete_namespaced_pod("watched", "labproof", grace_period_seconds=0, _request_timeout=5)
    with pytest.raises(client.ApiException) as gone:
        core.read_namespaced_pod("watched", "labproof", _request_timeout=5)
    assert gone.value.status == 404


def exec_in(fresh, name, argv):
    api = client.CoreV1Api(fresh.api("labproof"))
    session = stream(
        api.connect_get_namespaced_pod_exec, name, "labproof", command=argv, stdout=True, stderr=True, stdin=False,
        tty=False, _preload_content=False,
    )  # fmt: skip
    session.run_forever(timeout=20)
    out = session.read_stdout() if session.peek_stdout() else ""
    return session, out


def test_exec_runs_programs_in_the_pods_world(fresh, core):
    core.create_namespaced_pod("labproof", manifest("worker"), _request_timeout=5)
    running(core, "worker")
    session, out = exec_in(fresh, "worker", ["nvidia-smi", "-L"])
    assert session.returncode == 0
    assert out.startswith("GPU 0: Tesla T4 (UUID: GPU-")
    session, _ = exec_in(fresh, "worker", ["ls", "/nowhere"])
    assert session.returncode not in {0, None}
    session, _ = exec_in(fresh, "worker", ["no-such-program"])
    with pytest.raises(ValueError, match="Internal error occurred"):
        _ = session.returncode


def test_log_and_exec_errors_are_the_recorded_ones(fresh, core):
    told = json.loads((ROOT / "selftests" / "captures" / "kubernetes" / "s11-logs-exec-errors.json").read_text())[
        "observed"
    ]
    core.create_namespaced_pod("labproof", manifest("pend", nodeSelector={"nowhere": "true"}), _request_timeout=5)
    core.create_namespaced_pod(
        "labproof", manifest("done", containers=[short("true")], nodeSelector=HERE), _request_timeout=5
    )
    waiting = short("true") | {"image": "localhost/absent:1", "imagePullPolicy": "Never"}
    core.create_namespaced_pod("labproof", manifest("wt", containers=[waiting], nodeSelector=HERE), _request_timeout=5)
    until(lambda: core.read_namespaced_pod("done", "labproof", _request_timeout=5).status.phase == "Succeeded")

    def stuck():
        rows = core.read_namespaced_pod("wt", "labproof", _request_timeout=5).status.container_statuses
        return rows and rows[0].state.waiting.reason == "ErrImageNeverPull"

    until(stuck)
    assert str(core.read_namespaced_pod_log("pend", "labproof", _request_timeout=5)) in {"None", ""}
    cases = {
        "log_of_waiting": ("wt", {}), "log_previous": ("done", {"previous": True}),
        "log_wrong_container": ("done", {"container": "x"}), "log_nopod": ("nopod", {}),
    }  # fmt: skip
    for key, (name, options) in cases.items():
        with pytest.raises(client.ApiException) as refused:
            core.read_namespaced_pod_log(name, "labproof", _request_timeout=5, **options)
        body = json.loads(refused.value.body)
        assert (refused.value.status, refused.value.reason, body["message"]) == tuple(
            told[key][k] for k in ("status", "reason", "message")
        )
    for key, name in {"exec_in_pending": "pend", "exec_in_waiting": "wt", "exec_in_done": "done"}.items():
        with pytest.raises(client.ApiException) as refused:
            exec_in(fresh, name, ["true"])
        assert refused.value.status == 0
        assert refused.value.reason.split(" -+-+-")[0] == told[key]["reason"].split(" -+-+-")[0]
        assert refused.value.reason.rsplit("-+-+- ", 1)[1].strip().strip("b'\"") != ""
    with pytest.raises(client.ApiException) as refused:
        core.create_namespaced_pod("absent-ns", manifest("x") | {"metadata": {"name": "x"}}, _request_timeout=5)
    assert refused.value.status in {403, 404}


def short(*command):
    return {"name": "main", "image": "docker.io/jellyfin/jellyfin:10.11", "command": list(command)}


def test_the_fourth_pod_waits_and_a_freed_slot_wakes_it(core):
    for n in range(4):
        core.create_namespaced_pod("labproof", manifest(f"p{n}"), _request_timeout=5)
    for n in range(3):
        running(core, f"p{n}")
    message = until(
        lambda: (core.read_namespaced_pod("p3", "labproof", _request_timeout=5).status.conditions or [None])[0]
    )
    assert message.reason == "Unschedulable"
    assert message.message == (
        "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: "
        "0/2 nodes are available: 1 No preemption victims found for incoming pod, "
        "1 Preemption is not helpful for scheduling."
    )
    core.delete_namespaced_pod("p1", "labproof", grace_period_seconds=0, _request_timeout=5)
    running(core, "p3")


def test_a_leak_shows_only_with_the_nvidia_default_runtime(fresh):
    for default, gpus in (("runc", 1), ("nvidia", 0)):
        fresh.clusters["moody"] = t4_cluster(default_runtime=default)
        core = client.CoreV1Api(fresh.api("labproof"))
        spec = yaml.safe_load((ROOT / "manifests" / "pods" / "leak.yaml").read_text())
        spec["spec"]["nodeSelector"] = HERE
        core.create_namespaced_pod("labproof", spec, _request_timeout=5)
        running(core, "labproof-leak")
        session, out = exec_in(fresh, "labproof-leak", ["ls", "/dev"])
        assert session.returncode == 0
        assert ("nvidia0" in out) == (gpus == 0)


def test_patches_apply_and_dry_run(fresh):
    core = client.CoreV1Api(fresh.api("admin"))
    core.patch_node("moody-good", {"metadata": {"labels": {"a": "b"}}}, _request_timeout=5)
    assert core.read_node("moody-good", _request_timeout=5).metadata.labels["a"] == "b"
    core.create_namespaced_pod("labproof", manifest("dry"), dry_run="All", _request_timeout=5)
    with pytest.raises(client.ApiException):
        core.read_namespaced_pod("dry", "labproof", _request_timeout=5)
    api = fresh.api("admin")

    def apply(manager, colour, force=False):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"colour": colour}}
        return api.call_api(
            "/api/v1/namespaces/labproof/configmaps/c", "PATCH",
            query_params=[("fieldManager", manager), ("force", str(force).lower())],
            header_params={"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"}, body=body,
            auth_settings=["BearerToken"], response_type="object",
        )  # fmt: skip

    with contextlib.suppress(TypeError):  # the argument names of call_api differ between client releases
        apply("one", "red")
        with pytest.raises(client.ApiException) as conflict:
            apply("two", "blue")
        assert conflict.value.status == 409
        assert 'conflict with "one": .data.colour' in json.loads(conflict.value.body)["message"]
        apply("two", "blue", force=True)
        assert core.read_namespaced_config_map("c", "labproof", _request_timeout=5).data == {"colour": "blue"}


def test_a_reset_ends_watches_and_starts_anew(fresh):
    core = client.CoreV1Api(fresh.api("labproof"))
    core.create_namespaced_pod("labproof", manifest("old"), _request_timeout=5)
    asked, ended = 60, threading.Event()
    seen = threading.Event()

    def follow():
        for _ in watch.Watch().stream(client.CoreV1Api(fresh.api("admin")).list_node, timeout_seconds=asked):
            seen.set()
        ended.set()

    threading.Thread(target=follow, daemon=True).start()
    assert seen.wait(asked / 2)  # the watch is open: it has delivered the nodes there are
    fresh.clusters["moody"] = t4_cluster()
    core.list_node(_request_timeout=5)  # the first request after a reset is what the server notices it by
    assert ended.wait(asked / 2)  # well before the time the watch itself asked for
    with pytest.raises(client.ApiException):
        core.read_namespaced_pod("old", "labproof", _request_timeout=5)


KUBECTL = shutil.which("kubectl")


@pytest.mark.skipif(KUBECTL is None, reason="no kubectl on this machine")
def test_kubectl_by_hand(fresh, tmp_path):
    environment = {"KUBECONFIG": fresh.kubeconfig(tmp_path, "admin"), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}

    def kubectl(*argv, code=0):
        done = subprocess.run(
            [KUBECTL, *argv], env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert "v1.34.3+sim" in kubectl("version")
    assert "moody-good" in kubectl("get", "nodes")
    assert "nvidia.com/gpu:     4" in kubectl("describe", "node", "moody-good")
    assert "created" in kubectl("apply", "-f", str(ROOT / "manifests" / "pods" / "probe.yaml"))
    kubectl("-n", "labproof", "wait", "--for=condition=Ready", "pod/labproof-probe", "--timeout=10s")
    if "Client Version: v1.1" not in kubectl("version") and "Client Version: v1.2" not in kubectl("version"):
        assert "Tesla T4" in kubectl("-n", "labproof", "exec", "labproof-probe", "--", "nvidia-smi", "-L")
    assert "deleted" in kubectl("-n", "labproof", "delete", "pod", "labproof-probe")
    assert "yes" in kubectl("auth", "can-i", "delete", "nodes")


@pytest.mark.skipif(KUBECTL is None, reason="no kubectl on this machine")
def test_kubectl_asks_what_the_shipped_role_may(fresh, tmp_path):
    """Its typed clients send protobuf, which a real server takes."""
    environment = {"KUBECONFIG": fresh.kubeconfig(tmp_path, "labproof"), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}

    def asks(*argv):
        done = subprocess.run([KUBECTL, "auth", *argv], env=environment, capture_output=True, text=True, timeout=30)
        return done.stdout.strip()

    assert asks("can-i", "list", "pods") == "yes"
    assert asks("can-i", "delete", "nodes") == "no"
    assert asks("can-i", "get", "pods/log", "-n", "nvidia-device-plugin") == "yes"
    assert asks("can-i", "get", "pods", "--subresource=log", "-n", "default") == "no"
    assert "runtimeclasses.node.k8s.io" in asks("can-i", "--list")
    assert "labproof" in asks("whoami")


def test_a_body_that_is_no_envelope():
    with pytest.raises(protobuf_bodies.Undecodable, match="expected prefix"):
        protobuf_bodies.decode(b"{}")
    with pytest.raises(protobuf_bodies.Undecodable, match="EOF"):
        protobuf_bodies.decode(b"k8s\x00\x0a\x7fxx")
    with pytest.raises(protobuf_bodies.Undecodable, match="Secret"):
        protobuf_bodies.decode(b"k8s\x00\x0a\x0c\x0a\x02v1\x12\x06Secret")
