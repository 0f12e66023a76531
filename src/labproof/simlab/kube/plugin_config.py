"""NVIDIA device plugin's configuration file: the parser's rules and error texts.

Rules: kubernetes-gpu.md 1.1 (k8s-device-plugin api/config/v1). Unknown keys are ignored, as the real parser does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import yaml

_MAX_NAME = 63
_DEFAULT_RESOURCE = "nvidia.com/gpu"


class ConfigError(Exception):
    """The plugin refuses its configuration; the text is the innermost error."""


@dataclass(frozen=True)
class Replicated:
    """One entry of sharing.<strategy>.resources."""

    name: str
    replicas: int


@dataclass(frozen=True)
class Sharing:
    """sharing.timeSlicing or sharing.mps."""

    strategy: str  # time-slicing | mps
    resources: tuple[Replicated, ...]
    rename_by_default: bool = False
    fail_requests_greater_than_one: bool = False


@dataclass(frozen=True)
class PluginConfig:
    """A parsed configuration file."""

    version: str = "v1"
    flags: dict[str, Any] = field(default_factory=dict)
    sharing: Sharing | None = None

    def replicas(self, resource: str = _DEFAULT_RESOURCE) -> int:
        """Replicas of a resource; 1 without sharing."""
        for entry in self.sharing.resources if self.sharing else ():
            if entry.name == resource:
                return entry.replicas
        return 1

    def advertised(self, resource: str = _DEFAULT_RESOURCE) -> str:
        """The name under which a resource is advertised."""
        if self.sharing and self.sharing.rename_by_default and self.replicas(resource) > 1:
            return f"{resource}.shared"
        return resource


@lru_cache(maxsize=64)
def parse_config(text: str) -> PluginConfig:
    """Parse a configuration file.

    Raises:
        ConfigError: the plugin would exit; its message is the whole chain behind `unable to load config: `.
    """
    prefix = "unable to finalize config: unable to parse config file: error parsing config file: "
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as wrong:
        raise ConfigError(f"{prefix}unmarshal error: error converting YAML to JSON: yaml: {wrong}") from wrong
    if raw is None:
        return PluginConfig()
    decode = f"{prefix}unmarshal error: error unmarshaling JSON: while decoding JSON: "
    if not isinstance(raw, dict):
        raise ConfigError(f"{decode}json: cannot unmarshal {type(raw).__name__} into Go value of type v1.Config")
    try:
        sharing = _sharing(raw.get("sharing") or {})
    except ConfigError as inner:
        raise ConfigError(decode + str(inner)) from inner
    version = str(raw.get("version") or "v1")
    if version != "v1":
        raise ConfigError(f"{prefix}unknown version: {version}")
    flags = raw.get("flags") or {}
    return PluginConfig(version, dict(flags) if isinstance(flags, dict) else {}, sharing)


def _sharing(raw: Any) -> Sharing | None:
    if not isinstance(raw, dict):
        raise ConfigError(f"json: cannot unmarshal {type(raw).__name__} into Go struct field Config.sharing")
    found = None
    for key, strategy in (("timeSlicing", "time-slicing"), ("mps", "mps")):
        if key in raw and raw[key] is not None:
            found = _replicated(raw[key], strategy)
    return found


def _replicated(raw: Any, strategy: str) -> Sharing:
    if not isinstance(raw, dict) or "resources" not in raw:
        raise ConfigError("no resources specified")
    resources = raw["resources"]
    if not isinstance(resources, list):
        raise ConfigError("json: cannot unmarshal object into Go value of type []v1.ReplicatedResource")
    if not resources:
        raise ConfigError("no resources specified")
    rows = tuple(_resource(entry) for entry in resources)
    return Sharing(
        strategy,
        rows,
        bool(raw.get("renameByDefault", False)),
        bool(raw.get("failRequestsGreaterThanOne", False)) or strategy == "mps",
    )


def _resource(entry: Any) -> Replicated:
    if not isinstance(entry, dict) or not entry.get("name"):
        raise ConfigError("no resource name specified")
    name = str(entry["name"])
    if not name.startswith("nvidia.com/"):
        name = f"nvidia.com/{name}"
    if len(name) > _MAX_NAME:
        raise ConfigError(f"fully-qualified resource name must be {_MAX_NAME} characters or less")
    _devices(entry.get("devices", "all"))
    if "replicas" not in entry:
        raise ConfigError("no replicas specified")
    replicas = entry["replicas"]
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise ConfigError(f"json: cannot unmarshal {type(replicas).__name__} into Go value of type int")
    if replicas < 2:
        raise ConfigError("number of replicas must be >= 2")
    return Replicated(name, replicas)


def _devices(devices: Any) -> None:
    if isinstance(devices, str):
        if devices != "all":
            raise ConfigError(f"devices set as '{devices}' but the only valid string input is 'all'")
    elif isinstance(devices, list) and any(not isinstance(d, (int, str)) for d in devices):
        raise ConfigError("unsupported type for device in devices list")


def running_config(config: PluginConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """The JSON that the plugin prints behind `Running with config:`.

    Args:
        config: the parsed file.
        settings: flags after precedence (command line and environment over the file), by their JSON names.
    """
    plugin = {
        "passDeviceSpecs": settings["passDeviceSpecs"],
        "deviceListStrategy": settings["deviceListStrategy"],
        "deviceIDStrategy": settings["deviceIDStrategy"],
        "cdiAnnotationPrefix": "cdi.k8s.io/",
        "nvidiaCTKPath": "/usr/bin/nvidia-ctk",
        "containerDriverRoot": "/driver-root",
    }
    shown: dict[str, Any] = {
        "version": config.version,
        "flags": {
            "migStrategy": settings["migStrategy"],
            "failOnInitError": settings["failOnInitError"],
            "mpsRoot": "/run/nvidia/mps",
            "nvidiaDriverRoot": "/",
            "nvidiaDevRoot": "/",
            "gdrcopyEnabled": False,
            "gdsEnabled": False,
            "mofedEnabled": False,
            "useNodeFeatureAPI": None,
            "deviceDiscoveryStrategy": settings["deviceDiscoveryStrategy"],
            "plugin": plugin,
        },
        "resources": {"gpus": [{"pattern": "*", "name": _DEFAULT_RESOURCE}]},
        "sharing": {"timeSlicing": {}},
        "imex": {},
    }
    if config.sharing:
        block: dict[str, Any] = {}
        if config.sharing.rename_by_default:
            block["renameByDefault"] = True
        if config.sharing.fail_requests_greater_than_one:
            block["failRequestsGreaterThanOne"] = True
        block["resources"] = [
            {
                "name": r.name,
                **({"rename": f"{r.name}.shared"} if config.sharing.rename_by_default else {}),
                "devices": "all",
                "replicas": r.replicas,
            }
            for r in config.sharing.resources
        ]
        if config.sharing.strategy == "mps":
            shown["sharing"] = {"timeSlicing": {}, "mps": block}
        else:
            shown["sharing"] = {"timeSlicing": block}
    return shown
