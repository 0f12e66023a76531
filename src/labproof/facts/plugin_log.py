"""What the device plugin, GFD and config-manager say in their logs.

The plugin prints its effective configuration as JSON after `Running with config:`: the best witness there is for
replicas and strategies, better than the ConfigMap it was made from. Source of the texts: facts kubernetes-gpu 1.3, 1.6
and K01-K21, K70, K75, K77 (NVIDIA/k8s-device-plugin v0.17.4-v0.20.0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Line(StrEnum):
    """Kinds of line worth knowing."""

    REGISTERED = "registered with the kubelet"
    NO_RESOURCES = "sharing without resources[]"
    FEW_REPLICAS = "fewer than two replicas"
    CONFIG_ERROR = "configuration not readable"
    NO_SUCH_CONFIG = "named configuration does not exist"
    NO_SUCH_DEFAULT = "default configuration does not exist"
    NO_CONFIG_CHOSEN = "no configuration chosen"
    EMPTY_CONFIG = "empty configuration applied"
    NO_RUNTIME = "no NVIDIA runtime seen"
    NO_STRATEGY = "invalid device discovery strategy"
    NVML = "NVML does not initialise"
    NO_DEVICES = "no devices found"
    KUBELET_RESTARTED = "kubelet restart noticed"
    UNHEALTHY = "device marked unhealthy"
    XID = "Xid"
    NO_API = "API server not reachable"
    NO_DRIVER_ROOT = "driver libraries not found"
    DRIVER_WAIT = "driver not validated"
    TOOLKIT_WAIT = "toolkit not ready"
    NO_DRM = "no DRM device found"


# Suffixes and fragments only: the wrapping of Go errors changes with every release.
_LINES: tuple[tuple[Line, re.Pattern[str]], ...] = (
    (Line.NO_RESOURCES, re.compile(r"no resources specified")),
    (Line.FEW_REPLICAS, re.compile(r"number of replicas must be >= 2|no replicas specified")),
    # The empty name is the default's: `specified config  does not exist` (two blanks).
    (Line.NO_SUCH_DEFAULT, re.compile(r"specified config {2}does not exist")),
    (Line.NO_SUCH_CONFIG, re.compile(r"specified config (\S+) does not exist")),
    (Line.NO_CONFIG_CHOSEN, re.compile(r"no config was set, no default was provided")),
    (Line.EMPTY_CONFIG, re.compile(r"Falling back to an empty configuration|Updating to empty config")),
    (Line.CONFIG_ERROR, re.compile(r"unable to \w+ config|error unmarshaling|unknown version: (\S+)")),
    (Line.NO_STRATEGY, re.compile(r"invalid device discovery strategy")),
    (Line.NO_RUNTIME, re.compile(r"Incompatible (?:strategy|platform) detected|Unsupported platform detected")),
    (Line.NO_DRIVER_ROOT, re.compile(r"libcuda\.so\S*: not found|libnvidia-ml\.so\S*: (?:not found|cannot open)")),
    (Line.NVML, re.compile(r"Failed to initialize NVML: (.+?)\.?$|nvml init failed: (.+?)\.?$")),
    (Line.NO_DEVICES, re.compile(r"No devices found\. Waiting indefinitely")),
    (Line.KUBELET_RESTARTED, re.compile(r"kubelet\.sock created, restarting")),
    (Line.XID, re.compile(r"XidCriticalError: Xid=(\d+)")),
    (Line.UNHEALTHY, re.compile(r"device marked unhealthy: (\S+)")),
    (Line.REGISTERED, re.compile(r"Registered device plugin for '([^']+)' with Kubelet")),
    (Line.REGISTERED, re.compile(r"Device plugin for (\S+) registered")),  # Intel's
    (Line.NO_DRM, re.compile(r"Failed to scan|Can't read sysfs folder|Not compatible device: (\S+)")),
    (Line.NO_API, re.compile(r"dial tcp \S+:(?:6?443|7445): (?:i/o timeout|connect: connection )")),
    (Line.DRIVER_WAIT, re.compile(r"failed to validate the driver, retrying")),
    (Line.TOOLKIT_WAIT, re.compile(r"waiting for nvidia container stack to be setup")),
)  # fmt: skip


@dataclass(frozen=True)
class LogLine:
    """One line that says something, and the name or number in it."""

    kind: Line
    text: str
    name: str = ""


@dataclass(frozen=True)
class PluginLog:
    """One container's log, read.

    Attributes:
        previous: whether it is the log of the container before the last restart.
        effective: the newest effective configuration, as its JSON text; empty when the log shows none.
        lines: lines that say something, in order, the last of each kind and name only.
        tail: the last lines, for a person.
    """

    pod: str
    namespace: str
    node: str
    container: str
    role: str
    previous: bool
    effective: str
    lines: tuple[LogLine, ...]
    tail: tuple[str, ...]

    def line(self, *kinds: Line) -> LogLine | None:
        """The last line of one of these kinds, None when the log has none."""
        return next((found for found in reversed(self.lines) if found.kind in kinds), None)


def read_plugin_log(
    text: str, *, pod: str, namespace: str, node: str, container: str, role: str, previous: bool
) -> PluginLog:
    """Take a container's log apart."""
    found: dict[tuple[Line, str], LogLine] = {}
    rows = text.splitlines()
    for row in rows:
        for kind, pattern in _LINES:
            match = pattern.search(row)
            if match:
                name = next((g for g in match.groups() if g), "")
                found.pop((kind, name), None)  # the last one counts, and its place is the last
                found[kind, name] = LogLine(kind, row.strip()[:400], name)
                break
    tail = tuple(row[:400] for row in rows[-12:])
    return PluginLog(
        pod, namespace, node, container, role, previous, _effective(text), tuple(found.values()), tail
    )  # fmt: skip


