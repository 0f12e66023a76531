"""Targets of a forecast: `--to talos=1.13.9`, understood and held against what the data knows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from labproof.catalogue.upgrades import newest, numbers, pve_release
from labproof.catalogue.versions import newest_known, newest_patch, supported_kubernetes

COMPONENTS = ("pve", "kernel", "talos", "kubernetes", "kubelet", "plugin", "operator")
#: What people also type, and where its version really comes from.
_ELSEWHERE = {
    "driver": "the driver comes with the Talos image: --to talos=VERSION",
    "toolkit": "the container toolkit comes with the Talos image: --to talos=VERSION",
    "containerd": "containerd comes with the Talos image: --to talos=VERSION",
    "qemu": "QEMU comes with Proxmox VE: --to pve=VERSION",
    "flux": "the facts of a run do not hold your manifests: `labproof lint FILES` finds dropped API versions",
    "dra": "the facts of a run do not hold your manifests: `labproof lint FILES` finds dropped API versions",
}
_ALIASES = {"k8s": "kubernetes", "proxmox": "pve", "gpu-operator": "operator", "nvidia-device-plugin": "plugin"}


class BadTarget(ValueError):
    """What was asked for cannot be forecast; `str()` is one line for the person who typed it."""


@dataclass(frozen=True)
class Targets:
    """The versions to upgrade to, as the components write them.

    Attributes:
        talos: `v1.13.9`; kubernetes, kubelet: `v1.36.0`; plugin, operator: `0.19.0`.
        pve: release, `9.1`; kernel: `uname -r`, named or the release's default.
        notes: how a short version was understood.
    """

    talos: str | None = None
    kubernetes: str | None = None
    kubelet: str | None = None
    plugin: str | None = None
    operator: str | None = None
    pve: str | None = None
    kernel: str | None = None
    notes: tuple[str, ...] = ()


def parse_targets(words: Iterable[str]) -> Targets:
    """Read `component=version` words.

    Raises:
        BadTarget: unknown component or version, or one of them twice.
    """
    found: dict[str, str] = {}
    notes: list[str] = []
    for word in words:
        component, equals, version = word.partition("=")
        component, version = component.strip().lower(), version.strip()
        component = _ALIASES.get(component, component)
        if not equals or not version:
            raise BadTarget(f"--to wants COMPONENT=VERSION such as talos=1.13.9, not {word!r}")
        if component in _ELSEWHERE:
            raise BadTarget(f"--to {component}: {_ELSEWHERE[component]}")
        if component not in COMPONENTS:
            near = difflib.get_close_matches(component, COMPONENTS, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise BadTarget(f"--to {component}: unknown component; {hint}known: {', '.join(COMPONENTS)}")
        if component in found:
            raise BadTarget(f"--to {component} is given twice")
        found[component] = _READ[component](version, notes)
    if "pve" in found and "kernel" not in found:
        release = pve_release(found["pve"])
        assert release is not None
        found["kernel"] = release[1]
        notes.append(f"Proxmox VE {release[0]} boots kernel {release[1]} by default; name another with --to kernel=")
    return Targets(**found, notes=tuple(notes))


def _too_new(what: str, version: str, known: str) -> BadTarget:
    return BadTarget(f"{what} {version} is newer than the data, known up to {known}")


def _talos(version: str, notes: list[str]) -> str:
    given = re.fullmatch(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:-(?:alpha|beta|rc)\.\d+)?", version)
    if given is None:
        raise BadTarget(f"--to talos: {version!r} is no Talos version such as 1.13.9")
    major, minor = int(given[1]), int(given[2])
    known = "v" + ".".join(map(str, newest_known()))
    if (major, minor) > newest_known()[:2]:
        raise _too_new("Talos", version, known)
    tag = f"v{major}.{minor}.{given[3] or 0}"
    if supported_kubernetes(tag) is None:
        raise BadTarget(f"Talos {version} is older than the data")
    last = newest_patch(tag)
    if given[3] is None:
        if last is None:
            raise BadTarget(f"--to talos={version}: which patch? The data does not know the newest one of {version}")
        notes.append(f"Talos {major}.{minor} is taken as v{major}.{minor}.{last}, the newest patch known")
        return f"v{major}.{minor}.{last}"
    if last is not None and int(given[3]) > last:
        raise _too_new("Talos", version, f"v{major}.{minor}.{last} in this minor, {known} in all")
    return tag


def _kubernetes(version: str, _notes: list[str]) -> str:
    given = re.fullmatch(r"v?1\.(\d+)(?:\.(\d+))?", version)
    if given is None:
        raise BadTarget(f"--to kubernetes: {version!r} is no Kubernetes version such as 1.36")
    if int(given[1]) > numbers(newest("kubernetes"))[1]:
        raise _too_new("Kubernetes", version, newest("kubernetes"))
    return f"v1.{given[1]}.{given[2] or 0}"


def _pve(version: str, notes: list[str]) -> str:
    if not re.fullmatch(r"\d+(?:\.\d+){0,2}", version):
        raise BadTarget(f"--to pve: {version!r} is no Proxmox VE version such as 9 or 9.1")
    if numbers(version)[:2] > numbers(newest("pve")):
        raise _too_new("Proxmox VE", version, newest("pve"))
    found = pve_release(version)
    if found is None:
        raise BadTarget(f"Proxmox VE {version} is older than the data")
    if found[0] != version:
        notes.append(f"Proxmox VE {version} is taken as {found[0]}")
    return found[0]


def _kernel(version: str, _notes: list[str]) -> str:
    if not re.fullmatch(r"\d+\.\d+\.\d+-\d+(?:-bpo\d+)?-pve", version):
        raise BadTarget(f"--to kernel: {version!r} is no Proxmox kernel such as 6.8.12-30-pve (uname -r)")
    if numbers(version) > numbers(newest("kernel")):
        raise _too_new("kernel", version, newest("kernel"))
    return version


def _chart(component: str, version: str) -> str:
    if not re.fullmatch(r"v?\d+\.\d+\.\d+", version):
        raise BadTarget(f"--to {component}: {version!r} is no release such as {newest(component)}")
    if numbers(version) > numbers(newest(component)):
        raise _too_new(component, version, newest(component))
    return version.removeprefix("v")


_READ: Mapping[str, Callable[[str, list[str]], str]] = {
    "talos": _talos,
    "kubernetes": _kubernetes,
    "kubelet": _kubernetes,
    "pve": _pve,
    "kernel": _kernel,
    "plugin": lambda version, _: _chart("plugin", version),
    "operator": lambda version, _: _chart("operator", version),
}
