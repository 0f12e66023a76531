"""A Talos node boots: from image, machine configuration and the PCI functions it was given to everything visible.

Nothing here is set by a fault directly; a fault changes the image (`talos`), the configuration (`config`), a card or
the VM, and this derivation shows what follows.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from labproof.simlab.pod.chips import chips
from labproof.simlab.talos import containerd, driver, igpu, image, services
from labproof.simlab.talos.pci import driver_links, guest_devices, pci_rows
from labproof.simlab.talos.releases import Release, release
from labproof.simlab.talos.state import Extension, LogRecord, Module, TalosState
from labproof.simlab.world.states import Card, DeviceNode, GuestPci, Inputs, NodeGpu, NodeState, VmState

_KSPP = "init_on_alloc=1 slab_nomerge= pti=on consoleblank=0 nvme_core.io_timeout=4294967295 printk.devkmsg=on"
#: Modules of graphics extensions that load when the configuration asks for them, whether or not there is a chip.
_GRAPHICS = {"i915": 4366336, "xe": 3252224, "amdgpu": 12713984}
KERNEL_AFTER_START_S = 9.0  # firmware and boot loader of the VM


def boot_node(
    name: str, node_inputs: Inputs, vm: VmState | None, cards: Mapping[str, Card], world_time: float = 0.0
) -> NodeState:
    """Boot one node.

    Args:
        name: host name and Kubernetes node name.
        node_inputs: its entry in `nodes.yaml`.
        vm: the VM it runs in; None on bare metal, where `node_inputs["pci"]` says what is in the slots.
        cards: all cards, for bare metal.
        world_time: Unix seconds, for the start of a machine that no VM dates; 0: now.

    Returns:
        The node as it stands now; where something happened to its card or driver since the boot and the time of that
        is known, with the node of before.
    """
    now = world_time or time.time()
    state, lost_at = _boot(name, node_inputs, vm, cards, now)
    ago = node_inputs.get("runtime_ago_s")
    changed_at = now - float(ago) if ago is not None else lost_at
    if not changed_at:
        return state
    calm = {**node_inputs, "taken_at_runtime": {}, "unloaded_at_runtime": False}
    before, _ = _boot(name, calm, vm, cards, now, untouched=True)
    return replace(state, before=before, changed_at=changed_at)


def _boot(
    name: str,
    node_inputs: Inputs,
    vm: VmState | None,
    cards: Mapping[str, Card],
    now: float,
    *,
    untouched: bool = False,
) -> tuple[TalosState, float]:
    """The node, and when its card fell off the bus after the boot (Unix seconds, 0: never).

    `untouched` leaves out what happened to the card since the boot.
    """
    talos = node_inputs["talos"]
    config: Mapping[str, Any] = node_inputs.get("config") or {}
    ship = release(str(talos["version"]))
    powered_on = vm.started_at if vm else now - float(node_inputs.get("uptime_s", 86400))
    powered_on = max(powered_on, float(node_inputs.get("rebooted_at", 0)))
    booted_at = powered_on + KERNEL_AFTER_START_S
    extensions, schematic = image.installed(talos, ship)
    functions = guest_devices(vm, node_inputs, cards)
    wanted = {key: what or [] for key, what in (config.get("modules") or {}).items() if what is not False}
    rebound: Mapping[str, str] = _rebinding(config.get("pci_driver_rebind") or {}, functions)
    missing = frozenset(path for path, gone in (talos.get("missing_files") or {}).items() if gone)
    taken: Mapping[str, str] = _rebinding(node_inputs.get("taken_at_runtime") or {}, functions)
    boot = driver.boot_driver(extensions, ship, wanted, functions, rebound, missing)
    if not untouched:
        driver.add_incidents(boot)
        if node_inputs.get("unloaded_at_runtime"):
            driver.unload(boot)
    boot.ready = [f for f in boot.ready if f.address not in taken]
    toolkit = image.toolkit(extensions)
    runtime = containerd.configure(ship, toolkit, config.get("files") or {}, missing)
    loaded = _modules(boot, wanted, ship, extensions)
    drm = any(m.name == "nvidia_drm" for m in loaded) and "modeset=0" not in (wanted.get("nvidia_drm") or ())
    graphics = _graphics(ship, extensions, node_inputs, functions, {**rebound, **taken}, missing)
    loaded = (*loaded, *graphics.modules)
    nodes = _device_nodes(boot, {m.name for m in loaded}, toolkit, drm=drm, before=len(graphics.devices))
    nodes = (*nodes, *igpu.nodes_of(graphics, igpu.udev_of(config.get("udev_dri"))))
    role = str(node_inputs.get("role", "worker"))
    found = services.services(extensions, ship, role, _run_time_paths(boot, vm, nodes), missing)
    unsettled = [s for s in found if not s.settled]
    sysctls = {"net.core.bpf_jit_harden": "2", **{k: str(v) for k, v in (config.get("sysctls") or {}).items()}}
    log = sorted(
        [*_boot_log(ship, extensions, vm, functions), *graphics.log, *boot.log, *services.boot_messages(found)],
        key=lambda record: record.offset_s,
    )
    held = [f for f in boot.bound + boot.lost if f.address not in taken]
    up = vm.running if vm else not node_inputs.get("powered_off", False)
    rebooting = time.time() < float(node_inputs.get("away_until", 0))
    up = up and not rebooting
    cdi_spec = any(s.id == services.CDI_GEN and s.state == "Finished" for s in found)
    lost_at = max((booted_at + driver.lost_after(f) for f in boot.lost), default=0.0)
    state = TalosState(
        name=name,
        address=str(node_inputs["address"]),
        up=up,
        os="talos",
        os_version=ship.tag,
        kernel=ship.kernel,
        boot_id=str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name} {booted_at}")),
        booted_at=booted_at,
        stage="booting" if unsettled else "running",
        driver_version=boot.version,
        driver_open=boot.open_flavour,
        library_version=image.driver_of(toolkit) if toolkit else None,
        library_root=ship.library_root,
        modules=frozenset(m.name for m in loaded),
        gpus=_gpus(boot),
        device_nodes=nodes,
        runtime_handlers=tuple(h for h in runtime.handlers),
        default_runtime=runtime.default,
        broken_handlers=runtime.broken,
        cdi_enabled=ship.cdi,
        cdi_spec=cdi_spec,
        nri_enabled=ship.nri,
        extensions=tuple((e.name, e.version) for e in extensions if e.name not in ("schematic", "modules.dep")),
        schematic=schematic,
        node_labels=tuple((str(k), str(v)) for k, v in (config.get("node_labels") or {}).items()),
        node_taints=tuple((str(k), str(v)) for k, v in (config.get("node_taints") or {}).items()),
        bpf_jit_harden=int(sysctls["net.core.bpf_jit_harden"]),
        dmesg=tuple(record.text for record in log),
        pci=functions,
        toolkit=toolkit.version.rpartition("-")[2] if toolkit else None,
        containers_start=runtime.starts_pods,
        role=role,
        cluster=str(node_inputs.get("cluster", "")),
        platform=str(talos.get("platform", "metal")),
        installed=extensions,
        module_specs=tuple((module, tuple(str(p) for p in parameters)) for module, parameters in wanted.items()),
        loaded=loaded,
        drm=tuple(graphics.devices),
        every_container=tuple(str(path) for path in node_inputs.get("base_spec_devices") or ()),
        pci_rows=pci_rows(vm, functions, graphics.bound),
        bound=driver_links(vm, held, {**rebound, **taken, **graphics.bound}, nvidia_loaded=bool(boot.version)),
        rebound=rebound,
        services=found,
        log=tuple(log),
        log_rotated=bool(node_inputs.get("kernel_log_rotated", False)),
        cri_parts=runtime.parts,
        cmdline=_cmdline(ship, talos),
        machine_config=_machine_config(name, node_inputs, ship),
        rebooting=rebooting,
        staged_config=node_inputs.get("staged_config"),
        uki=bool(talos.get("uki", True)),
        boot_mib=int(talos.get("boot_mib", 2048)),
        missing_files=missing,
        firmware=image.driver_of(image.kmods(extensions)[-1]) if image.kmods(extensions) else None,
        never_boots=bool(unsettled),
        unmet=(
            *(("services", f"service {s.id} is not up: {s.message}") for s in unsettled),
            *((("time", "time is not in sync"),) if config.get("time_sync") is False else ()),
        ),
        sysctls=sysctls,
    )
    return state, lost_at


def _rebinding(asked: Mapping[str, Any], functions: tuple[GuestPci, ...]) -> dict[str, str]:
    """By address, which driver takes a function that is named by `vendor:device`."""
    return {f.address: str(asked[f.vendor_device]) for f in functions if f.vendor_device in asked}


def _gpus(boot: driver.DriverBoot) -> tuple[NodeGpu, ...]:
    """GPUs that answer; index by PCI address, as the driver numbers them."""
    ready = sorted((f for f in boot.ready if f.card is not None), key=lambda f: f.address)
    return tuple(
        NodeGpu(f.card, f.address, str(f.card.inputs["uuid"]), number) for number, f in enumerate(ready) if f.card
    )


def _modules(
    boot: driver.DriverBoot, wanted: Mapping[str, Any], ship: Release, extensions: tuple[Extension, ...]
) -> tuple[Module, ...]:
    base = [Module("virtio_net", 118784), Module("virtio_scsi", 28672), Module("bochs", 20480)]
    stock = {"nbd": 61440, "br_netfilter": 40960, "overlay": 221184}
    base += [Module(name, stock[name]) for name in wanted if name in stock]
    installed = {e.name for e in extensions}
    base += [Module(name, size) for name, size in _GRAPHICS.items() if name in wanted and name in installed]
    if any(e.name == "iscsi-tools" for e in extensions):
        base.append(Module("iscsi_tcp", 32768))
    return (*base, *boot.modules)


def _graphics(
    ship: Release,
    extensions: tuple[Extension, ...],
    node_inputs: Inputs,
    functions: tuple[GuestPci, ...],
    rebound: Mapping[str, str],
    missing: frozenset[str],
) -> igpu.IgpuBoot:
    """Intel graphics: from 1.9 on modules and firmware come with the extensions alone (facts/talos.md 2)."""
    installed = {e.name for e in extensions}
    inside = ship.minor < (1, 9)
    drivers = {"i915": inside or "i915" in installed, "xe": "xe" in installed}
    absent = {path.removeprefix("/usr/lib/firmware/") for path in missing}
    if not drivers["i915"] or (inside and "i915" not in installed):
        # display firmware lies in the i915 package, and xe needs it too (E#1121)
        absent |= {f"i915/{chip.firmware}_{part}.bin" for chip in chips().values() for part in ("dmc", "huc", "guc_70")}
    return igpu.boot_igpu(
        drivers, ship.kernel, functions, _cmdline(ship, node_inputs["talos"]).split(), rebound,
        warm=node_inputs.get("last_reboot") == "kexec", first_card=1, missing_firmware=frozenset(absent),
    )  # fmt: skip


def _device_nodes(
    boot: driver.DriverBoot, modules: set[str], toolkit: Extension | None, *, drm: bool, before: int = 0
) -> tuple[DeviceNode, ...]:
    """Nodes that udev makes: the kmod extension's rule runs `nvidia-modprobe -c 0` and, for nvidia_uvm, `-c 0 -u`.

    Without the toolkit extension there is no nvidia-modprobe, so only the kernel's own DRM nodes appear.
    """
    nodes = [DeviceNode("/dev/dri/card0", 0o666, major=226, minor=0)]
    alive = sorted(boot.ready + boot.lost, key=lambda f: f.address)
    if boot.version and toolkit is not None:
        nodes.append(DeviceNode("/dev/nvidiactl", 0o666, major=195, minor=255))
        nodes += [DeviceNode(f"/dev/nvidia{n}", 0o666, major=195, minor=n) for n, _ in enumerate(alive)]
        if "nvidia_modeset" in modules:
            nodes.append(DeviceNode("/dev/nvidia-modeset", 0o666, major=195, minor=254))
        if "nvidia_uvm" in modules:
            nodes.append(DeviceNode("/dev/nvidia-uvm", 0o666, major=234, minor=0))
            nodes.append(DeviceNode("/dev/nvidia-uvm-tools", 0o666, major=234, minor=1))
    if drm:
        for number, _ in enumerate(alive):
            minor = number + before
            nodes.append(DeviceNode(f"/dev/dri/card{minor + 1}", 0o666, major=226, minor=minor + 1))
            nodes.append(DeviceNode(f"/dev/dri/renderD{128 + minor}", 0o666, major=226, minor=128 + minor))
    return tuple(nodes)


def _run_time_paths(boot: driver.DriverBoot, vm: VmState | None, nodes: tuple[DeviceNode, ...]) -> frozenset[str]:
    paths = {node.path for node in nodes}
    if boot.version:
        paths.add("/sys/bus/pci/drivers/nvidia")
    if vm is not None and vm.agent:
        paths.add("/dev/virtio-ports/org.qemu.guest_agent.0")
    return frozenset(paths)


def _cmdline(ship: Release, talos: Mapping[str, Any]) -> str:
    args = [f"talos.platform={talos.get('platform', 'metal')}", "console=ttyS0", _KSPP]
    if ship.module_signatures:
        args.append("module.sig_enforce=1")
    if ship.minor >= (1, 13) and not talos.get("uki", True):
        return " ".join(args)  # GRUB: the upgrade API writes the entry without the schematic's arguments
    return " ".join([*args, *(str(arg) for arg in talos.get("kernel_args") or ())])


def _boot_log(
    ship: Release, extensions: tuple[Extension, ...], vm: VmState | None, functions: tuple[GuestPci, ...]
) -> list[LogRecord]:
    build = "(@buildkitsandbox) (gcc (GCC) 14.2.0, GNU ld (GNU Binutils) 2.44) #1 SMP"
    records = [
        LogRecord(0.0, f"Linux version {ship.kernel} {build}", priority="notice"),
        LogRecord(0.001, "Command line: talos.platform=metal console=ttyS0"),
    ]
    if vm is not None:
        model = "Standard PC (Q35 + ICH9, 2009)" if "q35" in vm.machine else "Standard PC (i440FX + PIIX, 1996)"
        records.append(LogRecord(0.002, f"DMI: QEMU {model}, BIOS 4.2025.02-4 09/16/2025"))
    for function in functions:
        kind = function.pci_class.removeprefix("0x")
        ids = function.vendor_device.replace(":", ":")
        text = f"pci {function.address}: [{ids}] type 00 class 0x{kind} PCIe Endpoint"
        records.append(LogRecord(0.6, text, trailer=(" SUBSYSTEM=pci", f" DEVICE=+pci:{function.address}")))
    for extension in extensions:
        if extension.name not in ("schematic", "modules.dep"):
            text = f"[talos] [initramfs] enabling system extension {extension.name} {extension.version}"
            records.append(LogRecord(3.0, text, facility="user", priority="warning"))
    return records


def _machine_config(name: str, node_inputs: Inputs, ship: Release) -> str:
    """The machine configuration as `MachineConfigs` holds it: one document, or more from 1.14."""
    config = node_inputs.get("config") or {}
    if config.get("text") is not None:  # as it was applied, byte for byte
        return str(config["text"])
    modules = [{"name": m, **({"parameters": p} if p else {})} for m, p in (config.get("modules") or {}).items()]
    machine = {
        "type": node_inputs.get("role", "worker"),
        "token": "abcdef.0123456789abcdef",
        "install": {"disk": "/dev/sda", "image": config.get("install_image", ""), "wipe": False},
        "kubelet": {"image": f"ghcr.io/siderolabs/kubelet:{node_inputs.get('kubelet', 'v1.34.3')}"},
        "network": {"hostname": name},
        "nodeLabels": dict(config.get("node_labels") or {}),
        "sysctls": dict(config.get("sysctls") or {}),
        "files": [
            {"op": "create", "path": path, "permissions": 0o644, "content": content}
            for path, content in (config.get("files") or {}).items()
        ],
        "kernel": {"modules": modules},
    }
    documents: list[dict[str, Any]] = [{"version": "v1alpha1", "debug": False, "persist": True, "machine": machine}]
    for device, wanted in (config.get("pci_driver_rebind") or {}).items():
        documents.append(
            {"apiVersion": "v1alpha1", "kind": "PCIDriverRebindConfig", "name": device, "targetDriver": wanted}
        )
    return yaml.safe_dump_all(documents, sort_keys=False)
