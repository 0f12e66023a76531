"""Starting a VM: what PVE checks in which order, what QEMU then meets, and the text of every refusal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from labproof.simlab.host.machine import Host, Qemu, framebuffer_overlap
from labproof.simlab.host.sysfs import hugepages_reserved
from labproof.simlab.pve.hostpci import Passthrough, Refused, parse_all, properties
from labproof.simlab.pve.tasks import Task

if TYPE_CHECKING:
    from labproof.simlab.pve.node import PveNode

GPU_CLASSES = ("0x0300", "0x0302", "0x0380")


class QemuFailed(Refused):
    """QEMU ended; its own words are in the task log only."""


def memory_mib(config: Mapping[str, Any]) -> int:
    """`memory` of a VM configuration in MiB; PVE's default is 512."""
    return int(properties(str(config.get("memory", 512)), "current")["current"])


def is_q35(config: Mapping[str, Any]) -> bool:
    """Whether the machine type is q35 (also pc-q35-9.0, `q35,viommu=...`)."""
    return re.match(r"^(pc-)?q35", str(config.get("machine", ""))) is not None


def start_timeout_s(config: Mapping[str, Any]) -> int:
    """`config_aware_timeout` of PVE::QemuServer::Helpers (facts proxmox 3.2)."""
    memory = memory_mib(config)
    timeout = memory // 1024 if memory > 30720 else 30
    if any(key.startswith("hostpci") for key in config):
        timeout *= 4
    if config.get("hugepages"):
        timeout = max(timeout, 150)
    return timeout + 5 * sum(re.fullmatch(r"net\d+", key) is not None for key in config)


def machine_type(host: Host, config: Mapping[str, Any]) -> str:
    """running-machine of a VM started now, e.g. pc-q35-9.2+pve1."""
    newest = str(host.inputs["pve"].get("machine", "pc-q35-9.2+pve1"))
    wanted = str(config.get("machine", "")).split(",", maxsplit=1)[0]
    if re.match(r"^pc-(q35|i440fx)-\d", wanted):
        return wanted
    return newest if is_q35(config) else newest.replace("q35", "i440fx")


def start(node: PveNode, vmid: int, task: Task, at: float) -> Qemu:
    """Start a VM as `qm start` does.

    Args:
        node: the PVE node.
        vmid: the VM.
        task: the worker, for its log.
        at: when the worker started (Unix seconds).

    Raises:
        Refused: with the text that ends the task.
    """
    host, config = node.host, node.effective_config(vmid)
    if "lock" in config:
        raise Refused(f"VM is locked ({config['lock']})")
    if vmid in host.qemus:
        raise Refused(f"VM {vmid} already running")
    entries = parse_all(host, config, node.mappings)
    _check_machine(config, entries)
    chosen = _reserve(host, vmid, entries)
    for address in (a for addresses in chosen.values() for a in addresses):
        _prepare(host, address, task)
    argv = _command_line(node, vmid, config, entries, chosen)
    seconds = _run_qemu(host, config, argv, chosen, task)
    if seconds > start_timeout_s(config):
        raise Refused(f"start failed: command '{' '.join(argv[:3])} ...' failed: got timeout")
    devices = tuple((key, address) for key, addresses in chosen.items() for address in addresses)
    return Qemu(
        vmid, node.next_pid(), at + seconds, tuple(argv), {k: str(v) for k, v in config.items()}, devices,
        machine_type(host, config), memory_mib(config),
    )  # fmt: skip


def _check_machine(config: Mapping[str, Any], entries: list[Passthrough]) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.pcie and not is_q35(config):
            raise Refused("q35 machine model is not enabled at /usr/share/perl5/PVE/QemuServer/PCI.pm line 519.")
        if entry.options.get("legacy-igd") == "1":
            _check_legacy_igd(config, entry)
        for address in (a for alternative in entry.alternatives[:1] for a in alternative):
            if address in seen and len(entry.alternatives) == 1:
                raise Refused(f"device '{address}' assigned more than once")
            seen.add(address)


def _check_legacy_igd(config: Mapping[str, Any], entry: Passthrough) -> None:
    if str(config.get("vga", "std")).split(",", maxsplit=1)[0] != "none":
        raise Refused("legacy IGD assignment requires VGA mode to be 'none'")
    if is_q35(config):
        raise Refused("legacy IGD assignment is not compatible with q35")
    if entry.options.get("x-vga") == "1":
        raise Refused("legacy IGD assignment is not compatible with x-vga")
    if not entry.alternatives[0][0].endswith("00:02.0"):
        raise Refused("legacy IGD assignment only works for devices on host bus 00:02.0")


