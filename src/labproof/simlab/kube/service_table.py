"""Which programs of which images the simulator models as services."""

from __future__ import annotations

from labproof.simlab.apps import frigate, jellyfin, ollama, small
from labproof.simlab.kube import dcgm, discovery, intel_plugin, operator_pods, plugin
from labproof.simlab.kube.runtime import Image
from labproof.simlab.kube.services import Service, forever
from labproof.simlab.pod.images import split_reference

_BY_PROGRAM: dict[str, Service] = {
    "nvidia-device-plugin": plugin.device_plugin,
    "config-manager": plugin.config_manager,
    "gpu-feature-discovery": discovery.gpu_feature_discovery,
    "nfd-worker": discovery.nfd_worker,
    "nfd-master": discovery.nfd_master,
    "nfd-gc": forever(),
    "nvidia-validator": operator_pods.validator,
    "wait-for-toolkit": operator_pods.wait_for_toolkit,
    "dcgm-exporter": dcgm.dcgm_exporter,
    "nvidia-toolkit": forever(),
    "gpu-operator": forever(),
    "intel_gpu_device_plugin": intel_plugin.gpu_plugin,
    "intel_deviceplugin_operator": forever(),
    "controller": forever(),
}
#: Servers whose program has a name that says nothing, by the image's repository.
_BY_IMAGE: dict[str, Service] = {
    "jellyfin/jellyfin": jellyfin.jellyfin,
    "blakeblackshear/frigate": frigate.frigate,
    "ollama/ollama": ollama.ollama,
    **small.SERVERS,
}


def service_for(argv: list[str], image: Image) -> Service | None:
    """The model of a container's program; None when it is one of labproof.simlab.pod.programs."""
    if not argv:
        return None
    known = _BY_PROGRAM.get(argv[0].rpartition("/")[2])
    if known is not None:
        return known
    server = _BY_IMAGE.get(split_reference(image.ref)[0])
    if server is not None and argv[0] == (image.entrypoint or ("",))[0]:
        return server
    if image.service == "forever" and argv[0] == (image.entrypoint or ("",))[0]:
        return forever()
    return None
