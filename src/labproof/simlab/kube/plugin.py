"""The NVIDIA device plugin and its config-manager as they run in a pod.

Log lines: kubernetes-gpu.md 1.6; config selection: 1.3; exit rules: 1.1, K19-K21.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from labproof.simlab.kube.container_start import DeviceResponse
from labproof.simlab.kube.devices import Endpoint
from labproof.simlab.kube.plugin_config import ConfigError, PluginConfig, parse_config, running_config
from labproof.simlab.kube.quantity import amount
from labproof.simlab.kube.services import Running, klog

CONFIG_LABEL = "nvidia.com/device-plugin.config"
_STRATEGIES = {"envvar", "volume-mounts", "cdi-annotations", "cdi-cri"}
_CDI_KIND = "k8s.device-plugin.nvidia.com/gpu"
_IGNORED_XIDS = {13, 31, 43, 45, 68, 109}  # application errors (1.6)
_MIN_MEMORY_MIB = 16  # resident size of the plugin after start is above this; a lower limit is an OOM kill


def chosen_config(running: Running) -> tuple[str, str]:
    """The configuration text the config-manager selects on this node, and its error ("" when it selected one).

    Order (1.3): node label, DEFAULT_CONFIG, then the fallback strategies `named`, `single`, `empty`.
    """
    env = _manager_environment(running)
    source = _config_map(running)
    found = running.kubelet.cluster.store.get("configmaps", source, running.pod["metadata"]["namespace"])
    texts: dict[str, str] = dict((found or {}).get("data") or {})
    node = running.kubelet.cluster.store.get("nodes", running.kubelet.name) or {}
    label = (node.get("metadata", {}).get("labels") or {}).get(CONFIG_LABEL)
    default = env.get("DEFAULT_CONFIG", "")
    if label is not None or default:
        wanted = label if label is not None else default
        if wanted in texts:
            return texts[wanted], ""
        return "", f"specified config {label if label is not None else ''} does not exist"
    for strategy in (s for s in env.get("FALLBACK_STRATEGIES", "named,single").split(",") if s):
        if strategy == "named" and "default" in texts:
            return texts["default"], ""
        if strategy == "single" and len(texts) == 1:
            return next(iter(texts.values())), ""
        if strategy == "empty":
            running.log("Falling back to an empty configuration")
            return "", ""
    return "", "no config was set, no default was provided, and all fallbacks failed"


def _manager_environment(running: Running) -> dict[str, str]:
    """What the pod's config-managers were told; the container's own environment where it has none."""
    spec = running.pod["spec"]
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        if container.get("command") == ["config-manager"]:
            return {row["name"]: str(row.get("value") or "") for row in container.get("env") or ()}
    return running.world.env


def _config_map(running: Running) -> str:
    for volume in running.pod["spec"].get("volumes") or []:
        if volume["name"] == "available-configs":
            return str((volume.get("configMap") or {}).get("name", ""))
    return ""


def cut_off(running: Running) -> bool:
    """Whether a NetworkPolicy isolates the pod's egress and allows none of it."""
    mine: dict[str, str] = running.pod["metadata"].get("labels") or {}
    store = running.kubelet.cluster.store
    policies = store.all("networkpolicies.networking.k8s.io", running.pod["metadata"]["namespace"])
    chosen = [
        p["spec"] for p in policies
        if "Egress" in (p["spec"].get("policyTypes") or ())
        and ((p["spec"].get("podSelector") or {}).get("matchLabels") or {}).items() <= mine.items()
    ]  # fmt: skip
    return bool(chosen) and not any(spec.get("egress") for spec in chosen)


