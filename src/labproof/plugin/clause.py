"""`@clause("HOST-IOMMU-001")`: what ties a test in `suites/` to the check behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., Any])

#: Marks of a layer, by clause id prefix.
MARKS_OF = {
    "HOST": ("host", "proxmox"),
    "VM": ("vm", "proxmox"),
    "TALOS": ("talos",),
    "K8S": ("kubernetes",),
    "POD": ("workload",),
    "CODEC": ("transcode",),
    "METRIC": ("metrics",),
    "APP": ("apps",),
    "GITOPS": ("gitops",),
}
#: Further marks, by the beginning of the id.
EXTRA_MARKS = dict.fromkeys(
    ("POD-CUDA", "POD-OPENCL", "POD-VRAM", "POD-POWER", "CODEC-HEAT", "CODEC-KLOG", "TALOS-ONLY", "TALOS-SOAK"),
    ("compute",),
)

MARK_HELP = {
    "host": "the Proxmox or Linux host: IOMMU, VFIO, driver binding (needs SSH)",
    "vm": "the VM: hostpci, machine, the running QEMU (needs the PVE API)",
    "proxmox": "host and vm",
    "talos": "the node's Talos Linux: image, extensions, driver (needs a talosconfig with os:reader)",
    "kubernetes": "device plugin, labels, RuntimeClass, allocatable (needs a kubeconfig with the shipped role)",
    "workload": "a real pod: nvidia-smi, devices, sharing (creates pods in our own namespace)",
    "compute": "a CUDA kernel, card memory, power and heat, a quiet kernel log, a node that stays up",
    "transcode": "ffmpeg in a pod: encode, decode, both, several at once",
    "apps": "the owner's own programs: do they really use the card (Jellyfin, Plex, Emby, Frigate, Ollama ...)",
    "metrics": "dcgm-exporter, what scrapes it, and the alerts that rest on it",
    "gitops": "the Flux objects that bring the GPU stack",
    "clause(id)": "the clause of the catalogue that this test states",
}


def clause(ident: str) -> Callable[[Test], Test]:
    """Make a test the statement of clause `ident`; the first line of its docstring is the MUST statement."""
    names = MARKS_OF[ident.split("-", 1)[0]]
    for prefix, extra in EXTRA_MARKS.items():
        if ident.startswith(prefix):
            names = (*names, *extra)

    def tie(test: Test) -> Test:
        test = pytest.mark.clause(ident)(test)
        for name in names:
            test = getattr(pytest.mark, name)(test)
        return test

    return tie
