"""The generated root of a host: what a shell on it can see."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from labproof.simlab.host import kernel, standins
from labproof.simlab.host.lspci import write_lspci
from labproof.simlab.host.machine import Host, JournalLine
from labproof.simlab.host.sysfs import write_proc, write_sys
from labproof.simlab.host.tree import Tree

#: Read-only folders of the machine underneath that give the shell and coreutils.
BOUND = ("/usr",)


def build_root(host: Host, folder: Path, guests: Any = None) -> Tree:
    """Write the root of a booted host into an empty folder.

    Args:
        host: the booted host.
        folder: an empty folder; it becomes `/`.
        guests: the host's PveNode, None on a plain Linux host.
    """
    tree = Tree(folder)
    for name in ("proc", "sys", "dev", "run", "tmp", "root", "usr", "opt", "var/log"):
        tree.folder(f"/{name}")
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        real = Path(f"/{name}")
        if real.is_symlink():
            tree.link(f"/{name}", f"usr/{name}")
        elif real.exists():
            tree.folder(f"/{name}")
    write_sys(host, tree)
    write_proc(host, tree)
    _etc(host, tree)
    _boot(host, tree)
    _dev(host, tree)
    _journal(host, tree)
    write_lspci(host, tree)
    if guests is not None:
        _pve(host, guests, tree)
    standins.write(host, tree, guests)
    return tree


def _etc(host: Host, tree: Tree) -> None:
    debian = int(host.inputs.get("debian", 13 if guests_version(host) >= 9 else 12))
    codename = {12: "bookworm", 13: "trixie"}[debian]
    fixed = {
        "/etc/hostname": f"{host.hostname}\n",
        "/etc/hosts": f"127.0.0.1 localhost\n{host.inputs.get('address', '127.0.1.1')} {host.name}.lan {host.name}\n",
        "/etc/passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "/etc/group": "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "/etc/debian_version": f"{debian}.9\n",
        "/etc/os-release": (
            f'PRETTY_NAME="Debian GNU/Linux {debian} ({codename})"\nNAME="Debian GNU/Linux"\n'
            f'VERSION_ID="{debian}"\nID=debian\n'
        ),
        "/etc/machine-id": f"{host.boot_id.replace('-', '')[::-1]}\n",
        "/etc/default/.labproof-sim": "simulated\n",
    }
    for path, text in fixed.items():
        tree.file(path, text, changed=host.booted_at - 90 * 86400)
    tree.link("/etc/mtab", "/proc/mounts")
    for path, text in host.files.items():
        mode = int(str(host.inputs["files"][path].get("mode", "0644")), 8)
        tree.file(path, text, mode=mode, changed=host.changed_at(path))
    for folder in ("/etc/modprobe.d", "/etc/modules-load.d", "/etc/default/grub.d", "/etc/kernel"):
        tree.folder(folder)
    tree.file("/usr/lib/modprobe.d/aliases.conf", "alias char-major-10-196 vfio\n")
    for name in ("awk", "which", "nawk", "pager", "editor"):  # usr/bin/awk leads through /etc/alternatives
        alternative = Path("/etc/alternatives") / name
        if alternative.is_symlink():
            tree.link(f"/etc/alternatives/{name}", str(alternative.readlink()))


def guests_version(host: Host) -> int:
    """Major version of PVE, 0 where there is none."""
    return int(str(host.inputs.get("pve", {}).get("version", "0")).split(".", maxsplit=1)[0])


def _boot(host: Host, tree: Tree) -> None:
    version = host.kernel
    built = host.booted_at - 86400
    made = host.inputs["kernel"].get("initramfs_made")  # seconds after (or, negative, before) this boot
    rebuilt = any("booted_with" in (e or {}) for e in host.inputs["files"].values())
    for release in host.inputs["kernel"].get("installed", [version]):
        tree.file(f"/boot/vmlinuz-{release}", "", changed=built)
        stamp = host.booted_at + (float(made) if made is not None else 7200 if rebuilt else -86400)
        tree.file(f"/boot/initrd.img-{release}", "", changed=stamp)
        default = kernel.intel_iommu_default(release)
        config = "".join(
            f"CONFIG_{n}={v}\n" for n, v in (
                ("INTEL_IOMMU", "y"), (f"INTEL_IOMMU_DEFAULT_{default}", "y"), ("AMD_IOMMU", "y"), ("VFIO", "m"),
                ("VFIO_PCI", "m"),
                ("VFIO_IOMMU_TYPE1", "m"), ("VFIO_VIRQFD", "m" if kernel.has_virqfd_module(release) else "y"))
        )  # fmt: skip
        tree.file(f"/boot/config-{release}", config, changed=built)
    if host.inputs["boot"].get("loader") == "grub":
        tree.file(
            "/boot/grub/grub.cfg", f"menuentry 'Proxmox VE GNU/Linux' {{\n\tlinux\t{_grub_line(host)}\n}}\n", mode=0o600
        )
    modules = standins.modules_on_disk(host)
    if not host.inputs["kernel"].get("purged"):
        for release in host.inputs["kernel"].get("installed", [version]):
            tree.file(f"/usr/lib/modules/{release}/modules.dep", "".join(f"{path}:\n" for path in modules))
            tree.file(f"/usr/lib/modules/{release}/modules.builtin", "kernel/drivers/pci/pcie/pcieport.ko\n")
    if pinned := host.inputs["kernel"].get("pinned"):
        tree.file("/etc/kernel/proxmox-boot-pin", f"{pinned}\n")
    if host.inputs["boot"].get("esp_managed"):
        tree.file("/etc/kernel/proxmox-boot-uuids", "6A1E-2F3B\n")


def _grub_line(host: Host) -> str:
    return host.configured_cmdline.removeprefix("BOOT_IMAGE=")


def _dev(host: Host, tree: Tree) -> None:
    for name in ("null", "zero", "full", "random", "urandom"):
        tree.character_device(f"/dev/{name}", 0o666)
    tree.character_device("/dev/kvm", 0o660)
    if host.drivers.available("vfio", on_disk=True) and not host.inputs["kernel"].get("purged"):
        tree.character_device("/dev/vfio/vfio", 0o666)  # a static node, module loaded or not (captures/host/guest)
    if "vfio" in host.drivers.loaded:
        bound = {host.group_of[a] for a, d in host.drivers.bound.items() if d == "vfio-pci" and a in host.group_of}
        for group in sorted(bound):
            tree.character_device(f"/dev/vfio/{group}")
    for device, _, _ in host.inputs["mounts"]:
        if device.startswith("/dev/mapper/"):
            tree.file("/dev/dm-1", "")
            tree.link(device, "../dm-1")
    for driver, nodes in (("nvidia", ("nvidia0", "nvidiactl")), ("nouveau", ("dri/card1", "dri/renderD128"))):
        if driver in host.drivers.bound.values():
            for node in nodes:
                tree.character_device(f"/dev/{node}", 0o666)


def _journal(host: Host, tree: Tree) -> None:
    lines = sorted(host.journal, key=lambda line: line.at)
    scopes = {"all": lines, "kernel": [line for line in lines if line.source == "kernel"]}
    for unit in {line.source.partition("[")[0] for line in lines} - {"kernel"}:
        scopes[f"unit.{unit}"] = [line for line in lines if line.source.startswith(f"{unit}[")]
    for scope, chosen in scopes.items():
        for form in ("short", "short-monotonic", "cat", "dmesg"):
            tree.file(f"{standins.HOME}/journal/{scope}.{form}", "".join(_printed(host, chosen, form)))


def _printed(host: Host, lines: Iterable[JournalLine], form: str) -> Iterable[str]:
    for line in lines:
        offset = max(line.at - host.booted_at, 0.0)
        if form == "cat":
            yield f"{line.text}\n"
        elif form == "dmesg":
            yield f"[{offset:12.6f}] {line.text}\n"
        elif form == "short-monotonic":
            yield f"[{offset:12.6f}] {host.hostname} {line.source}: {line.text}\n"
        else:
            stamp = dt.datetime.fromtimestamp(line.at, dt.UTC).strftime("%b %d %H:%M:%S")
            yield f"{stamp} {host.hostname} {line.source}: {line.text}\n"


def _pve(host: Host, guests: Any, tree: Tree) -> None:
    if not host.cluster_file_system:
        tree.folder("/etc/pve")
        return
    tree.file("/etc/pve/.version", '{"starttime": 1, "clinfo": 1}\n')
    tree.folder(f"/etc/pve/nodes/{host.name}/lxc")
    tree.link("/etc/pve/local", f"nodes/{host.name}")
    tree.link("/etc/pve/qemu-server", f"nodes/{host.name}/qemu-server")
    tree.link("/etc/pve/lxc", f"nodes/{host.name}/lxc")
    tree.folder("/run/qemu-server")
    for text in guests.vms:
        tree.file(f"/etc/pve/nodes/{host.name}/qemu-server/{text}.conf", guests.conf_text(int(text)), mode=0o640)
        if qemu := host.qemus.get(int(text)):
            tree.file(f"/run/qemu-server/{text}.pid", f"{qemu.pid}\n")
    for number, container in (host.inputs.get("lxc") or {}).items():
        tree.file(f"/etc/pve/nodes/{host.name}/lxc/{number}.conf", str(container.get("config", "")), mode=0o640)
    reservations = "".join(
        f"{address} {qemu.vmid} pid:{qemu.pid}\n" for qemu in host.qemus.values() for _, address in qemu.devices
    )
    tree.file("/run/qemu-server/pci-id-reservations", reservations)
    mapping = "".join(
        f"{name}\n" + (f"\tdescription {m['description']}\n" if m.get("description") else "")
        + "".join("\tmap " + ",".join(f"{k}={v}" for k, v in sorted(e.items())) + "\n" for e in m.get("map", ())) + "\n"
        for name, m in guests.mappings.items()
    )  # fmt: skip
    tree.file("/etc/pve/mapping/pci.cfg", mapping, mode=0o640)
    tree.file("/etc/pve/pve-root-ca.pem", "", mode=0o644)