def config_manager(running: Running) -> None:
    """The config-manager: with ONESHOT it selects and leaves, else it stays and watches the node's label."""
    now = running.kubelet.cluster.clock.now()
    if cut_off(running):
        node = running.kubelet.name
        text = (
            "Failed to watch *v1.Node: failed to list *v1.Node: Get "
            f'"https://10.96.0.1:443/api/v1/nodes?fieldSelector=metadata.name%3D{node}&limit=500&resourceVersion=0": '
            "dial tcp 10.96.0.1:443: i/o timeout"
        )
        line = klog(now + 30.0, "reflector.go:200", f'"Unhandled Error" err="{text}"', "E")
        running.later(30.0, lambda: running.log(line))
        return
    _, error = chosen_config(running)
    if error:
        running.log(klog(now, "main.go:166", f"error: {error}", "E"))
        running.later(0.1, lambda: running.exit(1, ""))
        return
    running.log(klog(now, "main.go:250", "Waiting for change to 'nvidia.com/device-plugin.config' label"))
    label = running.kubelet.cluster.node_label(running.kubelet.name, CONFIG_LABEL) or ""
    running.log(klog(now, "main.go:252", f"Label change detected: nvidia.com/device-plugin.config={label}"))
    if running.world.env.get("ONESHOT", "").lower() == "true":
        running.later(0.1, lambda: running.exit(0, ""))


def settings_of(running: Running, config: PluginConfig) -> dict[str, Any]:
    """Flags after precedence: environment over file over default."""
    env, flags = running.world.env, config.flags
    plugin = flags.get("plugin") or {}

    def pick(name: str, variable: str, default: Any, source: dict[str, Any]) -> Any:
        if variable in env:
            return env[variable]
        return source.get(name, default)

    def boolean(value: Any) -> bool:
        return str(value).lower() in {"1", "true"}

    strategy = pick("deviceListStrategy", "DEVICE_LIST_STRATEGY", ["envvar"], plugin)
    strategies = strategy if isinstance(strategy, list) else [s.strip() for s in str(strategy).split(",")]
    return {
        "migStrategy": pick("migStrategy", "MIG_STRATEGY", "none", flags),
        "failOnInitError": boolean(pick("failOnInitError", "FAIL_ON_INIT_ERROR", True, flags)),
        "deviceDiscoveryStrategy": pick("deviceDiscoveryStrategy", "DEVICE_DISCOVERY_STRATEGY", "auto", flags),
        "passDeviceSpecs": boolean(pick("passDeviceSpecs", "PASS_DEVICE_SPECS", False, plugin)),
        "deviceIDStrategy": pick("deviceIDStrategy", "DEVICE_ID_STRATEGY", "uuid", plugin),
        "deviceListStrategy": strategies,
    }


def nvml_error(running: Running) -> str:
    """Why NVML cannot be initialised in this container; "" when it can."""
    world, node = running.world, running.kubelet.state
    if "libnvidia-ml.so.1" not in world.libraries:
        return "ERROR_LIBRARY_NOT_FOUND"
    if not node.driver_version or "/dev/nvidiactl" not in world.devices:
        return "ERROR_DRIVER_NOT_LOADED"
    if node.library_version and node.library_version != node.driver_version:
        return "ERROR_LIB_RM_VERSION_MISMATCH"
    return ""


def load(running: Running) -> PluginConfig:
    """Read the configuration file the container was given.

    Raises:
        ConfigError: see parse_config.
    """
    if not running.world.env.get("CONFIG_FILE"):
        return PluginConfig()
    text, error = chosen_config(running)
    if error:
        raise ConfigError(f"unable to finalize config: unable to parse config file: {error}")
    return parse_config(text)


def device_plugin(running: Running) -> Callable[[], None] | None:
    """`nvidia-device-plugin`."""
    _kubelet, clock = running.kubelet, running.kubelet.cluster.clock
    image = str(running.container.spec["image"])
    now = clock.now()

    def say(source: str, text: str, level: str = "I") -> None:
        running.log(klog(now, source, text, level))

    version = image.rpartition(":")[2]
    say("main.go:235", f'"Starting NVIDIA Device Plugin" version=<\n\t{version}\n\tcommit: simulated\n >')
    say("main.go:238", "Starting FS watcher for /var/lib/kubelet/device-plugins")
    say("main.go:245", "Starting OS watcher.")
    say("main.go:260", "Starting Plugins.")
    say("main.go:317", "Loading configuration.")
    try:
        config = load(running)
    except ConfigError as wrong:
        say("main.go:173", f"error starting plugins: unable to load config: {wrong}", "E")
        running.later(0.1, lambda: running.exit(1, ""))
        return None
    settings = settings_of(running, config)
    bad = [s for s in settings["deviceListStrategy"] if s not in _STRATEGIES]
    if bad:
        say(
            "main.go:173",
            "error starting plugins: unable to load config: unable to finalize config: unable to "
            f"validate flags: invalid --device-list-strategy option: invalid strategy: {bad[0]}",
            "E",
        )
        running.later(0.1, lambda: running.exit(1, ""))
        return None
    say("main.go:342", "Updating config with default resource matching patterns.")
    say("main.go:353", "\nRunning with config:\n" + json.dumps(running_config(config, settings), indent=2))
    say("main.go:356", "Retrieving plugins.")
    if not _discover(running, settings, say):
        return None
    return _serve(running, config, settings, say)


