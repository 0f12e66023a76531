"""Which programs of which images the simulator models as services."""

from __future__ import annotations

from labproof.simlab.kube import discovery, intel_plugin, operator_pods, plugin
from labproof.simlab.kube.runtime import Image
from labproof.simlab.kube.services import Service, forever

_BY_PROGRAM: dict[str, Service] = {
    "nvidia-device-plugin": plugin.device_plugin,
    "config-manager": plugin.config_manager,
    "gpu-feature-discovery": discovery.gpu_feature_discovery,
    "nfd-worker": discovery.nfd_worker,
    "nfd-master": discovery.nfd_master,
    "nfd-gc": forever(),
    "nvidia-validator": operator_pods.validator,
    "wait-for-toolkit": operator_pods.wait_for_toolkit,
    "dcgm-exporter": forever(),
    "nvidia-toolkit": forever(),
    "gpu-operator": forever(),
    "intel_gpu_device_plugin": intel_plugin.gpu_plugin,
    "intel_deviceplugin_operator": forever(),
    "controller": forever(),
}


def service_for(argv: list[str], image: Image) -> Service | None:
    """The model of a container's program; None when it is one of labproof.simlab.pod.programs."""
    if not argv:
        return None
    known = _BY_PROGRAM.get(argv[0].rpartition("/")[2])
    if known is not None:
        return known
    if image.service == "forever" and argv[0] == (image.entrypoint or ("",))[0]:
        return forever()
    return None
