"""The pods of `manifests/pods/`, filled in for one lab: names, node, image, resource, RuntimeClass."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import yaml

from labproof.facts.plugin_config import pod_resource
from labproof.inventory.models import Cluster
from labproof.places import folder

MANAGED_BY = "app.kubernetes.io/managed-by"
OWNER = "labproof"
RUN_LABEL = "labproof/run"
ROLE_LABEL = "labproof/role"
DEADLINE = "labproof/deadline"  # annotation, RFC 3339: nobody needs the pod after this
SELECTOR = f"{MANAGED_BY}={OWNER}"


@dataclass(frozen=True)
class Filling:
    """What one run puts into a manifest.

    Attributes:
        run: id of the run (lower case, safe in names).
        node: Kubernetes node the pod must run on.
        image: image reference.
        deadline_s: seconds after which the kubelet kills the pod by itself.
        now: Unix seconds.
    """

    cluster: Cluster
    run: str
    node: str
    image: str
    deadline_s: int
    now: float


def rfc3339(unix: float) -> str:
    """Unix seconds as the API writes times."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(manifest: str, role: str, filling: Filling, slots: int = 0) -> dict[str, Any]:
    """The Pod of `manifests/pods/<manifest>.yaml` for one role.

    Args:
        manifest: file name without its ending.
        role: what the pod is for; becomes part of its name and a label.
        slots: slots to ask for; 0 leaves the resource out altogether.

    Raises:
        FileNotFoundError: this installation lacks the manifest.
    """
    body = copy.deepcopy(_manifest(manifest))
    cluster, probe = filling.cluster, filling.cluster.probe
    metadata, spec = body["metadata"], body["spec"]
    metadata["name"] = f"labproof-{role}-{filling.run}"
    metadata["namespace"] = probe.namespace
    metadata["labels"] = {MANAGED_BY: OWNER, RUN_LABEL: filling.run, ROLE_LABEL: role}
    metadata["annotations"] = {DEADLINE: rfc3339(filling.now + filling.deadline_s)}
    spec["activeDeadlineSeconds"] = filling.deadline_s
    spec["affinity"] = _on(filling.node)
    if "runtimeClassName" in spec:
        if cluster.runtime_class.expected == "present":
            spec["runtimeClassName"] = cluster.runtime_class.name
        else:
            del spec["runtimeClassName"]  # NRI and kubelet CDI need none, and the object may not exist
    if probe.pull_secret:
        spec["imagePullSecrets"] = [{"name": probe.pull_secret}]
    container = spec["containers"][0]
    container["image"] = filling.image
    container["imagePullPolicy"] = probe.pull_policy
    limits = {k: v for k, v in container["resources"]["limits"].items() if k in ("cpu", "memory")}
    if manifest == "probe":
        limits |= {"cpu": probe.cpu, "memory": probe.memory}
    if slots:
        limits[pod_resource(cluster)] = str(slots)
    container["resources"]["limits"] = limits
    if probe.uid:
        container["securityContext"] |= {"runAsUser": probe.uid, "runAsGroup": probe.uid, "runAsNonRoot": True}
    if "command" in container:
        container["command"] = ["sleep", str(filling.deadline_s)]
    return body


def _on(node: str) -> Mapping[str, Any]:
    """Pinned by the node's own name, so that the scheduler still counts resources.

    `nodeName` would by-pass the scheduler and the hostname label need not equal the name (facts kubernetes-gpu 8.2).
    """
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


@cache
def _manifest(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((folder("manifests") / "pods" / f"{name}.yaml").read_text("utf-8"))
    return loaded
