"""The objects of `manifests/cluster/`, filled in for one declared cluster."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from functools import cache
from hashlib import sha256

import yaml

from labproof.inventory.models import Cluster
from labproof.places import folder
from labproof.provision.objects import Obj

NAMESPACE = "nvidia-device-plugin"  # the one in the manifests
METRICS_NAMESPACE = "monitoring"
PLUGIN, GFD = "nvidia-device-plugin", "gpu-feature-discovery"
CONFIG_MAP = "nvidia-device-plugin-configs"
#: On the pod templates: another configuration makes other pods, since nobody notices it under the same key (K03).
CONFIG_DIGEST = "labproof/config-sha256"
_PLUGIN_IMAGE = "nvcr.io/nvidia/k8s-device-plugin"
#: What the plugin is told for each way of injection (facts kubernetes-gpu 1.2, 3).
_LIST_STRATEGY = {"legacy": "envvar", "cdi": "cdi-cri"}


@cache
def _documents(name: str) -> tuple[Obj, ...]:
    text = (folder("manifests") / "cluster" / f"{name}.yaml").read_text("utf-8")
    return tuple(document for document in yaml.safe_load_all(text) if document)


def objects(name: str, cluster: Cluster) -> list[Obj]:
    """Objects of one file in the declared namespace."""
    home = cluster.plugin.namespace or NAMESPACE
    found = copy.deepcopy(list(_documents(name)))
    for obj in found:
        meta = obj["metadata"]
        if obj["kind"] == "Namespace" and meta["name"] == NAMESPACE:
            meta["name"] = home
        elif meta.get("namespace") == NAMESPACE:
            meta["namespace"] = home
        for subject in obj.get("subjects") or ():
            if subject.get("namespace") == NAMESPACE:
                subject["namespace"] = home
    return found


def runtime_class(cluster: Cluster) -> Obj:
    """The RuntimeClass under its declared name; the handler is the one that the toolkit sets up (`nvidia`)."""
    (found,) = objects("runtime-class", cluster)
    found["metadata"]["name"] = cluster.runtime_class.name
    return found


def feature_discovery(cluster: Cluster, tolerations: Collection[Mapping[str, str]]) -> list[Obj]:
    """NFD; with stock labelling where lab.yaml declares that."""
    found = objects("feature-discovery", cluster)
    for obj in found:
        if obj["kind"] == "ConfigMap" and cluster.discovery.nfd == "stock":
            text = obj["data"]["nfd-worker.conf"]
            obj["data"]["nfd-worker.conf"] = text.replace(
                "deviceLabelFields: [vendor]", "deviceLabelFields: [class, vendor]"
            )
        if obj["kind"] == "DaemonSet":
            _tolerate(obj, tolerations)
    return found


def device_plugin(cluster: Cluster, tolerations: Collection[Mapping[str, str]]) -> list[Obj]:
    """The plugin, and GFD where it is declared, in the declared release."""
    found = [o for o in objects("device-plugin", cluster) if cluster.discovery.gfd or o["metadata"]["name"] != GFD]
    for obj in found:
        if obj["kind"] != "DaemonSet":
            continue
        _tolerate(obj, tolerations)
        spec = obj["spec"]["template"]["spec"]
        if _names_class(cluster):
            spec["runtimeClassName"] = cluster.runtime_class.name
        else:
            del spec["runtimeClassName"]
        for container in (*spec["initContainers"], *spec["containers"]):
            if cluster.plugin.version is not None:
                container["image"] = f"{_PLUGIN_IMAGE}:v{cluster.plugin.version.removeprefix('v')}"
            for row in container.get("env") or ():
                if row["name"] == "DEVICE_LIST_STRATEGY":
                    row["value"] = _LIST_STRATEGY[cluster.injection]
                if row["name"] == "DEVICE_DISCOVERY_STRATEGY" and cluster.plugin.discovery is not None:
                    row["value"] = cluster.plugin.discovery
    return found


def exporter(cluster: Cluster, tolerations: Collection[Mapping[str, str]]) -> list[Obj]:
    """dcgm-exporter with its Service."""
    found = objects("dcgm-exporter", cluster)
    for obj in found:
        if obj["kind"] == "DaemonSet":
            _tolerate(obj, tolerations)
            spec = obj["spec"]["template"]["spec"]
            if _names_class(cluster):
                spec["runtimeClassName"] = cluster.runtime_class.name
            else:
                del spec["runtimeClassName"]
    return found


def monitors(cluster: Cluster) -> list[Obj]:
    """What makes the declared monitoring collect from the exporter."""
    scrape = cluster.metrics.scrape if cluster.metrics is not None else "none"
    name = {"prometheus-operator": "service-monitor", "victoriametrics": "vm-service-scrape"}.get(scrape)
    return objects(name, cluster) if name is not None else []


def exporter_values(cluster: Cluster, tolerations: Collection[Mapping[str, str]]) -> str:
    """Values of the exporter's chart, for an owner who brings it by Helm, Flux or Argo CD."""
    values: Obj = {"runtimeClassName": cluster.runtime_class.name} if _names_class(cluster) else {}
    if tolerations:
        values["tolerations"] = [dict(row) for row in tolerations]
    values["extraEnv"] = [{"name": "KUBERNETES_VIRTUAL_GPUS", "value": "true"}]
    values["serviceMonitor"] = {"enabled": cluster.metrics is not None and cluster.metrics.scrape != "none"}
    return str(yaml.dump(values, Dumper=_Block, sort_keys=False))


