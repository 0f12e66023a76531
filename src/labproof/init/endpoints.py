"""What will be contacted and as whom: read from options, environment and the tools' own files, before any packet."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from labproof.clients import plain_yaml, talosconfig
from labproof.clients.errors import TransportFailure
from labproof.clients.ssh_config import SshTarget, resolve
from labproof.init.page import shown

TOKEN = "LABPROOF_PVE_TOKEN"  # noqa: S105 - the variable's name
TOKEN_ID = "LABPROOF_PVE_TOKEN_ID"  # noqa: S105 - the variable's name
DEFAULT_TOKEN_ID = "labproof@pve!suite"  # noqa: S105 - the id that docs/rights.md makes


class Refused(Exception):
    """What was given cannot be used; one line for its owner."""


@dataclass(frozen=True)
class SshDoor:
    """A host over SSH: as given, and as ~/.ssh/config resolves it."""

    given: str
    address: str
    user: str | None
    port: int | None
    as_whom: str


@dataclass(frozen=True)
class PveDoor:
    """A Proxmox VE API. `secret_from` is what lab.yaml says instead of the secret."""

    url: str
    token_id: str
    secret_from: str
    secret: str = field(repr=False)
    ca: str | None = None


@dataclass(frozen=True)
class TalosDoor:
    """A context of a talosconfig. `nodes`: whom it is asked about; `broken`: why it cannot be used."""

    path: str
    context: str
    as_whom: str
    endpoints: tuple[str, ...]
    nodes: tuple[str, ...]
    broken: str = ""


@dataclass(frozen=True)
class KubeDoor:
    """The current context of a kubeconfig."""

    path: str
    context: str
    user: str
    server: str
    broken: str = ""


@dataclass(frozen=True)
class Doors:
    """Everything that will be contacted."""

    ssh: tuple[SshDoor, ...]
    pve: tuple[PveDoor, ...]
    talos: tuple[TalosDoor, ...]
    kube: tuple[KubeDoor, ...]

    @property
    def any(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.ssh or self.pve or self.talos or self.kube)

    def announcement(self) -> list[str]:
        """A line for each endpoint: what, as whom, and that it is only read."""
        lines = [f"ssh   {door.as_whom}: one read-only script over standard input" for door in self.ssh]
        for pve in self.pve:
            lines.append(f"pve   {pve.url} as {pve.token_id} (token from {pve.secret_from}): GET only")
        further = " and the GPU nodes that Kubernetes names" if self.kube else ""
        for talos in self.talos:
            what = (
                talos.broken or f"at {', '.join(talos.endpoints)}, about {', '.join(talos.nodes)}{further}: reads only"
            )
            lines.append(f"talos {talos.path} context {talos.as_whom} {what}")
        for kube in self.kube:
            what = kube.broken or f"{kube.server} as {kube.user}: get and list only, no pod, no Secret"
            lines.append(f"k8s   {kube.path} context {kube.context}: {what}")
        return [f"  {shown(line, 300)}" for line in lines]


def doors(
    ssh: Sequence[str],
    pve: Sequence[str],
    talosconfigs: Sequence[str] | None,
    kubeconfigs: Sequence[str] | None,
    token_id: str | None = None,
    token_files: Sequence[str] = (),
    cas: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Doors:
    """Resolve what was given; where nothing was, the defaults of talosctl and kubectl.

    Args:
        ssh: `[user@]host[:port]` or aliases of ~/.ssh/config. There is no default.
        pve: https URLs. There is no default.
        talosconfigs: files; None: $TALOSCONFIG, else ~/.talos/config where it exists. An empty name means none.
        kubeconfigs: the same with $KUBECONFIG (a list as kubectl reads it) and ~/.kube/config.
        token_id: `user@realm!name`; default $LABPROOF_PVE_TOKEN_ID, else the id of docs/rights.md.
        token_files, cas: one for all URLs, or one for each in order. Without a file: $LABPROOF_PVE_TOKEN.

    Raises:
        Refused: a URL, token or option that cannot be used.
    """
    env = os.environ if environment is None else environment
    whom = token_id or env.get(TOKEN_ID) or DEFAULT_TOKEN_ID
    if pve and "!" not in whom:
        raise Refused(f"--pve-token-id {whom!r} is no token's id; it looks like {DEFAULT_TOKEN_ID}")
    return Doors(
        tuple(_ssh(word) for word in ssh),
        tuple(_pve(url, whom, _nth(token_files, i, pve), _nth(cas, i, pve), env) for i, url in enumerate(pve)),
        tuple(_talos(path) for path in _files(talosconfigs, env.get("TALOSCONFIG", ""), "~/.talos/config")),
        tuple(_kube(path) for path in _kube_files(kubeconfigs, env.get("KUBECONFIG", ""))),
    )


def home_path(path: str) -> str:
    """A path as lab.yaml should say it: absolute, below the home folder with `~`."""
    full = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow the owner's links
    home = Path("~").expanduser()
    return f"~/{full.relative_to(home)}" if full.is_relative_to(home) else str(full)


def _nth(given: Sequence[str], index: int, urls: Sequence[str]) -> str | None:
    if not given:
        return None
    if len(given) not in (1, len(urls)):
        raise Refused(f"{len(given)} files for {len(urls)} --pve: give one for all, or one for each in order")
    return given[0] if len(given) == 1 else given[index]


def _files(given: Sequence[str] | None, variable: str, default: str) -> list[str]:
    if given is not None:
        return [path for path in given if path]
    if variable:
        return [variable]
    return [default] if Path(default).expanduser().is_file() else []


def _kube_files(given: Sequence[str] | None, variable: str) -> list[str]:
    """$KUBECONFIG may list several files; kubectl's current context is that of the first file that names one."""
    listed = [path for path in variable.split(os.pathsep) if path]
    if given is not None or len(listed) < 2:
        return _files(given, variable, "~/.kube/config")
    named = [path for path in listed if _read(path).get("current-context")]
    return named[:1] or listed[:1]


