"""intel_gpu_device_plugin as it runs in a pod: scans the node's DRM devices every five seconds and registers them.

Log lines: INT cmd/gpu_plugin and pkg/deviceplugin (kubernetes-gpu.md 5.1, K52; talos.md T49).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from labproof.simlab.kube.container_start import DeviceResponse
from labproof.simlab.kube.devices import Endpoint
from labproof.simlab.kube.services import Running, klog
from labproof.simlab.world.states import DrmDevice

_RESCAN_S = 5.0


def _flag(running: Running, name: str, default: str = "") -> str:
    words = [word.removeprefix("-") for word in running.argv[1:]]
    for word in words:
        key, _, text = word.partition("=")
        if key == name:
            return text or "true"
    return default


def wanted_devices(running: Running) -> list[DrmDevice]:
    """The DRM devices it offers: filtered by the flags' PCI ids."""
    allowed = [i for i in _flag(running, "allow-ids").split(",") if i]
    denied = [i for i in _flag(running, "deny-ids").split(",") if i]
    found = []
    for device in running.kubelet.state.drm:
        ident = f"0x{device.vendor_device.partition(':')[2]}"
        if (not allowed or ident in allowed) and ident not in denied and device.vendor_device.startswith("8086:"):
            found.append(device)
    return found


def resources(running: Running) -> dict[str, tuple[list[DrmDevice], int]]:
    """Resource -> devices behind it, and how often each is offered."""
    shared = int(_flag(running, "shared-dev-num", "1"))
    image = str(running.container.spec["image"])
    minor = image.rpartition(":")[2].split(".")
    newer = len(minor) > 1 and minor[1].isdigit() and int(minor[1]) >= 36
    offers: dict[str, tuple[list[DrmDevice], int]] = {}
    for device in wanted_devices(running):
        offers.setdefault(f"gpu.intel.com/{device.driver}", ([], shared))[0].append(device)
    if _flag(running, "enable-monitoring") and offers:
        for name, (devices, _) in list(offers.items()):
            single = newer and _flag(running, "monitoring-mode", "single") != "split"
            key = "gpu.intel.com/monitoring" if single else f"{name}_monitoring"
            offers.setdefault(key, ([], 1))[0].extend(devices)
    return offers


def gpu_plugin(running: Running) -> Callable[[], None]:
    """`intel_gpu_device_plugin`."""
    kubelet, clock = running.kubelet, running.kubelet.cluster.clock
    registered: set[str] = set()

    def say(source: str, text: str, level: str = "I") -> None:
        running.log(klog(clock.now(), source, text, level))

    say("gpu_plugin.go:861", f'"GPU device plugin started" version="{running.container.spec["image"]}"')

    def scan() -> None:
        if not kubelet.state.drm:
            cards = [d.path for d in kubelet.state.device_nodes if d.path.startswith("/dev/dri/card")]
            if cards:
                say("gpu_plugin.go:530", "Not compatible device: card0", "W")
            else:
                text = "Failed to scan: Can't read sysfs folder: open /sys/class/drm: no such file or directory"
                say("gpu_plugin.go:430", text, "W")
            say("gpu_plugin.go:533", "Not compatible device: version", "W")
        offers = resources(running)
        for name in registered - set(offers):
            kubelet.devices.stop(name)
            registered.discard(name)
        for name, (devices, times) in offers.items():
            if name not in registered:
                register(name, devices, times)
        running.later(_RESCAN_S, scan)

    def register(name: str, devices: list[DrmDevice], times: int) -> None:
        short = name.partition("/")[2]
        ids = {f"{d.card_node.rpartition('/')[2]}-{n}": d for d in devices for n in range(times)}
        if short.endswith("monitoring"):
            ids = {"all": devices[0]}
        kubelet.devices.register(Endpoint(name, dict.fromkeys(ids, True), lambda wanted: ""))
        kubelet.answers[name] = partial(_answer, running, ids)
        registered.add(name)
        say(
            "manager.go:146", f"Start server for {short} at: /var/lib/kubelet/device-plugins/gpu.intel.com-{short}.sock"
        )
        say("server.go:285", f"Device plugin for {short} registered")
        kubelet.cluster.node_status_soon(kubelet.name)

    def kubelet_came_back() -> None:
        if kubelet.inputs.get("plugin_misses_kubelet_restart"):
            return
        registered.clear()

    def stopped() -> None:
        if kubelet_came_back in kubelet.restarted_at:
            kubelet.restarted_at.remove(kubelet_came_back)
        for name in registered:
            kubelet.devices.stop(name)
        kubelet.cluster.node_status_soon(kubelet.name)

    kubelet.restarted_at.append(kubelet_came_back)
    scan()
    return stopped


def _answer(running: Running, ids: dict[str, DrmDevice], granted: list[str]) -> DeviceResponse:
    """Every DRM node of each granted card, and its by-path entries as device nodes of their own (5.4)."""
    response = DeviceResponse()
    chosen = list(ids.values()) if granted == ["all"] else [ids[i] for i in granted if i in ids]
    for device in chosen:
        for path in (device.card_node, device.render_node):
            if path not in response.devices:
                response.devices.append(path)
        if _flag(running, "bypath", "single") != "none":
            for kind, path in (("card", device.card_node), ("render", device.render_node)):
                response.links[f"/dev/dri/by-path/pci-{device.address}-{kind}"] = path
    return response