def _names_class(cluster: Cluster) -> bool:
    return cluster.runtime_class.expected == "present"  # with CDI too: it is how the plugin itself finds NVML


def _tolerate(daemonset: Obj, tolerations: Collection[Mapping[str, str]]) -> None:
    rows = daemonset["spec"]["template"]["spec"]["tolerations"]
    rows += [dict(row) for row in tolerations if dict(row) not in rows]


def sharing_text(cluster: Cluster) -> str:
    """The plugin's configuration for the declared sharing: replicas below `resources[]`, the only valid form (V1)."""
    sharing = cluster.sharing
    options: Obj = {"failRequestsGreaterThanOne": True}
    if sharing.rename:
        options["renameByDefault"] = True
    options["resources"] = [{"name": "nvidia.com/gpu", "replicas": sharing.replicas}]
    key = "mps" if sharing.strategy == "mps" else "timeSlicing"
    return str(yaml.safe_dump({"version": "v1", "sharing": {key: options}}, sort_keys=False))


def sharing(cluster: Cluster) -> list[Obj]:
    """The ConfigMap, and on plugin and GFD the digest that makes their pods start with it."""
    (config_map,) = objects("time-slicing", cluster)
    config_map["data"] = {"default": sharing_text(cluster)}
    mark = sha256(config_map["data"]["default"].encode()).hexdigest()
    names = (PLUGIN, GFD) if cluster.discovery.gfd else (PLUGIN,)
    return [config_map, *(_marked(name, str(config_map["metadata"]["namespace"]), mark) for name in names)]


def _marked(name: str, namespace: str, mark: str) -> Obj:
    return {
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"metadata": {"annotations": {CONFIG_DIGEST: mark}}}},
    }  # fmt: skip


def helm_values(cluster: Cluster, tolerations: Collection[Mapping[str, str]]) -> str:
    """The same as values of NVIDIA's chart, for an owner who brings the plugin by Helm, Flux or Argo CD."""
    values: Obj = {}
    if _names_class(cluster):
        values["runtimeClassName"] = cluster.runtime_class.name
    if cluster.plugin.discovery is not None:
        values["deviceDiscoveryStrategy"] = cluster.plugin.discovery
    values["deviceListStrategy"] = _LIST_STRATEGY.get(cluster.injection, "envvar")
    values["failOnInitError"] = True
    if cluster.sharing.strategy != "none":
        values["config"] = {"default": "default", "map": {"default": sharing_text(cluster)}}
    if cluster.discovery.nfd != "none":
        values["nfd"] = {"enabled": True}
    if cluster.discovery.gfd:
        values["gfd"] = {"enabled": True}
    if tolerations:
        values["tolerations"] = [dict(row) for row in tolerations]
    return str(yaml.dump(values, Dumper=_Block, sort_keys=False))


class _Block(yaml.SafeDumper):
    """Texts of several lines as blocks, as a person would write them."""


_Block.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)
