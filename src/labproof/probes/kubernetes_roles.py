"""What a DaemonSet of the GPU stack is, told by its containers and images.

Labels do not tell: the NVIDIA chart gives its plugin and its GFD the same ones, the operator and the static manifest
use others again (facts kubernetes-gpu V5, 1.4, 1.5, 4, 5.2, 10.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

PLUGIN_SOCKETS = "/var/lib/kubelet/device-plugins"

# (container name or image fragment, role). Names first: a mirror may rename an image, nobody renames a container.
_CONTAINERS: dict[str, str] = {
    "mps-control-daemon-ctr": "mps",
    "nvidia-device-plugin-ctr": "nvidia-plugin",
    "nvidia-device-plugin": "nvidia-plugin",
    "gpu-feature-discovery-ctr": "gfd",
    "gpu-feature-discovery": "gfd",
    "nvidia-driver-ctr": "driver",
    "nvidia-container-toolkit-ctr": "toolkit",
    "nvidia-operator-validator": "validator",
    "nvidia-dcgm-ctr": "dcgm",
    "nvidia-dcgm-exporter": "dcgm-exporter",
    "nvidia-mig-manager": "mig-manager",
    "intel-gpu-plugin": "intel-plugin",
    "amdgpu-dp-cntr": "amd-plugin",
}
_IMAGES: tuple[tuple[str, str], ...] = (
    ("node-feature-discovery", "nfd"),
    ("intel-gpu-plugin", "intel-plugin"),
    ("rocm/k8s-device-plugin", "amd-plugin"),
    ("dcgm-exporter", "dcgm-exporter"),
    ("generic-device-plugin", "generic-plugin"),
)
#: Which of these is the plugin of a declared flavour.
_PLUGIN_OF = {
    "nvidia-device-plugin": ("nvidia-plugin",),
    "gpu-operator": ("nvidia-plugin",),
    "intel": ("intel-plugin",),
    "generic": ("generic-plugin", "amd-plugin", "other-plugin"),
    "hostpath": (),
}


def role_of(daemonset: Json, flavour: str) -> str:
    """The role of a DaemonSet (see `DaemonSetFacts.role`), empty when it has nothing to do with GPUs.

    Args:
        daemonset: as the API returns it.
        flavour: the declared plugin flavour; another vendor's plugin gets the role `foreign-plugin`.
    """
    spec: Json = ((daemonset.get("spec") or {}).get("template") or {}).get("spec") or {}
    containers = spec.get("containers") or ()
    found = next((_CONTAINERS[c["name"]] for c in containers if c.get("name") in _CONTAINERS), "")
    if not found:
        images = " ".join(str(c.get("image") or "") for c in containers)
        found = next((role for fragment, role in _IMAGES if fragment in images), "")
    if not found and any(
        str((v.get("hostPath") or {}).get("path") or "").rstrip("/") == PLUGIN_SOCKETS
        for v in spec.get("volumes") or ()
    ):
        found = "other-plugin"
    if found == "nfd":
        return "nfd-worker" if _is_nfd_worker(containers) else "nfd-other"
    if found.endswith("-plugin"):
        return "plugin" if found in _PLUGIN_OF.get(flavour, ()) else "foreign-plugin"
    return found


def _is_nfd_worker(containers: Any) -> bool:
    """NFD ships worker and topology updater as DaemonSets; only the worker labels PCI devices."""
    said = [" ".join([str(c.get("name")), *map(str, c.get("command") or ()), *map(str, c.get("args") or ())])
            for c in containers]  # fmt: skip
    return any("worker" in text for text in said)
