"""What one container sees of the GPU: read by a handful of small commands, each an argv list of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from labproof.facts.dri import DriSeen, VaInfo
from labproof.facts.nvidia_smi import parse_smi_xml
from labproof.facts.pod_command import Ran
from labproof.facts.reading import NOT_ASKED, Reading, failed, value
from labproof.facts.workload import DeviceSeen, Floors, SmiSeen
from labproof.inventory.models import Probe

Run = Callable[[Sequence[str]], Ran]

NVIDIA_SMI_XML = ("nvidia-smi", "-q", "-x")
NVIDIA_SMI_LIST = ("nvidia-smi", "-L")
LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-encode.so.1", "libnvcuvid.so.1")
#: Where the legacy hook, CDI on Talos (1.12: glibc/usr/lib, 1.13: lib) and images of each family put them.
LIBRARY_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/local/glibc/usr/lib",
    "/usr/local/lib",
)
_LISTED = re.compile(r"^(?P<mode>[bc][rwxsStT-]{9})\S*\s+\d+\s+(?P<uid>\d+)\s+(?P<gid>\d+)\s+.*\s(?P<name>nvidia\S*)$")


@dataclass(frozen=True)
class Inspected:
    """Everything read inside one container."""

    nvidia_smi: Reading[SmiSeen]
    listed: Reading[Ran]
    env: Reading[tuple[tuple[str, str], ...]]
    uid: Reading[int]
    devices: Reading[tuple[DeviceSeen, ...]]
    libraries: Reading[tuple[str, ...]]
    floors: Reading[Floors]
    dri: Reading[DriSeen] = NOT_ASKED
    vainfo: Reading[VaInfo] = NOT_ASKED
    opencl: Reading[Ran] = NOT_ASKED


def inspect(run: Run, probe: Probe) -> Inspected:
    """Read what the container sees.

    Args:
        run: runs one argv in the container.
        probe: the floors to hold what is left of the card against.
    """
    smi = read_smi(run)
    # what hangs once hangs again, and each time costs the whole limit of a command
    hangs = smi.value is not None and _timed_out(smi.value.ran)
    listed = failed(" ".join(NVIDIA_SMI_LIST), "nvidia-smi hangs", "timeout") if hangs else read_list(run)
    return Inspected(
        smi, listed, read_env(run), read_uid(run), read_devices(run), read_libraries(run), floors(smi, probe)
    )


def read_smi(run: Run) -> Reading[SmiSeen]:
    """`nvidia-smi -q -x`; that it fails, or is not in the image, is a value: the check says what it means."""
    ran = run(NVIDIA_SMI_XML)
    if ran.rc is None and not ran.missing and not _timed_out(ran):
        return failed(ran.line(), ran.why, "exec")
    return value(SmiSeen(ran, parse_smi_xml(ran.stdout)), ran.line(), ran.started)


def read_list(run: Run) -> Reading[Ran]:
    """`nvidia-smi -L`, as it ended."""
    ran = run(NVIDIA_SMI_LIST)
    if ran.rc is None and not ran.missing and not _timed_out(ran):
        return failed(ran.line(), ran.why, "exec")
    return value(ran, ran.line(), ran.started)


def read_env(run: Run) -> Reading[tuple[tuple[str, str], ...]]:
    """The container's NVIDIA_* and CUDA_* variables; all others stay unread, they may hold secrets."""
    ran = run(("env",))
    if not ran.ok:
        return _unread(ran)
    pairs = (line.partition("=") for line in ran.stdout.splitlines())
    return value(
        tuple(sorted((name, text) for name, _, text in pairs if name.startswith(("NVIDIA_", "CUDA_")))),
        ran.line(), ran.started,
    )  # fmt: skip


def read_uid(run: Run) -> Reading[int]:
    """The user id that commands run as in the container."""
    ran = run(("id", "-u"))
    if not ran.ok or not ran.stdout.strip().isdigit():
        return _unread(ran)
    return value(int(ran.stdout.strip()), ran.line(), ran.started)


def list_devices(run: Run) -> Reading[tuple[tuple[str, str, int, int], ...]]:
    """(path, mode, uid, gid) of /dev/nvidia* in the container; an empty tuple when there are none."""
    ran = run(("ls", "-ln", "/dev"))
    if not ran.ok:
        return _unread(ran)
    matches = (_LISTED.match(line.strip()) for line in ran.stdout.splitlines())
    return value(
        tuple((f"/dev/{m['name']}", m["mode"], int(m["uid"]), int(m["gid"])) for m in matches if m),
        ran.line(), ran.started,
    )  # fmt: skip


def read_devices(run: Run) -> Reading[tuple[DeviceSeen, ...]]:
    """The NVIDIA device nodes, each really opened for reading and for writing as the container's user.

    `dd` with count=0 opens and closes and moves no byte. A mode that looks right proves nothing: the device cgroup
    refuses with EPERM whatever the mode (facts transcode W19).
    """
    listed = list_devices(run)
    if listed.value is None:
        return failed(listed.source, listed.why, listed.kind)
    seen = []
    for path, mode, uid, gid in listed.value:
        if not re.fullmatch(r"/dev/nvidia(\d+|ctl|-uvm)", path):
            continue  # modeset, uvm-tools, caps: not opened by transcoders
        read = run(("dd", f"if={path}", "of=/dev/null", "count=0"))
        write = run(("dd", "if=/dev/null", f"of={path}", "count=0", "conv=notrunc"))
        for ran in (read, write):
            if ran.rc is None:  # no verdict of the kernel: the way to the pod broke, or the image has no dd
                return _unread(ran)
        seen.append(DeviceSeen(path, mode, uid, gid, read, write))
    return value(tuple(seen), listed.source, listed.at)


def read_libraries(run: Run) -> Reading[tuple[str, ...]]:
    """Paths of the driver libraries that exist in the container."""
    ran = run(("ls", "-d", *(f"{folder}/{library}" for library in LIBRARIES for folder in LIBRARY_FOLDERS)))
    if ran.rc is None:  # status 2 only says that some of the paths do not exist
        return _unread(ran)
    return value(
        tuple(line.strip() for line in ran.stdout.splitlines() if line.startswith("/")), "ls -d <library paths>",
        ran.started,
    )  # fmt: skip


def floors(smi: Reading[SmiSeen], probe: Probe) -> Reading[Floors]:
    """What the card has left against what the lab wants left before any work starts (DESIGN 6)."""
    report = smi.value.report.value if smi.value is not None else None
    if report is None or not report.gpus:
        return failed("nvidia-smi -q -x", "nvidia-smi told nothing about the card, so nothing is started on it")
    gpu = report.gpus[0]
    free, sessions, temperature = gpu.memory_free.value, gpu.encoder_sessions.value, gpu.temperature.value
    short = ""
    if free is not None and free < probe.min_free_vram_mib:
        short = f"{free} MiB of card memory free, {probe.min_free_vram_mib} MiB wanted before a test starts"
    elif probe.max_encoder_sessions is not None and sessions is not None and sessions > probe.max_encoder_sessions:
        short = f"{sessions} encoder sessions open, at most {probe.max_encoder_sessions} wanted before a test starts"
    elif temperature is not None and temperature > probe.max_temperature_c:
        short = f"the card is at {temperature} C, at most {probe.max_temperature_c} C wanted before a test starts"
    return value(Floors(free, sessions, temperature, short), "nvidia-smi -q -x")


def _timed_out(ran: Ran) -> bool:
    return ran.rc is None and ran.why.startswith("it did not end")


def _unread(ran: Ran) -> Reading[Any]:
    return failed(ran.line(), ran.said(), "exec")
