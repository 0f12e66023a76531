"""What the models cannot see: names that must exist elsewhere in lab.yaml, and things given half."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from labproof.inventory.models import Lab

Where = tuple[str | int, ...]


def problems_of(lab: Lab) -> list[tuple[Where, str]]:
    """Broken references and half-given things, each with its path in the file."""
    return [*_twice(lab), *_dangling(lab), *_half_given(lab)]


def _twice(lab: Lab) -> Iterable[tuple[Where, str]]:
    for kind in ("hosts", "gpus", "vms", "nodes", "clusters"):
        seen: dict[str, int] = {}
        for index, item in enumerate(getattr(lab, kind)):
            if item.name in seen:
                yield (kind, index, "name"), f"{item.name!r} is declared twice"
            seen[item.name] = index


def _dangling(lab: Lab) -> Iterable[tuple[Where, str]]:
    hosts, gpus, vms = ([x.name for x in items] for items in (lab.hosts, lab.gpus, lab.vms))
    clusters = [c.name for c in lab.clusters]
    for i, gpu in enumerate(lab.gpus):
        if gpu.host is not None:
            yield from _known(("gpus", i, "host"), gpu.host, hosts, "host")
    for i, vm in enumerate(lab.vms):
        yield from _known(("vms", i, "host"), vm.host, hosts, "host")
        for j, name in enumerate(vm.gpus):
            yield from _known(("vms", i, "gpus", j), name, gpus, "GPU")
    for i, node in enumerate(lab.nodes):
        yield from _known(("nodes", i, "cluster"), node.cluster, clusters, "cluster")
        if node.vm is not None:
            yield from _known(("nodes", i, "vm"), node.vm, vms, "VM")
        for j, name in enumerate(node.gpus):
            yield from _known(("nodes", i, "gpus", j), name, gpus, "GPU")


def _known(where: Where, name: str, names: Sequence[str], kind: str) -> Iterable[tuple[Where, str]]:
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        yield where, f"no {kind} called {name!r} is declared; {hint}declared: {', '.join(names) or 'none'}"


def _half_given(lab: Lab) -> Iterable[tuple[Where, str]]:
    for i, host in enumerate(lab.hosts):
        pve = host.pve
        if pve is None:
            continue
        if host.kind == "linux":
            yield ("hosts", i, "pve"), "a host of kind linux has no Proxmox API; remove it or say kind: proxmox"
        token, ticket = (pve.token_id, pve.token_secret), (pve.user, pve.password)
        if None in token and None in ticket:
            yield ("hosts", i, "pve"), "needs token_id and token_secret, or user and password"
        if not pve.url.startswith("https://"):
            yield ("hosts", i, "pve", "url"), f"{pve.url!r} is not an https:// address such as https://pve5.lan:8006"
    for i, vm in enumerate(lab.vms):
        if vm.id is None and vm.match is None:
            yield ("vms", i), "needs an id, or match: with mapping, smbios_uuid or name"
    for i, cluster in enumerate(lab.clusters):
        probe = cluster.probe
        if probe.via == "exec" and (probe.pod is None or "/" not in probe.pod):
            yield ("clusters", i, "probe"), "via: exec needs pod: NAMESPACE/NAME"
        if cluster.sharing.strategy != "none" and cluster.sharing.replicas < 2:
            yield ("clusters", i, "sharing", "replicas"), "sharing needs 2 replicas or more (the plugin refuses fewer)"
        if cluster.plugin.flavour == "generic" and not cluster.plugin.resource:
            yield ("clusters", i, "plugin"), "flavour generic needs resource: the name a pod asks for"
    for i, acceptance in enumerate(lab.exceptions):
        if not acceptance.reason.strip():
            yield ("exceptions", i, "reason"), "an exception needs a reason"
