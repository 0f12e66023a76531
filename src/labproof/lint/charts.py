"""Helm charts with their values, from Flux, Argo CD, k3s, kustomize and plain values files."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labproof.lint.scope import Chart, Document
from labproof.lint.tree import Node, NotYaml, embedded

_NOTHING = Node("map", 1, 1)
_OPERATOR_KEYS = {"driver", "toolkit", "devicePlugin", "dcgmExporter", "gfd", "migManager", "validator", "operator"}
#: Charts that are judged, by the names under which repositories and mirrors carry them.
_NAMES = (
    (re.compile(r"(?:nvidia-)?gpu-operator"), "gpu-operator"),
    (re.compile(r"nvidia-device-plugin|nvidia-k8s-device-plugin"), "nvidia-device-plugin"),
    (re.compile(r"intel-gpu-resource-driver(?:-chart)?|dra-driver-intel-gpu"), "intel-gpu-resource-driver"),
    (re.compile(r"intel-device-plugins-gpu|gpu-device-plugin"), "intel-device-plugins-gpu"),
    (re.compile(r"dcgm-exporter"), "dcgm-exporter"),
)


def known_chart(name: str) -> str:
    """The usual name of a chart that is judged; other names as they are."""
    return next((known for pattern, known in _NAMES if pattern.fullmatch(name)), name)


def charts_of(document: Document, repositories: dict[str, tuple[str, str]]) -> Iterator[Chart]:
    """The charts that one document installs.

    Args:
        document: any document.
        repositories: for each OCIRepository its location and tag, for HelmReleases that point at one.
    """
    if document.kind == "HelmRelease" and document.api.startswith("helm.toolkit.fluxcd.io"):
        yield _flux(document, repositories)
    elif document.kind == "Application" and document.api.startswith("argoproj.io"):
        yield from _argo(document)
    elif document.kind == "HelmChart" and document.api.startswith("helm.cattle.io"):
        yield _k3s(document)
    elif document.kind in ("Kustomization", "Component", "") and document.root.get("helmCharts") is not None:
        yield from _kustomize(document)
    elif not document.kind and not document.api:
        yield from _values_file(document)


def _flux(document: Document, repositories: dict[str, tuple[str, str]]) -> Chart:
    root = document.root
    name, version = document.value("spec", "chart", "spec", "chart"), document.value("spec", "chart", "spec", "version")
    if not name:
        reference = document.value("spec", "chartRef", "name")
        location, version = repositories.get(reference, ("", ""))
        name = location.rstrip("/").rsplit("/", 1)[-1] or reference
    namespace = document.value("metadata", "namespace") or document.value("spec", "targetNamespace")
    complete = document.complete and root.get("spec", "valuesFrom") is None
    return Chart(document, known_chart(name), version, root.get("spec", "values") or _NOTHING, namespace, complete)


def _argo(document: Document) -> Iterator[Chart]:
    root = document.root
    several = root.get("spec", "sources")
    one = root.get("spec", "source")
    for source in several.members if several is not None else [one] if one is not None else []:
        chart = source.get("chart")
        if chart is None or chart.text is None:
            continue
        helm = source.get("helm")
        open_values = helm is not None and any(
            helm.get(key) is not None for key in ("valueFiles", "parameters", "fileParameters")
        )
        values = _NOTHING
        if helm is not None:
            inline, text = helm.get("valuesObject"), helm.get("values")
            values = inline or (_first(text) if text is not None else None) or _NOTHING
        version = source.get("targetRevision")
        yield Chart(
            document,
            known_chart(chart.text.rsplit("/", 1)[-1]),
            (version.text if version is not None else None) or "",
            values,
            document.value("spec", "destination", "namespace"),
            document.complete and not open_values,
        )


def _k3s(document: Document) -> Chart:
    content = document.root.get("spec", "valuesContent")
    name = document.value("spec", "chart").rsplit("/", 1)[-1]
    values = (_first(content) if content is not None else None) or _NOTHING
    namespace = document.value("spec", "targetNamespace")
    complete = document.complete and document.root.get("spec", "set") is None
    return Chart(document, known_chart(name), document.value("spec", "version"), values, namespace, complete)


def _kustomize(document: Document) -> Iterator[Chart]:
    charts = document.root.get("helmCharts")
    for chart in charts.members if charts is not None else []:
        name, version, namespace = (chart.get(key) for key in ("name", "version", "namespace"))
        if name is None or name.text is None:
            continue
        files = chart.get("valuesFile") is not None or chart.get("additionalValuesFiles") is not None
        yield Chart(
            document,
            known_chart(name.text),
            (version.text if version is not None else None) or "",
            chart.get("valuesInline") or _NOTHING,
            (namespace.text if namespace is not None else None) or "",
            document.complete and not files,
        )


def _values_file(document: Document) -> Iterator[Chart]:
    """A file of values alone: known by its keys, since a file name says little."""
    keys = {key for key, _, _ in document.root.items()}
    if {"driver", "toolkit"} <= keys or len(keys & _OPERATOR_KEYS) >= 3:
        yield Chart(document, "gpu-operator", "", document.root, "", document.complete)
    elif keys & {"deviceListStrategy", "deviceDiscoveryStrategy", "migStrategy"} and "spec" not in keys:
        yield Chart(document, "nvidia-device-plugin", "", document.root, "", document.complete)


def _first(text: Node) -> Node | None:
    if text.kind == "map":
        return text
    try:
        found = embedded(text)
    except NotYaml:
        return None
    return found[0] if found and found[0].kind == "map" else None
