"""Node Feature Discovery and GPU Feature Discovery: what they log and which labels they put on nodes.

Labels: kubernetes-gpu.md 2.1 (GFD) and 2.2 (NFD).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from labproof.simlab.kube import plugin
from labproof.simlab.kube.plugin_config import ConfigError, PluginConfig
from labproof.simlab.kube.runtime import cuda_of
from labproof.simlab.kube.services import Running, klog
from labproof.simlab.world.states import NodeState

_CLASS_WHITELIST = ("03", "0b40", "12")
_FEATURE = "feature.node.kubernetes.io/"
# Compute capability by architecture, for cards that do not say their own (CUDA programming guide).
_COMPUTE = {"pascal": "6.1", "volta": "7.0", "turing": "7.5", "ampere": "8.6", "ada": "8.9", "hopper": "9.0",
            "blackwell": "12.0"}  # fmt: skip
_FAMILY = {"ada": "ada-lovelace", "ada lovelace": "ada-lovelace"}


def pci_labels(node: NodeState, fields: list[str]) -> dict[str, str]:
    """NFD's PCI labels. `fields`: sources.pci.deviceLabelFields, e.g. [vendor] or [class, vendor]."""
    found = {}
    for function in node.pci:
        pci_class = function.pci_class.removeprefix("0x")[:4]
        if not pci_class.startswith(_CLASS_WHITELIST):
            continue
        vendor, _, device = function.vendor_device.partition(":")
        values = {"class": pci_class, "vendor": vendor, "device": device}
        found[f"{_FEATURE}pci-{'_'.join(values[f] for f in fields if f in values)}.present"] = "true"
    return found


def base_labels(node: NodeState) -> dict[str, str]:
    """Some of NFD's labels that every node gets."""
    major, _, rest = node.kernel.partition(".")
    minor = rest.partition(".")[0]
    return {
        f"{_FEATURE}cpu-model.vendor_id": "Intel",
        f"{_FEATURE}cpu-cpuid.AVX2": "true",
        f"{_FEATURE}kernel-version.full": node.kernel,
        f"{_FEATURE}kernel-version.major": major,
        f"{_FEATURE}kernel-version.minor": minor,
        f"{_FEATURE}system-os_release.ID": node.os,
        f"{_FEATURE}system-os_release.VERSION_ID": node.os_version,
    }


def nfd_worker(running: Running) -> Callable[[], None]:
    """nfd-worker: publishes features of its node; nfd-master turns them into labels."""
    kubelet, cluster = running.kubelet, running.kubelet.cluster
    now = cluster.clock.now()
    running.log(klog(now, "nfd-worker.go:299", f'"Node Feature Discovery Worker" nodeName="{kubelet.name}"'))
    fields, sources = ["class", "vendor"], ["all"]
    for volume in running.pod["spec"].get("volumes") or []:
        name = (volume.get("configMap") or {}).get("name")
        found = cluster.store.get("configmaps", name, running.pod["metadata"]["namespace"]) if name else None
        text = ((found or {}).get("data") or {}).get("nfd-worker.conf")
        if text:
            raw: Any = yaml.safe_load(text) or {}
            fields = ((raw.get("sources") or {}).get("pci") or {}).get("deviceLabelFields") or fields
            sources = (raw.get("core") or {}).get("labelSources") or sources

    def publish() -> None:
        if cluster.kinds.named("NodeFeature", "nfd.k8s-sigs.io/v1alpha1") is None:
            text = "the server could not find the requested resource (get nodefeatures.nfd.k8s-sigs.io)"
            running.log(klog(cluster.clock.now(), "main.go:66", f'"error while running" err="{text}"', "E"))
            running.exit(1, "")
            return
        labels = base_labels(kubelet.state) if "all" in sources else {}
        if {"all", "pci"} & set(sources):
            labels |= pci_labels(kubelet.state, list(fields))
        cluster.features.publish(kubelet.name, "nfd", labels)
        running.log(klog(cluster.clock.now(), "nfd-worker.go:708", '"creating NodeFeature object"'))

    def stopped() -> None:
        """NodeFeature objects belong to the worker's DaemonSet: with it they go, and a master drops the labels."""
        owners = {r.get("uid") for r in running.pod["metadata"].get("ownerReferences") or ()}
        if not any(d["metadata"]["uid"] in owners for d in cluster.store.each("daemonsets.apps")):
            cluster.features.withdraw(kubelet.name)

    running.later(1.0, publish)
    return stopped


def nfd_master(running: Running) -> Callable[[], None]:
    """nfd-master: labels nodes from the features that workers and GFD publish."""
    cluster = running.kubelet.cluster
    now = cluster.clock.now()
    running.log(klog(now, "nfd-master.go:283", '"Node Feature Discovery Master" version="v0.17.3"'))
    extra = [a.partition("=")[2] for a in running.argv if a.startswith("-extra-label-ns")]
    namespaces = {n for text in extra for n in text.split(",") if n}
    cluster.features.master_up(namespaces)

    def stopped() -> None:
        cluster.features.master_down()

    return stopped


