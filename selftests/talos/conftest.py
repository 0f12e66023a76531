"""A healthy node's facts, small and typed, and how to judge a change to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from labproof.catalogue.schematic import id_of_extensions
from labproof.checks.judgement import Judgement
from labproof.checks.registry import clauses
from labproof.checks.subject import Subject
from labproof.facts.reading import Reading, absent, value
from labproof.facts.talos import (
    BootPartition,
    Extension,
    KernelLog,
    MachineStage,
    Module,
    NodeFile,
    PciDevice,
    Schematic,
    Service,
    TalosFacts,
    TalosVersion,
)
from labproof.inventory.chains import targets_of
from labproof.inventory.models import Lab

NAMES = ("iscsi-tools", "nonfree-kmod-nvidia-production", "nvidia-container-toolkit-production", "qemu-guest-agent")
TEXT = "customization:\n    systemExtensions:\n        officialExtensions:\n" + "".join(
    f"            - siderolabs/{name}\n" for name in NAMES
)
NODES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools",
         "/dev/dri/card0", "/dev/dri/renderD128")  # fmt: skip
LOADED = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.172.08  Tue Jul 15 10:33:23 UTC 2025"

LAB: dict[str, Any] = {
    "lab": "unit",
    "gpus": [{"name": "t4", "host": "pve5", "device": "10de:1eb8", "address": "0000:3b:00.0"}],
    "hosts": [{"name": "pve5", "ssh": {"address": "pve5"}}],
    "vms": [{"name": "moody-good", "host": "pve5", "id": 1105, "gpus": ["t4"]}],
    "nodes": [
        {
            "name": "moody-good",
            "cluster": "moody",
            "vm": "moody-good",
            "talos": {"talosconfig": "talosconfig", "version": "v1.11.6", "extensions": NAMES},
        }
    ],
    "clusters": [{"name": "moody", "kubeconfig": "kubeconfig", "plugin": {"flavour": "nvidia-device-plugin"}}],
}


def shown(what: Any, source: str = "talosctl get something") -> Reading[Any]:
    """A reading with a value."""
    return value(what, source, 100.0)


def healthy() -> TalosFacts:
    """The T4 node as os:reader sees it."""
    return TalosFacts(
        name="moody-good",
        at=200_000.0,
        role="os:reader",
        version=shown(TalosVersion("v1.11.6", "abc", "metal"), "talosctl version"),
        boot_time=shown(100_000.0),
        extensions=shown(
            (
                Extension("iscsi-tools", "v0.2.0"),
                Extension("nonfree-kmod-nvidia-production", "570.172.08-v1.11.6"),
                Extension("nvidia-container-toolkit-production", "570.172.08-v1.17.8"),
                Extension("qemu-guest-agent", "10.0.2"),
            )
        ),
        schematic=shown(Schematic(id_of_extensions(NAMES), TEXT)),
        module_specs=shown(("nbd", "nvidia", "nvidia_drm", "nvidia_modeset", "nvidia_uvm")),
        modules=shown(tuple(Module(n, "live") for n in ("nvidia", "nvidia_drm", "nvidia_modeset", "nvidia_uvm"))),
        pci=shown(
            (
                PciDevice("0000:00:01.0", "1234:1111", "0300", "", "bochs-drm"),
                PciDevice("0000:0a:00.0", "10de:1eb8", "0302", "TU104GL [Tesla T4]"),
            )
        ),
        drivers=shown((("0000:00:01.0", "bochs-drm"), ("0000:0a:00.0", "nvidia"))),
        rebound=shown(()),
        device_nodes=shown(tuple(NodeFile(path, 0o666, True) for path in NODES)),
        services=shown(
            (
                Service("ext-iscsid", "Running", None),
                Service("ext-nvidia-persistenced", "Running", None),
                Service("ext-qemu-guest-agent", "Running", None),
                Service("kubelet", "Running", True),
            ),
            "talosctl services",
        ),
        stage=shown(MachineStage("running", True)),
        cri_parts=shown(("00-base.part", "10-nvidia-container-runtime.part")),
        bpf_jit_harden=shown(1),
        cmdline=shown("talos.platform=metal console=ttyS0"),
        kernel_log=shown(KernelLog((LOADED,), True, 900), "talosctl dmesg"),
        cdi_specs=absent("talosctl list /run/cdi"),
        host_tools=shown(()),
        boot_partition=shown(BootPartition("EFI", 2048), "talosctl get discoveredvolumes"),
    )


def lab(**changes: Any) -> Lab:
    """The unit lab; `talos=...` changes what the node declares, other keys are the lab's own."""
    talos = changes.pop("talos", {})
    gpu = changes.pop("gpu", {})
    cluster = changes.pop("cluster", {})
    node = {**LAB["nodes"][0], "talos": {**LAB["nodes"][0]["talos"], **talos}}
    body = {
        **LAB,
        "nodes": [node],
        "gpus": [{**LAB["gpus"][0], **gpu}],
        "clusters": [{**LAB["clusters"][0], **cluster}],
        **changes,
    }
    return Lab.model_validate(body)


@dataclass
class OneNode:
    """Facts of a run that read one node."""

    reading: Reading[TalosFacts]
    now: float = 200_000.0

    def talos(self, name: str) -> Reading[TalosFacts]:
        return self.reading


Judge = Callable[..., Judgement]


@pytest.fixture
def judge() -> Judge:
    """`judge(clause, lab=..., reading=..., **facts changes)`: the judgement of one clause."""

    def run(
        ident: str, the_lab: Lab | None = None, reading: Reading[Any] | None = None, chain: int = 0, **changes: Any
    ) -> Judgement:
        declared = the_lab or lab()
        clause = clauses()[ident]
        target = targets_of(declared, clause.scope, "talos")[chain]
        facts = OneNode(reading or shown(replace(healthy(), **changes)))
        return clause.judge(Subject(facts, declared, target))  # type: ignore[arg-type]

    return run


@pytest.fixture
def facts() -> TalosFacts:
    """The healthy node's facts, to be changed with `dataclasses.replace`."""
    return healthy()


@pytest.fixture
def declare() -> Callable[..., Lab]:
    """`declare(talos={...}, gpu={...})`: the unit lab with changes."""
    return lab
