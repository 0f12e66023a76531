"""Kubernetes objects around the GPU: API versions, RuntimeClass, ConfigMap, chart location, Intel, DRA, alerts."""

from __future__ import annotations

import re

from labproof.lint.plugin_rules import is_plugin_config, judge_plugin_config
from labproof.lint.scope import Document, Scope
from labproof.lint.tree import Node

#: Group and version that Flux no longer serves, and the one to write (facts V23, kubernetes-gpu 9, wild 6).
_FLUX = {
    "source.toolkit.fluxcd.io": ({"v1beta1", "v1beta2"}, "v1"),
    "kustomize.toolkit.fluxcd.io": ({"v1beta1", "v1beta2"}, "v1"),
    "helm.toolkit.fluxcd.io": ({"v2beta1", "v2beta2"}, "v2"),
}
#: Kinds of which the group's stable version exists only in part: alpha image automation and receivers are left alone.
_FLUX_KINDS = {
    "OCIRepository", "GitRepository", "HelmRepository", "HelmChart", "Bucket", "Kustomization", "HelmRelease",
}  # fmt: skip
#: API version, kinds (empty: all), and what serves it instead.
_GONE = (
    ("node.k8s.io/v1beta1", (), "node.k8s.io/v1"),
    ("node.k8s.io/v1alpha1", (), "node.k8s.io/v1"),
    ("resource.k8s.io/v1alpha2", (), "resource.k8s.io/v1"),
    (
        "resource.k8s.io/v1alpha3",
        ("ResourceClaim", "ResourceClaimTemplate", "DeviceClass", "ResourceSlice"),
        "resource.k8s.io/v1",
    ),
    ("policy/v1beta1", ("PodSecurityPolicy", "PodDisruptionBudget"), "policy/v1"),
    ("batch/v1beta1", ("CronJob",), "batch/v1"),
    ("extensions/v1beta1", (), "apps/v1"),
    ("apps/v1beta1", (), "apps/v1"),
    ("apps/v1beta2", (), "apps/v1"),
)
_PCI_ID = re.compile(r"0x[0-9a-f]{4}")


def judge_object(document: Document, scope: Scope) -> None:
    """Rules by kind; a kind that nobody knows here passes."""
    _api_version(document, scope)
    rule = {
        "ConfigMap": _config_map,
        "RuntimeClass": _runtime_class,
        "OCIRepository": _oci_repository,
        "GpuDevicePlugin": _intel_plugin,
        "ResourceClaim": _claim,
        "ResourceClaimTemplate": _claim,
        "PrometheusRule": _alerts,
    }.get(document.kind)
    if rule is not None:
        rule(document, scope)


def _api_version(document: Document, scope: Scope) -> None:
    group, _, version = document.api.rpartition("/")
    line = document.root.at("apiVersion")
    if group in _FLUX and version in _FLUX[group][0] and document.kind in _FLUX_KINDS:
        text = f"{document.kind} {document.api} is no longer served by Flux 2.8: write {group}/{_FLUX[group][1]}"
        scope.find(document.source, line, "K72", text)
    for api, kinds, instead in _GONE:
        if document.api == api and (not kinds or document.kind in kinds):
            scope.find(document.source, line, "K95", f"{document.kind} {api} is no longer served: write {instead}")


def _config_map(document: Document, scope: Scope) -> None:
    data = document.root.get("data")
    for key, value, _ in data.items() if data is not None else ():
        if is_plugin_config(value, f"{document.name} {key}"):
            judge_plugin_config(document.source, value, scope)


def _runtime_class(document: Document, scope: Scope) -> None:
    root, source = document.root, document.source
    if document.api == "node.k8s.io/v1" and root.get("handler") is None and not root.open and document.name:
        where = "it stands below spec" if root.get("spec", "handler") is not None else "there is none"
        line = root.at("spec", "handler") if root.get("spec") is not None else root.at("kind")
        scope.find(source, line, "K22", f"`handler` belongs at the top level of a RuntimeClass; {where}")
        return
    handler = root.get("handler")
    if handler is not None and handler.text is not None and re.search(r"[/\s]|[A-Z_]", handler.text):
        scope.find(
            source, handler.line, "K22", f"`{handler.text}` is no runtime's name: the containerd handler is `nvidia`"
        )


