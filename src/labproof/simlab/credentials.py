"""Credential files and the overlay of a running simulated lab: what replaces the endpoints and keys of lab.yaml."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from labproof.simlab.pve.rights import Credentials
from labproof.simlab.world.pki import Pki

#: Durations of a simulated run, in seconds (field names of lab.yaml's `timings`).
TIMINGS: Mapping[str, float] = {
    "connect_s": 5.0, "command_s": 20.0, "request_s": 15.0, "stable_reads": 3, "stable_interval_s": 0.1,
    "pod_start_s": 20.0,
    "pod_pending_s": 1.0, "poll_s": 0.05, "sample_s": 4.0, "sample_poll_s": 0.05, "transcode_s": 30.0,
    "deadline_s": 120.0,
}  # fmt: skip


class CredentialFolder:
    """A private folder (0700) of files that clients are pointed at."""

    def __init__(self, folder: Path, pki: Pki, pve: Mapping[str, Credentials]) -> None:
        """Write into `folder`, which exists."""
        self.folder, self._pki, self._pve = folder, pki, pve

    def file(self, name: str, text: str) -> str:
        """Write a private file atomically; returns its path."""
        path = self.folder / name
        write_atomically(path, text)
        return str(path)

    def ssh(self, host: str, port: int) -> dict[str, Any]:
        """`hosts[].ssh`."""
        known = f"[127.0.0.1]:{port} {self._pki.ssh_public(f'host/{host}')}\n"
        return {
            "address": "127.0.0.1", "port": port, "user": "root", "agent": False,
            "key": self.file("id_ed25519", self._pki.ssh_private("user")),
            "known_hosts": self.file(f"known_hosts-{host}", known),
        }  # fmt: skip

    def pve(self, host: str, port: int, token_id: str) -> dict[str, Any]:
        """`hosts[].pve`."""
        secret = self._pve[host].token(token_id)
        self.file(
            f"pve-token-{host}.header", f"{token_id}={secret}"
        )  # for curl -H "Authorization: PVEAPIToken=$(cat ...)"
        return {
            "url": f"https://127.0.0.1:{port}", "token_id": token_id,
            "token_secret": f"file:{self.file(f'pve-token-{host}', secret)}",
            "ca": self.file(f"pve-root-ca-{host}.pem", self._pki.authority("pve", host).pem),
        }  # fmt: skip

    def talos(
        self,
        cluster: str,
        node: str,
        port: int,
        role: str,
        *,
        meant: str | None = None,
        expired: bool = False,
        admin: bool = False,
    ) -> dict[str, Any]:
        """`nodes[].talos`: a talosconfig with one context, and the node `meant` where its endpoint is another one's.

        With `admin` a second one, for provisioning, has the role os:admin.
        """
        found: dict[str, Any] = {}
        if admin:
            wider = self.talos(cluster, node, port, "os:admin", meant=meant)
            text = Path(wider["talosconfig"]).read_text(encoding="utf-8")
            found["admin_talosconfig"] = self.file(f"admin-talosconfig-{node}", text)
        client = self._pki.client("talos", cluster, "", role, expired=expired)

        def encoded(text: str) -> str:
            return base64.b64encode(text.encode()).decode()

        config = {
            "context": node,
            "contexts": {
                node: {
                    "endpoints": [f"127.0.0.1:{port}"],
                    "ca": encoded(self._pki.authority("talos", cluster).pem),
                    "crt": encoded(client.certificate),
                    "key": encoded(client.talos_key),
                }
            },
        }
        found |= {"talosconfig": self.file(f"talosconfig-{node}", yaml.safe_dump(config)), "context": node}
        return {**found, "node": meant} if meant else found

    def factory(self, port: int) -> dict[str, Any]:
        """`factory`: the simulated one, which images are pulled from under the name of the real one."""
        ca = self.file("factory-ca.pem", self._pki.authority("pve", "factory").pem)
        return {"url": f"https://127.0.0.1:{port}", "ca": ca, "registry": "factory.talos.dev"}

    def kubernetes(self, cluster: str, port: int, user: str) -> dict[str, Any]:
        """`clusters[]`: a kubeconfig with a client certificate of `user`."""
        client = self._pki.client("kube", cluster, user)

        def encoded(text: str) -> str:
            return base64.b64encode(text.encode()).decode()

        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": cluster,
            "clusters": [
                {
                    "name": cluster,
                    "cluster": {
                        "server": f"https://127.0.0.1:{port}",
                        "certificate-authority-data": encoded(self._pki.authority("kube", cluster).pem),
                    },
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": encoded(client.certificate),
                        "client-key-data": encoded(client.key),
                    },
                }
            ],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
        }
        return {"kubeconfig": self.file(f"kubeconfig-{cluster}", yaml.safe_dump(config)), "context": cluster}

    def app_keys(self, apps: Mapping[str, Any]) -> dict[str, Any]:
        """`clusters[].apps`: a key file for each app that wants one; an app is declared under its workload's name."""
        found = {}
        for workload, entry in apps.items():
            name = workload.partition("/")[2]
            keys = (entry or {}).get("keys")
            if keys:
                found[name] = {"api_key": f"file:{self.file(f'app-{name}.key', str(keys[0]))}"}
        return {"apps": found} if found else {}


def write_atomically(path: Path, text: str) -> None:
    """Write a private file so that a reader sees the old content or the new, never half."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    Path(temporary).replace(path)


def write_overlay(path: Path, overlay: Mapping[str, Any]) -> None:
    """Write the overlay file (JSON, which is YAML too)."""
    write_atomically(path, json.dumps(overlay, indent=1) + "\n")