def _effective(text: str) -> str:
    """The JSON object after the last `Running with config:`, re-serialised in one line; empty when there is none."""
    where = text.rfind("Running with config:")
    brace = text.find("{", where) if where >= 0 else -1
    if brace < 0:
        return ""
    try:
        config, _ = json.JSONDecoder().raw_decode(text, brace)
    except ValueError:
        return ""  # cut by log rotation: not a configuration to compare
    return json.dumps(config, sort_keys=True) if isinstance(config, dict) else ""


@dataclass(frozen=True)
class EffectiveConfig:
    """The few settings of the plugin that decide what a node offers.

    Attributes:
        strategy: `none`, `time-slicing` or `mps`.
        replicas: by resource name; a resource that is not listed is offered once per device.
        rename: `renameByDefault`: the resource is offered as `<name>.shared`.
        refuse_many: `failRequestsGreaterThanOne`.
        discovery: `deviceDiscoveryStrategy`, empty when not set.
    """

    strategy: str = "none"
    replicas: Mapping[str, int] | None = None
    rename: bool = False
    refuse_many: bool = False
    discovery: str = ""
    list_strategy: tuple[str, ...] = ()
    mig_strategy: str = ""

    def slots_per_card(self, resource: str) -> int:
        """How often one card is offered under `resource` (its name without `.shared`)."""
        return (self.replicas or {}).get(resource.removesuffix(".shared"), 1)


def effective_config(config: Mapping[str, Any]) -> EffectiveConfig:
    """The settings in a plugin configuration, be it the log's JSON or a parsed ConfigMap value.

    The plugin's own defaults apply to what is missing; what is malformed is the static check's business
    (`labproof.facts.plugin_config`) and counts as missing here.
    """
    flags, sharing = _mapping(config.get("flags")), _mapping(config.get("sharing"))
    plugin = _mapping(flags.get("plugin"))
    slicing, mps = _mapping(sharing.get("timeSlicing")), _mapping(sharing.get("mps"))
    shared = mps if mps.get("resources") else slicing
    replicas: dict[str, int] = {}
    for resource in shared.get("resources") or ():
        one = _mapping(resource)
        name, count = str(one.get("name") or ""), one.get("replicas")
        if name and isinstance(count, int) and not isinstance(count, bool):
            replicas[name if "/" in name else f"nvidia.com/{name}"] = count
    listed = plugin.get("deviceListStrategy") or ()
    return EffectiveConfig(
        strategy="none" if not replicas else ("mps" if shared is mps else "time-slicing"),
        replicas=replicas,
        rename=bool(shared.get("renameByDefault")),
        refuse_many=bool(shared.get("failRequestsGreaterThanOne")),
        discovery=str(flags.get("deviceDiscoveryStrategy") or ""),
        list_strategy=(listed,) if isinstance(listed, str) else tuple(str(s) for s in listed),
        mig_strategy=str(flags.get("migStrategy") or ""),
    )


def _mapping(what: object) -> Mapping[str, Any]:
    return what if isinstance(what, Mapping) else {}
