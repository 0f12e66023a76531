"""What one container sees of an Intel or AMD GPU: nodes under /dev/dri, the devices behind them, libva's answer.

The number of a render node says nothing: sysfs, which every container sees, tells the PCI device behind each
(facts kubernetes-gpu 5.4, K54; transcode W45).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from labproof.facts.dri import DriNode, DriSeen, VaInfo, parse_vainfo
from labproof.facts.pod_command import Ran
from labproof.facts.reading import Reading, failed, value
from labproof.inventory.models import Probe

Run = Callable[[Sequence[str]], Ran]
_LISTED = re.compile(
    r"^(?P<mode>c[rwxsStT-]{9})\S*\s+\d+\s+(?P<uid>\d+)\s+(?P<gid>\d+)\s+\d+,\s*\d+\s.*\s(?P<name>(?:card|renderD)\d+)$"
)


def list_dri(run: Run) -> Reading[tuple[tuple[str, str, int, int], ...]]:
    """(path, mode, uid, gid) of the DRM nodes in the container; an empty tuple when there are none."""
    ran = run(("ls", "-ln", "/dev/dri"))
    if ran.rc is None:
        return failed(ran.line(), ran.said(), "exec")
    if not ran.ok and "No such file" not in ran.stderr:
        return failed(ran.line(), ran.said(), "exec")
    matches = (_LISTED.match(line.strip()) for line in ran.stdout.splitlines())
    return value(
        tuple((f"/dev/dri/{m['name']}", m["mode"], int(m["uid"]), int(m["gid"])) for m in matches if m),
        ran.line(), ran.started,
    )  # fmt: skip


def read_dri(run: Run) -> Reading[DriSeen]:
    """Every DRM node of the container, really opened for reading and for writing as its user."""
    listed = list_dri(run)
    if listed.value is None:
        return failed(listed.source, listed.why, listed.kind)
    nodes = []
    for path, mode, uid, gid in listed.value:
        read = run(("dd", f"if={path}", "of=/dev/null", "count=0"))
        write = run(("dd", "if=/dev/null", f"of={path}", "count=0", "conv=notrunc"))
        for ran in (read, write):
            if ran.rc is None:  # no verdict of the kernel: the way to the pod broke, or the image has no dd
                return failed(ran.line(), ran.said(), "exec")
        address, ids, driver = _behind(run, path)
        nodes.append(DriNode(path, address, ids, driver, mode, uid, gid, read, write))
    kernel = run(("uname", "-r"))
    return value(DriSeen(tuple(nodes), kernel.stdout.strip() if kernel.ok else ""), listed.source, listed.at)


def _behind(run: Run, path: str) -> tuple[str, str, str]:
    """PCI address, vendor:device and driver behind a DRM node, each empty where sysfs does not tell."""
    ran = run(("cat", f"/sys/class/drm/{path.rpartition('/')[2]}/device/uevent"))
    told = dict(line.partition("=")[::2] for line in ran.stdout.splitlines()) if ran.ok else {}
    return told.get("PCI_SLOT_NAME", ""), told.get("PCI_ID", "").lower(), told.get("DRIVER", "")


def read_vainfo(run: Run, probe: Probe, node: str) -> Reading[VaInfo]:
    """vainfo of the image for one node; without X and Wayland, which only add noise."""
    environment = ("env", *(f"{k}={v}" for k, v in probe.env.items())) if probe.env else ()
    argv = (*environment, str(probe.vainfo), "--display", "drm", "--device", node)
    return parse_vainfo(node, run(argv))