def _reserve(host: Host, vmid: int, entries: list[Passthrough]) -> dict[str, tuple[str, ...]]:
    owners = {address: q.vmid for q in host.qemus.values() for _, address in q.devices if q.vmid != vmid}
    chosen: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        taken = {a for addresses in chosen.values() for a in addresses}
        free = [alt for alt in entry.alternatives if not taken.intersection(alt) and not owners.keys() & set(alt)]
        if free:
            chosen[entry.key] = free[0]
        elif len(entry.alternatives) > 1:
            raise Refused(f"could not find a free device for '{entry.key}'")
        else:
            held = next(a for a in entry.alternatives[0] if a in owners or a in taken)
            raise Refused(f"PCI device '{held}' already in use by VMID '{owners.get(held, vmid)}'")
    return chosen


def _prepare(host: Host, address: str, task: Task) -> None:
    if not host.iommu:
        raise Refused("cannot prepare PCI pass-through, IOMMU not present")
    if not host.drivers.load("vfio_pci", host.modprobe_now):
        raise Refused("Cannot find vfio-pci module!")
    for member in host.groups[host.group_of[address]]:
        device = host.devices[member]
        if str(device["class"]).startswith("0x06"):  # bridges have a pci_bus folder and are left alone
            continue
        driver = host.drivers.bound.get(member)
        module = (host.inputs.get("extra_modules") or {}).get(driver or "", {})
        if module.get("held_by") or module.get("never_lets_go"):
            host.log("kernel", f"NVRM: Attempting to remove device {member} with non-zero usage count!")
            raise Refused(f"can't unbind/bind PCI group to VFIO '{address}'")
        if driver != "vfio-pci":
            host.drivers.bind_vfio(member)
            host.revision += 1
    device = host.devices[address]
    if "reset" in device and not device["reset"]:
        task.log.append(f"error writing '1' to '/sys/bus/pci/devices/{address}/reset': Inappropriate ioctl for device")
        task.warn(f"failed to reset PCI device '{address}', but trying to continue as not all devices need a reset")


def _command_line(
    node: PveNode,
    vmid: int,
    config: Mapping[str, Any],
    entries: list[Passthrough],
    chosen: Mapping[str, tuple[str, ...]],
) -> list[str]:
    memory = memory_mib(config)
    argv = [
        "/usr/bin/kvm", "-id", str(vmid), "-name", f"{config.get('name', vmid)},debug-threads=on",
        "-no-shutdown", "-chardev", f"socket,id=qmp,path=/var/run/qemu-server/{vmid}.qmp,server=on,wait=off",
        "-mon", "chardev=qmp,mode=control", "-pidfile", f"/var/run/qemu-server/{vmid}.pid", "-daemonize",
        "-smbios", f"type=1,{config.get('smbios1', 'uuid=')}",
    ]  # fmt: skip
    if config.get("bios") == "ovmf":
        argv += [
            "-drive",
            "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/pve-edk2-firmware//OVMF_CODE_4M.secboot.fd",
        ]
    cpu = properties(str(config.get("cpu", "kvm64")), "cputype").get("cputype", "kvm64")
    cores, sockets = int(config.get("cores", 1)), int(config.get("sockets", 1))
    argv += [
        "-smp", f"{cores * sockets},sockets={sockets},cores={cores},maxcpus={cores * sockets}",
        "-cpu", f"{cpu},+kvm_pv_eoi,+kvm_pv_unhalt",
        "-m", str(memory),
    ]  # fmt: skip
    for entry in entries:
        index = int(entry.key[7:])
        bus = f"ich9-pcie-port-{index + 1},addr=0x0" if entry.pcie else f"pci.0,addr={0x10 + index:#x}"
        many = len(chosen[entry.key]) > 1
        for function, address in enumerate(chosen[entry.key]):
            suffix = f".{function}" if many else ""
            text = f"vfio-pci,host={address},id={entry.key}{suffix},bus={bus}{suffix}"
            if function == 0:
                text += ",rombar=0" if entry.options.get("rombar") == "0" else ""
                text += ",x-vga=on" if entry.options.get("x-vga") == "1" and config.get("bios") != "ovmf" else ""
                text += ",multifunction=on" if many else ""
            argv += ["-device", text]
    for key in sorted(k for k in config if re.fullmatch(r"net\d+", k)):
        mac = next(iter(v for k, v in properties(str(config[key]), "model").items() if k in ("virtio", "e1000")), "")
        argv += ["-device", f"virtio-net-pci,mac={mac},netdev={key},bus=pci.0,addr=0x12,id={key}"]
    argv += ["-machine", f"type={machine_type(node.host, config).replace('pc-', '') if is_q35(config) else 'pc'}"]
    return argv


