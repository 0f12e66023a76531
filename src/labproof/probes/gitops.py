"""The gitops probe: Flux's objects by list, in whatever version of its API the cluster serves.

Reads only. Versions are taken from discovery, never assumed: v1beta2 of sources went away with Flux 2.8 (facts
kubernetes-gpu 9, V23).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labproof.clients.errors import TransportFailure
from labproof.clients.kubernetes import KubeSession, KubeTarget
from labproof.facts.gitops import FluxObject, GitOpsFacts, Release
from labproof.facts.reading import Reading, absent, failed, value
from labproof.facts.store import now
from labproof.inventory.branches import GitOps
from labproof.inventory.models import Cluster, Lab
from labproof.probes.kubernetes_objects import conditions

Json = Mapping[str, Any]

_GROUP = {
    "HelmRelease": "helm.toolkit.fluxcd.io", "Kustomization": "kustomize.toolkit.fluxcd.io",
    "HelmRepository": "source.toolkit.fluxcd.io", "OCIRepository": "source.toolkit.fluxcd.io",
    "GitRepository": "source.toolkit.fluxcd.io", "Bucket": "source.toolkit.fluxcd.io",
}  # fmt: skip
_PLURAL = {"HelmRepository": "helmrepositories", "OCIRepository": "ocirepositories",
           "GitRepository": "gitrepositories"}  # fmt: skip
_PART_OF = ("kustomize.toolkit.fluxcd.io/namespace", "kustomize.toolkit.fluxcd.io/name")


def probe_gitops(lab: Lab, cluster: Cluster) -> Reading[GitOpsFacts]:
    """The declared releases and Kustomizations of one cluster, and their sources.

    Returns:
        A failed reading when the API gave no answer at all.
    """
    wanted = cluster.gitops or GitOps()
    target = KubeTarget(cluster.kubeconfig, cluster.context, lab.timings.connect_s, lab.timings.request_s)
    try:
        with KubeSession(target) as session:
            where = f"{session.context.configuration.host} as {session.as_whom}"
            return value(_Reader(session).read(cluster.name, wanted), where, now())
    except TransportFailure as failure:
        return failed(failure.target, f"{failure.target}: {failure.text}", failure.kind.value, now())


class _Reader:
    def __init__(self, session: KubeSession) -> None:
        self._session = session
        groups = session.get_json("/apis").get("groups") or ()
        self._versions = {
            str(g.get("name")): str((g.get("preferredVersion") or {}).get("version") or "") for g in groups
        }

    def read(self, name: str, wanted: GitOps) -> GitOpsFacts:
        releases = self._list("HelmRelease") if wanted.releases else value((), "none declared")
        kustomizations = self._list("Kustomization") if wanted.kustomizations else value((), "none declared")
        kept = tuple(_release(r) for r in releases.value or () if _name(r) in wanted.releases)
        objects = tuple(_object("Kustomization", r) for r in kustomizations.value or ()
                        if _name(r) in wanted.kustomizations)  # fmt: skip
        there = {f"{o.namespace}/{o.name}" for o in objects}
        released = {f"{r.object.namespace}/{r.object.name}" for r in kept}
        missing = [f"HelmRelease {n}" for n in wanted.releases if n not in released and releases.value is not None]
        missing += [f"Kustomization {n}" for n in wanted.kustomizations if n not in there]
        return GitOpsFacts(
            name,
            _with(releases, kept),
            _with(kustomizations, objects),
            self._sources([*(r.object for r in kept), *objects]),
            tuple(missing),
        )

    def _sources(self, objects: list[FluxObject]) -> Reading[tuple[FluxObject, ...]]:
        wanted = {o.source for o in objects if o.source[0] in _GROUP}
        found: list[FluxObject] = []
        sources = []
        for kind in sorted({kind for kind, _, _ in wanted}):
            listed = self._list(kind)
            if listed.value is None:
                return _with(listed, ())
            made = [_object(kind, raw) for raw in listed.value]
            found += [o for o in made if (kind, o.namespace, o.name) in wanted]
            sources.append(listed.source)
        return value(tuple(found), ", ".join(sources) or "no sources", now())

    def _list(self, kind: str) -> Reading[tuple[Json, ...]]:
        group, plural = _GROUP[kind], _PLURAL.get(kind, f"{kind.lower()}s")
        version = self._versions.get(group, "")
        if not version:
            return absent(f"GET /apis/{group}", f"{group} is not served: no Flux in this cluster", now())
        path = f"/apis/{group}/{version}/{plural}"
        try:
            items = self._session.list_json(path)["items"]
        except TransportFailure as failure:
            return failed(f"GET {path}", failure.answer or failure.text, failure.kind.value, now())
        return value(tuple(i for i in items if isinstance(i, Mapping)), f"GET {path}", now())


def _with(reading: Reading[Any], items: tuple[Any, ...]) -> Reading[Any]:
    if reading.value is None:
        return Reading(reading.state, None, reading.source, reading.why, reading.at, reading.kind)
    return value(items, reading.source, reading.at)


def _name(raw: Json) -> str:
    meta = raw.get("metadata") or {}
    return f"{meta.get('namespace')}/{meta.get('name')}"


def _object(kind: str, raw: Json) -> FluxObject:
    meta, spec, status = raw.get("metadata") or {}, raw.get("spec") or {}, raw.get("status") or {}
    labels, namespace = meta.get("labels") or {}, str(meta.get("namespace") or "")
    chart = ((spec.get("chart") or {}).get("spec") or {}) if kind == "HelmRelease" else {}
    ref = chart.get("sourceRef") or spec.get("chartRef") or spec.get("sourceRef") or {}
    parts = [str(labels[key]) for key in _PART_OF if labels.get(key)]
    return FluxObject(
        kind,
        namespace,
        str(meta.get("name") or ""),
        int(meta.get("generation") or 0),
        int(status.get("observedGeneration", -1)),
        bool(spec.get("suspend")),
        conditions(status.get("conditions")),
        url=str(spec.get("url") or ""),
        source=(str(ref.get("kind") or ""), str(ref.get("namespace") or namespace), str(ref.get("name") or "")),
        part_of="/".join(parts) if len(parts) == len(_PART_OF) else "",
        wait=bool(spec.get("wait") or spec.get("healthChecks")) if kind == "Kustomization" else True,
    )


def _release(raw: Json) -> Release:
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    chart = (spec.get("chart") or {}).get("spec") or {}
    newest: Json = next(iter(status.get("history") or ()), {})
    configs, default = _plugin_configs(spec.get("values") or {})
    return Release(
        _object("HelmRelease", raw),
        str(chart.get("chart") or newest.get("chartName") or ""),
        str(chart.get("version") or ""),
        str(newest.get("chartVersion") or ""),
        str(newest.get("status") or ""),
        configs,
        default,
        bool(spec.get("valuesFrom")),
    )


def _plugin_configs(values: Json) -> tuple[dict[str, str], str]:
    """`config.map` of the device plugin's chart, `devicePlugin.config.data` of the operator's."""
    own, operators = values.get("config") or {}, (values.get("devicePlugin") or {}).get("config") or {}
    found = own.get("map") or operators.get("data") or {}
    texts = {str(k): str(v) for k, v in found.items()} if isinstance(found, Mapping) else {}
    return texts, str(own.get("default") or operators.get("default") or "")
