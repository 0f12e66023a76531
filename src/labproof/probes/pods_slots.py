"""Who holds which slots of a GPU resource on a node, which image to use there: read from the API alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from labproof.clients.kubernetes import KubeSession
from labproof.facts.plugin_config import pod_resource
from labproof.facts.workload import ImageChoice, SlotHolder, Slots
from labproof.inventory.models import Cluster
from labproof.probes.pods_manifest import MANAGED_BY, OWNER

Json = Mapping[str, Any]


def read_slots(session: KubeSession, cluster: Cluster, node: str) -> tuple[Slots, Json]:
    """The slots of one node, and the Node object itself.

    Pods that are Succeeded or Failed hold nothing; pods that are not bound to the node yet hold nothing there.

    Raises:
        TransportFailure: the node or its pods cannot be read.
    """
    resource = pod_resource(cluster)
    found = session.get_json(f"/api/v1/nodes/{quote(node)}")
    pods = session.list_json("/api/v1/pods", fieldSelector=f"spec.nodeName={node}")["items"]
    status = found.get("status") or {}
    alive = [p for p in pods if (p.get("status") or {}).get("phase") not in ("Succeeded", "Failed")]
    holders = tuple(_holder(p, asked_by(p, resource), node) for p in alive if asked_by(p, resource))
    runtime_class = cluster.runtime_class.name if cluster.runtime_class.expected == "present" else None
    unaccounted = tuple(
        holder
        for p in alive
        if runtime_class
        and not asked_by(p, resource)
        and p["spec"].get("runtimeClassName") == runtime_class
        and not _wants_none(p)
        and (holder := _holder(p, 0, node)).controller not in ("DaemonSet", "Node")
        and not holder.ours
    )
    slots = Slots(
        resource,
        node,
        _count(status.get("allocatable"), resource),
        _count(status.get("capacity"), resource),
        holders,
        unaccounted,
    )
    return slots, found


def asked_by(pod: Json, resource: str) -> int:
    """Slots a pod asks for: all containers together, or its largest init container where that is more."""
    spec = pod.get("spec") or {}

    def limit(container: Json) -> int:
        resources = container.get("resources") or {}
        asked = (resources.get("limits") or {}).get(resource) or (resources.get("requests") or {}).get(resource) or 0
        return int(asked)

    inits = [limit(c) for c in spec.get("initContainers") or ()]
    return max([sum(limit(c) for c in spec.get("containers") or ()), *inits])


def choose_image(node: Json, wanted: str) -> ImageChoice:
    """The wanted image, or another tag of the same repository that the node already has: no pull is the best pull.

    `node.status.images` lists at most 50 images (nodeStatusMaxImages), so "not listed" is not "not there".
    """
    listed = [
        (name, image.get("sizeBytes"))
        for image in (node.get("status") or {}).get("images") or ()
        for name in image.get("names") or ()
    ]
    for name, size in listed:
        if _full(name) == _full(wanted):
            return ImageChoice(wanted, True, size, "the node has it")
    repository = _repository(wanted)
    for name, size in listed:
        if "@" not in name and _repository(name) == repository:
            return ImageChoice(name, True, size, f"the node has this one, not {wanted}")
    return ImageChoice(wanted, False, None, "the node does not list it; it is pulled unless the policy forbids that")


def disk_pressure(node: Json) -> bool:
    """Whether the kubelet says that the node's disk is nearly full: then nothing is pulled."""
    conditions: Sequence[Json] = (node.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "DiskPressure" and c.get("status") == "True" for c in conditions)


def _holder(pod: Json, slots: int, node: str) -> SlotHolder:
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    owners = metadata.get("ownerReferences") or [{}]
    return SlotHolder(
        str(metadata.get("namespace", "")),
        str(metadata["name"]),
        node,
        slots,
        str(metadata.get("creationTimestamp") or ""),
        str((pod.get("status") or {}).get("phase") or ""),
        int(spec.get("priority") or 0),
        (metadata.get("labels") or {}).get(MANAGED_BY) == OWNER,
        str(owners[0].get("kind") or ""),
    )


def _wants_none(pod: Json) -> bool:
    """Whether every container says that it wants no GPU (`NVIDIA_VISIBLE_DEVICES` void or none)."""
    values = [
        next((e.get("value") for e in c.get("env") or () if e.get("name") == "NVIDIA_VISIBLE_DEVICES"), None)
        for c in (pod.get("spec") or {}).get("containers") or ()
    ]
    return bool(values) and all(v in ("void", "none") for v in values)


def _count(amounts: Json | None, resource: str) -> int | None:
    amount = (amounts or {}).get(resource)
    return int(amount) if amount is not None else None


def _full(name: str) -> str:
    """`jellyfin/jellyfin:10` as `docker.io/jellyfin/jellyfin:10`, `busybox` as `docker.io/library/busybox:latest`."""
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    return name if "@" in name or ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def _repository(name: str) -> str:
    full = _full(name).split("@", 1)[0]
    head, _, tail = full.rpartition("/")
    return f"{head}/{tail.split(':', 1)[0]}"
