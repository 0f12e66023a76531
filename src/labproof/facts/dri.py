"""Facts about DRM devices in a container: its nodes, whether they open, and what libva offers through them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from labproof.facts.pod_command import Ran
from labproof.facts.reading import Reading, failed, value

_PAIR = re.compile(r"^\s*(VAProfile\w+)\s*:\s*(VAEntrypoint\w+)", re.MULTILINE)
_DRIVER = re.compile(r"Driver version: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class DriNode:
    """A node under /dev/dri in the container, and the device behind it as sysfs tells.

    Attributes:
        address: PCI address on the node, empty where sysfs did not tell.
        vendor_device: `8086:9a49`.
        driver: the kernel driver behind it (i915, xe, amdgpu, bochs-drm ...).
        mode, uid, gid: as `ls -ln` shows them (crw-rw-rw-).
        opened_read, opened_write: what opening it as the container's user gave.
    """

    path: str
    address: str
    vendor_device: str
    driver: str
    mode: str
    uid: int
    gid: int
    opened_read: Ran
    opened_write: Ran

    @property
    def opens(self) -> bool:
        """Whether it opens for reading and for writing."""
        return self.opened_read.ok and self.opened_write.ok

    @property
    def is_render(self) -> bool:
        """A render node, which is what VA-API uses."""
        return "/renderD" in self.path


@dataclass(frozen=True)
class VaInfo:
    """What vainfo said of one node.

    Attributes:
        node: the node it was asked about.
        driver: the driver's own name and version, empty when none was loaded.
        pairs: (profile, entry point).
        lines: libva's own lines.
    """

    node: str
    ran: Ran
    driver: str
    pairs: tuple[tuple[str, str], ...]
    lines: tuple[str, ...]

    def offers(self, profiles: tuple[str, ...], *entrypoints: str) -> bool:
        """Whether any of these profiles has any of these entry points."""
        return any((p, e) in self.pairs for p in profiles for e in entrypoints)


@dataclass(frozen=True)
class DriSeen:
    """The container's DRM devices.

    Attributes:
        nodes: all of /dev/dri but by-path, in the order of their paths.
        kernel: the running kernel's release.
    """

    nodes: tuple[DriNode, ...]
    kernel: str

    def render_node(self, vendor_device: str) -> DriNode | None:
        """The render node of that device, None when the container has none."""
        return next((n for n in self.nodes if n.is_render and n.vendor_device == vendor_device), None)


def parse_vainfo(node: str, ran: Ran) -> Reading[VaInfo]:
    """vainfo's answer; a missing program is a failed reading, an error of libva is a value."""
    if ran.missing or ran.rc is None:
        return failed(ran.line(), ran.said(), "image" if ran.missing else "exec")
    text = f"{ran.stdout}\n{ran.stderr}"
    found = _DRIVER.search(text)
    lines = tuple(line.strip() for line in text.splitlines() if line.startswith("libva") or "given device" in line)
    pairs = tuple((m[1], m[2]) for m in _PAIR.finditer(ran.stdout))
    return value(VaInfo(node, ran, found[1].strip() if found else "", pairs, lines), ran.line(), ran.started)