def gfd_labels(node: NodeState, config: PluginConfig, machine: str, now: float) -> dict[str, str]:
    """GPU Feature Discovery's labels for a node whose NVML works; {} without GPUs."""
    if not node.gpus or not node.driver_version:
        return {}
    card = node.gpus[0].card.inputs
    replicas = config.replicas()
    shared = replicas > 1 and not (config.sharing and config.sharing.rename_by_default)
    product = "-".join(re.sub(r"[^A-Za-z0-9\-_. ]", "", str(card.get("product", "NVIDIA GPU"))).split())
    architecture = str(card.get("architecture", "")).lower()
    compute = str(card.get("compute_capability") or _COMPUTE.get(architecture, "7.5"))
    driver = node.driver_version
    parts = [*driver.split("."), "", ""]
    cuda = cuda_of(driver)
    pci_class = str(card.get("pci_class", "0x030000")).removeprefix("0x")[:4]
    labels = {
        "gfd.timestamp": str(int(now)),
        "cuda.driver-version.full": driver,
        "cuda.driver-version.major": parts[0],
        "cuda.driver-version.minor": parts[1],
        "cuda.driver-version.revision": parts[2],
        "cuda.runtime-version.full": cuda,
        "cuda.runtime-version.major": cuda.partition(".")[0],
        "cuda.runtime-version.minor": cuda.partition(".")[2],
        "cuda.driver.major": parts[0],
        "cuda.driver.minor": parts[1],
        "cuda.driver.rev": parts[2],
        "cuda.runtime.major": cuda.partition(".")[0],
        "cuda.runtime.minor": cuda.partition(".")[2],
        "gpu.machine": machine,
        "gpu.count": str(len(node.gpus)),
        "gpu.replicas": str(replicas),
        "gpu.sharing-strategy": config.sharing.strategy if config.sharing and replicas > 1 else "none",
        "gpu.product": product + ("-SHARED" if shared else ""),
        "gpu.memory": str(card.get("memory_mib", 0)),
        "gpu.family": _FAMILY.get(architecture, architecture or "undefined"),
        "gpu.compute.major": compute.partition(".")[0],
        "gpu.compute.minor": compute.partition(".")[2],
        "gpu.mode": {"0302": "compute", "0300": "graphics"}.get(pci_class, "unknown"),
        "mig.capable": "true" if card.get("mig") is not None else "false",
        "mig.strategy": "none",
        "mps.capable": "true" if config.sharing and config.sharing.strategy == "mps" else "false",
        "vgpu.present": "false",
    }
    return {f"nvidia.com/{name}": value for name, value in labels.items()}


def gpu_feature_discovery(running: Running) -> Callable[[], None] | None:
    """`gpu-feature-discovery`."""
    cluster, kubelet = running.kubelet.cluster, running.kubelet

    def say(source: str, text: str, level: str = "I") -> None:
        running.log(klog(cluster.clock.now(), source, text, level))

    say("main.go:163", '"Starting OS watcher."')
    say("main.go:168", '"Loading configuration."')
    try:
        config = plugin.load(running)
    except ConfigError as wrong:
        say("main.go:150", f"unable to load config: {wrong}", "E")
        running.later(0.1, lambda: running.exit(1, ""))
        return None
    settings = plugin.settings_of(running, config)
    error = plugin.nvml_error(running)
    if error:
        if settings["failOnInitError"]:
            say("main.go:150", f"error creating NVML labeler: failed to initialize NVML: {error}", "E")
            running.later(0.1, lambda: running.exit(1, ""))
        else:
            say("factory.go:60", f"Failed to initialize NVML: {error}. Using empty manager.", "W")
        return None
    say("main.go:193", '"Start running"')

    def publish() -> None:
        labels = gfd_labels(kubelet.state, config, cluster.machine_of(kubelet.name), cluster.clock.now())
        say("main.go:263", "Creating Labels")
        say(
            "output.go:82",
            "Writing labels to output file /etc/kubernetes/node-feature-discovery/features.d/gfd",
        )
        cluster.features.publish(kubelet.name, "gfd", labels)

    running.later(1.0, publish)
    # the file stays when GFD ends: its labels go stale, they do not vanish
    return None


class Features:
    """What workers and GFD publish, and the labels nfd-master makes of it."""

    def __init__(self, apply: Callable[[str, dict[str, str]], None]) -> None:
        self._apply = apply
        self._published: dict[str, dict[str, dict[str, str]]] = {}
        self._extra: set[str] = set()
        self._masters = 0

    def publish(self, node: str, source: str, labels: dict[str, str]) -> None:
        """A source on a node has labels to offer. GFD's file is read by nfd-worker: without one it reaches nobody."""
        self._published.setdefault(node, {})[source] = labels
        self._flush(node)

    def withdraw(self, node: str) -> None:
        """The node's features are gone; a master that runs takes its labels away, GFD's file stays for another NFD."""
        self._published.get(node, {}).pop("nfd", None)
        if self._masters:
            self._apply(node, {})

    def master_up(self, extra_namespaces: set[str]) -> None:
        """An nfd-master runs; it accepts its own namespace and these."""
        self._masters += 1
        self._extra = extra_namespaces
        for node in self._published:
            self._flush(node)

    def master_down(self) -> None:
        """An nfd-master ended; labels stay."""
        self._masters = max(0, self._masters - 1)

    def _flush(self, node: str) -> None:
        sources = self._published.get(node, {})
        if not self._masters or "nfd" not in sources:
            return
        labels = {k: v for part in sources.values() for k, v in part.items()}
        self._apply(
            node,
            {k: v for k, v in labels.items() if k.startswith(_FEATURE) or k.partition("/")[0] in self._extra},
        )
