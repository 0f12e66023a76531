"""The simulated node's boot: what follows from image, configuration, cards and release."""

from __future__ import annotations

from typing import Any

import pytest

from labproof.simlab.talos.image import canonical, schematic_id
from labproof.simlab.talos.releases import release
from labproof.simlab.talos.resources import catalogue
from labproof.simlab.talos.server import boot_time
from labproof.simlab.talos.state import TalosState
from labproof.simlab.world.inputs import load_inputs, merge_patch
from labproof.simlab.world.lab import World

GPU_NODES = {"/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"}


def node(variation: str | None = None, name: str = "moody-good", **patch: Any) -> TalosState:
    inputs = merge_patch(load_inputs("t4-jellyfin", variation), {"nodes": {name: patch}})
    booted = World(inputs).nodes[name]
    assert isinstance(booted, TalosState)
    return booted


def test_the_healthy_node_drives_its_card() -> None:
    state = node()
    assert (state.driver_version, state.library_version, state.toolkit) == ("570.172.08", "570.172.08", "v1.17.8")
    assert [gpu.address for gpu in state.gpus] == ["0000:01:00.0"]
    assert {n.path for n in state.device_nodes} >= GPU_NODES
    assert state.runtime_handlers == ("runc", "nvidia") and state.default_runtime == "runc"
    assert (state.stage, state.bpf_jit_harden, state.cdi_enabled) == ("running", 1, False)
    assert dict(state.extensions)["nonfree-kmod-nvidia-production"] == "570.172.08-v1.11.6"


def test_ids_of_the_nodes_are_those_of_their_lists() -> None:
    worker, control = node(), node(name="cp-1")
    assert worker.schematic == schematic_id(canonical([n for n, _ in worker.extensions]))
    # the id that guide 002 prints (facts talos 0)
    assert control.schematic == "dc7b152cb3ea99b821fcb7340ce7168313ce393d663740b791c36f6e95fc8586"
    assert control.gpus == () and control.driver_version is None


@pytest.mark.parametrize(
    ("tag", "driver", "root", "kernel"),
    [
        ("v1.9.3", "550.144.03", "/usr/local/glibc/usr/lib", "6.12.25-talos"),
        ("v1.10.4", "570.148.08", "/usr/local/glibc/usr/lib", "6.12.63-talos"),
        ("v1.12.2", "570.211.01", "/usr/local/glibc/usr/lib", "6.18.42-talos"),
        ("v1.13.0", "595.58.03", "/usr/local/lib", "6.18.44-talos"),
        ("v1.14.0", "595.91.07", "/usr/local/lib", "6.18.44-talos"),
    ],
)
def test_releases(tag: str, driver: str, root: str, kernel: str) -> None:
    state = node(talos={"version": tag})
    assert (state.driver_version, state.library_root, state.kernel) == (driver, root, kernel)
    assert state.cdi_enabled is state.cdi_spec is (release(tag).minor >= (1, 13))
    assert state.nri_enabled is (tag == "v1.14.0")
    assert state.stage == "running"
    types = {kind for _, kind in catalogue(state)}
    assert ("KernelModuleStatuses.runtime.talos.dev" in types) is (tag == "v1.14.0")
    assert ("LoadedKernelModules.runtime.talos.dev" in types) is (release(tag).minor >= (1, 11))


def test_an_unknown_release_or_extension_is_no_world() -> None:
    with pytest.raises(ValueError, match="no Talos release"):
        release("v0.9.1")
    with pytest.raises(ValueError, match=r"nvidia-driver.*not available for Talos version v1.11.6"):
        node(talos={"extensions": ["nvidia-driver"]})


def test_without_configured_modules_nothing_is_loaded_and_the_node_reboots_for_ever() -> None:
    state = node(config={"modules": dict.fromkeys(("nvidia", "nvidia_uvm", "nvidia_drm", "nvidia_modeset"))})
    assert state.gpus == () and state.driver_version is None and state.stage == "booting"
    assert not [line for line in state.dmesg if "NVRM" in line]
    assert any('service \\x5c"ext-nvidia-persistenced\\x5c" to be' in line for line in state.dmesg)
    assert boot_time(state) > state.booted_at  # it rebooted since its VM was started


def test_a_loaded_dependency_counts() -> None:
    state = node(config={"modules": {"nvidia": None, "nvidia_modeset": None}})
    assert {"nvidia", "nvidia_modeset", "nvidia_drm", "nvidia_uvm"} <= state.modules


def test_default_runtime_from_the_owners_part_and_its_loss() -> None:
    part = '[plugins."io.containerd.cri.v1.runtime".containerd]\n  default_runtime_name = "nvidia"\n'
    config = {"files": {"/etc/cri/conf.d/20-customization.part": part}}
    assert node(config=config).default_runtime == "nvidia"
    gone = node(config=config, talos={"kind": "plain"})
    assert gone.default_runtime == "nvidia" and not gone.containers_start
    old = part.replace("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri")
    assert node(config={"files": {"/etc/cri/conf.d/20-customization.part": old}}).default_runtime == "runc"


def test_a_hand_written_runtime_without_its_binary_is_broken() -> None:
    part = (
        '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.mine.options]\n'
        '  BinaryName = "/opt/nvidia-container-runtime"\n'
    )
    state = node(config={"files": {"/etc/cri/conf.d/20-customization.part": part}})
    assert state.broken_handlers == ("mine",)


def test_a_lost_card_keeps_its_nodes() -> None:
    inputs = merge_patch(load_inputs("t4-jellyfin"), {"cards": {"t4": {"incidents": {"79": 600}}}})
    state = World(inputs).nodes["moody-good"]
    assert state.gpus == () and state.driver_version == "570.172.08"
    assert {n.path for n in state.device_nodes} >= GPU_NODES
    assert any("Xid (PCI:0000:01:00): 79" in line for line in state.dmesg)


def test_a_blackwell_card_wants_the_open_modules() -> None:
    patch = {"cards": {"t4": {"architecture": "Blackwell"}}}
    inputs = merge_patch(load_inputs("t4-jellyfin"), patch)
    assert any("RmInitAdapter failed!" in line for line in World(inputs).nodes["moody-good"].dmesg)
    names = ["nvidia-container-toolkit-production", "nvidia-open-gpu-kernel-modules-production"]
    inputs = merge_patch(inputs, {"nodes": {"moody-good": {"talos": {"extensions": names}}}})
    state = World(inputs).nodes["moody-good"]
    assert state.driver_open and state.gpus


def test_bare_metal_takes_its_cards_from_its_own_slots() -> None:
    state = node(vm=None, pci={"0000:41:00.0": {"card": "rtx2070s"}}, talos={"extensions": ["iscsi-tools"]})
    assert state.up and state.pci[0].vendor_device == "10de:1e84"
    assert state.booted_at > 1e9


def test_old_names_are_built_under_their_alias() -> None:
    state = node(talos={"extensions": ["nonfree-kmod-nvidia", "nvidia-container-toolkit"]})
    assert dict(state.extensions) == {
        "nonfree-kmod-nvidia-lts": "535.247.01-v1.11.6",
        "nvidia-container-toolkit-lts": "535.247.01-v1.17.8",
    }
    assert state.schematic == schematic_id(canonical(["nonfree-kmod-nvidia", "nvidia-container-toolkit"]))
