"""The simulated Talos API, asked by the client the suite uses."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.talos import TalosSession, TalosTarget
from labproof.simlab.talos.node import boot_node
from labproof.simlab.talos.server import serve
from labproof.simlab.world.inputs import load_inputs, merge_patch
from labproof.simlab.world.pki import Pki
from labproof.simlab.world.states import Card, GuestPci, NodeState, VmState

STARTED = 1_795_000_000.0


@dataclass
class Booted:
    """Just the part of a world that the server asks for."""

    nodes: dict[str, NodeState]


def booted(patch: Mapping[str, Any] | None = None, **vm_changes: Any) -> Booted:
    inputs = merge_patch(load_inputs("t4-jellyfin"), patch or {})
    card = Card("t4", inputs["cards"]["t4"], "0000:3b:00.0")
    function = GuestPci("0000:01:00.0", "0000:3b:00.0", "10de:1eb8", "10de:12a2", "0x030200", card)
    vm = VmState("pve5", 1105, "moody-good", True, "", "ovmf", "pc-q35-9.2+pve1", "uuid", 243712, STARTED, (function,))
    other = replace(vm, vmid=1101, name="cp-1", pci=())
    vms = {"pve5/1105": replace(vm, **vm_changes), "pve5/1101": other, None: None}
    nodes = inputs["nodes"]
    return Booted({name: boot_node(name, body, vms[body.get("vm")], {"t4": card}) for name, body in nodes.items()})


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever, daemon=True)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join(5)


@dataclass
class Endpoint:
    """A serving world that a test may swap, and a way to log in."""

    world: Booted
    ports: dict[str, int]
    config: Callable[..., str]

    def session(self, *roles: str, endpoint: str = "cp-1", node: str | None = "192.168.8.123") -> TalosSession:
        where = f"127.0.0.1:{self.ports[endpoint]}"
        return TalosSession(TalosTarget(self.config(*(roles or ("os:reader",))), endpoint=where, node=node))


@pytest.fixture
def lab(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Iterator[Endpoint]:
    pki = Pki()

    def config(*roles: str) -> str:
        issued = pki.client("talos", "moody", "labproof", *roles)
        encode = lambda text: base64.b64encode(text.encode()).decode()  # noqa: E731
        body = {"endpoints": ["127.0.0.1"], "ca": encode(pki.authority("talos", "moody").pem)}
        body |= {"crt": encode(issued.certificate), "key": encode(issued.talos_key)}
        path = tmp_path / f"talosconfig-{'-'.join(roles).replace(':', '')}"
        path.write_text(yaml.safe_dump({"context": "moody", "contexts": {"moody": body}}))
        return str(path)

    endpoint = Endpoint(booted(), {}, config)
    servers = []
    for name in ("cp-1", "moody-good"):
        started = asyncio.run_coroutine_threadsafe(serve(lambda: endpoint.world, name, pki), loop)
        servers.append(started.result(10))
        endpoint.ports[name] = servers[-1].port
    yield endpoint
    for server in servers:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)


def test_reader_reads_a_worker_through_the_control_plane(lab: Endpoint) -> None:
    with lab.session() as talos:
        assert talos.version().version.tag == "v1.11.6"
        assert talos.version().version.sha == "sim"
        assert talos.hostname() == "moody-good"
        assert talos.system_stat().boot_time == int(STARTED + 9)
        rows = talos.cosi_list("runtime", "ExtensionStatuses.runtime.talos.dev")
        names = {row.spec["metadata"]["name"]: row.spec["metadata"]["version"] for row in rows}
        assert names["nonfree-kmod-nvidia-production"] == "570.172.08-v1.11.6"
        assert names["nvidia-container-toolkit-production"] == "570.172.08-v1.17.8"
        assert names["schematic"] == "4392dfdeec70a2d7f294c51508ac5b05977272ae5a2ea7c0c0b5288e0e34317d"
        specs = talos.cosi_list("runtime", "KernelModuleSpecs.runtime.talos.dev")
        assert {"nvidia", "nvidia_uvm", "nvidia_drm", "nvidia_modeset"} <= {row.spec["string"] for row in specs}
        assert talos.cosi_get("runtime", "MachineStatuses.runtime.talos.dev", "machine").spec["stage"] == "running"


def test_device_nodes_have_go_file_modes(lab: Endpoint) -> None:
    with lab.session() as talos:
        nodes = {entry.name: entry for entry in talos.list_dir("/dev") if entry.name.startswith("nvidia")}
        assert set(nodes) == {"nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"}
        assert nodes["nvidia0"].mode == 69206454
        links = talos.list_dir("/sys/bus/pci/drivers/nvidia")
        assert [entry.name for entry in links if entry.is_link and ":" in entry.name] == ["0000:01:00.0"]


def test_kernel_log_has_one_record_a_message(lab: Endpoint) -> None:
    with lab.session() as talos:
        records = talos.dmesg()
        loaded = [r for r in records if "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.172.08" in r.text]
        assert len(loaded) == 1 and loaded[0].facility == "kern"
        assert any("DEVICE=+pci:0000:01:00.0" in r.raw for r in records)


def test_roles_are_enforced(lab: Endpoint) -> None:
    with lab.session("os:reader") as talos:
        with pytest.raises(TransportFailure) as refused:
            talos.read_file("/proc/modules")
        assert refused.value.kind is Kind.FORBIDDEN and refused.value.answer == "not authorized"
        with pytest.raises(TransportFailure) as refused:
            talos.cosi_get("config", "MachineConfigs.config.talos.dev", "v1alpha1")
        assert refused.value.answer == "not authorized"
    with lab.session("os:admin") as talos:
        assert b"nvidia_uvm 1146880" in talos.read_file("/proc/modules")
        config = talos.cosi_get("config", "MachineConfigs.config.talos.dev", "v1alpha1")
        assert "factory.talos.dev/metal-installer/4392dfde" in config.yaml_spec
    with lab.session("os:etcd:backup") as talos, pytest.raises(TransportFailure):
        talos.version()


def test_a_type_of_another_release_is_unsupported_not_forbidden(lab: Endpoint) -> None:
    with lab.session() as talos:
        with pytest.raises(TransportFailure) as unknown:
            talos.cosi_list("runtime", "KernelModuleStatuses.runtime.talos.dev")
        assert unknown.value.kind is Kind.UNSUPPORTED
        with pytest.raises(TransportFailure) as missing:
            talos.list_dir("/run/nvidia")
        assert missing.value.kind is Kind.NOT_FOUND


def test_a_worker_forwards_nothing(lab: Endpoint) -> None:
    with lab.session(endpoint="moody-good", node="192.168.8.120") as talos:
        with pytest.raises(TransportFailure) as refused:
            talos.version()
        assert refused.value.answer == "no request forwarding"
    with lab.session(endpoint="moody-good", node="192.168.8.123") as talos:
        assert talos.hostname() == "moody-good"


def test_a_node_that_is_off_is_unreachable_through_the_control_plane(lab: Endpoint) -> None:
    lab.world = booted(running=False, why_not="IOMMU not present")
    with lab.session() as talos:
        with pytest.raises(TransportFailure) as lost:
            talos.version()
        assert lost.value.kind is Kind.UNAVAILABLE
    lab.world = booted()
    with lab.session() as talos:
        assert talos.hostname() == "moody-good"


def test_services_and_their_events(lab: Endpoint) -> None:
    with lab.session() as talos:
        states = {s.id: s.state for s in talos.service_list()}
        assert states["ext-nvidia-persistenced"] == "Running"
        assert states["ext-qemu-guest-agent"] == "Running"
        assert "ext-nvidia-cdi-gen" not in states
