"""A node that stays up, and no driver that nobody declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from labproof.checks.judgement import Fail, Judgement, Pass, Unchecked
from labproof.facts.reading import failed
from labproof.facts.talos import MachineStage, Module, TalosFacts
from labproof.inventory.models import Lab

from .conftest import Judge, shown

RUNNING, BOOTING = MachineStage("running", True), MachineStage("booting", False, ("services",))


def told(judgement: Judgement) -> tuple[type, set[str]]:
    causes = {p.cause for p in judgement.problems} if isinstance(judgement, Fail) else set()
    return type(judgement), causes


@pytest.mark.parametrize(
    ("minutes", "stage", "kind"),
    [
        (73, shown(BOOTING), Pass),  # the boot limit is behind it
        (72, shown(RUNNING), Pass),
        (20, shown(RUNNING), Pass),  # young, and its boot sequence is done
        (20, shown(BOOTING), Fail),
        (20, shown(MachineStage("running", False, ("time",))), Fail),
        (20, failed("talosctl get machinestatus", "no right"), Unchecked),
    ],
)
def test_uptime_against_the_boot_limit(judge: Judge, facts: TalosFacts, minutes: int, stage: Any, kind: type) -> None:
    judgement = judge("TALOS-SOAK-001", boot_time=shown(facts.at - 60.0 * minutes), stage=stage)
    assert told(judgement) == (kind, {"T70"} if kind is Fail else set())


def test_uptime_that_cannot_be_read_is_unchecked(judge: Judge) -> None:
    assert isinstance(judge("TALOS-SOAK-001", boot_time=failed("systemstat", "timeout")), Unchecked)


@pytest.mark.parametrize(
    ("extra", "declared", "stray"),
    [
        ((), {}, False),
        (("nbd", "bochs", "nvidia_peermem", "simpledrm"), {}, False),  # NVIDIA's own come with its driver
        (("nouveau",), {}, True),
        (("xe",), {}, True),
        (("xe", "i915"), {"extensions": ("i915", "xe")}, False),
        (("i915",), {"extensions": ("i915-ucode",)}, False),  # the name before 1.10
        (("amdgpu",), {"modules": ("nvidia", "amdgpu")}, False),
    ],
)
def test_drivers_that_nobody_declared(
    judge: Judge, declare: Callable[..., Lab], facts: TalosFacts, extra: tuple[str, ...], declared: Any, stray: bool
) -> None:
    modules = (facts.modules.value or ()) + tuple(Module(name, "live") for name in extra)
    judgement = judge("TALOS-ONLY-001", declare(talos=declared), modules=shown(modules))
    assert told(judgement) == ((Fail, {"T71"}) if stray else (Pass, set()))


def test_before_1_9_every_kernel_had_i915(judge: Judge, facts: TalosFacts) -> None:
    assert facts.version.value is not None
    modules = shown((Module("i915", "live"),))
    old = shown(replace(facts.version.value, tag="v1.8.4"))
    assert isinstance(judge("TALOS-ONLY-001", modules=modules, version=old), Pass)
    assert isinstance(judge("TALOS-ONLY-001", modules=modules), Fail)
