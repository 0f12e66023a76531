"""The files a process in a container sees: device nodes, injected libraries, the image's programs, what it wrote."""

from __future__ import annotations

import stat
from dataclasses import dataclass

from labproof.simlab.pod.drm_files import drm_files
from labproof.simlab.pod.images import image_config
from labproof.simlab.world.states import DeviceNode, PodWorld

LIBRARY_FOLDER = "/usr/lib/x86_64-linux-gnu"
INJECTED_PROGRAMS = "/usr/bin"

_STANDARD = (
    DeviceNode("/dev/full", 0o666, major=1, minor=7),
    DeviceNode("/dev/null", 0o666, major=1, minor=3),
    DeviceNode("/dev/random", 0o666, major=1, minor=8),
    DeviceNode("/dev/tty", 0o666, major=5, minor=0),
    DeviceNode("/dev/urandom", 0o666, major=1, minor=9),
    DeviceNode("/dev/zero", 0o666, major=1, minor=5),
)
_LINKS = {"/dev/core": "/proc/kcore", "/dev/fd": "/proc/self/fd", "/dev/ptmx": "pts/ptmx"} | {
    f"/dev/{name}": f"/proc/self/fd/{number}" for number, name in enumerate(("stdin", "stdout", "stderr"))
}
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a path in the simulated container
_FOLDERS = (
    "/",
    "/dev",
    "/dev/mqueue",
    "/dev/pts",
    _SHARED_MEMORY,
    "/etc",
    "/proc",
    "/sys",
    "/usr/bin",
    LIBRARY_FOLDER,
)


@dataclass(frozen=True)
class Entry:
    """One path: mode with its type bits, owner, and what it is."""

    path: str
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    device: DeviceNode | None = None
    target: str = ""


def size_of(content: object) -> int:
    """Size in bytes of what `PodWorld.files` holds under a path."""
    return len(content) if isinstance(content, bytes) else int(getattr(content, "size_bytes", 0))


def text_files(pod: PodWorld) -> dict[str, bytes]:
    """Readable files with text the programs know about."""
    node = pod.node
    files = {path: content for path, content in pod.files.items() if isinstance(content, bytes)}
    if node.driver_version and pod.devices:
        kind = "Open Kernel Module for x86_64" if node.driver_open else "x86_64 Kernel Module"
        files["/proc/driver/nvidia/version"] = (
            f"NVRM version: NVIDIA UNIX {kind}  {node.driver_version}  Tue Jul 15 10:33:23 UTC 2025\n"
        ).encode()
    modules = (f"{name} 1146880 0 - Live 0x0000000000000000\n" for name in sorted(node.modules))
    files["/proc/modules"] = "".join(modules).encode()
    files |= drm_files(pod)
    files["/proc/version"] = f"Linux version {node.kernel} (root@buildkitsandbox) #1 SMP\n".encode()
    return files


def entries(pod: PodWorld) -> dict[str, Entry]:
    """Every path the model knows, by path."""
    found: dict[str, Entry] = {}
    for folder in (*_FOLDERS, *pod.volumes):
        open_to_all = folder in pod.volumes or folder == _SHARED_MEMORY
        found[folder] = Entry(folder, stat.S_IFDIR | (0o1777 if open_to_all else 0o755), size=4096)
    for node in (*_STANDARD, *pod.devices.values()):
        found[node.path] = Entry(node.path, stat.S_IFCHR | node.mode, node.uid, node.gid, device=node)
    for path, target in _LINKS.items():
        found[path] = Entry(path, stat.S_IFLNK | 0o777, target=target, size=len(target))
    for library in pod.libraries:
        path = f"{LIBRARY_FOLDER}/{library}"
        found[path] = Entry(path, stat.S_IFREG | 0o755, size=1_900_000)
    config = image_config(pod.image, pod.image_inputs)
    programs = set(config.programs) if config else set()
    if config and config.ffmpeg:
        programs |= {f"{config.ffmpeg_folder}/ffmpeg", f"{config.ffmpeg_folder}/ffprobe"}
    for path in programs | {f"{INJECTED_PROGRAMS}/{name}" for name in pod.programs}:
        found[path] = Entry(path, stat.S_IFREG | 0o755, size=690_112)
    for path, content in {**text_files(pod), **pod.files}.items():
        found[path] = Entry(path, stat.S_IFREG | 0o644, pod.uid, 0, size_of(content))
    for path in list(found):
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found[parent] = Entry(parent, stat.S_IFDIR | 0o755, size=4096)
            parent = parent.rpartition("/")[0]
    return found


def write_error(pod: PodWorld, path: str) -> str | None:
    """Why a file cannot be created or overwritten, in the C library's words; None when it can."""
    folder = path.rpartition("/")[0] or "/"
    known = entries(pod)
    if folder not in known:
        return "No such file or directory"
    if path in known and stat.S_ISDIR(known[path].mode):
        return "Is a directory"
    if any(path.startswith(f"{volume.rstrip('/')}/") for volume in (*pod.volumes, _SHARED_MEMORY)):
        return None
    if pod.read_only_root and not folder.startswith("/dev"):
        return "Read-only file system"
    return None if pod.uid == 0 else "Permission denied"
