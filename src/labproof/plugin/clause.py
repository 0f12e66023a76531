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
}
#: Further marks, by the beginning of the id.
EXTRA_MARKS = {"POD-CUDA": ("compute",), "POD-OPENCL": ("compute",)}

MARK_HELP = {
    "host": "the Proxmox or Linux host: IOMMU, VFIO, driver binding (needs SSH)",
    "vm": "the VM: hostpci, machine, the running QEMU (needs the PVE API)",
    "proxmox": "host and vm",
    "talos": "the node's Talos Linux: image, extensions, driver (needs a talosconfig with os:reader)",
    "kubernetes": "device plugin, labels, RuntimeClass, allocatable (needs a kubeconfig with the shipped role)",
    "workload": "a real pod: nvidia-smi, devices, sharing (creates pods in our own namespace)",
    "compute": "a CUDA kernel in a pod",
    "transcode": "ffmpeg in a pod: encode, decode, both, several at once",
    "apps": "Jellyfin, Emby, Frigate, Ollama",
    "metrics": "dcgm-exporter and its scrape",
    "gitops": "Flux and Argo objects that bring the stack",
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
