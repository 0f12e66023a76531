"""One node of a cluster as the kubernetes checks look at it: what was read, by the names of the field.

Look-ups only; what they mean is judged by the checks. Everything raises `Unjudged` where the list it needs could not
be read, so a missing right never looks like a missing object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from labproof.checks.judgement import Evidence
from labproof.checks.subject import Subject
from labproof.facts.kubernetes import ClusterFacts
from labproof.facts.kubernetes_objects import (
    ConfigMapFacts,
    DaemonSetFacts,
    EventFacts,
    NodeFacts,
    PodFacts,
    Taint,
)
from labproof.facts.plugin_config import Finding, looks_like_plugin_config, parse_plugin_config, pod_resource
from labproof.facts.plugin_log import EffectiveConfig, PluginLog, effective_config
from labproof.facts.reading import Reading, State, Unjudged, absent, need

#: Set and tolerated by Kubernetes itself for every DaemonSet (facts kubernetes-gpu 8.4).
DAEMONSET_TOLERATED = "node.kubernetes.io/"
CONFIG_LABEL = "nvidia.com/device-plugin.config"
NVIDIA_FLAVOURS = ("nvidia-device-plugin", "gpu-operator")
_VENDOR_OF_DOMAIN = {"nvidia.com": "10de", "gpu.intel.com": "8086", "amd.com": "1002"}


@dataclass(frozen=True)
class ConfiguredPlugin:
    """The plugin configuration that is meant for a node, as it lies in its ConfigMap."""

    config_map: ConfigMapFacts
    key: str
    settings: EffectiveConfig
    findings: tuple[Finding, ...]

    @property
    def source(self) -> str:
        """Where it was read."""
        return f"configmap {self.config_map.namespace}/{self.config_map.name} key {self.key}"


class NodeView:
    """One declared node of a cluster, and the GPU stack around it."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.facts: ClusterFacts = subject.cluster_facts
        self.cluster = subject.cluster
        self.name = subject.node.name
        self.resource = pod_resource(subject.cluster)

    # ---- the node

    @cached_property
    def node(self) -> NodeFacts:
        """The node; Unjudged when the cluster has none of that name (K8S-NODE-001 speaks of that)."""
        nodes = need(self.facts.nodes, "nodes")
        found = next((n for n in nodes if n.name == self.name), None)
        if found is None:
            raise Unjudged(absent(self.facts.nodes.source, f"no node {self.name} in the cluster"))
        return found

    @property
    def cards(self) -> int:
        """How many declared GPUs of the resource's vendor reach this node."""
        vendor = _VENDOR_OF_DOMAIN.get(self.resource.partition("/")[0], "")
        chains = [c for c in self.subject.target.chains if c.node is not None and c.node.name == self.name]
        if self.subject.target.scope != "node":  # a chain or the cluster: count the lab's own declaration
            from labproof.inventory.chains import chains_of

            chains = [c for c in chains_of(self.subject.lab) if c.node is not None and c.node.name == self.name]
        return sum(1 for c in chains if c.gpu.device.startswith(vendor))

    @property
    def untolerated(self) -> tuple[Taint, ...]:
        """Taints of the node that keep ordinary pods away, Kubernetes' own state taints left out."""
        return tuple(
            t for t in self.node.taints if t.effect != "PreferNoSchedule" and not t.key.startswith(DAEMONSET_TOLERATED)
        )

    # ---- pods, DaemonSets, events

    @property
    def pods(self) -> tuple[PodFacts, ...]:
        """All pods that were kept."""
        return need(self.facts.pods, "pods")

    def daemonsets(self, *roles: str) -> tuple[DaemonSetFacts, ...]:
        """DaemonSets of the GPU stack of these roles."""
        return tuple(d for d in need(self.facts.daemonsets, "daemonsets") if d.role in roles)

    def pods_of(self, daemonset: DaemonSetFacts) -> tuple[PodFacts, ...]:
        """Pods that a DaemonSet owns on this node (by ownerReference), Failed leftovers last."""
        mine = [
            p
            for p in self.pods
            if p.owner == ("DaemonSet", daemonset.name) and p.namespace == daemonset.namespace
            if p.node in (self.name, "")
        ]
        return tuple(sorted(mine, key=lambda p: (p.finished, p.deleting, p.node == "", -p.created)))

    def warnings_about(self, kind: str, namespace: str, name: str) -> tuple[EventFacts, ...]:
        """Warnings about one object, newest first; none when events could not be read (they expire anyway)."""
        events = self.facts.events.value or ()
        found = [e for e in events if (e.kind, e.namespace, e.name) == (kind, namespace, name)]
        return tuple(sorted(found, key=lambda e: -e.last))

    # ---- the plugin's words

    def logs(self, *roles: str) -> tuple[PluginLog, ...]:
        """Logs of these roles' pods on this node: current before previous."""
        found = [r.value for r in self.facts.logs if r.state is State.VALUE and r.value is not None]
        mine = [log for log in found if log.role in roles and log.node in (self.name, "")]
        return tuple(sorted(mine, key=lambda log: log.previous))

    def unread_logs(self) -> tuple[Reading[PluginLog], ...]:
        """Logs that could not be read."""
        return tuple(r for r in self.facts.logs if r.state is State.FAILED)

    @cached_property
    def live_config(self) -> tuple[EffectiveConfig, PluginLog] | None:
        """The plugin's effective configuration from its own log, None when no log shows one."""
        import json

        for log in self.logs("plugin"):
            if log.effective:
                return effective_config(json.loads(log.effective)), log
        return None

    # ---- the plugin's ConfigMap

    def plugin_config_maps(self) -> Iterator[ConfigMapFacts]:
        """ConfigMaps that hold plugin configurations: mounted by the plugin, or named in the ClusterPolicy."""
        if self.cluster.plugin.flavour not in NVIDIA_FLAVOURS:
            return  # another plugin's configuration is its own
        wanted = {(d.namespace, name) for d in self.daemonsets("plugin") for name in d.config_maps}
        for policy in self.facts.cluster_policy.value or ():
            named = policy.spec.get("devicePlugin.config.name")
            wanted |= {(d.namespace, named) for d in self.daemonsets("plugin") if named}
        for config_map in need(self.facts.config_maps, "configmaps of the plugin"):
            if (config_map.namespace, config_map.name) in wanted and any(
                looks_like_plugin_config(text) for text in config_map.data.values()
            ):
                yield config_map

    @cached_property
    def configured(self) -> ConfiguredPlugin | None:
        """The configuration meant for this node, by config-manager's rules; None when there is none to choose.

        Node label, else the default, else a key `default`, else the only key; with the operator the last two do not
        apply (facts kubernetes-gpu 1.3).
        """
        for config_map in self.plugin_config_maps():
            key = self._chosen_key(config_map)
            if key in config_map.data:
                config, findings = parse_plugin_config(config_map.data[key])
                return ConfiguredPlugin(config_map, key, effective_config(config), tuple(findings))
        return None

    def default_config(self) -> str:
        """The default configuration's name as the plugin's DaemonSet or the ClusterPolicy gives it, or empty."""
        for policy in self.facts.cluster_policy.value or ():
            if policy.spec.get("devicePlugin.config.default"):
                return policy.spec["devicePlugin.config.default"]
        return next((d.env["DEFAULT_CONFIG"] for d in self.daemonsets("plugin") if d.env.get("DEFAULT_CONFIG")), "")

    def _chosen_key(self, config_map: ConfigMapFacts) -> str:
        labelled = self.node.labels.get(CONFIG_LABEL, "")
        if labelled or self.default_config():
            return labelled or self.default_config()
        if self.cluster.plugin.flavour == "gpu-operator":
            return ""  # FALLBACK_STRATEGIES=empty: an empty configuration is applied instead
        if "default" in config_map.data:
            return "default"
        return next(iter(config_map.data)) if len(config_map.data) == 1 else ""

    # ---- evidence

    def seen(self, reading: Reading[object], text: str) -> Evidence:
        """Evidence with the reading's own source."""
        return Evidence(reading.source, text)

    def values(self, **more: str) -> tuple[tuple[str, str], ...]:
        """Placeholders for the catalogue's remedies."""
        plugin = self.daemonsets("plugin") if self.facts.daemonsets.state is State.VALUE else ()
        base = {
            "node": self.name,
            "resource": self.resource,
            "namespace": plugin[0].namespace if plugin else (self.cluster.plugin.namespace or "kube-system"),
            "device": self.subject.chain.gpu.device,
            "address": self.subject.chain.gpu.address or "",
            "host": self.subject.chain.host.name if self.subject.chain.host else "",
            "vm": self.subject.chain.vm.name if self.subject.chain.vm else "",
            "pod": "",
        }
        return tuple(sorted((base | more).items()))


_VERSION = re.compile(r":v?(\d+)\.(\d+)\.(\d+)")


def image_version(image: str) -> tuple[int, int, int] | None:
    """The release in an image's tag (`.../k8s-device-plugin:v0.18.2` -> (0, 18, 2)), None for a digest or `latest`."""
    found = _VERSION.search(image)
    return (int(found.group(1)), int(found.group(2)), int(found.group(3))) if found else None