def _run_qemu(
    host: Host, config: Mapping[str, Any], argv: list[str], chosen: Mapping[str, tuple[str, ...]], task: Task
) -> float:
    """What QEMU meets; returns how long it takes until the guest runs, in seconds."""
    device_args = {a.split("host=", 1)[1].split(",", 1)[0]: a for a in argv if a.startswith("vfio-pci,host=")}

    def fails(address: str, text: str) -> QemuFailed:
        task.log.append(f"kvm: -device {device_args[address]}: vfio {address}: {text}")
        return QemuFailed("start failed: QEMU exited with code 1")

    for address in (a for addresses in chosen.values() for a in addresses):
        group = host.group_of[address]
        if host.dead(address):
            host.log("kernel", f"vfio-pci {address}: not ready 65535ms after bus reset; giving up")
            host.log(
                "kernel", f"vfio-pci {address}: Unable to change power state from D3cold to D0, device inaccessible"
            )
            task.log.append("kvm: vfio: Unable to power on device, stuck in D3")
            task.log.append(
                "kvm: ../hw/pci/pci.c:1633: pci_irq_handler: Assertion `0 <= irq_num && irq_num < PCI_NUM_PINS' failed."
            )
            raise QemuFailed("start failed: QEMU exited with code 1")
        if any(kind == "direct" for _, _, kind in host.reserved_regions(group)):
            host.log(
                "kernel",
                f"vfio-pci {address}: DMAR: Device is ineligible for IOMMU domain attach due to platform RMRR "
                "requirement.  Contact your platform vendor.",
            )
            raise fails(
                address,
                f"failed to setup container for group {group}: Failed to set group container: Invalid argument",
            )
        unsafe = host.drivers.loaded.get("vfio_iommu_type1", {}).get("allow_unsafe_interrupts", "0").lower()
        if not host.remapping and unsafe not in ("1", "y"):
            host.log(
                "kernel",
                "vfio_iommu_type1_attach_group: No interrupt remapping support.  Use the module param "
                '"allow_unsafe_interrupts" to enable VFIO IOMMU support on this platform',
            )
            raise fails(
                address,
                f"failed to setup container for group {group}: "
                "failed to set iommu for container: Operation not permitted",
            )
        bar = framebuffer_overlap(host, address)
        if bar is not None:
            task.log.append(f"kvm: vfio {address}: Failed to mmap {address} BAR {bar}. Performance may be slow")
    return _pin_memory(host, config, bool(chosen), task)


def _hugepages(host: Host, config: Mapping[str, Any]) -> None:
    """hugepages_config and hugepages_allocate of PVE::QemuServer::Memory (facts proxmox P38)."""
    asked = str(config.get("hugepages", ""))
    if not asked:
        return
    if str(config.get("numa", 0)) != "1":
        raise Refused("numa needs to be enabled to use hugepages")
    if asked == "1024":
        size = 1048576
        free = hugepages_reserved(host).get(size, 0)
        if free * size < memory_mib(config) * 1024:
            raise Refused("start failed: hugepage allocation failed")


def _pin_memory(host: Host, config: Mapping[str, Any], pinned: bool, task: Task) -> float:
    memory = memory_mib(config)
    _hugepages(host, config)
    if config.get("hugepages"):
        return 20.0  # pages are there already
    if not pinned:
        return 2.0
    spec = host.inputs["memory"]
    in_use = int(spec.get("host_mib", 0)) + sum(q.memory_mib for q in host.qemus.values())
    if memory > int(spec["mib"]) - in_use:
        task.log.append("kvm: VFIO_MAP_DMA failed: Cannot allocate memory")
        task.log.append(
            "kvm: vfio_container_dma_map(0x5c0d8a3f2b10, 0x100000000, 0x3b00000000, 0x7a1c00000000) = "
            "-12 (Cannot allocate memory)"
        )
        host.log("kernel", "Out of memory: Killed process (kvm) total-vm:251658240kB, anon-rss:204800000kB")
        raise QemuFailed("start failed: QEMU exited with code 1")
    return 3.0 + memory / 1024 * float(spec.get("pin_s_per_gib", 2.4))
