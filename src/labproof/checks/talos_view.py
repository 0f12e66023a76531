"""How the talos checks look at a node's facts: the names of the field, and evidence as it would be read by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from labproof.catalogue.versions import KMOD_FAMILIES, TOOLKIT_FAMILY, parse_tag
from labproof.checks.judgement import Evidence, Problem
from labproof.checks.subject import Subject
from labproof.facts.reading import Reading, Unjudged, failed, need
from labproof.facts.talos import Extension, PciDevice, TalosFacts

#: Without these no CUDA, NVENC or NVML call works; nvidia_drm and nvidia_modeset serve displays and DRM only.
CORE_MODULES = ("nvidia", "nvidia_uvm")


def tag_of(facts: TalosFacts) -> str:
    """The running release, `v1.11.6`.

    Raises:
        Unjudged: the version could not be read, or is none that can be compared (a build of one's own).
    """
    tag = need(facts.version, "Talos version").tag
    try:
        parse_tag(tag)
    except ValueError:
        why = f"{tag!r} is not a release of Talos"
        raise Unjudged(failed(facts.version.source, why, "protocol"), "Talos version") from None
    return tag


def kmods(extensions: Iterable[Extension]) -> tuple[Extension, ...]:
    """NVIDIA kernel module extensions, open or proprietary."""
    return tuple(e for e in extensions if e.name.startswith(KMOD_FAMILIES))


def toolkits(extensions: Iterable[Extension]) -> tuple[Extension, ...]:
    """NVIDIA container toolkit extensions."""
    return tuple(e for e in extensions if e.name.startswith(TOOLKIT_FAMILY))


def driver_of(extension: Extension) -> str:
    """Driver part of an extension's version: `570.172.08` of `570.172.08-v1.11.6`."""
    return extension.version.partition("-")[0]


def branch_of(extension: Extension) -> str:
    """`lts`, `production`, or empty before the branches were split (Talos 1.8)."""
    last = extension.name.rpartition("-")[2]
    return last if last in ("lts", "production") else ""


def displays(devices: Iterable[PciDevice]) -> tuple[PciDevice, ...]:
    """NVIDIA display controllers (class 03), whatever their model."""
    return tuple(d for d in devices if d.vendor_device.startswith("10de:") and d.class_code.startswith("03"))


def bound_to_nvidia(facts: TalosFacts) -> tuple[str, ...]:
    """Addresses of the functions that the nvidia driver holds.

    Raises:
        Unjudged: the drivers' folder could not be read.
    """
    return tuple(address for address, driver in need(facts.drivers, "PCI drivers of the node") if driver == "nvidia")


def log_lines(facts: TalosFacts, *texts: str) -> tuple[str, ...]:
    """Kernel log lines that hold any of these texts; empty when the log could not be read."""
    log = facts.kernel_log.value
    return tuple(line for line in log.lines if any(text in line for text in texts)) if log else ()


def log_evidence(facts: TalosFacts, lines: Sequence[str], limit: int = 3) -> tuple[Evidence, ...]:
    """Kernel log lines as evidence."""
    return tuple(Evidence(facts.kernel_log.source, line) for line in lines[:limit])


def seen(reading: Reading[Any], text: str) -> Evidence:
    """Evidence from one reading."""
    return Evidence(reading.source, text)


def problem(subject: Subject, cause: str, *evidence: Evidence, about: str = "", remedy: str = "") -> Problem:
    """A problem of this node, with the values the catalogue's remedies ask for."""
    node, chain = subject.node, subject.chain
    values = [("node", node.name), ("device", chain.gpu.device)]
    if chain.vm is not None:
        values.append(("vm", str(chain.vm.id or chain.vm.name)))
    if chain.host is not None:
        values.append(("host", chain.host.name))
    if chain.gpu.address is not None:
        values.append(("address", chain.gpu.address))
    if chain.cluster is not None:
        values.append(("resource", chain.cluster.plugin.resource_name))
    return Problem(cause, about or node.name, tuple(evidence), tuple(values), remedy)


def listed(names: Iterable[str]) -> str:
    """Names for a sentence, `none` when there are none."""
    return ", ".join(names) or "none"
