"""Flux's controllers: what they write into the status of sources, Kustomizations and HelmReleases.

A release is what Helm really installed: the chart of inputs `plugin`. Pinned to another version, its upgrade was tried,
failed and was rolled back. Reasons and conditions: helm-controller, kustomize-controller, source-controller;
facts/kubernetes-gpu.md 9. Inputs `clusters.<name>.flux`: charts: {url: [charts]}, removed_versions: [group/version],
broken_paths: {path: message}, manifests: {path: [{apiVersion, kind, name}]}, render_errors: {release: message}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from labproof.simlab.kube.kinds import Obj

if TYPE_CHECKING:
    from labproof.simlab.kube.cluster import SimCluster

_SOURCES = ("helmrepositories", "ocirepositories", "gitrepositories", "buckets")
_REVISION = "main@sha1:4f1c2d9e"


def reconcile(cluster: SimCluster) -> None:
    """One pass of all controllers; nothing where Flux is not installed."""
    if not (cluster.inputs.get("operators") or {}).get("flux"):
        return
    for plural in _SOURCES:
        for obj in cluster.store.each(f"{plural}.source.toolkit.fluxcd.io"):
            _write(cluster, f"{plural}.source.toolkit.fluxcd.io", obj, _source(cluster, obj))
    for obj in cluster.store.each("kustomizations.kustomize.toolkit.fluxcd.io"):
        _write(cluster, "kustomizations.kustomize.toolkit.fluxcd.io", obj, _kustomization(cluster, obj))
    for obj in cluster.store.each("helmreleases.helm.toolkit.fluxcd.io"):
        _write(cluster, "helmreleases.helm.toolkit.fluxcd.io", obj, _release(cluster, obj))


def _write(cluster: SimCluster, key: str, obj: Obj, status: Obj) -> None:
    if obj["spec"].get("suspend"):
        return  # a suspended object keeps the status it had
    before = obj.get("status") or {}
    old = {c["type"]: c for c in before.get("conditions") or ()}
    for condition in status["conditions"]:
        was = old.get(condition["type"])
        same = was is not None and was["status"] == condition["status"]
        condition["lastTransitionTime"] = was["lastTransitionTime"] if was and same else cluster.clock.stamp()
        condition["observedGeneration"] = obj["metadata"].get("generation", 1)
    status = {**status, "observedGeneration": obj["metadata"].get("generation", 1)}
    if status != before:
        cluster.store.put(cluster.kinds.key(key), {**obj, "status": status})


def _condition(kind: str, good: bool, reason: str, message: str) -> Obj:
    return {"type": kind, "status": str(good), "reason": reason, "message": message}


def _flux(cluster: SimCluster) -> Mapping[str, Any]:
    found: Mapping[str, Any] = cluster.inputs.get("flux") or {}
    return found


def _source(cluster: SimCluster, obj: Obj) -> Obj:
    url = str(obj["spec"].get("url") or "")
    known = _flux(cluster).get("charts") or {}
    if url in known and known[url] == "unauthorized":
        text = f"failed to fetch {url}: 401 Unauthorized"
        return {"conditions": [_condition("Ready", False, "AuthenticationFailed", text)]}
    if url not in known:
        if url.startswith("oci://"):
            where = url.removeprefix("oci://")
            text = f"failed to determine artifact digest: GET https://{where}: NAME_UNKNOWN: repository name not known"
        else:
            text = f"failed to fetch Helm repository index: failed to fetch {url}/index.yaml : 404 Not Found"
        return {"conditions": [_condition("Ready", False, "Failed", text)]}
    stored = _condition("Ready", True, "Succeeded", f"stored artifact: revision '{_REVISION}'")
    return {"conditions": [stored, _condition("ArtifactInStorage", True, "Succeeded", stored["message"])]}


def _ready(cluster: SimCluster, ref: Mapping[str, Any], namespace: str) -> bool:
    kind = cluster.kinds.named(str(ref.get("kind")), "source.toolkit.fluxcd.io/v1")
    found = cluster.store.get(kind.key, str(ref.get("name")), str(ref.get("namespace") or namespace)) if kind else None
    rows = ((found or {}).get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in rows)


def _kustomization(cluster: SimCluster, obj: Obj) -> Obj:
    spec, flux = obj["spec"], _flux(cluster)
    path = str(spec.get("path") or "./")
    for wanted in (flux.get("manifests") or {}).get(path) or ():
        if wanted["apiVersion"] in (flux.get("removed_versions") or ()):
            text = f'no matches for kind "{wanted["kind"]}" in version "{wanted["apiVersion"]}"'
            failed = f"{wanted['kind']}/{wanted.get('name', 'unnamed')} dry-run failed: {text}"
            return {"conditions": [_condition("Ready", False, "ReconciliationFailed", failed)]}
    broken = (flux.get("broken_paths") or {}).get(path)
    if broken:
        return {"conditions": [_condition("Ready", False, "BuildFailed", str(broken))]}
    return {
        "conditions": [_condition("Ready", True, "ReconciliationSucceeded", f"Applied revision: {_REVISION}")],
        "lastAppliedRevision": _REVISION,
    }


def _release(cluster: SimCluster, obj: Obj) -> Obj:
    meta, chart = obj["metadata"], obj["spec"]["chart"]["spec"]
    name, wanted = str(chart["chart"]), str(chart.get("version") or "")
    ref = chart.get("sourceRef") or {}
    if not _ready(cluster, ref, meta["namespace"]):
        text = f"HelmChart '{meta['namespace']}/{meta['namespace']}-{meta['name']}' is not ready: latest generation"
        return {"conditions": [_condition("Ready", False, "SourceNotReady", text)]}
    plugin = cluster.inputs.get("plugin") or {}
    installed = str(plugin.get("version") or wanted) if name == plugin.get("flavour") else wanted
    full = f"{meta['namespace']}/{meta['name']}"
    entry = {"name": meta["name"], "namespace": meta["namespace"], "chartName": name, "chartVersion": installed}
    broken = (_flux(cluster).get("render_errors") or {}).get(meta["name"])
    if broken:
        why = f"Helm upgrade failed for release {full} with chart {name}@{wanted}: {broken}"
        gave_up = "Failed to upgrade after 1 attempt(s)"
        return {
            "conditions": [
                _condition("Stalled", True, "RetriesExceeded", gave_up),
                _condition("Ready", False, "UpgradeFailed", why),
                _condition("Released", False, "UpgradeFailed", why),
            ],
            "history": [{**entry, "version": 1, "status": "deployed"}],
        }  # fmt: skip
    if wanted and wanted.lstrip("v") != installed.lstrip("v"):
        why = f"Helm upgrade failed for release {full} with chart {name}@{wanted}: context deadline exceeded"
        back = f"Helm rollback to previous release {full}.v1 with chart {name}@{installed} succeeded"
        tried = {**entry, "chartVersion": wanted, "version": 2, "status": "failed"}
        return {
            "conditions": [
                _condition("Ready", False, "RollbackSucceeded", back),
                _condition("Released", False, "UpgradeFailed", why),
                _condition("Remediated", True, "RollbackSucceeded", back),
            ],
            "history": [{**entry, "version": 3, "status": "deployed"}, tried],
        }
    done = f"Helm install succeeded for release {full}.v1 with chart {name}@{installed}"
    return {
        "conditions": [
            _condition("Ready", True, "InstallSucceeded", done), _condition("Released", True, "InstallSucceeded", done),
        ],
        "history": [{**entry, "version": 1, "status": "deployed"}],
    }  # fmt: skip