def _oci_repository(document: Document, scope: Scope) -> None:
    url, line = document.value("spec", "url"), document.root.at("spec", "url")
    if re.match(r"oci://ghcr\.io/nvidia/(?:charts/)?(?:gpu-operator|k8s-device-plugin|nvidia-device-plugin)\b", url):
        scope.find(document.source, line, "K32", f"NVIDIA publishes no chart at {url}")
        return
    tag = document.value("spec", "ref", "tag")
    found = re.match(r"v?(\d+)\.(\d+)\.", tag)
    official = url.startswith("oci://nvcr.io/nvidia") and "gpu-operator" in url
    if official and found and (int(found[1][:6]), int(found[2][:6])) < (26, 7):
        line = document.root.at("spec", "ref", "tag")
        scope.find(document.source, line, "K32", f"NVIDIA's OCI chart begins with v26.7.0; there is no {tag}")


def _intel_plugin(document: Document, scope: Scope) -> None:
    root, source = document.root, document.source
    spec = root.get("spec")
    if spec is None:
        return
    policy, shared = spec.get("preferredAllocationPolicy"), spec.get("sharedDevNum")
    count = shared.plain if shared is not None else 1
    if policy is not None and policy.text in ("packed", "balanced") and isinstance(count, int) and count <= 1:
        text = (
            f"preferredAllocationPolicy {policy.text} needs sharedDevNum above 1, here {count}: the webhook refuses it"
        )
        scope.find(source, policy.line, "K55", text)
    for key in ("allowIDs", "denyIDs"):
        ids = spec.get(key)
        for word in re.split(r"\s*,\s*", ids.text) if ids is not None and ids.text else []:
            if not _PCI_ID.fullmatch(word):
                scope.find(source, spec.at(key), "K55", f"{key}: `{word}` is no id of the form 0x56a0, lower case")
    if spec.get("allowIDs") is not None and spec.get("denyIDs") is not None:
        scope.find(source, spec.at("denyIDs"), "K55", "allowIDs and denyIDs exclude each other: the webhook refuses it")
    image = spec.get("image")
    if image is not None and image.text and "intel-gpu-plugin" not in image.text:
        scope.find(source, image.line, "K55", f"`{image.text}` is no intel-gpu-plugin image: the webhook refuses it")


def _claim(document: Document, scope: Scope) -> None:
    spec = document.root.get("spec")
    if spec is not None and document.kind == "ResourceClaimTemplate":
        spec = spec.get("spec")
    requests = spec.get("devices", "requests") if spec is not None else None
    for request in requests.members if requests is not None else []:
        exactly = request.get("exactly")
        if document.api == "resource.k8s.io/v1" and request.get("deviceClassName") is not None:
            text = (
                "resource.k8s.io/v1 wants deviceClassName below `exactly:` (or firstAvailable); this is the beta's form"
            )
            scope.find(document.source, request.at("deviceClassName"), "K95", text)
        body = exactly or request
        admin = body.get("adminAccess")
        if admin is not None and admin.plain is True:
            _admin_access(document, admin, scope)


def _admin_access(document: Document, admin: Node, scope: Scope) -> None:
    namespace = scope.namespaces.get(document.value("metadata", "namespace"))
    if namespace is None or not namespace.complete_labels:
        return
    labels = namespace.root.get("metadata", "labels")
    names = {"resource.kubernetes.io/admin-access", "resource.k8s.io/admin-access"}
    if labels is None or not any(key in names for key, _, _ in labels.items()):
        text = (
            f'adminAccess, but namespace {namespace.name} lacks the label resource.kubernetes.io/admin-access: "true"'
        )
        scope.find(document.source, admin.line, "K83", text)


def _alerts(document: Document, scope: Scope) -> None:
    """Framebuffer metrics are MiB (facts V9); a threshold in bytes is never reached."""
    groups = document.root.get("spec", "groups")
    for group in groups.members if groups is not None else []:
        for rule in (group.get("rules") or Node("list", 1, 1)).members:
            expr = rule.get("expr")
            if expr is None or expr.kind != "scalar":
                continue
            found = re.search(r"DCGM_FI_DEV_FB_(?:USED|FREE|TOTAL)[^<>]*[<>]=?\s*([\d.]+(?:e\d+)?)", expr.scalar)
            if found and float(found[1].rstrip(".")) > 1_000_000 and "*" not in found[0]:
                text = (
                    f"DCGM_FI_DEV_FB_* counts MiB; {found[1]} is a number of bytes, so this never fires or always does"
                )
                scope.find(document.source, expr.line, "K80", text)
