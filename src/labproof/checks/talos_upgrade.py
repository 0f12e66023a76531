"""What the next boot will run: the installer image of the configuration, and the schematic's kernel arguments."""

from __future__ import annotations

import re

from labproof.catalogue.upgrades import nvidia_image_mib
from labproof.catalogue.versions import does
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, verdict_of
from labproof.checks.registry import DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.talos_view import kmods, listed, problem, seen, tag_of
from labproof.facts.reading import State, need
from labproof.facts.talos import TalosFacts

_FACTORY_IMAGE = re.compile(
    r"[^/]+/(?:[a-z0-9-]+-)?installer(?:-secureboot)?/(?P<id>[0-9a-f]{64}):(?P<tag>v\d+\.\d+\.\d+(?:-(?:alpha|beta|rc)\.\d+)?)"
)
_PLAIN_IMAGE = re.compile(r"(?:ghcr\.io/)?siderolabs/installer:(?P<tag>v[0-9].*)")
_ARGUMENT = "        - "


@clause_check(
    "TALOS-IMAGE-001",
    title="The configured installer image is the one that runs",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T03", "T45"),
    needs_right="os:admin",
    after=("TALOS-EXT-001", "TALOS-SCHEMATIC-001"),
)
def installer_image_is_what_runs(subject: Subject) -> Judgement:
    """machine.install.image acts at the first install only; tools that upgrade by it bring back what it names."""
    facts = subject.talos_facts
    image = need(facts.install_image, "machine.install.image")
    running = facts.schematic.value
    tag = tag_of(facts)
    evidence = (
        seen(facts.install_image, image),
        seen(facts.schematic, f"runs {running.id if running else 'no factory image'} on {tag}"),
    )
    plain = _PLAIN_IMAGE.fullmatch(image)
    if plain is not None:
        if not does(plain["tag"], "plain_installer"):
            return Fail((problem(subject, "T45", *evidence),))
        return Pass(evidence) if running is None else Fail((problem(subject, "T03", *evidence),))
    factory = _FACTORY_IMAGE.fullmatch(image)
    if factory is None:  # a registry of the owner's own: nothing to compare with
        return Pass((*evidence, Evidence(facts.install_image.source, "not a factory image, not compared")))
    same = running is not None and factory["id"] == running.id and factory["tag"] == tag
    return Pass(evidence) if same else Fail((problem(subject, "T03", *evidence),))


@clause_check(
    "TALOS-CMDLINE-001",
    title="The schematic's kernel arguments are live",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T48",),
    after=("TALOS-EXT-001", "TALOS-SCHEMATIC-001"),
)
def schematic_arguments_are_live(subject: Subject) -> Judgement:
    """An upgrade by the 1.13 API drops extra arguments on GRUB nodes without an error (facts talos 5)."""
    facts = subject.talos_facts
    schematic = facts.schematic.value
    wanted = extra_arguments(schematic.text) if schematic else []
    if not wanted:
        return Pass((seen(facts.schematic, "the schematic sets no kernel arguments"),))
    if facts.cmdline.state is State.UNSUPPORTED:
        return Pass((seen(facts.cmdline, f"{tag_of(facts)} does not show its command line"),))
    live = need(facts.cmdline, "kernel command line").split()
    lost = [argument for argument in wanted if not argument.startswith("-") and argument not in live]
    evidence = seen(facts.cmdline, " ".join(live))
    told = seen(facts.schematic, f"extraKernelArgs: {listed(wanted)}; not live: {listed(lost)}")
    return verdict_of([problem(subject, "T48", told, evidence)] if lost else [], (evidence,))


@clause_check(
    "TALOS-BOOT-001",
    title="The boot partition holds two images",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T44", "T64"),
    wants=("nvidia",),
    after=("TALOS-EXT-001",),
)
def boot_partition_holds_two_images(subject: Subject) -> Judgement:
    """An upgrade writes the new image beside the running one; without the room it fails and the old one stays."""
    reading = subject.talos_facts.boot_partition
    if reading.state in (State.UNSUPPORTED, State.ABSENT):
        return Pass((seen(reading, reading.why),))
    partition = need(reading, "boot partition of the node")
    shown = seen(reading, f"{partition.label}: {partition.size_mib} MiB")
    lack = no_room_for_another_image(subject.talos_facts)
    if lack is None:
        return Pass((shown,))
    wanted = Evidence("catalogue", f"two images with NVIDIA's driver take more than {2 * nvidia_image_mib() - 1} MiB")
    return Fail((problem(subject, lack, shown, wanted),))


def no_room_for_another_image(facts: TalosFacts) -> str | None:
    """The cause of an upgrade that will not fit: T44 with GRUB, T64 with systemd-boot; None when it fits."""
    partition = facts.boot_partition.value
    if partition is None or not kmods(facts.extensions.value or ()):
        return None
    if partition.size_mib >= 2 * nvidia_image_mib():
        return None
    return "T44" if partition.label == "BOOT" else "T64"


def extra_arguments(text: str) -> list[str]:
    """`extraKernelArgs` of a canonical schematic."""
    found, inside = [], False
    for line in text.splitlines():
        if inside and line.startswith(_ARGUMENT):
            found.append(line.removeprefix(_ARGUMENT).strip("\"'"))
        else:
            inside = line == "    extraKernelArgs:"
    return found
