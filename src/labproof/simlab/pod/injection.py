"""What is wrong with a node's container toolkit, apart from its handlers: things it leaves out, or shuts.

Inputs: `clusters.<name>.nodes.<node>.toolkit`, all keys optional:
    omits: [path or library name]      device nodes and libraries that do not arrive in containers
    denies: [path]                     device nodes that are there, but the device cgroup refuses them
    modes: {path: "0660"}              permission bits of device nodes inside containers
    breaks_programs: true              every program dies by SIGSEGV while its libraries are loaded
    refuses_env: true                  hardened: takes no device list from the environment of unprivileged containers
    hangs: true                        the runtime never comes back from starting a container
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from labproof.simlab.world.states import PodWorld


def limited(pod: PodWorld, toolkit: Mapping[str, Any] | None) -> PodWorld:
    """The container's world after a node's toolkit did it wrong; unchanged without such inputs.

    Args:
        pod: what a sound toolkit would have injected.
        toolkit: the inputs above.
    """
    if not toolkit:
        return pod
    omitted = set(toolkit.get("omits") or ())
    denied = set(toolkit.get("denies") or ())
    modes = {path: int(str(bits), 8) for path, bits in (toolkit.get("modes") or {}).items()}
    devices = {
        path: replace(node, mode=modes.get(path, node.mode))
        for path, node in pod.devices.items()
        if path not in omitted
    }
    broken = bool(toolkit.get("breaks_programs")) and bool(pod.libraries)
    return replace(
        pod,
        devices=devices,
        loader_broken=broken,
        allowed=frozenset(pod.allowed - omitted - denied),
        libraries=frozenset(pod.libraries - omitted),
        programs=frozenset(pod.programs - omitted),
    )
