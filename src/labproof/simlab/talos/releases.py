"""What one Talos release ships: kernel, drivers, paths and behaviours (facts/talos.md 2 and 3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

KMOD_FAMILIES = ("nonfree-kmod-nvidia", "nvidia-open-gpu-kernel-modules")
TOOLKIT_FAMILY = "nvidia-container-toolkit"


@cache
def tables() -> dict[str, Any]:
    """The release tables as read from `releases.yaml`."""
    read: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "releases.yaml").read_text())
    return read


@dataclass(frozen=True)
class Release:
    """One Talos release, by its tag."""

    tag: str
    minor: tuple[int, int]
    patch: int
    kernel: str
    lts: str
    production: str
    toolkit: str

    @property
    def cdi(self) -> bool:
        """containerd has CDI on and the toolkit brings `ext-nvidia-cdi-gen` (from 1.13)."""
        return self.minor >= (1, 13)

    @property
    def nri(self) -> bool:
        """containerd has NRI on (from 1.14)."""
        return self.minor >= (1, 14)

    @property
    def library_root(self) -> str:
        """Where the toolkit extension puts the driver's user libraries."""
        return "/usr/local/lib" if self.cdi else "/usr/local/glibc/usr/lib"

    @property
    def cri_part(self) -> str:
        """Name of the toolkit's containerd part; prefixed from 1.9.2 so that the owner's 20- part sorts after it."""
        early = (*self.minor, self.patch) < (1, 9, 2)
        return "nvidia-container-runtime.part" if early else "10-nvidia-container-runtime.part"

    @property
    def cri_table(self) -> str:
        """Plugin table of containerd's configuration (version 3 from Talos 1.8)."""
        return "io.containerd.cri.v1.runtime" if self.minor >= (1, 8) else "io.containerd.grpc.v1.cri"

    @property
    def resources(self) -> frozenset[str]:
        """Resource types that came or went with a release; all others exist everywhere."""
        types = set()
        if self.minor >= (1, 11):
            types |= {"LoadedKernelModules.runtime.talos.dev", "KernelCmdlines.runtime.talos.dev"}
        if self.minor >= (1, 14):
            types |= {
                "KernelModuleStatuses.runtime.talos.dev",
                "ImageFactorySchematics.runtime.talos.dev",
                "BootIDs.runtime.talos.dev",
            }
        return frozenset(types)

    @property
    def module_signatures(self) -> bool:
        """`module.sig_enforce=1` is on the default command line (from 1.12)."""
        return self.minor >= (1, 12)


def release(tag: str) -> Release:
    """The release with this tag, `v1.11.6`.

    Raises:
        ValueError: the table has no such minor release.
    """
    match = re.fullmatch(r"v(\d+)\.(\d+)\.(\d+)(?:-[a-z]+\.\d+)?", tag)
    minor = tables()["minors"].get(f"{match[1]}.{match[2]}") if match else None
    if match is None or minor is None:
        raise ValueError(f"no Talos release {tag!r} in the release table")
    patch = int(match[3])
    row = [p for p in minor["patches"] if p["from"] <= patch][-1]
    return Release(
        tag, (int(match[1]), int(match[2])), patch, minor["kernel"], row["lts"], row["production"], row["toolkit"]
    )


def architecture(vendor_device: str) -> str:
    """GPU generation of a PCI id, `unknown` when the table does not have it."""
    return str(tables()["architectures"].get(vendor_device, "unknown"))
