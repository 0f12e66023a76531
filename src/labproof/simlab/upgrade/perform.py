"""Perform an upgrade on the inputs of a simulated lab: versions only, the owner's configuration unchanged.

An upgrade that its own tool refuses (an image that cannot be built or pulled) leaves the machine where it was, as in
the field: nothing here says that it failed, the version that runs does.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from labproof.simlab.talos import image
from labproof.simlab.talos.releases import release

Inputs = dict[str, Any]


@cache
def _table() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "releases.yaml").read_text(encoding="utf-8"))
    return read


def upgraded(inputs: Mapping[str, Any], to: Mapping[str, str]) -> Inputs:
    """The inputs after upgrading each component, in the order given.

    Args:
        inputs: the world's inputs; not changed.
        to: component (pve, kernel, talos, kubernetes, plugin, operator) -> version, with or without a leading `v`.

    Raises:
        KeyError: no such component.
        ValueError: the simulator knows no such release.
    """
    moved: Inputs = copy.deepcopy(dict(inputs))
    for component, version in to.items():
        _PERFORM[component](moved, version.removeprefix("v"))
    return moved


def _pve(inputs: Inputs, version: str) -> None:
    rows = [key for key in _table()["pve"] if key == version or key.startswith(f"{version}.")]
    if not rows:
        raise ValueError(f"no PVE release {version!r} in the upgrade table")
    newest = max(rows, key=_numbers)
    row = _table()["pve"][newest]
    for host in inputs["hosts"].values():
        if host.get("kind", "proxmox") == "proxmox":
            host["pve"] |= {"version": row["version"], "release": newest, "machine": row["machine"]}
            host["pve"] |= {"qemu": row["qemu"], "qemu_server": row["qemu_server"]}
            _install_kernel(host, row["kernel"])


def _kernel(inputs: Inputs, version: str) -> None:
    for host in inputs["hosts"].values():
        _install_kernel(host, version)


def _install_kernel(host: Inputs, build: str) -> None:
    """The newest kernel is booted, unless the owner pinned another one."""
    kernel = host["kernel"]
    kernel["installed"] = list(dict.fromkeys([build, *kernel.get("installed", [kernel["version"]])]))
    if not kernel.get("pinned"):
        kernel["version"] = build


def _talos(inputs: Inputs, version: str) -> None:
    tag = f"v{version}"
    release(tag)  # a release nobody knows is refused before any node is touched
    for node in inputs["nodes"].values():
        if node.get("os", "talos") == "talos" and _can_be_installed(node["talos"], tag):
            node["talos"]["version"] = tag


def _can_be_installed(talos: Mapping[str, Any], tag: str) -> bool:
    """Whether there is an installer image of this kind for the release: built by the factory, or published."""
    target = release(tag)
    if talos.get("kind", "factory") == "plain":
        return target.minor < tuple(_table()["plain_installer_until"])
    try:
        found, _ = image.installed(talos, target)
    except ValueError:  # the factory's answer to a name that the release does not have
        return False
    sizes = _table()["image_mib"]
    needed = sizes["base"] + (sizes["nvidia"] if image.kmods(found) else 0)
    return bool(2 * needed <= int(talos.get("boot_mib", 2048)))


def _kubernetes(inputs: Inputs, version: str) -> None:
    """Control plane and the kubelets that follow it; one that is held at a release of its own stays there."""
    for cluster in inputs["clusters"].values():
        cluster["version"] = f"v{version}"
    for name, node in inputs["nodes"].items():
        nodes = inputs["clusters"][node["cluster"]].get("nodes") or {} if node.get("cluster") else {}
        if not (nodes.get(name) or {}).get("kubelet_version"):
            node["kubelet"] = f"v{version}"


def _plugin(inputs: Inputs, version: str) -> None:
    minor = ".".join(version.split(".")[:2])
    for cluster in inputs["clusters"].values():
        plugin = cluster.get("plugin") or {}
        if plugin.get("flavour") == "nvidia-device-plugin":
            plugin["version"] = version
            plugin["nfd_version"] = _table()["plugin_nfd"].get(minor, plugin.get("nfd_version"))


def _operator(inputs: Inputs, version: str) -> None:
    for cluster in inputs["clusters"].values():
        plugin = cluster.get("plugin") or {}
        if plugin.get("flavour") == "gpu-operator":
            plugin["version"] = f"v{version}"
            images = cluster.setdefault("images", {})
            images.setdefault(f"nvcr.io/nvidia/gpu-operator:v{version}", {"size_bytes": 123207680})


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


_PERFORM: Mapping[str, Callable[[Inputs, str], None]] = {
    "pve": _pve, "kernel": _kernel, "talos": _talos, "kubernetes": _kubernetes, "plugin": _plugin,
    "operator": _operator,
}  # fmt: skip
