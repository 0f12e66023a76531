"""Every secret a lab declares, by the place that declares it, for the scrubber."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr

from labproof.inventory.models import Lab

#: Keys whose values are secret in a kubeconfig and in a talosconfig.
SECRET_KEYS = frozenset({"token", "client-key-data", "password", "key", "id-token", "refresh-token", "access-token"})


def secrets_of(lab: Lab) -> dict[str, str]:
    """Secrets by name (`hosts.pve5.pve.token_secret`). Files that cannot be read have no secrets to show."""
    found = dict(_declared(lab, ""))
    for host in lab.hosts:
        if host.ssh is not None and host.ssh.key is not None:
            found.update(_lines_of_key(f"hosts.{host.name}.ssh.key", Path(host.ssh.key)))
    for node in lab.nodes:
        if node.talos is not None:
            found.update(_in_yaml(f"nodes.{node.name}.talosconfig", Path(node.talos.talosconfig)))
            if node.talos.admin_talosconfig is not None:
                found.update(_in_yaml(f"nodes.{node.name}.admin_talosconfig", Path(node.talos.admin_talosconfig)))
    for cluster in lab.clusters:
        found.update(_in_yaml(f"clusters.{cluster.name}.kubeconfig", Path(cluster.kubeconfig)))
    return found


def _declared(item: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(item, SecretStr):
        yield name, item.get_secret_value()
    elif isinstance(item, BaseModel):
        for field in type(item).model_fields:
            yield from _declared(getattr(item, field), f"{name}.{field}".lstrip("."))
    elif isinstance(item, tuple):
        for below in item:
            yield from _declared(below, f"{name}.{getattr(below, 'name', '')}")


def _lines_of_key(name: str, path: Path) -> dict[str, str]:
    """Lines of a private key: they would show one by one, wrapped as they are in the file."""
    try:
        lines = [x for x in path.read_text("utf-8").splitlines() if x and not x.startswith("-----")]
    except (OSError, UnicodeDecodeError):
        return {}
    return {f"{name}.{number}": line for number, line in enumerate(lines) if len(line) >= 40}


def _in_yaml(name: str, path: Path) -> dict[str, str]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return {**dict(_secret_values(content, name)), **_beside(content, name, path.parent)}


def _beside(config: Any, name: str, folder: Path) -> dict[str, str]:
    """What a kubeconfig's users keep in files of their own; relative paths are taken from the kubeconfig's folder."""
    found: dict[str, str] = {}
    users = config.get("users") if isinstance(config, dict) else None
    for index, entry in enumerate(users if isinstance(users, list) else ()):
        user = entry.get("user") if isinstance(entry, dict) else None
        if not isinstance(user, dict):
            continue
        where = f"{name}.users[{index}].user"
        if isinstance(user.get("tokenFile"), str):
            with contextlib.suppress(OSError, UnicodeDecodeError):  # the client says so when it needs it
                found[f"{where}.tokenFile"] = (folder / user["tokenFile"]).read_text("utf-8").strip()
        if isinstance(user.get("client-key"), str):
            found.update(_lines_of_key(f"{where}.client-key", folder / user["client-key"]))
    return found


def _secret_values(item: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(item, dict):
        for key, below in item.items():
            if key in SECRET_KEYS and isinstance(below, str):
                yield f"{name}.{key}", below
            else:
                yield from _secret_values(below, f"{name}.{key}")
    elif isinstance(item, list):
        for index, below in enumerate(item):
            yield from _secret_values(below, f"{name}[{index}]")