def _ssh(word: str) -> SshDoor:
    user, _, rest = word.rpartition("@")
    host, port = rest, None
    if rest.count(":") == 1:
        host, _, digits = rest.partition(":")
        if not digits.isdigit():
            raise Refused(f"--ssh {word!r}: the port is no number")
        port = int(digits)
    if not host or host.startswith("-"):
        raise Refused(f"--ssh {word!r}: give [USER@]HOST[:PORT] or an alias of ~/.ssh/config")
    try:
        hop = resolve(SshTarget(host, user=user or None, port=port))[-1]
    except TransportFailure as failure:
        raise Refused(f"--ssh {word!r}: {failure.text}") from None
    return SshDoor(word, host, user or None, port, str(hop).removeprefix("ssh "))


def _pve(url: str, token_id: str, token_file: str | None, ca: str | None, env: Mapping[str, str]) -> PveDoor:
    full = url if "://" in url else f"https://{url}"
    parts = urlsplit(full)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        raise Refused("--pve: give an address such as https://pve5.lan:8006, without a password in it")
    try:
        port = parts.port or 8006
    except ValueError:
        raise Refused("--pve: the port is no number") from None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if ca is not None and not Path(ca).expanduser().is_file():
        raise Refused(f"--pve-ca {ca}: there is no such file; copy /etc/pve/pve-root-ca.pem from the host")
    if token_file is not None:
        try:
            secret = Path(token_file).expanduser().read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise Refused(f"--pve-token-file {token_file} cannot be read") from None
        source = f"file:{home_path(token_file)}"
    else:
        secret, source = env.get(TOKEN, ""), "${" + TOKEN + "}"
    if not secret:
        raise Refused(
            f"--pve {full}: the token's secret is missing; export {TOKEN}, or give --pve-token-file FILE "
            "(docs/rights.md makes a read-only token)"
        )
    return PveDoor(f"https://{host}:{port}", token_id, source, secret, ca)


def _talos(path: str) -> TalosDoor:
    try:
        context = talosconfig.load(path)
    except TransportFailure as failure:
        return TalosDoor(path, "", "", (), (), failure.text)
    hosts = tuple(host for host, _ in context.endpoints)
    places = tuple(f"{host}:{port}" for host, port in context.endpoints)
    broken = "" if hosts else "it has no endpoints; run `talosctl config endpoint ADDRESS`"
    return TalosDoor(path, context.name, context.as_whom, places, context.nodes or hosts, broken)


def _kube(path: str) -> KubeDoor:
    content = _read(path)
    contexts = content.get("contexts")
    entries = [c for c in contexts if isinstance(c, dict)] if isinstance(contexts, list) else []
    name = content.get("current-context") or (entries[0].get("name") if len(entries) == 1 else None)
    chosen = next((e.get("context") for e in entries if e.get("name") == name), None)
    if not isinstance(chosen, dict):
        there = Path(path).expanduser().is_file()
        return KubeDoor(path, "", "", "", "it selects no context" if there else "there is no such file")
    clusters = content.get("clusters")
    rows = [c for c in clusters if isinstance(c, dict)] if isinstance(clusters, list) else []
    cluster = next((c.get("cluster") for c in rows if c.get("name") == chosen.get("cluster")), None)
    server = urlsplit(str(cluster.get("server") or "")) if isinstance(cluster, dict) else urlsplit("")
    shown_server = f"{server.scheme}://{server.netloc.rpartition('@')[2]}{server.path}"
    return KubeDoor(path, str(name), str(chosen.get("user") or "nobody"), shown_server)


def _read(path: str) -> dict[str, Any]:
    """A kubeconfig, as far as the announcement needs it; the client says what is wrong with it."""
    try:
        content = plain_yaml.load(Path(path).expanduser().read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
