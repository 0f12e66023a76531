"""The Talos half of `--bare`: the nodes of VMs with a card run an image and a configuration without a word of GPUs.

What else the owner's image and configuration hold (storage and guest agent extensions, labels, other modules) stays.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

_EXTENSION = re.compile(r"nvidia|^i915$|^xe$|^mei$|^amdgpu$")
_CUSTOMIZATION = "/etc/cri/conf.d/20-customization.part"


def bare_node(node: dict[str, Any]) -> None:
    """Take the GPU out of one node's image and configuration. Changes it."""
    talos, config = node.get("talos"), node.get("config")
    if node.get("os", "talos") != "talos" or not talos or config is None:
        return
    talos["extensions"] = [name for name in talos.get("extensions") or () if not _EXTENSION.search(name)]
    talos["missing_files"], talos["builds"] = {}, {}
    config["modules"] = {k: v for k, v in (config.get("modules") or {}).items() if not k.startswith("nvidia")}
    config["sysctls"] = {k: v for k, v in (config.get("sysctls") or {}).items() if k != "net.core.bpf_jit_harden"}
    config["files"] = {k: v for k, v in (config.get("files") or {}).items() if k != _CUSTOMIZATION}
    if talos.get("kind", "factory") == "factory":
        ident = hashlib.sha256(_canonical(talos).encode()).hexdigest()
        config["install_image"] = f"factory.talos.dev/{talos['platform']}-installer/{ident}:{talos['version']}"


def _canonical(talos: dict[str, Any]) -> str:
    """The schematic as the factory hashes it (facts talos 1)."""
    arguments, names = talos.get("kernel_args") or (), talos["extensions"]
    lines = ["    extraKernelArgs:", *(f"        - {arg}" for arg in arguments)] if arguments else []
    if names:
        lines += ["    systemExtensions:", "        officialExtensions:"]
        lines += [f"            - siderolabs/{name}" for name in names]
    return "customization:\n" + "\n".join(lines) + "\n" if lines else "customization: {}\n"
