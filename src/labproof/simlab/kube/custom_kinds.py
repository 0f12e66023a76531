"""Custom resources of operators that a cluster may have, by the name that inputs `clusters.<name>.operators` use."""

from __future__ import annotations

from labproof.simlab.kube.kinds import Kind


def _kinds(group: str, version: str, **plurals: str) -> tuple[Kind, ...]:
    return tuple(Kind(group, version, plural, kind, True) for plural, kind in plurals.items())


OPERATORS: dict[str, tuple[Kind, ...]] = {
    "rook-ceph": _kinds("ceph.rook.io", "v1", cephclusters="CephCluster"),
    "longhorn": _kinds("longhorn.io", "v1beta2", volumes="Volume"),
    "cloudnative-pg": _kinds("postgresql.cnpg.io", "v1", clusters="Cluster"),
    "prometheus-operator": _kinds(
        "monitoring.coreos.com",
        "v1",
        servicemonitors="ServiceMonitor",
        podmonitors="PodMonitor",
        prometheusrules="PrometheusRule",
    ),
    "flux": (
        *_kinds("helm.toolkit.fluxcd.io", "v2", helmreleases="HelmRelease"),
        *_kinds("kustomize.toolkit.fluxcd.io", "v1", kustomizations="Kustomization"),
        *_kinds(
            "source.toolkit.fluxcd.io",
            "v1",
            helmrepositories="HelmRepository",
            ocirepositories="OCIRepository",
            gitrepositories="GitRepository",
            buckets="Bucket",
        ),
    ),
    "victoriametrics": _kinds(
        "operator.victoriametrics.com",
        "v1beta1",
        vmservicescrapes="VMServiceScrape",
        vmpodscrapes="VMPodScrape",
        vmrules="VMRule",
    ),
}