def _discover(running: Running, settings: dict[str, Any], say: Callable[..., None]) -> bool:
    """Find devices; False when the process will exit or idle for ever."""
    strategy, fatal = settings["deviceDiscoveryStrategy"], settings["failOnInitError"]
    error = nvml_error(running)
    if "NVIDIA_DRIVER_ROOT" in running.world.env and "driver-ready" not in running.kubelet.gates:
        # an operand that was not told where the driver is looks below an empty root (K77)
        missing = f"libcuda.so.{running.kubelet.state.driver_version}: not found"
        text = f"unable to create cdi spec file: failed to get CDI spec: failed to locate driver libraries: {missing}"
        say("main.go:173", f"error starting plugins: error getting plugins: {text}", "E")
        running.later(0.1, lambda: running.exit(1, ""))
        return False
    resolved = strategy
    if strategy == "auto":
        resolved = "nvml" if "libnvidia-ml.so.1" in running.world.libraries else ""
    if not resolved or strategy not in {"auto", "nvml", "tegra"}:
        say("factory.go:112", f"Incompatible strategy detected {strategy}", "E")
        say("factory.go:113", "If this is a GPU node, did you configure the NVIDIA Container Toolkit?", "E")
        say(
            "factory.go:114",
            "You can check the prerequisites at: https://github.com/NVIDIA/k8s-device-plugin#prerequisites",
            "E",
        )
        say(
            "factory.go:115",
            "You can learn how to set the runtime at: https://github.com/NVIDIA/k8s-device-plugin#quick-start",
            "E",
        )
        say(
            "factory.go:116",
            "If this is not a GPU node, you should set up a toleration or nodeSelector to only "
            "deploy this plugin on GPU nodes",
            "E",
        )
        error, chain = "incompatible", "invalid device discovery strategy"
    elif resolved == "tegra":
        error, chain = "", ""
        say("main.go:381", "No devices found. Waiting indefinitely.")
        return False
    elif error:
        say("factory.go:77", f"Failed to initialize NVML: {error}.", "E")
        say("factory.go:78", "If this is a GPU node, did you set the docker default runtime to `nvidia`?", "E")
        chain = f"nvml init failed: {error}"
    if error:
        if fatal:
            say(
                "main.go:173",
                "error starting plugins: error getting plugins: error creating plugin manager: "
                f"unable to create plugin manager: {chain}",
                "E",
            )
            running.later(0.1, lambda: running.exit(1, ""))
        else:
            say("main.go:381", "No devices found. Waiting indefinitely.")
        return False
    if not running.world.gpus:
        say("main.go:381", "No devices found. Waiting indefinitely.")
        return False
    return True


