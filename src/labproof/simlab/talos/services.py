"""Services of machined: the base's own, and those that extensions bring (facts/talos.md 3.4, 4 and 6 T11, T42, T46).

The boot sequence waits for all of them for 70 minutes, then the node reboots and tries again.
"""

from __future__ import annotations

from collections.abc import Sequence

from labproof.simlab.talos.image import toolkit
from labproof.simlab.talos.releases import Release, tables
from labproof.simlab.talos.state import Extension, LogRecord, Service

PERSISTENCED = "ext-nvidia-persistenced"
CDI_GEN = "ext-nvidia-cdi-gen"
BOOT_TIMEOUT_S = 4200.0  # T:pkg/machinery/constants BootTimeout, 70 minutes


def services(
    extensions: Sequence[Extension],
    release: Release,
    role: str,
    paths: frozenset[str],
    missing_files: frozenset[str],
) -> tuple[Service, ...]:
    """All services as they stand a few minutes after the boot.

    Args:
        extensions: what is installed.
        release: the running Talos release.
        role: `worker` or `controlplane`.
        paths: paths that appear at run time and that a service may wait for.
        missing_files: files that a defective extension build lacks.
    """
    found = [_base(name) for name in ("apid", "auditd", "containerd", "cri", "kubelet", "machined", "syslogd", "udevd")]
    if role == "controlplane":
        found += [_base(name) for name in ("etcd", "trustd")]
    if toolkit(extensions) is not None:
        found += _nvidia(release, paths, missing_files)
    for extension in extensions:
        row = tables()["extensions"].get(extension.name, {})
        for name, needs in (row.get("services") or {}).items():
            wanted, binary = needs.get("waits"), needs.get("runs")
            if wanted is not None and wanted not in paths:
                found.append(_waiting(name, wanted))
            elif binary in missing_files:
                found.append(_restarting(name, f"fork/exec {binary}: no such file or directory"))
            elif needs.get("minor") == "{}.{}".format(*release.minor) and toolkit(extensions) is not None:
                found.append(_restarting(name, "error relocating libraries: symbol not found"))
            else:
                found.append(_running(name))
    return tuple(found)


def boot_messages(found: Sequence[Service]) -> list[LogRecord]:
    """Talos' own lines about services that keep the boot sequence waiting, once a minute."""
    stuck = [s for s in found if not s.settled]
    if not stuck:
        return [LogRecord(31.0, "[talos] boot sequence: done: 24.1s", facility="user", priority="warning")]
    names = ", ".join(f'service \\x5c"{s.id}\\x5c" to be \\x5c"up\\x5c"' for s in stuck)
    text = f"[talos] task startAllServices (1/1): {names}"
    return [LogRecord(minute * 60.0, text, facility="user", priority="warning") for minute in range(1, 5)]


def _nvidia(release: Release, paths: frozenset[str], missing_files: frozenset[str]) -> list[Service]:
    bus = "/sys/bus/pci/drivers/nvidia"
    daemon = "/usr/local/bin/nvidia-persistenced"
    if bus not in paths:
        persistenced = _waiting(PERSISTENCED, bus)
    elif daemon in missing_files:
        # E#861: the binary is there, its ELF interpreter is not, and exec says the same.
        said = f"error starting nvidia-persistenced: fork/exec {daemon}: no such file or directory"
        persistenced = _restarting(PERSISTENCED, f"nvidia-persistenced-wrapper: {said}")
    else:
        persistenced = _running(PERSISTENCED)
    if not release.cdi:
        return [persistenced]
    if persistenced.state != "Running":
        return [persistenced, Service(CDI_GEN, "Waiting", f'Waiting for service "{PERSISTENCED}" to be "up"')]
    if "/usr/local/bin/nvidia-ctk" in missing_files:
        why = "fork/exec /usr/local/bin/nvidia-ctk: no such file or directory"
        return [persistenced, Service(CDI_GEN, "Failed", f"Failed to start: {why}")]
    lines = ['time="2026-11-20T10:00:00Z" level=warning msg="Could not locate libnvidia-vulkan-producer.so.*"'] * 13
    done = Service(CDI_GEN, "Finished", "Service finished successfully", log=tuple(lines))
    return [persistenced, done]


def _base(name: str) -> Service:
    checked = name not in ("auditd", "machined")
    message = "Health check successful" if checked else "Service started as goroutine"
    return Service(name, "Running", message, checked or None)


def _running(name: str) -> Service:
    return Service(name, "Running", f"Started task {name} (PID 2811) for container {name}")


def _restarting(name: str, why: str) -> Service:
    message = f'Error running Containerd({name}), going to restart forever: task "{name}" failed: exit code 1'
    return Service(name, "Waiting", message, log=(why,))


def _waiting(name: str, path: str) -> Service:
    return Service(name, "Waiting", f'Waiting for file "{path}" to exist')
