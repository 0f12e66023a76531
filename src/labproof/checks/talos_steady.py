"""TALOS-ONLY, TALOS-SOAK: no GPU driver that nobody declared, and a node that has left its boot sequence."""

from __future__ import annotations

from collections.abc import Iterable

from labproof.catalogue.versions import parse_tag
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Unchecked
from labproof.checks.registry import DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.talos_view import listed, problem, seen, tag_of
from labproof.facts.reading import need

#: A boot sequence that is not done by 70 minutes ends in a reboot (facts talos 5, BootTimeout); measured 4206-4227 s.
LOOP_S = 72 * 60
#: GPU drivers by their first module; all modules of NVIDIA's own begin with `nvidia`.
_DRIVERS = ("nvidia", "nouveau", "nova_core", "i915", "xe", "amdgpu", "radeon")
#: Modules that were part of every Talos kernel before they became extensions.
_BUILT_IN_BEFORE_1_9 = ("i915", "amdgpu")


@clause_check(
    "TALOS-ONLY-001",
    title="No GPU driver is loaded that nobody declared",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T71",),
    after=("TALOS-API-001",),
)
def only_declared_drivers_are_loaded(subject: Subject) -> Judgement:
    """Two drivers for one card race at every boot (xe beside i915, nouveau beside nvidia); facts wild 4."""
    facts, talos = subject.talos_facts, subject.node.talos
    modules = need(facts.modules, "kernel modules of the node")
    loaded = _drivers(m.name for m in modules if m.state != "built-in")
    declared = _drivers([*(talos.modules if talos else ()), *_brought(talos.extensions if talos else ())])
    if parse_tag(tag_of(facts)) < (1, 9, 0):
        declared |= set(_BUILT_IN_BEFORE_1_9)
    evidence = seen(
        facts.modules, f"GPU drivers loaded: {listed(sorted(loaded))}; declared: {listed(sorted(declared))}"
    )
    strays = sorted(loaded - declared)
    if strays:
        return Fail((problem(subject, "T71", evidence, about=f"{subject.node.name} {', '.join(strays)}"),))
    return Pass((evidence,))


@clause_check(
    "TALOS-SOAK-001",
    title="The node is past the time at which an unfinished boot ends",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T70",),
    after=("TALOS-API-001", "TALOS-SERVICE-001", "TALOS-SERVICE-002", "TALOS-CDI-001"),
)
def node_is_past_the_boot_limit(subject: Subject) -> Judgement:
    """Told from the uptime, without waiting. A younger node is judged by its boot sequence: done, it cannot loop."""
    facts = subject.talos_facts
    up_s = facts.at - need(facts.boot_time, "boot time of the node")
    told = Evidence(facts.boot_time.source, f"up {up_s / 60:.0f} minutes; the limit is {LOOP_S // 60}")
    if up_s >= LOOP_S:
        return Pass((told,))
    stage = facts.stage.value
    if stage is None:
        return Unchecked(f"{told.text}, and whether the boot sequence is done cannot be read: {facts.stage.why}")
    state = seen(facts.stage, f"stage {stage.stage}, ready {stage.ready}; missing: {listed(stage.unmet)}")
    if stage.stage == "running" and stage.ready:
        return Pass((told, state))
    return Fail((problem(subject, "T70", told, state),))


def _drivers(names: Iterable[str]) -> set[str]:
    found = set()
    for name in names:
        driver = "nvidia" if name.startswith("nvidia") else name
        if driver in _DRIVERS:
            found.add(driver)
    return found


def _brought(extensions: Iterable[str]) -> list[str]:
    """Drivers whose extension is declared."""
    return [
        ("nvidia" if "nvidia" in name else name.removesuffix("-ucode").removesuffix("-firmware")) for name in extensions
    ]
