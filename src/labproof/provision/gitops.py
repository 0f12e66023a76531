"""Who else wants an object: Helm, Flux, Argo CD, or a person's kubectl; told by labels, annotations and managers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labproof.provision.objects import strangers

_FLUX = (
    ("helm.toolkit.fluxcd.io", "Flux HelmRelease"),
    ("kustomize.toolkit.fluxcd.io", "Flux Kustomization"),
)
#: Managers that come back: what they do not find as they left it, they set again (or fail over).
_MANAGERS = {
    "helm": "Helm", "helm-controller": "Flux (helm-controller)", "kustomize-controller": "Flux (kustomize-controller)",
    "argocd-controller": "Argo CD", "argocd-application-controller": "Argo CD", "pulumi-kubernetes": "Pulumi",
    "Terraform": "Terraform", "HashiCorp": "Terraform",
}  # fmt: skip


@dataclass(frozen=True)
class Owner:
    """Whose object it is.

    Attributes:
        name: in words: `Flux HelmRelease flux-system/plugin`, `Helm release nvidia-device-plugin/nvidia-device-plugin`.
        where: what takes values: `HelmRelease`, `Helm`, `Argo CD`, `Kustomization`, empty for a person.
    """

    name: str
    where: str


def owner_of(obj: Mapping[str, Any]) -> Owner | None:
    """Who else wants the object, None when nobody but labproof and Kubernetes does."""
    meta = obj["metadata"]
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    for prefix, kind in _FLUX:
        name = labels.get(f"{prefix}/name")
        if name:
            return Owner(f"{kind} {labels.get(f'{prefix}/namespace', '?')}/{name}", kind.split()[-1])
    tracked = annotations.get("argocd.argoproj.io/tracking-id", "").partition(":")[0]
    application = tracked or labels.get("argocd.argoproj.io/instance")
    if application:
        return Owner(f"Argo CD application {application}", "Argo CD")
    release = annotations.get("meta.helm.sh/release-name")
    if release:
        return Owner(f"Helm release {annotations.get('meta.helm.sh/release-namespace', '?')}/{release}", "Helm")
    others = strangers(obj)
    for manager in others:
        if manager in _MANAGERS:
            return Owner(f"{_MANAGERS[manager]} (field manager {manager})", _MANAGERS[manager].split()[0])
    if labels.get("app.kubernetes.io/managed-by") == "Helm":
        return Owner("a Helm release", "Helm")
    if others:
        return Owner(f"field manager {', '.join(others)}", "")
    if not meta.get("managedFields"):
        return Owner("somebody (no field managers are recorded)", "")
    return None
