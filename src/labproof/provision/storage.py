"""Whether the cluster's storage bears one node less: Ceph, Longhorn and CloudNativePG, where they are installed.

Read from their own resources: CephCluster `status.ceph.health`, Longhorn Volume `status.robustness`, CNPG Cluster
`status.readyInstances` against `spec.instances`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labproof.clients.kubernetes import KubeSession

Json = Mapping[str, Any]


def unhealthy(session: KubeSession) -> tuple[str, ...]:
    """What is not healthy, a line each; what is not installed has no line.

    Raises:
        TransportFailure: it is installed and could not be read, or the API did not answer.
    """
    found: list[str] = []
    for path, tell in _KINDS:
        for item in _items(session, path):
            told = tell(item)
            if told:
                meta = item.get("metadata") or {}
                found.append(
                    f"{item.get('kind') or path.rpartition('/')[2]} {meta.get('namespace')}/{meta.get('name')}: {told}"
                )
    return tuple(found)


def _items(session: KubeSession, path: str) -> list[Json]:
    from labproof.clients.errors import Kind, TransportFailure

    try:
        rows: list[Json] = session.list_json(path)["items"]
        return rows
    except TransportFailure as failure:
        if failure.kind is Kind.NOT_FOUND:
            return []
        raise


def _ceph(item: Json) -> str:
    health = str(((item.get("status") or {}).get("ceph") or {}).get("health", "unknown"))
    return "" if health == "HEALTH_OK" else health


def _longhorn(item: Json) -> str:
    status = item.get("status") or {}
    attached = status.get("state") == "attached"
    robustness = str(status.get("robustness", "unknown"))
    return robustness if attached and robustness != "healthy" else ""


def _cnpg(item: Json) -> str:
    wanted = int((item.get("spec") or {}).get("instances", 1))
    ready = int((item.get("status") or {}).get("readyInstances", 0))
    return "" if ready >= wanted else f"{ready} of {wanted} instances ready"


_KINDS: tuple[tuple[str, Callable[[Json], str]], ...] = (
    ("/apis/ceph.rook.io/v1/cephclusters", _ceph),
    ("/apis/longhorn.io/v1beta2/volumes", _longhorn),
    ("/apis/postgresql.cnpg.io/v1/clusters", _cnpg),
)
