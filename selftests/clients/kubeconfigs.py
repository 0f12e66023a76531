"""Writing kubeconfigs as kubeadm, Talos and cloud tools do."""

import base64
from pathlib import Path
from typing import Any

import yaml

from .certificates import Authority


def kubeconfig(path: Path, authority: Authority, port: int, user: dict[str, Any] | None = None, **cluster: Any) -> str:
    """One cluster with an inline CA, one user (a token unless told), context `moody`."""
    server = {
        "server": f"https://127.0.0.1:{port}",
        "certificate-authority-data": inline(authority.pem),
        **cluster,
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "moody",
        "clusters": [{"name": "lab", "cluster": server}],
        "users": [{"name": "suite@lab", "user": {"token": TOKEN} if user is None else user}],
        "contexts": [{"name": "moody", "context": {"cluster": "lab", "user": "suite@lab", "namespace": "media"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def inline(content: bytes) -> str:
    """base64, as `...-data` fields have it."""
    return base64.b64encode(content).decode()


TOKEN = "eyJ-bearer-token-that-must-not-show"
