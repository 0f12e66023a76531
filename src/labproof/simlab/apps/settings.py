"""An app's own settings and data (inputs `clusters.<name>.apps`, by namespace/workload), and small answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from labproof.simlab.kube.pod_http import Answer, Asked
from labproof.simlab.kube.services import Running


def settings_of(running: Running) -> Mapping[str, Any]:
    """What the inputs say about the app that this pod is of; nothing when they do not know it."""
    meta = running.pod["metadata"]
    for workload, entry in (running.kubelet.cluster.inputs.get("apps") or {}).items():
        namespace, _, name = workload.partition("/")
        mine = str(meta["name"]) == name or str(meta["name"]).startswith(f"{name}-")
        if namespace == meta["namespace"] and mine and entry:
            found: Mapping[str, Any] = entry
            return found
    return {}


def as_json(content: Any, status: int = 200) -> Answer:
    """A JSON answer."""
    return Answer(json.dumps(content).encode(), status)


def text(content: str, status: int = 200, content_type: str = "text/plain") -> Answer:
    """A plain answer."""
    return Answer(content.encode(), status, content_type)


def knows(asked: Asked, settings: Mapping[str, Any], *headers: str) -> bool:
    """Whether a request carries one of the app's keys; an app without keys lets everybody in."""
    keys = [str(key) for key in settings.get("keys") or ()]
    return not keys or any(asked.headers.get(name) in keys for name in headers)