def _serve(
    running: Running, config: PluginConfig, settings: dict[str, Any], say: Callable[..., None]
) -> Callable[[], None]:
    kubelet = running.kubelet
    resource = config.advertised()
    replicas = config.replicas()
    gpus = running.world.gpus
    ids = [f"{g.uuid}::{n}" if replicas > 1 else g.uuid for g in gpus for n in range(max(replicas, 1))]
    devices = dict.fromkeys(ids, True)
    socket = f"/var/lib/kubelet/device-plugins/{resource.replace('nvidia.com/', 'nvidia-')}.sock"
    strict = bool(config.sharing and config.sharing.fail_requests_greater_than_one and replicas > 1)
    wants_cdi = any(s.startswith("cdi") for s in settings["deviceListStrategy"])

    def allocate(wanted: list[str]) -> str:
        if strict and len(wanted) > 1:
            return (
                f'invalid allocation request for "{resource}": invalid request: maximum request size for shared '
                f"resources is 1; found {len(wanted)}"
            )
        return ""

    def answer(granted: list[str]) -> DeviceResponse:
        return _allocate_response(running, settings, granted)

    def register() -> None:
        at = kubelet.cluster.clock.now()
        running.log(klog(at, "server.go:195", f"Starting GRPC server for '{resource}'"))
        running.log(klog(at, "server.go:139", f"Starting to serve '{resource}' on {socket}"))
        kubelet.devices.register(Endpoint(resource, devices, allocate))
        kubelet.answers[resource] = answer
        if wants_cdi:
            kubelet.specs[_CDI_KIND] = tuple(g.uuid for g in gpus)
            kubelet.cdi_hook = running.world.env.get("NVIDIA_CDI_HOOK_PATH") or "/usr/bin/nvidia-ctk"
        running.log(klog(at, "server.go:146", f"Registered device plugin for '{resource}' with Kubelet"))
        kubelet.cluster.node_status_soon(kubelet.name)
        limit = (running.container.spec.get("resources") or {}).get("limits") or {}
        if "memory" in limit and amount(limit["memory"]) < _MIN_MEMORY_MIB * 2**20:
            running.later(1.0, lambda: running.exit(137, "OOMKilled"))
        for gpu in gpus:
            for xid, after in (gpu.card.inputs.get("incidents") or {}).items():
                wait = kubelet.state.booted_at + float(after) - at
                if int(xid) not in _IGNORED_XIDS and wait > 0:  # of one before nobody tells it
                    running.later(wait, partial(_mark_unhealthy, running, devices, gpu.uuid, int(xid)))

    def kubelet_came_back() -> None:
        if kubelet.inputs.get("plugin_misses_kubelet_restart"):
            return  # K70: the inotify watch is lost, nobody registers again
        say("main.go:295", "inotify: /var/lib/kubelet/device-plugins/kubelet.sock created, restarting.")
        running.later(1.0, register)

    def critical(xid: int) -> None:
        if xid not in _IGNORED_XIDS:
            _mark_unhealthy(running, devices, gpus[0].uuid, xid)

    def stopped() -> None:
        kubelet.xid_listeners.remove(critical)
        if kubelet_came_back in kubelet.restarted_at:
            kubelet.restarted_at.remove(kubelet_came_back)
        kubelet.devices.stop(resource)
        kubelet.cluster.node_status_soon(kubelet.name)

    kubelet.restarted_at.append(kubelet_came_back)
    kubelet.xid_listeners.append(critical)
    register()
    return stopped


def _allocate_response(running: Running, settings: dict[str, Any], granted: list[str]) -> DeviceResponse:
    """What Allocate answers, by device list strategy (1.2)."""
    by_uuid = {g.uuid: g for g in running.world.gpus}
    unique = list(dict.fromkeys(i.partition("::")[0] for i in granted))
    shown = unique
    if settings["deviceIDStrategy"] == "index":
        shown = [str(by_uuid[u].index) for u in unique if u in by_uuid]
    response = DeviceResponse()
    strategies = settings["deviceListStrategy"]
    if "envvar" in strategies:
        response.env["NVIDIA_VISIBLE_DEVICES"] = ",".join(shown)
    if "volume-mounts" in strategies:
        response.env["NVIDIA_VISIBLE_DEVICES"] = "/var/run/nvidia-container-devices"
    if any(s.startswith("cdi") for s in strategies):
        response.cdi = [f"{_CDI_KIND}={u}" for u in unique]
    if settings["passDeviceSpecs"]:
        wanted = {"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"}
        wanted |= {f"/dev/nvidia{by_uuid[u].index}" for u in unique if u in by_uuid}
        response.devices = [d.path for d in running.kubelet.state.device_nodes if d.path in wanted]
    return response


def _mark_unhealthy(running: Running, devices: dict[str, bool], uuid: str, xid: int) -> None:
    """An XID event: only the one mapped replica of the card is marked, and it never recovers (1.6)."""
    mine = [i for i in devices if i.partition("::")[0] == uuid]
    if not mine:
        return
    devices[mine[-1]] = False
    at = running.kubelet.cluster.clock.now()
    running.log(
        klog(at, "health.go:189", f"XidCriticalError: Xid={xid} on Device={uuid}; marking device as unhealthy.")
    )
    running.log(klog(at, "server.go:282", f"'nvidia.com/gpu' device marked unhealthy: {mine[-1]}"))
    running.kubelet.cluster.node_status_soon(running.kubelet.name)
