"""Values of the GPU operator and of the device plugins' charts, on the Talos version of these files."""

from __future__ import annotations

import re

from labproof.catalogue.versions import does
from labproof.lint.placement import judge_selection, selected
from labproof.lint.plugin_rules import is_plugin_config, judge_plugin_config
from labproof.lint.scope import Chart, Scope
from labproof.lint.tree import Node

#: First operator release that works on Talos as documented (facts kubernetes-gpu 4).
_OPERATOR_FOR_TALOS = (26, 3, 1)
#: Values that the operator's chart does not have; Helm accepts them silently (facts V11).
_IGNORED = (
    (("validator", "enabled"), "the validator always runs"),
    (("operator", "defaultRuntime"), "containerd is assumed"),
)
_STRATEGIES = {"envvar", "volume-mounts", "cdi-annotations", "cdi-cri"}


def judge_chart(chart: Chart, scope: Scope) -> None:
    """Judge one chart; those that have nothing to do with GPUs pass untouched."""
    if chart.name == "gpu-operator":
        _operator(chart, scope)
    elif chart.name == "nvidia-device-plugin":
        _plugin(chart, scope)
    elif chart.name == "intel-gpu-resource-driver":
        _intel_dra(chart, scope)
    else:
        return
    _namespace(chart, scope)
    values = chart.values
    judge_selection(chart.document.source, list(selected(values.get("nodeSelector"), values.get("affinity"))), scope)


def chart_version(text: str) -> tuple[int, int, int] | None:
    """A chart's version as numbers, None for a range or nothing."""
    found = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)(?:[-+].*)?", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def _bool(values: Node, *path: str) -> bool | None:
    node = values.get(*path)
    return node.plain if node is not None and isinstance(node.plain, bool) else None


def _unknown(values: Node, *path: str) -> bool:
    node = values.get(*path)
    return node is not None and (node.templated or node.open)


def _operator(chart: Chart, scope: Scope) -> None:
    source, values = chart.document.source, chart.values
    say = scope.find
    for path, instead in _IGNORED:
        if values.get(*path) is not None:
            say(source, values.at(*path), "K98", f"the gpu-operator chart has no value `{'.'.join(path)}`: {instead}")
    _operator_config(chart, scope)
    if not scope.on_talos(source) or not (chart.complete or chart.document.source.excerpt) or values.open:
        return
    version = chart_version(chart.version)
    driver, toolkit = _bool(values, "driver", "enabled"), _bool(values, "toolkit", "enabled")
    if driver is not False and not _unknown(values, "driver", "enabled"):
        say(
            source,
            values.at("driver", "enabled"),
            "K31",
            "driver.enabled is not false: Talos takes drivers as extensions only",
        )
    nri = _bool(values, "cdi", "nriPluginEnabled")
    if toolkit is not False and nri is not True and not _unknown(values, "toolkit", "enabled"):
        text = "toolkit.enabled is not false: on Talos the operator cannot write its runtime's configuration"
        say(source, values.at("toolkit", "enabled"), "K29", text)
    folder = values.get("hostPaths", "driverInstallDir")
    if folder is None and driver is False:
        old = version is not None and version < _OPERATOR_FOR_TALOS
        also = f", and chart {chart.version} is older than v26.3.1" if old else ""
        text = f"no hostPaths.driverInstallDir: on Talos it must be /usr/local, or every operand stays in Init{also}"
        say(source, values.at("hostPaths", "driverInstallDir"), "K27", text)
    elif folder is not None and folder.text is not None and folder.text.rstrip("/") != "/usr/local":
        cause = "K78" if "glibc" in folder.text else "K27"
        say(source, folder.line, cause, f"driverInstallDir is {folder.text}; on Talos it must be /usr/local")


def _operator_config(chart: Chart, scope: Scope) -> None:
    source, config = chart.document.source, chart.values.get("devicePlugin", "config")
    if config is None or config.kind != "map":
        return
    data = config.get("data")
    for _, value, _ in data.items() if data is not None else ():
        if is_plugin_config(value, "gpu-operator"):
            judge_plugin_config(source, value, scope)
    name, default = config.get("name"), config.get("default")
    if name is None or not name.text:
        return
    keys = {key for key, _, _ in data.items()} if data is not None else scope.config_maps.get(name.text)
    if default is None or default.null or default.plain == "":
        if not _unknown(config, "default") and not config.open and chart.complete:
            text = f"devicePlugin.config names {name.text} but no default: unlabelled nodes get an empty one"
            scope.find(source, config.at("name"), "K06", text)
    elif default.text is not None and keys is not None and default.text not in keys and keys:
        text = f"default `{default.text}` is no key of {name.text}; it has {', '.join(sorted(keys))}"
        scope.find(source, default.line, "K05", text)


