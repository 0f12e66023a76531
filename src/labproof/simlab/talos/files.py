"""The node's file tree as List and Read see it: only the parts that somebody asks for, each derived from the state.

Modes are Go's os.FileMode, not st_mode (facts/talos.md 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass

from labproof.simlab.talos.state import TalosState

MODE_DIR, MODE_LINK, MODE_DEVICE, MODE_CHAR = 1 << 31, 1 << 27, 1 << 26, 1 << 21


@dataclass(frozen=True)
class Entry:
    """One path. `content` is set for regular files that Read may return."""

    mode: int
    link: str = ""
    content: str | None = None
    uid: int = 0
    gid: int = 0

    @property
    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return bool(self.mode & MODE_DIR)


def _folder() -> Entry:
    return Entry(MODE_DIR | 0o755)


def _file(content: str = "", mode: int = 0o644) -> Entry:
    return Entry(mode, content=content)


def _link(target: str) -> Entry:
    return Entry(MODE_LINK | 0o777, link=target)


def tree(state: TalosState) -> dict[str, Entry]:
    """Every path known, absolute, folders included."""
    found: dict[str, Entry] = {
        **_dev(state),
        **_sys(state),
        **_proc(state),
        **_etc(state),
        **_userland(state),
    }
    for path in [*found]:
        parent = path
        while "/" in parent.rstrip("/") and parent != "/":
            parent = parent.rpartition("/")[0] or "/"
            found.setdefault(parent, _folder())
    for gone in state.missing_files:
        found.pop(gone, None)
    return found


def children(paths: dict[str, Entry], root: str, depth: int) -> list[tuple[str, Entry]]:
    """What List streams below `root`: relative names, at most `depth` levels down."""
    base = root.rstrip("/") + "/"
    below = [(path[len(base) :], entry) for path, entry in paths.items() if path.startswith(base) and path != base]
    return [(name, entry) for name, entry in below if name and name.count("/") < depth]


def _dev(state: TalosState) -> dict[str, Entry]:
    found = {f"/dev/{name}": Entry(MODE_DEVICE | MODE_CHAR | 0o666) for name in ("null", "zero", "random", "ptmx")}
    found["/dev/kmsg"] = Entry(MODE_DEVICE | MODE_CHAR | 0o600)
    found["/dev/sda"] = Entry(MODE_DEVICE | 0o600)
    found["/dev/dri/by-path"] = _folder()
    for node in state.device_nodes:
        found[node.path] = Entry(MODE_DEVICE | MODE_CHAR | node.mode, uid=node.uid, gid=node.gid)
    for device in state.drm:
        there = {node.path for node in state.device_nodes}
        for kind, path in (("card", device.card_node), ("render", device.render_node)):
            if path not in there:
                continue
            found[f"/dev/dri/by-path/pci-{device.address}-{kind}"] = _link(f"../{path.rpartition('/')[2]}")
    if any(s.id == "ext-qemu-guest-agent" and s.state == "Running" for s in state.services):
        found["/dev/virtio-ports/org.qemu.guest_agent.0"] = _link("../vport1p1")
    return found


def _sys(state: TalosState) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for row in state.pci_rows:
        found[f"/sys/bus/pci/devices/{row.address}"] = _link(f"../../../devices/pci0000:00/{row.address}")
    for name, addresses in state.bound.items():
        folder = f"/sys/bus/pci/drivers/{name}"
        for word in ("bind", "new_id", "remove_id", "uevent", "unbind"):
            found[f"{folder}/{word}"] = _file(mode=0o200)
        found[f"{folder}/module"] = _link(f"../../../../module/{name}")
        for address in addresses:
            found[f"{folder}/{address}"] = _link(f"../../../../devices/pci0000:00/0000:00:1c.0/{address}")
    for module in state.loaded:
        found[f"/sys/module/{module.name}"] = _folder()
    for name, value in state.sysctls.items():
        found[f"/proc/sys/{name.replace('.', '/')}"] = _file(f"{value}\n")
    return found


def _proc(state: TalosState) -> dict[str, Entry]:
    taint = "(O)" if state.driver_open else "(PO)"
    lines = [
        f"{m.name} {m.size} {len(m.dependencies)} {','.join(m.dependencies) or '-'} Live 0x0000000000000000"
        + (f" {taint}" if m.name.startswith("nvidia") else "")
        for m in state.loaded
    ]
    found = {
        "/proc/modules": _file("\n".join(lines) + "\n", 0o444),
        "/proc/cmdline": _file(state.cmdline + "\n", 0o444),
        "/proc/sys/kernel/osrelease": _file(state.kernel + "\n"),
        "/proc/sys/kernel/random/boot_id": _file(state.boot_id + "\n", 0o444),
    }
    if state.driver_version:
        loaded = next((r.text for r in state.log if "NVRM: loading NVIDIA UNIX" in r.text), "")
        text = loaded.replace("NVRM: loading ", "NVRM version: ") + "\nGCC version:  gcc version 14.2.0 (GCC) \n"
        found["/proc/driver/nvidia/version"] = _file(text, 0o444)
    return found


def _etc(state: TalosState) -> dict[str, Entry]:
    found = {f"/etc/cri/conf.d/{name}": _file(content) for name, content in state.cri_parts.items()}
    found["/etc/cri/conf.d/hosts"] = _folder()
    found["/etc/os-release"] = _file(f'NAME="Talos"\nID=talos\nVERSION_ID={state.os_version}\n')
    return found


def _userland(state: TalosState) -> dict[str, Entry]:
    found = {
        "/usr/bin/runc": _file(mode=0o755),
        "/usr/bin/containerd": _file(mode=0o755),
        "/usr/local/bin": _folder(),
        "/run/cdi": _folder(),
        f"/usr/lib/modules/{state.kernel}/modules.dep": _file("kernel/drivers/block/nbd.ko:\n"),
        "/usr/lib/firmware": _folder(),
    }
    if state.cdi_spec:
        found["/run/cdi/nvidia.yaml"] = _file("cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n")
    if state.firmware:
        for chip in ("gsp_ga10x.bin", "gsp_tu10x.bin"):
            found[f"/usr/lib/firmware/nvidia/{state.firmware}/{chip}"] = _file(mode=0o444)
    if state.library_version is None:
        return found
    new_layout = state.cdi_enabled
    for name in ("nvidia-container-runtime", "nvidia-ctk", "nvidia-cdi-hook", "nvidia-smi", "nvidia-persistenced",
                 "nvidia-modprobe"):  # fmt: skip
        found[f"/usr/local/bin/{name}"] = _file(mode=0o755)
        if not new_layout and name in ("nvidia-container-runtime", "nvidia-ctk"):
            found[f"/usr/local/bin/{name}.real"] = _file(mode=0o755)
    for name in ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-encode.so.1", "libnvcuvid.so.1"):
        found[f"{state.library_root}/{name}"] = _link(f"{name.removesuffix('.1')}.{state.library_version}")
    if new_layout:
        for name in ("nvidia-ctk", "nvidia-cdi-hook", "nvidia-smi", "nvidia-modprobe"):
            found[f"/usr/bin/{name}"] = _link(f"../local/bin/{name}")
    return found
