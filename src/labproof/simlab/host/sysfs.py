"""/sys and /proc of a booted host."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from typing import Any

from labproof.simlab.host import kernel
from labproof.simlab.host.machine import Host, bar_ranges, framebuffer_overlap
from labproof.simlab.host.topology import is_bridge, path_of
from labproof.simlab.host.tree import Tree, relative

_VFIO_PARAMETERS = {
    "vfio_iommu_type1": {"allow_unsafe_interrupts": "N", "disable_hugepages": "N", "dma_entry_limit": "65535"},
    "vfio_pci": {"disable_denylist": "N", "disable_idle_d3": "N", "disable_vga": "N", "enable_sriov": "N",
    "nointxmask": "N"},
    "kvm": {"ignore_msrs": "N"},
}  # fmt: skip


def write_sys(host: Host, tree: Tree) -> None:
    """Write /sys: PCI devices, groups, modules, firmware tables, network, disks."""
    for folder in ("/sys/class/iommu", "/sys/class/net", "/sys/block", "/sys/kernel/iommu_groups",
    "/sys/firmware/acpi/tables",
                   "/sys/bus/pci/devices", "/sys/bus/pci/drivers", "/sys/module"):  # fmt: skip
        tree.folder(folder)
    folders = {address: device_folder(host, address) for address in host.devices}
    for address, device in host.devices.items():
        _device(host, tree, address, device, folders[address])
    translated = "DMA\n" if host.caching_mode else "DMA-FQ\n"
    for number, members in host.groups.items():
        base = f"/sys/kernel/iommu_groups/{number}"
        passthrough = "iommu=pt" in host.cmdline.split() and not any(_on_vfio(host, m) for m in members)
        tree.file(f"{base}/type", "identity\n" if passthrough else translated)
        tree.file(f"{base}/reserved_regions", "".join(f"{s} {e} {k}\n" for s, e, k in host.reserved_regions(number)))
        for member in members:
            link = f"{base}/devices/{member}"
            tree.link(link, relative(link, folders[member]))
    if host.iommu:
        unit = "ivhd0" if host.iommu == "amd" else "dmar0"
        folder = f"/sys/devices/virtual/iommu/{unit}"
        tree.folder(f"{folder}/devices")
        tree.link(f"/sys/class/iommu/{unit}", f"../../devices/virtual/iommu/{unit}")
    if host.firmware_table:
        tree.file(
            f"/sys/firmware/acpi/tables/{host.firmware_table}", host.firmware_table.encode() + bytes(44), mode=0o400
        )
    for table in host.inputs["firmware"].get("tables", ("APIC", "DSDT", "FACP", "MCFG")):
        tree.file(f"/sys/firmware/acpi/tables/{table}", table.encode() + bytes(32), mode=0o400)
    for part in ("data", "dynamic"):  # there on every real machine (recorded, captures/host/guest)
        tree.folder(f"/sys/firmware/acpi/tables/{part}")
    _firmware(host, tree)
    for module, parameters in host.drivers.loaded.items():
        tree.file(f"/sys/module/{module}/refcnt", "0\n")
        tree.file(f"/sys/module/{module}/initstate", "live\n")
        for name, value in {**_VFIO_PARAMETERS.get(module, {}), **_shown(module, parameters)}.items():
            tree.file(f"/sys/module/{module}/parameters/{name}", f"{value}\n", mode=0o644)
    _drivers(host, tree, folders)
    reserved = hugepages_reserved(host)
    for size, count in reserved.items():
        base = f"/sys/kernel/mm/hugepages/hugepages-{size}kB"
        used = sum(
            q.memory_mib * 1024 // size
            for q in host.qemus.values()
            if int(q.config.get("hugepages", 0) or 0) * 1024 == size
        )
        tree.file(f"{base}/free_hugepages", f"{max(count - used, 0)}\n")
        tree.file(f"{base}/nr_hugepages", f"{count}\n")
    for number, (volume, parts) in enumerate((host.inputs.get("volumes") or {}).items(), start=1):
        base = f"/sys/devices/virtual/block/dm-{number}"
        tree.file(f"{base}/dm/name", f"{volume}\n")
        for part in parts:
            owner = next(
                (a for a, d in host.devices.items() for p in (d.get("partitions") or {}).values() if part in p), None
            )
            if owner and host.drivers.bound.get(owner) not in (None, "vfio-pci"):
                disk = next(n for n, p in host.devices[owner]["partitions"].items() if part in p)
                link = f"{base}/slaves/{part}"
                tree.link(link, relative(link, f"{folders[owner]}/block/{disk}/{part}"))
        tree.folder(f"{base}/slaves")
        tree.link(f"/sys/class/block/dm-{number}", f"../../devices/virtual/block/dm-{number}")
    for nic in host.inputs.get("bridges") or {}:
        tree.file(f"/sys/devices/virtual/net/{nic}/operstate", "up\n")
        tree.folder(f"/sys/devices/virtual/net/{nic}/bridge")
        tree.link(f"/sys/class/net/{nic}", f"../../devices/virtual/net/{nic}")
    tree.file("/sys/devices/virtual/net/lo/operstate", "unknown\n")
    tree.link("/sys/class/net/lo", "../../devices/virtual/net/lo")


def _drivers(host: Host, tree: Tree, folders: Mapping[str, str]) -> None:
    registered = {kernel.driver_of(m) for m in host.drivers.loaded if kernel.is_pci_driver(m)}
    for driver in sorted({kernel.driver_of(m) for m in host.drivers.loaded} | {"pcieport", "virtio-pci"}):
        base = f"/sys/bus/pci/drivers/{driver}"
        if driver in registered:
            tree.folder(base)
        if driver in set(host.drivers.bound.values()) or driver == "vfio-pci":
            for name in ("bind", "new_id", "remove_id", "unbind"):
                tree.file(f"{base}/{name}", "", mode=0o200)
            for address, bound in host.drivers.bound.items():
                if bound == driver:
                    tree.link(f"{base}/{address}", relative(f"{base}/{address}", folders[address]))


def hugepages_reserved(host: Host) -> dict[int, int]:
    """Page size in KiB -> pages reserved on the command line."""
    found = {2048: 0, 1048576: 0}
    size = 2048
    for token in host.cmdline.split():
        name, _, value = token.partition("=")
        if name in ("default_hugepagesz", "hugepagesz"):
            size = {"1G": 1048576, "2M": 2048}.get(value, size)
        if name == "hugepages" and value.isdigit():
            found[size] = int(value)
    return found


def device_folder(host: Host, address: str) -> str:
    """/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0."""
    chain = path_of(address, host.devices)
    return "/".join([f"/sys/devices/pci{chain[0].rsplit(':', 1)[0]}", *chain])


def _on_vfio(host: Host, address: str) -> bool:
    return any(address == held for qemu in host.qemus.values() for _, held in qemu.devices)


def _shown(module: str, parameters: Mapping[str, str]) -> dict[str, str]:
    shown = {}
    for name, value in parameters.items():
        if (module, name) == ("vfio_pci", "ids"):
            continue  # write-only: there is no such file (facts proxmox 1.5)
        shown[name] = {"1": "Y", "y": "Y", "0": "N", "n": "N"}.get(value, value) if module.startswith("vfio") else value
    return shown


def _device(host: Host, tree: Tree, address: str, device: Mapping[str, Any], folder: str) -> None:
    vendor, number = str(device["id"]).split(":")
    subsystem = str(device.get("subsystem", "0000:0000")).split(":")
    dead = host.dead(address)
    values = {
        "vendor": f"0x{vendor}", "device": f"0x{number}", "class": device["class"],
        "revision": "0xff" if dead else device.get("revision", "0x00"),
        "subsystem_vendor": f"0x{subsystem[0]}", "subsystem_device": f"0x{subsystem[1]}",
        "numa_node": device.get("numa", -1), "power_state": _power_state(host, address, device),
        "driver_override": host.drivers.overrides.get(address, "(null)"),
        "enable": "1" if address in host.drivers.bound else "0",
        "uevent": _uevent(host, address, device), "modalias": f"pci:v0000{vendor.upper()}d0000{number.upper()}",
    }  # fmt: skip
    if device.get("link"):
        speed, width = device["link"]
        values |= {
            "max_link_speed": f"{speed} GT/s PCIe", "max_link_width": width,
            "current_link_speed": f"{device.get('link_speed', speed)} GT/s PCIe",
            "current_link_width": device.get("link_width", width),
        }  # fmt: skip
    if device.get("reset"):
        values["reset_method"] = " ".join(device["reset"])
    if str(device["class"]).startswith("0x0300"):
        values["boot_vga"] = "1" if host.inputs["firmware"].get("primary_display") == address else "0"
    if device.get("sriov_totalvfs"):
        values |= {"sriov_totalvfs": device["sriov_totalvfs"], "sriov_numvfs": device.get("sriov_numvfs", 0)}
    for name, value in values.items():
        tree.file(f"{folder}/{name}", f"{value}\n".replace("\n\n", "\n"))
    if device.get("reset"):
        tree.file(f"{folder}/reset", "", mode=0o200)
    tree.file(f"{folder}/config", _config_space(device, dead), mode=0o644)
    tree.file(f"{folder}/resource", _resource(host, address, device))
    bus = f"/sys/bus/pci/devices/{address}"
    tree.link(bus, relative(bus, folder))
    tree.link(f"{folder}/subsystem", relative(f"{folder}/subsystem", "/sys/bus/pci"))
    if driver := host.drivers.bound.get(address):
        tree.link(f"{folder}/driver", relative(f"{folder}/driver", f"/sys/bus/pci/drivers/{driver}"))
    if address in host.group_of:
        group = f"/sys/kernel/iommu_groups/{host.group_of[address]}"
        tree.link(f"{folder}/iommu_group", relative(f"{folder}/iommu_group", group))
    if is_bridge(device):
        tree.folder(f"{folder}/pci_bus")
    if parent := device.get("physfn"):
        tree.link(f"{folder}/physfn", f"../{parent}")
    children = sorted(a for a, d in host.devices.items() if d.get("physfn") == address)
    for index, child in enumerate(children):
        tree.link(f"{folder}/virtfn{index}", f"../{child}")
    if host.drivers.bound.get(address) not in (None, "vfio-pci"):
        _attached(tree, device, folder)


def _attached(tree: Tree, device: Mapping[str, Any], folder: str) -> None:
    for name, state in (device.get("net") or {}).items():
        tree.file(f"{folder}/net/{name}/operstate", f"{state}\n")
        tree.file(f"{folder}/net/{name}/carrier", "1\n" if state == "up" else "0\n")
        tree.link(f"{folder}/net/{name}/device", "../..")
        tree.link(f"/sys/class/net/{name}", relative(f"/sys/class/net/{name}", f"{folder}/net/{name}"))
    for name in device.get("block") or ():
        tree.file(f"{folder}/block/{name}/size", "937703088\n")
        tree.link(f"{folder}/block/{name}/device", "../..")
        for parent in ("/sys/block", "/sys/class/block"):
            tree.link(f"{parent}/{name}", relative(f"{parent}/{name}", f"{folder}/block/{name}"))
        for part in (device.get("partitions") or {}).get(name, ()):
            tree.file(f"{folder}/block/{name}/{part}/size", "2097152\n")
            where = f"/sys/class/block/{part}"
            tree.link(where, relative(where, f"{folder}/block/{name}/{part}"))


def _power_state(host: Host, address: str, device: Mapping[str, Any]) -> str:
    if host.dead(address):
        return "D3cold"
    idle = host.drivers.bound.get(address) == "vfio-pci" and not _on_vfio(host, address)
    return str(device.get("power_state", "D3hot" if idle else "D0"))


def _uevent(host: Host, address: str, device: Mapping[str, Any]) -> str:
    driver = host.drivers.bound.get(address)
    lines = [f"DRIVER={driver}"] if driver else []
    lines += [f"PCI_CLASS={str(device['class'])[2:].lstrip('0').upper()}", f"PCI_ID={str(device['id']).upper()}",
              f"PCI_SLOT_NAME={address}"]  # fmt: skip
    return "\n".join(lines)


def _config_space(device: Mapping[str, Any], dead: bool) -> bytes:
    if dead:
        return b"\xff" * 256
    if device.get("physfn"):
        return b"\xff" * 4 + bytes(252)  # a virtual function's own id registers read ff (SR-IOV specification)
    vendor, number = (int(half, 16) for half in str(device["id"]).split(":"))
    pci_class = int(str(device["class"]), 16)
    revision = int(str(device.get("revision", "0x00")), 16)
    sub_vendor, sub_device = (int(half, 16) for half in str(device.get("subsystem", "0000:0000")).split(":"))
    head = struct.pack("<HHHHI", vendor, number, 0x0406, 0x0010, pci_class << 8 | revision)
    head += bytes([0x10, 0, 1 if is_bridge(device) else 0, 0])
    return head + bytes(0x2C - len(head)) + struct.pack("<HH", sub_vendor, sub_device) + bytes(256 - 0x30)


def _resource(host: Host, address: str, device: Mapping[str, Any]) -> str:
    lines = [(0, 0, 0)] * 13
    ranges = bar_ranges(host, address)
    for index, (start, end) in zip((0, 1, 3, 5), ranges, strict=False):
        unassigned = index > 0 and device.get("bar_unassigned")
        lines[index] = (0, end - start, 0x14220C) if unassigned else (start, end, 0x40200 if index == 0 else 0x14220C)
    return "".join(f"0x{s:016x} 0x{e:016x} 0x{f:016x}\n" for s, e, f in lines)


def _firmware(host: Host, tree: Tree) -> None:
    firmware = host.inputs["firmware"]
    if firmware.get("mode") == "efi":
        tree.file("/sys/firmware/efi/fw_platform_size", "64\n")
        secure = bytes([6, 0, 0, 0, 1 if firmware.get("secureboot") else 0])
        tree.file("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", secure)
        if host.inputs["boot"].get("loader") == "systemd-boot":
            info = bytes([6, 0, 0, 0]) + "systemd-boot 252.36-1~deb12u1\0".encode("utf-16-le")
            tree.file("/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", info)
    lockdown = "none [integrity] confidentiality" if firmware.get("secureboot") else "[none] integrity confidentiality"
    tree.file("/sys/kernel/security/lockdown", f"{lockdown}\n")


def write_proc(host: Host, tree: Tree) -> None:
    """Write /proc: what the kernel and the running QEMU processes show."""
    memory = host.inputs["memory"]
    used = int(memory.get("host_mib", 0)) + sum(q.memory_mib for q in host.qemus.values())
    total = int(memory["mib"])
    free = max(total - used, 0)
    tree.file("/proc/cmdline", f"{host.cmdline}\n")
    tree.file(
        "/proc/version", f"Linux version {host.kernel} (build@proxmox) #1 SMP PREEMPT_DYNAMIC PMX {host.kernel}\n"
    )
    tree.file("/proc/sys/kernel/osrelease", f"{host.kernel}\n")
    tree.file("/proc/sys/kernel/ostype", "Linux\n")
    tree.file("/proc/sys/kernel/hostname", f"{host.hostname}\n")
    tree.file("/proc/sys/kernel/random/boot_id", f"{host.boot_id}\n")
    tree.file("/proc/meminfo", "".join(
        f"{name + ':':<16}{mib * 1024:>10} kB\n" for name, mib in (
            ("MemTotal", total), ("MemFree", free * 3 // 4), ("MemAvailable", free), ("Buffers", 64), ("Cached",
            free // 8),
            ("SwapTotal", 8191), ("SwapFree", 8191)))
        + "HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n")  # fmt: skip
    tree.file("/proc/cpuinfo", _cpuinfo(host))
    tree.file("/proc/modules", modules_table(host))
    tree.file("/proc/iomem", _iomem(host), mode=0o400)
    mounts = [tuple(m) for m in host.inputs["mounts"]]
    if host.inputs.get("kind", "proxmox") == "proxmox" and host.cluster_file_system:
        mounts.append(("/dev/fuse", "/etc/pve", "fuse"))
    tree.file("/proc/mounts", "".join(f"{device} {where} {kind} rw,relatime 0 0\n" for device, where, kind in mounts))
    tree.file("/proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")
    tree.file("/proc/stat", f"cpu  1 0 1 1 0 0 0 0 0 0\nbtime {int(host.booted_at)}\nprocesses 31337\n")
    chip = "IR-IO-APIC" if host.remapping else "IO-APIC"
    msi = "IR-PCI-MSI" if host.remapping else "PCI-MSI"
    tree.file(
        "/proc/interrupts",
        "            CPU0\n" + f"   9:          0  {chip}    9-fasteoi   acpi\n"
        f"  24:       1542  {msi}-0000:5e:00.0    0-edge      nvme0q0\n",
    )
    tree.file("/proc/filesystems", "nodev\tsysfs\nnodev\tproc\n\text4\n\tvfat\n")
    write_uptime(host, tree)
    for number, (module, spec) in enumerate((host.inputs.get("extra_modules") or {}).items()):
        if spec.get("held_by") and module in host.drivers.bound.values():
            base = f"/proc/{1207 + number}"
            tree.file(f"{base}/comm", f"{spec['held_by']}\n")
            tree.file(f"{base}/cmdline", f"/usr/bin/{spec['held_by']}\0")
            for fd, target in enumerate(("/dev/null", "/dev/nvidiactl", "/dev/nvidia0")):
                tree.link(f"{base}/fd/{fd}", target)
    for qemu in host.qemus.values():
        base = f"/proc/{qemu.pid}"
        tree.file(f"{base}/cmdline", "\0".join(qemu.argv) + "\0")
        tree.file(f"{base}/comm", "kvm\n")
        tree.file(
            f"{base}/status",
            f"Name:\tkvm\nState:\tS (sleeping)\nPid:\t{qemu.pid}\nUid:\t0\t0\t0\t0\n"
            f"VmLck:\t{qemu.memory_mib * 1024} kB\n",
        )
        tree.link(f"{base}/exe", "/usr/bin/qemu-system-x86_64")
        targets = ["/dev/null", "/dev/null", "/dev/null", "/dev/kvm"]
        if qemu.devices:
            groups = sorted({host.group_of[a] for _, a in qemu.devices if a in host.group_of})
            targets += ["/dev/vfio/vfio", *(f"/dev/vfio/{g}" for g in groups)]
        for number, target in enumerate(targets):
            tree.link(f"{base}/fd/{number}", target)


def write_uptime(host: Host, tree: Tree) -> None:
    """Write /proc/uptime as of now."""
    tree.file("/proc/uptime", f"{time.time() - host.booted_at:.2f} {(time.time() - host.booted_at) * 40:.2f}\n")


def modules_table(host: Host) -> str:
    """/proc/modules, the newest module first."""
    users: dict[str, list[str]] = {}
    for module in host.drivers.loaded:
        for needed in kernel.NEEDS.get(module, ()):
            users.setdefault(needed, []).append(module)
    rows = []
    for module in reversed(host.drivers.loaded):
        by = users.get(module, [])
        held = sum(kernel.driver_of(module) == d for d in host.drivers.bound.values()) and 1
        count = len(by) + held
        rows.append(
            f"{module} {kernel.SIZES.get(module, 28672)} {count} {','.join(by) + ',' if by else '-'} "
            "Live 0x0000000000000000\n"
        )
    return "".join(rows)


def _cpuinfo(host: Host) -> str:
    cpu = host.inputs["cpu"]
    vendor = cpu.get("reports", "AuthenticAMD" if host.amd else "GenuineIntel")
    flags = "fpu vme de pse tsc msr pae lm pdpe1gb ht x2apic aes avx avx2 " + ("svm" if host.amd else "vmx")
    return "\n".join(
        f"processor\t: {n}\nvendor_id\t: {vendor}\nmodel name\t: {cpu['model']}\n"
        f"cpu MHz\t\t: {cpu.get('mhz', '2600.000')}\n"
        f"physical id\t: {n % int(cpu.get('sockets', 1))}\nflags\t\t: {flags}\n"
        f"address sizes\t: 46 bits physical, 48 bits virtual\n"
        for n in range(int(cpu.get("threads", 4)))
    )  # fmt: skip


def _iomem(host: Host) -> str:
    rows: list[tuple[int, str]] = [(0, "00000000-00000fff : Reserved"), (0x100000, "00100000-6bb2afff : System RAM")]
    primary = host.inputs["firmware"].get("primary_display")
    for address in host.devices:
        for index, (start, end) in enumerate(bar_ranges(host, address)):
            rows.append((start, f"  {start:08x}-{end:08x} : {address}"))
            if address == primary and index == (1 if len(bar_ranges(host, address)) > 1 else 0):
                driver = host.drivers.bound.get(address, "")
                if driver in ("ast", "i915", "nouveau", "amdgpu", "xe"):  # a DRM driver takes it over from simplefb
                    rows.append((start + 1, f"    {start:08x}-{end:08x} : {driver}"))
                elif framebuffer_overlap(host, address) is not None:
                    rows.append((start + 1, f"    {start:08x}-{start + 0x2FFFFF:08x} : BOOTFB"))
    return "".join(f"{text}\n" for _, text in sorted(rows))
