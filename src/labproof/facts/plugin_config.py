"""The NVIDIA plugin's configuration file, judged without running the plugin: the parser's own rules.

Unknown keys are silently ignored by the plugin, so the only signal of a misplaced `replicas` is the crash it causes.
Source: facts kubernetes-gpu V1, V3, 1.1 (NVIDIA/k8s-device-plugin api/config/v1/*.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from labproof.inventory.models import Cluster


class Flaw(StrEnum):
    """Classes of flaw; the first five stop the plugin."""

    NOT_YAML = "not YAML"
    VERSION = "unknown version"
    NO_RESOURCES = "no resources[]"
    FEW_REPLICAS = "fewer than two replicas"
    MALFORMED = "malformed"
    BOTH_SHARINGS = "time-slicing and MPS together"
    UNKNOWN_KEY = "key the plugin ignores"
    NO_EFFECT = "setting without effect"


FATAL = frozenset({Flaw.NOT_YAML, Flaw.VERSION, Flaw.NO_RESOURCES, Flaw.FEW_REPLICAS, Flaw.MALFORMED})


@dataclass(frozen=True)
class Finding:
    """One flaw: where in the file, and what about it."""

    flaw: Flaw
    path: str
    text: str


_TOP = {"version", "flags", "resources", "sharing", "imex"}
_SHARING = {"timeSlicing", "mps"}
_SHARED = {"renameByDefault", "failRequestsGreaterThanOne", "resources"}
_RESOURCE = {"name", "rename", "devices", "replicas"}
_RESOURCE_NAME = re.compile(r"^(nvidia\.com/)?(gpu|mig-\d+[gc][.\w]*)$")


def parse_plugin_config(text: str) -> tuple[Mapping[str, Any], list[Finding]]:
    """The configuration in one ConfigMap value (an empty mapping when unreadable) and everything wrong with it."""
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as broken:
        return {}, [Finding(Flaw.NOT_YAML, "", " ".join(str(broken).split())[:200])]
    if config is None:
        return {}, []  # an empty file is the plugin's default configuration
    if not isinstance(config, Mapping):
        return {}, [Finding(Flaw.MALFORMED, "", f"a mapping is expected, this is a {type(config).__name__}")]
    return config, list(_flaws(config))


def looks_like_plugin_config(text: str) -> bool:
    """Whether a ConfigMap value is meant for the plugin: a mapping with one of its top-level keys, or a broken one."""
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        return "sharing" in text or "timeSlicing" in text
    return isinstance(config, Mapping) and bool(_TOP & {str(k) for k in config})


def pod_resource(cluster: Cluster) -> str:
    """The extended resource that this lab's pods ask for, with `.shared` where the owner declared the renaming."""
    name = cluster.plugin.resource_name
    renamed = cluster.sharing.rename and cluster.sharing.strategy != "none" and cluster.plugin.resource is None
    return f"{name}.shared" if renamed else name


def _flaws(config: Mapping[str, Any]) -> Iterator[Finding]:
    version = config.get("version")
    if version not in (None, "", "v1"):
        yield Finding(Flaw.VERSION, "version", f"unknown version: {version}")
    yield from _unknown(config, _TOP, "")
    sharing = config.get("sharing")
    if sharing is None:
        return
    if not isinstance(sharing, Mapping):
        yield Finding(Flaw.MALFORMED, "sharing", "a mapping is expected")
        return
    yield from _unknown(sharing, _SHARING, "sharing.")
    present = [kind for kind in ("timeSlicing", "mps") if sharing.get(kind) is not None]
    if len(present) == 2:
        yield Finding(Flaw.BOTH_SHARINGS, "sharing", "timeSlicing and mps exclude each other")
    for kind in present:
        yield from _shared(sharing[kind], f"sharing.{kind}")


def _shared(block: object, path: str) -> Iterator[Finding]:
    if not isinstance(block, Mapping):
        yield Finding(Flaw.MALFORMED, path, "a mapping is expected")
        return
    resources = block.get("resources")
    if not isinstance(resources, list) or not resources:
        stray = ", ".join(sorted(str(k) for k in block if k not in _SHARED))
        beside = f"; found beside it: {stray}" if stray else ""
        yield Finding(Flaw.NO_RESOURCES, f"{path}.resources", f"no resources specified{beside}")
        return
    yield from _unknown(block, _SHARED, f"{path}.")
    for at, resource in enumerate(resources):
        yield from _resource(resource, f"{path}.resources[{at}]")


def _resource(resource: object, path: str) -> Iterator[Finding]:
    if not isinstance(resource, Mapping):
        yield Finding(Flaw.MALFORMED, path, "a mapping with name and replicas is expected")
        return
    yield from _unknown(resource, _RESOURCE, f"{path}.")
    name = resource.get("name")
    if not isinstance(name, str) or not name:
        yield Finding(Flaw.MALFORMED, f"{path}.name", "no resource name specified")
    elif len(name) > 63 or not _RESOURCE_NAME.match(name):
        yield Finding(Flaw.MALFORMED, f"{path}.name", f"{name!r} is not a resource of this plugin")
    replicas = resource.get("replicas")
    if replicas is None:
        yield Finding(Flaw.FEW_REPLICAS, f"{path}.replicas", "no replicas specified")
    elif isinstance(replicas, bool) or not isinstance(replicas, int):
        yield Finding(Flaw.MALFORMED, f"{path}.replicas", f"{replicas!r} is not a whole number")
    elif replicas < 2:
        yield Finding(Flaw.FEW_REPLICAS, f"{path}.replicas", f"number of replicas must be >= 2, found {replicas}")
    for ignored in ("rename", "devices"):
        if resource.get(ignored) not in (None, "", "all"):
            yield Finding(Flaw.NO_EFFECT, f"{path}.{ignored}", "parsed, then reset with a warning")


def _unknown(block: Mapping[str, Any], known: set[str], path: str) -> Iterator[Finding]:
    for key in block:
        if key not in known:
            yield Finding(Flaw.UNKNOWN_KEY, f"{path}{key}", "the plugin ignores this key without a word")
