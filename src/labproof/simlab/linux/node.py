"""A Linux node boots: its kernel's graphics driver takes the GPU, udev makes the nodes with the distribution's groups.

Inputs: `nodes.<name>` with os: linux, address, kernel, os_image, cmdline (kernel arguments), drivers: {i915: true},
missing_firmware: [files], pci: address -> {card}, groups: {render: gid, video: gid}.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace

from labproof.simlab.talos.igpu import Udev, boot_igpu, nodes_of
from labproof.simlab.talos.pci import guest_devices
from labproof.simlab.world.states import Card, Inputs, NodeState, VmState


def boot_node(
    name: str, node_inputs: Inputs, vm: VmState | None, cards: Mapping[str, Card], world_time: float = 0.0
) -> NodeState:
    """Boot one node; systemd's rules give render nodes to the group `render`, primary nodes to `video`, mode 0660."""
    now = world_time or time.time()
    booted_at = vm.started_at if vm is not None else now - float(node_inputs.get("uptime_s", 86400))
    functions = guest_devices(vm, node_inputs, cards)
    kernel = str(node_inputs["kernel"])
    words = str(node_inputs.get("cmdline", "quiet")).split()
    drivers = {str(k): bool(v) for k, v in (node_inputs.get("drivers") or {"i915": True}).items()}
    missing = frozenset(str(path) for path in node_inputs.get("missing_firmware") or ())
    graphics = boot_igpu(drivers, kernel, functions, words, {}, missing_firmware=missing)
    groups = node_inputs.get("groups") or {}
    nodes = tuple(
        replace(node, gid=int(groups.get("render" if "renderD" in node.path else "video", 0)))
        for node in nodes_of(graphics, Udev(0o660))
    )
    return NodeState(
        name=name,
        address=str(node_inputs["address"]),
        up=vm.running if vm is not None else not node_inputs.get("powered_off", False),
        os="linux",
        os_version=str(node_inputs.get("os_image", "Debian GNU/Linux 12 (bookworm)")),
        kernel=kernel,
        boot_id=str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name} {booted_at}")),
        booted_at=booted_at,
        stage="running",
        driver_version=None,
        driver_open=False,
        library_version=None,
        library_root="",
        modules=frozenset(module.name for module in graphics.modules),
        gpus=(),
        device_nodes=nodes,
        runtime_handlers=("runc",),
        default_runtime="runc",
        dmesg=tuple(record.text for record in graphics.log),
        pci=functions,
        drm=tuple(graphics.devices),
    )
