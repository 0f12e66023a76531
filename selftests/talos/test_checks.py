"""Every clause of the talos layer: green on the healthy node, red with its cause on one small change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from labproof.checks.judgement import Fail, Judgement, Pass
from labproof.checks.registry import clauses
from labproof.facts.reading import Reading, absent, unsupported, value
from labproof.facts.talos import (
    BootPartition,
    CriTable,
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
from labproof.inventory.models import Lab

Judge = Callable[..., Judgement]
Change = Callable[[TalosFacts], dict[str, Any]]

DEFAULT = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"
KMOD, TOOLKIT = "nonfree-kmod-nvidia-production", "nvidia-container-toolkit-production"
OPEN = "nvidia-open-gpu-kernel-modules-production"
T4 = PciDevice("0000:0a:00.0", "10de:1eb8", "0302")
AUDIO = PciDevice("0000:0a:00.1", "10de:10f8", "0403")


def shown(what: Any) -> Reading[Any]:
    return value(what, "talosctl get something", 100.0)


def version(tag: str) -> Reading[Any]:
    return shown(TalosVersion(tag, "abc", "metal"))


def extensions(*pairs: tuple[str, str]) -> Reading[Any]:
    return shown(tuple(Extension(*pair) for pair in pairs))


def logged(*lines: str, from_boot: bool = True) -> Reading[Any]:
    return shown(KernelLog(lines, from_boot, 900))


def services(**states: tuple[str, str]) -> Reading[Any]:
    fine = {"ext-nvidia-persistenced": ("Running", ""), "ext-iscsid": ("Running", "")}
    named = {name.replace("_", "-"): what for name, what in states.items()}
    return shown(tuple(Service(name, state, None, said) for name, (state, said) in {**fine, **named}.items()))


def without(names: tuple[str, ...], rows: Reading[Any], key: str = "name") -> Reading[Any]:
    return shown(tuple(row for row in rows.value if getattr(row, key, row) not in names))


RED: list[tuple[str, str, Change]] = [
    ("TALOS-GUEST-001", "T56", lambda f: {"pci": shown(f.pci.value[:1])}),
    ("TALOS-GUEST-001", "T57", lambda f: {"pci": shown((AUDIO,))}),
    ("TALOS-VERSION-001", "T04", lambda f: {"version": version("v1.11.5")}),
    ("TALOS-BOOT-001", "T64", lambda f: {"boot_partition": shown(BootPartition("EFI", 1101))}),
    ("TALOS-BOOT-001", "T44", lambda f: {"boot_partition": shown(BootPartition("BOOT", 1000))}),
    ("TALOS-EXT-001", "T01", lambda f: {"extensions": extensions(("iscsi-tools", "v0.2.0"))}),
    (
        "TALOS-EXT-001",
        "T02",
        lambda f: {"extensions": extensions(), "schematic": absent("talosctl get extensions")},
    ),
    ("TALOS-EXT-001", "T62", lambda f: {"extensions": extensions(), "schematic": shown(Schematic(DEFAULT))}),
    (
        "TALOS-EXT-001",
        "T02",
        lambda f: {"extensions": extensions(), "schematic": shown(Schematic(DEFAULT)), "version": version("v1.14.0")},
    ),
    ("TALOS-EXT-001", "T08", lambda f: {"extensions": extensions((KMOD, "570.172.08-v1.11.6"))}),
    ("TALOS-EXT-001", "T08", lambda f: {"extensions": extensions((TOOLKIT, "570.172.08-v1.17.8"))}),
    (
        "TALOS-EXT-001",
        "T09",
        lambda f: {"extensions": extensions((KMOD, "570-v1"), (OPEN, "570-v1"), (TOOLKIT, "570-v1"))},
    ),
    (
        "TALOS-EXT-002",
        "T07",
        lambda f: {
            "extensions": extensions(
                (KMOD, "570.172.08-v1.11.6"), ("nvidia-container-toolkit-lts", "535.247.01-v1.17.8")
            ),
            "kernel_log": logged("NVRM: API mismatch: the client has the version 535.247.01, but"),
        },
    ),
    (
        "TALOS-EXT-003",
        "T12",
        lambda f: {"extensions": extensions((KMOD, "570.172.08-v1.11.5"), (TOOLKIT, "570.172.08-v1.17.8"))},
    ),
    (
        "TALOS-EXT-003",
        "T12",
        lambda f: {
            "kernel_log": logged('error loading module "nvidia": load nvidia failed: key was rejected by service')
        },
    ),
    ("TALOS-EXT-004", "T69", lambda f: {"extensions": without(("iscsi-tools",), f.extensions)}),
    ("TALOS-SCHEMATIC-001", "T03", lambda f: {"schematic": shown(Schematic("ab" * 32, "customization: {}\n"))}),
    (
        "TALOS-SCHEMATIC-002",
        "T06",
        lambda f: {"schematic": shown(Schematic("ab" * 32, "\n".join(reversed(f.schematic.value.text.splitlines()))))},
    ),
    ("TALOS-MODULE-001", "T10", lambda f: {"module_specs": shown(("nbd",))}),
    ("TALOS-MODULE-001", "T22", lambda f: {"module_specs": without(("nvidia_uvm",), f.module_specs)}),
    (
        "TALOS-MODULE-002",
        "T13",
        lambda f: {"modules": shown(()), "drivers": shown(()), "kernel_log": logged("NVRM: No NVIDIA GPU found.")},
    ),
    (
        "TALOS-MODULE-002",
        "T20",
        lambda f: {
            "modules": shown(()),
            "drivers": shown(()),
            "kernel_log": logged(
                "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid: BAR1 is 0M @ 0x0"
            ),
        },
    ),
    ("TALOS-MODULE-002", "T22", lambda f: {"modules": without(("nvidia_uvm",), f.modules)}),
    (
        "TALOS-MODULE-002",
        "T22",
        lambda f: {"modules": shown((Module("nvidia", "live"), Module("nvidia_uvm", "loading")))},
    ),
    (
        "TALOS-MODULE-002",
        "T66",
        lambda f: {"modules": shown(()), "drivers": shown(((T4.address, "vfio-pci"),))},
    ),
    (
        "TALOS-MODULE-002",
        "T66",
        lambda f: {"modules": shown(()), "drivers": shown(()), "rebound": shown(((T4.address, "vfio-pci"),))},
    ),
    ("TALOS-MODULE-003", "T23", lambda f: {"module_specs": without(("nvidia_drm",), f.module_specs)}),
    ("TALOS-MODULE-003", "T23", lambda f: {"modules": without(("nvidia_drm",), f.modules)}),
    ("TALOS-MODULE-003", "T10", lambda f: {"modules": without(("nvidia_modeset",), f.modules)}),
    ("TALOS-DEVICE-001", "T20", lambda f: {"drivers": shown(())}),
    ("TALOS-DEVICE-001", "T66", lambda f: {"drivers": shown(((T4.address, "vfio-pci"),))}),
    ("TALOS-DEVICE-002", "T20", lambda f: {"device_nodes": without(("/dev/nvidia0",), f.device_nodes, "path")}),
    (
        "TALOS-DEVICE-002",
        "T19",
        lambda f: {
            "device_nodes": without(("/dev/nvidia0",), f.device_nodes, "path"),
            "kernel_log": logged("Direct firmware load for nvidia/570.172.08/gsp_tu10x.bin failed with error -2"),
        },
    ),
    (
        "TALOS-DEVICE-002",
        "T19",
        lambda f: {
            "device_nodes": without(("/dev/nvidia0",), f.device_nodes, "path"),
            "extensions": extensions((OPEN, "570.172.08-v1.11.6"), (TOOLKIT, "570.172.08-v1.17.8")),
            "firmware": shown(("570.148.08",)),
        },
    ),
    ("TALOS-DEVICE-002", "T22", lambda f: {"device_nodes": without(("/dev/nvidia-uvm",), f.device_nodes, "path")}),
    (
        "TALOS-DEVICE-002",
        "T22",
        lambda f: {"device_nodes": without(("/dev/nvidia-uvm-tools",), f.device_nodes, "path")},
    ),
    ("TALOS-DEVICE-002", "T20", lambda f: {"device_nodes": shown((NodeFile("/dev/nvidia0", 0o644, False),))}),
    ("TALOS-DEVICE-003", "T23", lambda f: {"device_nodes": without(("/dev/dri/renderD128",), f.device_nodes, "path")}),
    ("TALOS-DEVICE-003", "T23", lambda f: {"device_nodes": without(("/dev/nvidia-modeset",), f.device_nodes, "path")}),
    ("TALOS-LOG-001", "T21", lambda f: {"kernel_log": logged("NVRM: GPU 0000:0a:00.0: GPU has fallen off the bus.")}),
    (
        "TALOS-LOG-001",
        "T21",
        lambda f: {"kernel_log": logged("NVRM: Xid (PCI:0000:0a:00): 79, pid=12, GPU has fallen")},
    ),
    (
        "TALOS-LOG-001",
        "W09",
        lambda f: {"kernel_log": logged("NVRM: Xid (PCI:0000:0a:00): 119, pid=1, Timeout after 6s")},
    ),
    ("TALOS-LOG-001", "T20", lambda f: {"kernel_log": logged("NVRM: GPU 0000:0a:00.0: RmInitAdapter failed! (0x24)")}),
    ("TALOS-LOG-002", "T67", lambda f: {"kernel_log": logged("NVRM: Xid (PCI:0000:0a:00): 63, pid=1, retired")}),
    ("TALOS-LOG-002", "T67", lambda f: {"kernel_log": logged("NVRM: Xid (PCI:0000:0a:00): 74, pid=1, NVLink")}),
    ("TALOS-RUNTIME-001", "T32", lambda f: {"cri_parts": shown(("00-base.part",))}),
    (
        "TALOS-RUNTIME-002",
        "T35",
        lambda f: {
            "version": version("v1.9.1"),
            "cri_parts": shown(("20-customization.part", "nvidia-container-runtime.part")),
        },
    ),
    (
        "TALOS-RUNTIME-003",
        "T33",
        lambda f: {
            "extensions": extensions((KMOD, "570.172.08-v1.11.6")),
            "cri_customization": shown((CriTable("io.containerd.cri.v1.runtime", True, "nvidia"),)),
        },
    ),
    (
        "TALOS-RUNTIME-003",
        "T34",
        lambda f: {"cri_customization": shown((CriTable("io.containerd.grpc.v1.cri", True, "nvidia"),))},
    ),
    ("TALOS-SYSCTL-001", "T36", lambda f: {"bpf_jit_harden": shown(2)}),
    ("TALOS-SYSCTL-001", "T36", lambda f: {"bpf_jit_harden": absent("talosctl get kernelparamstatus")}),
    (
        "TALOS-SERVICE-001",
        "T11",
        lambda f: {
            "services": services(ext_nvidia_persistenced=("Waiting", 'file "/sys/bus/pci/drivers/nvidia" to exist')),
            "drivers": shown(()),
        },
    ),
    (
        "TALOS-SERVICE-001",
        "T42",
        lambda f: {"services": services(ext_nvidia_persistenced=("Waiting", "going to restart forever"))},
    ),
    (
        "TALOS-SERVICE-002",
        "T46",
        lambda f: {
            "services": services(
                ext_qemu_guest_agent=("Waiting", 'file "/dev/virtio-ports/org.qemu.guest_agent.0" to exist')
            )
        },
    ),
    (
        "TALOS-SERVICE-002",
        "T58",
        lambda f: {"version": version("v1.12.4"), "services": services(ext_rpc_statd=("Waiting", "restart forever"))},
    ),
    ("TALOS-SERVICE-002", "T68", lambda f: {"services": services(ext_iscsid=("Failed", "exit code 1"))}),
    ("TALOS-STAGE-001", "T68", lambda f: {"stage": shown(MachineStage("booting", False, ("services: x",)))}),
    ("TALOS-STAGE-001", "T68", lambda f: {"stage": shown(MachineStage("running", False, ("time: not in sync",)))}),
    ("TALOS-CDI-001", "T39", lambda f: {}),  # 1.11 declares CDI
    ("TALOS-CDI-001", "T39", lambda f: {"version": version("v1.13.9")}),
    (
        "TALOS-CDI-001",
        "T38",
        lambda f: {
            "version": version("v1.13.9"),
            "services": services(ext_nvidia_cdi_gen=("Finished", "")),
            "cdi_specs": shown(("nvidia.yaml",)),
        },
    ),
    ("TALOS-IMAGE-001", "T45", lambda f: {"install_image": shown("ghcr.io/siderolabs/installer:v1.14.0")}),
    ("TALOS-IMAGE-001", "T03", lambda f: {"install_image": shown("ghcr.io/siderolabs/installer:v1.11.6")}),
    (
        "TALOS-IMAGE-001",
        "T03",
        lambda f: {"install_image": shown(f"factory.talos.dev/metal-installer/{DEFAULT}:v1.11.6")},
    ),
    (
        "TALOS-IMAGE-001",
        "T03",
        lambda f: {"install_image": shown(f"factory.talos.dev/installer/{f.schematic.value.id}:v1.11.5")},
    ),
    (
        "TALOS-CMDLINE-001",
        "T48",
        lambda f: {
            "schematic": shown(
                Schematic("ab" * 32, "customization:\n    extraKernelArgs:\n        - pcie_aspm=off\n        - a.b=1\n")
            )
        },
    ),
]

GREEN: list[tuple[str, Change]] = [
    ("TALOS-LOG-001", lambda f: {"kernel_log": logged(from_boot=False)}),
    ("TALOS-LOG-001", lambda f: {"kernel_log": logged("NVRM: Xid (PCI:0000:0a:00): 31, pid=9, MMU Fault")}),
    ("TALOS-LOG-002", lambda f: {"kernel_log": logged("NVRM: Xid (PCI:0000:0a:00): 31, pid=9, MMU Fault")}),
    ("TALOS-DEVICE-001", lambda f: {"pci": shown((PciDevice("0000:0a:00.0", "10de:1eb8", "0302", "", "nouveau"),))}),
    ("TALOS-MODULE-002", lambda f: {"modules": shown((Module("nvidia"), Module("nvidia_uvm")))}),
    ("TALOS-SYSCTL-001", lambda f: {"version": version("v1.13.0"), "bpf_jit_harden": shown(2)}),
    (
        "TALOS-RUNTIME-002",
        lambda f: {"cri_parts": shown(("10-nvidia-container-runtime.part", "20-customization.part"))},
    ),
    ("TALOS-RUNTIME-003", lambda f: {"cri_customization": absent("talosctl read")}),
    (
        "TALOS-RUNTIME-003",
        lambda f: {"cri_customization": shown((CriTable("io.containerd.grpc.v1.cri", False),))},
    ),
    (
        "TALOS-IMAGE-001",
        lambda f: {"install_image": shown(f"factory.talos.dev/installer/{f.schematic.value.id}:v1.11.6")},
    ),
    ("TALOS-IMAGE-001", lambda f: {"install_image": shown("registry.lan/mirror/talos-installer:mine")}),
    (
        "TALOS-CDI-001",
        lambda f: {
            "version": version("v1.13.9"),
            "services": services(ext_nvidia_cdi_gen=("Finished", "")),
            "cdi_specs": shown(("nvidia.yaml",)),
            "host_tools": shown(("nvidia-cdi-hook", "nvidia-ctk", "nvidia-smi")),
        },
    ),
    ("TALOS-BOOT-001", lambda f: {"boot_partition": unsupported("talosctl get discoveredvolumes", "not in 1.7")}),
    ("TALOS-BOOT-001", lambda f: {"boot_partition": absent("talosctl get discoveredvolumes", "none is labelled")}),
    ("TALOS-CMDLINE-001", lambda f: {"cmdline": unsupported("talosctl get kernelcmdline", "not in this release")}),
]


def causes_of(judgement: Judgement) -> set[str]:
    return {p.cause for p in judgement.problems} if isinstance(judgement, Fail) else set()


def declared_for(ident: str, declare: Callable[..., Lab]) -> Lab:
    injection = "cdi" if ident == "TALOS-CDI-001" else "legacy"
    return declare(cluster={"injection": injection})


@pytest.mark.parametrize(("ident", "cause", "change"), RED, ids=[f"{n}-{row[0]}-{row[1]}" for n, row in enumerate(RED)])
def test_red(
    judge: Judge, declare: Callable[..., Lab], facts: TalosFacts, ident: str, cause: str, change: Change
) -> None:
    judgement = judge(ident, declared_for(ident, declare), **change(facts))
    assert causes_of(judgement) == {cause}
    assert isinstance(judgement, Fail)
    for problem in judgement.problems:
        assert problem.evidence and dict(problem.values)["node"] == "moody-good"


@pytest.mark.parametrize(("label", "cause"), [("EFI", "T64"), ("BOOT", "T44")])
def test_an_upgrade_without_room(judge: Judge, declare: Callable[..., Lab], label: str, cause: str) -> None:
    """Told only of a node that runs an older release than was ordered: too little room explains no newer one."""
    small = {"boot_partition": shown(BootPartition(label, 1000))}
    assert causes_of(judge("TALOS-VERSION-001", declare(talos={"version": "v1.12.6"}), **small)) == {cause}
    assert causes_of(judge("TALOS-VERSION-001", declare(talos={"version": "v1.10.6"}), **small)) == {"T04"}
    assert causes_of(judge("TALOS-VERSION-001", declare(talos={"version": "newest"}), **small)) == {"T04"}
    assert isinstance(judge("TALOS-VERSION-001", **small), Pass)


PLAIN = {"extensions": shown(()), "schematic": absent("talosctl get extensions")}


def test_an_upgrade_without_a_plain_installer_to_pull(judge: Judge, declare: Callable[..., Lab]) -> None:
    """T45 is told only where the declared release has no plain installer and this node was installed from one."""
    ordered = declare(talos={"version": "v1.14.0"})
    assert causes_of(judge("TALOS-VERSION-001", ordered, **PLAIN)) == {"T45"}
    assert causes_of(judge("TALOS-VERSION-001", ordered)) == {"T04"}
    assert causes_of(judge("TALOS-VERSION-001", declare(talos={"version": "v1.13.9"}), **PLAIN)) == {"T04"}
    assert causes_of(judge("TALOS-VERSION-001", declare(talos={"version": "latest"}), **PLAIN)) == {"T04"}
    built_by_hand = {**PLAIN, "extensions": shown((Extension("nvidia-open-gpu-kernel-modules-lts", "1-v1.11.6"),))}
    assert causes_of(judge("TALOS-VERSION-001", ordered, **built_by_hand)) == {"T04"}


NEEDS_MORE = {"TALOS-CDI-001", "TALOS-IMAGE-001", "TALOS-RUNTIME-003"}
#: Judged on nodes with Intel graphics: the matrix of the lab intel-plugin-emby.
NEEDS_MORE |= {c for c in clauses() if c.startswith("TALOS-IGPU-")}


@pytest.mark.parametrize("ident", [c for c in clauses() if c.startswith("TALOS-") and c not in NEEDS_MORE])
def test_green_on_the_healthy_node(judge: Judge, ident: str) -> None:
    judgement = judge(ident)
    assert isinstance(judgement, Pass) and judgement.evidence


@pytest.mark.parametrize(("ident", "change"), GREEN, ids=[f"{n}-{row[0]}" for n, row in enumerate(GREEN)])
def test_green(judge: Judge, declare: Callable[..., Lab], facts: TalosFacts, ident: str, change: Change) -> None:
    assert isinstance(judge(ident, declared_for(ident, declare), **change(facts)), Pass)


def test_every_cause_that_a_clause_lists_is_produced_here() -> None:
    elsewhere = {("TALOS-API-001", c) for c in ("T51", "T52", "T54")} | {
        ("TALOS-VERSION-001", c) for c in ("T44", "T45", "T64")
    }
    elsewhere |= {("TALOS-DRIVER-001", c) for c in ("T15", "T16", "T17")} | {("TALOS-GUEST-002", "T85")}
    elsewhere |= {("TALOS-SOAK-001", "T70"), ("TALOS-ONLY-001", "T71")}  # test_steady.py
    listed = {(c.id, cause) for c in clauses().values() if c.layer == "talos" for cause in c.causes}
    elsewhere |= {pair for pair in listed if pair[0].startswith("TALOS-IGPU-")}
    assert listed - elsewhere == {(ident, cause) for ident, cause, _ in RED}