def _plugin(chart: Chart, scope: Scope) -> None:
    source, values = chart.document.source, chart.values
    configs = values.get("config", "map")
    entries = list(configs.items()) if configs is not None else []
    for _, value, _ in entries:
        if value.kind == "scalar" and not value.null:
            judge_plugin_config(source, value, scope)
    default, name = values.get("config", "default"), values.get("config", "name")
    keys = {key for key, _, _ in entries}
    if name is not None and name.text and entries:
        scope.find(
            source, values.at("config", "name"), "K07", "config.name and config.map exclude each other; Helm stops"
        )
    elif default is not None and default.text and keys and default.text not in keys:
        text = f"config.default `{default.text}` is no key of config.map; it has {', '.join(sorted(keys))}"
        scope.find(source, default.line, "K05", text)
    elif len(keys) > 1 and "default" not in keys and (default is None or default.null or default.scalar == ""):
        text = f"{len(keys)} configurations and no config.default: Helm stops"
        if configs is not None and not configs.open:
            scope.find(source, values.at("config", "map"), "K07", text)
    _strategies(chart, scope)


def _strategies(chart: Chart, scope: Scope) -> None:
    source, values, tag = chart.document.source, chart.values, scope.tag
    discovery, listing = values.get("deviceDiscoveryStrategy"), values.get("deviceListStrategy")
    if discovery is not None and discovery.text and discovery.text not in ("auto", "nvml", "tegra"):
        scope.find(source, discovery.line, "K20", f"`{discovery.text}` is no discovery strategy: auto, nvml or tegra")
    words: list[str] = []
    if listing is not None and listing.kind == "scalar" and listing.text:
        words = [word.strip() for word in listing.text.split(",")]
    elif listing is not None:
        words = [member.scalar for member in listing.members]
    wrong = [word for word in words if word not in _STRATEGIES and "<" not in word and "$" not in word]
    if listing is not None and wrong:
        text = f"`{wrong[0]}` is no device list strategy: {', '.join(sorted(_STRATEGIES))}"
        scope.find(source, values.at("deviceListStrategy"), "K20", text)
    if tag is None or does(tag, "cdi"):
        return
    if words and all(word.startswith("cdi-") for word in words) and not scope.cdi_dirs:
        text = f"{', '.join(words)} on Talos {tag}: CDI is switched on from 1.13 only; use envvar"
        scope.find(source, values.at("deviceListStrategy"), "T39", text)
    runtime = values.get("runtimeClassName")
    seen = chart.complete and not values.open and values.size > 0
    if seen and (runtime is None or runtime.null) and not scope.default_runtime:
        text = f"no runtimeClassName: nvidia, so on Talos {tag} the plugin itself gets no NVIDIA libraries"
        scope.find(source, values.line, "T41", text)


def _intel_dra(chart: Chart, scope: Scope) -> None:
    """The driver writes CDI files where containerd must look for them (facts wild K82)."""
    if scope.cdi_dirs:
        read, why = scope.cdi_dirs, "cdi_spec_dirs of the containerd part"
    elif scope.tag is not None and does(scope.tag, "cdi"):
        read, why = ("/run/cdi",), f"Talos {scope.tag}"
    else:
        return
    allowed = {_real(folder) for folder in read}
    for key in ("dynamicPath", "staticPath"):
        node = chart.values.get("cdi", key)
        if node is not None and node.text and _real(node.text) not in allowed:
            text = f"cdi.{key} is {node.text}, containerd reads {', '.join(read)} ({why})"
            scope.find(chart.document.source, node.line, "K82", text)


def _real(folder: str) -> str:
    return re.sub(r"^/var/run/", "/run/", folder.rstrip("/"))


def _namespace(chart: Chart, scope: Scope) -> None:
    """Talos enforces baseline everywhere but in kube-system (facts kubernetes-gpu 8.5)."""
    name = chart.namespace or _kustomized(chart, scope)
    document = scope.namespaces.get(name)
    if (
        document is None
        or name == "kube-system"
        or not scope.on_talos(chart.document.source)
        or not document.complete_labels
    ):
        return
    labels = document.root.get("metadata", "labels")
    level = labels.get("pod-security.kubernetes.io/enforce") if labels is not None else None
    if level is None or (level.text is not None and level.text != "privileged"):
        text = f"namespace {name} holds {chart.name} and needs pod-security.kubernetes.io/enforce: privileged"
        scope.find(
            document.source, document.root.at("metadata", "labels", "pod-security.kubernetes.io/enforce"), "K33", text
        )


def _kustomized(chart: Chart, scope: Scope) -> str:
    here = chart.document.source.path.rpartition("/")[0]
    for document in scope.documents:
        kustomization = document.kind == "Kustomization" and document.api.startswith("kustomize.config")
        if kustomization and document.source.path.rpartition("/")[0] == here:
            return document.value("namespace")
    return ""
