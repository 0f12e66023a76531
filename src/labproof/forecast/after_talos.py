"""One Talos node after its upgrade: the release's own drivers and toolkit, its command line, its services.

The schematic, the machine configuration and the card stay: an upgrade of Talos does not touch them (facts talos 5).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from labproof.catalogue.versions import (
    KMOD_FAMILIES,
    TOOLKIT_FAMILY,
    does,
    shipped_driver,
    shipped_toolkit,
)
from labproof.checks.talos_upgrade import extra_arguments
from labproof.facts.reading import Reading, State, failed, value
from labproof.facts.talos import Extension, Service, TalosFacts

_Value = TypeVar("_Value")
#: The extension that shares the toolkit's folder on 1.12, and the service of it that then loops.
CLASHING = ("nfs-utils", "ext-rpc-statd")


def talos_after(facts: TalosFacts, tag: str) -> TalosFacts:
    """What the node's API will answer once it runs release `tag`."""
    before = facts.version.value.tag if facts.version.value is not None else tag
    version = facts.version.value
    return replace(
        facts,
        version=_with(facts.version, replace(version, tag=tag) if version is not None else None),
        extensions=_with(facts.extensions, _extensions(facts, before, tag)),
        firmware=_firmware(facts, tag),
        services=_with(facts.services, _services(facts, before, tag)),
        cmdline=_cmdline(facts, before, tag),
        cdi_specs=_cdi_specs(facts, before, tag),
    )


def _with(reading: Reading[_Value], moved: _Value | None) -> Reading[_Value]:
    return reading if moved is None or reading.value is None else replace(reading, value=moved)


def branch_of(name: str) -> str:
    """`lts` or `production`; a name without a branch is built as lts (the factory's alias)."""
    return "production" if name.endswith("-production") else "lts"


def _extensions(facts: TalosFacts, before: str, tag: str) -> tuple[Extension, ...] | None:
    if facts.extensions.value is None:
        return None
    return tuple(replace(e, version=version_after(e, before, tag)) for e in facts.extensions.value)


def version_after(extension: Extension, before: str, tag: str) -> str:
    """The version text an extension of the schematic has in release `tag` (facts talos 2, version strings)."""
    driver = shipped_driver(tag, branch_of(extension.name))
    if driver is not None and extension.name.startswith(KMOD_FAMILIES):
        return f"{driver}-{tag}"
    if driver is not None and extension.name.startswith(TOOLKIT_FAMILY):
        return f"{driver}-{shipped_toolkit(tag)}"
    if driver is not None and extension.name.startswith("nvidia-fabricmanager"):
        return driver
    return extension.version.removesuffix(before) + tag if extension.version.endswith(before) else extension.version


def driver_after(facts: TalosFacts, tag: str) -> str | None:
    """Driver version of the node's NVIDIA kernel modules in release `tag`; None without any."""
    names = [e.name for e in facts.extensions.value or () if e.name.startswith(KMOD_FAMILIES)]
    return shipped_driver(tag, branch_of(names[0])) if names else None


def _firmware(facts: TalosFacts, tag: str) -> Reading[tuple[str, ...]]:
    driver = driver_after(facts, tag)
    return facts.firmware if driver is None or not facts.firmware.value else replace(facts.firmware, value=(driver,))


def _services(facts: TalosFacts, before: str, tag: str) -> tuple[Service, ...] | None:
    """nfs-utils beside the NVIDIA toolkit on 1.12: rpc-statd loops (facts wild T58)."""
    if facts.services.value is None:
        return None
    names = [e.name for e in facts.extensions.value or ()]
    clashes = CLASHING[0] in names and any(n.startswith(TOOLKIT_FAMILY) for n in names)
    if not clashes or does(before, "nfs_utils_clash") == does(tag, "nfs_utils_clash"):
        return facts.services.value
    if does(tag, "nfs_utils_clash"):
        told = ("Waiting", "restarts for ever: its libraries and the NVIDIA toolkit's lie in one folder")
    else:
        told = ("Running", "Started task")
    return tuple(replace(s, state=told[0], message=told[1]) if s.id == CLASHING[1] else s for s in facts.services.value)


def _cmdline(facts: TalosFacts, before: str, tag: str) -> Reading[str]:
    """From 1.13 on the upgrade writes a GRUB entry without the schematic's arguments (facts talos 5)."""
    wanted = extra_arguments(facts.schematic.value.text) if facts.schematic.value is not None else []
    if not wanted or facts.cmdline.value is None:
        return facts.cmdline
    if does(before, "grub_drops_arguments") or not does(tag, "grub_drops_arguments"):
        return facts.cmdline
    uki = facts.booted_with_uki
    if uki.state is not State.VALUE:
        return failed(uki.source, f"whether the node boots a unified kernel image is not known: {uki.why}", "foretold")
    if uki.value:
        return facts.cmdline
    left = " ".join(word for word in facts.cmdline.value.split() if word not in wanted)
    return replace(facts.cmdline, value=left)


def _cdi_specs(facts: TalosFacts, before: str, tag: str) -> Reading[tuple[str, ...]]:
    """From 1.13 on the toolkit extension writes /run/cdi/nvidia.yaml."""
    toolkit = any(e.name.startswith(TOOLKIT_FAMILY) for e in facts.extensions.value or ())
    if not toolkit or does(before, "cdi") or not does(tag, "cdi"):
        return facts.cdi_specs
    return value(("nvidia.yaml",), facts.cdi_specs.source)
