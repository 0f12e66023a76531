"""Further sides of the talos checks: refusals, silence, generations, declared ids, unreadable readings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from labproof.checks.judgement import Fail, Judgement, Pass, Unchecked
from labproof.checks.registry import clauses
from labproof.facts.reading import Reading, failed, value
from labproof.facts.talos import Extension, KernelLog, PciDevice, TalosFacts, TalosVersion
from labproof.inventory.models import Lab

Judge = Callable[..., Judgement]

KMOD, TOOLKIT = "nonfree-kmod-nvidia-production", "nvidia-container-toolkit-production"
OPEN = "nvidia-open-gpu-kernel-modules-production"
T4 = PciDevice("0000:0a:00.0", "10de:1eb8", "0302")
AUDIO = PciDevice("0000:0a:00.1", "10de:10f8", "0403")


def shown(what: Any) -> Reading[Any]:
    return value(what, "talosctl get something", 100.0)


def extensions(*pairs: tuple[str, str]) -> Reading[Any]:
    return shown(tuple(Extension(*pair) for pair in pairs))


def logged(*lines: str, from_boot: bool = True) -> Reading[Any]:
    return shown(KernelLog(lines, from_boot, 900))


def causes_of(judgement: Judgement) -> set[str]:
    return {p.cause for p in judgement.problems} if isinstance(judgement, Fail) else set()


@pytest.mark.parametrize(
    ("kind", "cause"), [("no request forwarding", "T51"), ("not authorized", "T52"), ("expired", "T54")]
)
def test_a_refusal_with_a_known_cause_is_a_finding(judge: Judge, kind: str, cause: str) -> None:
    judgement = judge("TALOS-API-001", reading=failed("talosctl version", "refused", kind))
    assert causes_of(judgement) == {cause}


@pytest.mark.parametrize("kind", ["timeout", "refused", "tls", "unavailable", "wrong node", "reset"])
def test_silence_is_unchecked_everywhere(judge: Judge, kind: str) -> None:
    reading = failed("talosctl version", "no answer", kind)
    for ident in (c for c in clauses() if c.startswith("TALOS-")):
        judgement = judge(ident, reading=reading)
        assert isinstance(judgement, Unchecked) and "no answer" in judgement.reason


@pytest.mark.parametrize(
    ("device", "kmod", "driver", "cause"),
    [
        ("10de:1eb8", KMOD, "570.172.08", None),
        ("10de:1eb8", OPEN, "570.172.08", None),
        ("10de:1b38", OPEN, "570.172.08", "T15"),
        ("10de:1b38", KMOD, "580.178.04", None),
        ("10de:1b38", KMOD, "595.91.07", "T16"),
        ("10de:1db4", KMOD, "595.91.07", "T16"),
        ("10de:13c2", OPEN, "535.247.01", "T15"),
        ("10de:2b85", KMOD, "570.172.08", "T17"),
        ("10de:2b85", OPEN, "570.172.08", None),
        ("10de:20b0", KMOD, "595.91.07", None),
    ],
)
def test_driver_and_generation(
    judge: Judge, declare: Callable[..., Lab], device: str, kmod: str, driver: str, cause: str | None
) -> None:
    changed = {"extensions": extensions((kmod, f"{driver}-v1.11.6"), (TOOLKIT, f"{driver}-v1.17.8"))}
    judgement = judge("TALOS-DRIVER-001", declare(gpu={"device": device}), **changed)
    assert causes_of(judgement) == ({cause} if cause else set())


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("installed in this system is not supported by open nvidia.ko because it does not include the GSP", "T15"),
        ("installed in this system is not supported by the NVIDIA 595.91.07 driver release.", "T16"),
    ],
)
def test_the_drivers_own_refusal_counts_for_chips_we_do_not_know(judge: Judge, line: str, cause: str) -> None:
    assert causes_of(judge("TALOS-DRIVER-001", kernel_log=logged(f"NVRM: {line}"))) == {cause}


def test_the_remedy_for_missing_modules_is_the_yaml_to_paste(judge: Judge) -> None:
    judgement = judge("TALOS-MODULE-001", module_specs=shown(("nbd",)))
    assert isinstance(judgement, Fail)
    remedy = judgement.problems[0].remedy
    assert "      - name: nvidia\n      - name: nvidia_uvm\n" in remedy and "moody-good" in remedy


def test_functions_of_the_slot_are_counted(judge: Judge, declare: Callable[..., Lab]) -> None:
    lab = declare(gpu={"functions": ["10de:10f8"]})
    assert causes_of(judge("TALOS-GUEST-002", lab)) == {"T85"}
    assert isinstance(judge("TALOS-GUEST-002", lab, pci=shown((T4, AUDIO))), Pass)


def test_declared_names_go_through_the_alias_map(judge: Judge, declare: Callable[..., Lab]) -> None:
    lab = declare(talos={"extensions": ["nonfree-kmod-nvidia", "nvidia-container-toolkit"]})
    installed = extensions(
        ("nonfree-kmod-nvidia-lts", "535.247.01-v1.11.6"), ("nvidia-container-toolkit-lts", "535.247.01-v1.17.8")
    )
    assert isinstance(judge("TALOS-EXT-004", lab, extensions=installed), Pass)


def test_a_declared_id_is_compared_as_it_is(judge: Judge, declare: Callable[..., Lab], facts: TalosFacts) -> None:
    running = facts.schematic.value
    assert running is not None
    assert isinstance(judge("TALOS-SCHEMATIC-001", declare(talos={"schematic": running.id})), Pass)
    other = declare(talos={"schematic": "cd" * 32, "extensions": []})
    assert causes_of(judge("TALOS-SCHEMATIC-001", other)) == {"T03"}


def test_an_unreadable_reading_is_never_taken_for_absence(judge: Judge) -> None:
    unread = failed("talosctl list /dev", "no answer within 20 s", "timeout")
    for ident, field in [
        ("TALOS-GUEST-001", "pci"),
        ("TALOS-EXT-001", "extensions"),
        ("TALOS-MODULE-001", "module_specs"),
        ("TALOS-MODULE-002", "modules"),
        ("TALOS-DEVICE-001", "drivers"),
        ("TALOS-DEVICE-002", "device_nodes"),
        ("TALOS-SERVICE-001", "services"),
        ("TALOS-STAGE-001", "stage"),
        ("TALOS-RUNTIME-001", "cri_parts"),
        ("TALOS-SYSCTL-001", "bpf_jit_harden"),
        ("TALOS-LOG-001", "kernel_log"),
        ("TALOS-SCHEMATIC-001", "schematic"),
    ]:
        assert isinstance(judge(ident, **{field: unread}), Unchecked), ident


def test_a_build_of_ones_own_is_unchecked_where_the_release_matters(judge: Judge) -> None:
    own = shown(TalosVersion("main-dirty", "abc", "metal"))
    for ident in ("TALOS-VERSION-001", "TALOS-EXT-003", "TALOS-SYSCTL-001"):
        judgement = judge(ident, version=own)
        assert isinstance(judgement, Unchecked) and "not a release" in judgement.reason


def test_the_upgrade_to_type_carries_the_id_of_the_declared_list(judge: Judge, facts: TalosFacts) -> None:
    judgement = judge("TALOS-EXT-001", extensions=extensions(("iscsi-tools", "v0.2.0")))
    assert isinstance(judgement, Fail) and facts.schematic.value is not None
    image = f"factory.talos.dev/metal-installer/{facts.schematic.value.id}:v1.11.6"
    assert f"talosctl upgrade -n moody-good --image {image}" in judgement.problems[0].remedy


@pytest.mark.parametrize(("second", "held"), [("nvidia", True), ("", False)])
def test_both_cards_of_a_node_are_looked_at(judge: Judge, declare: Callable[..., Lab], second: str, held: bool) -> None:
    cards = [{"name": f"t4-{n}", "device": "10de:1eb8"} for n in "ab"]
    vms = [{"name": "moody-good", "host": "pve5", "id": 1105, "gpus": ["t4-a", "t4-b"]}]
    lab = declare(gpus=cards, vms=vms)
    other = PciDevice("0000:0b:00.0", "10de:1eb8", "0302")
    drivers = ((T4.address, "nvidia"), *(((other.address, second),) if second else ()))
    assert isinstance(judge("TALOS-GUEST-001", lab, pci=shown((T4,))), Pass)
    assert causes_of(judge("TALOS-GUEST-001", lab, chain=1, pci=shown((T4,)))) == {"T56"}
    judgement = judge("TALOS-DEVICE-001", lab, pci=shown((T4, other)), drivers=shown(drivers))
    assert isinstance(judgement, Pass) is held
