"""What a run says before its first packet: what it will contact, as whom, and what it will create."""

from __future__ import annotations

from pathlib import Path

from labproof import __version__
from labproof.inventory.branches import App
from labproof.inventory.models import Host, Lab


def announcement(
    lab: Lab, kind: str, path: Path, fallback: bool, faults: list[str], *, may_write: bool = False
) -> list[str]:
    """Lines for pytest's header.

    Args:
        kind: `real`, `sim` or `facts`.
        fallback: nothing was chosen, so the simulated T4 lab serves.
        may_write: the run provisions, takes back or restarts.
    """
    head = f"labproof {__version__}: lab {lab.lab} ({path})"
    if kind == "facts":
        return [f"{head}, saved facts; nothing is contacted"]
    if kind == "sim":
        broken = f", with fault {', '.join(faults)}" if faults else ""
        why = " (no --lab, no $LABPROOF_LAB, no ./lab.yaml)" if fallback else ""
        return [
            f"labproof {__version__}: *** SIMULATED *** lab {path.parent.name}{broken}{why}",
            "  it runs on this machine; no real host, VM, node or cluster is contacted",
        ]
    return [head, *_contacts(lab, may_write=may_write), *_creations(lab)]


def _contacts(lab: Lab, *, may_write: bool) -> list[str]:
    lines = []
    only = "reads, and writes what --allow names" if may_write else "reads only"
    script = "reads, and writes what --allow names" if may_write else "one read-only script"
    for host in lab.hosts:
        if host.ssh is not None:
            who = f"{host.ssh.user}@" if host.ssh.user else ""
            lines.append(f"  ssh   {who}{host.ssh.address}: {script}, for host {host.name}")
        if host.pve is not None:
            lines.append(f"  pve   {host.pve.url} as {_pve_identity(host)}: {only}")
    for node in lab.nodes:
        if node.talos is not None:
            context, admin = node.talos.context or "the current context", node.talos.admin_talosconfig
            said = only if admin is None else "reads only"
            lines.append(f"  talos {node.name} by {node.talos.talosconfig} ({context}): {said}")
            if may_write and admin is not None:
                lines.append(f"  talos {node.name} by {admin} ({context}): {only}")
    if may_write and lab.factory is not None:
        lines.append(f"  image factory {lab.factory.url}: asked for extensions, told schematics")
    for cluster in lab.clusters:
        context = cluster.context or "the current context"
        lines.append(f"  k8s   {cluster.name} by {cluster.kubeconfig} ({context})")
    return lines


def _pve_identity(host: Host) -> str:
    assert host.pve is not None
    return host.pve.token_id or host.pve.user or "nobody"


def _creations(lab: Lab) -> list[str]:
    lines = []
    for cluster in lab.clusters:
        probe = cluster.probe
        lines.append(
            f"  workload and transcode create labelled pods in namespace {probe.namespace} of {cluster.name}"
            f" (image {probe.image}, {probe.cpu} CPU, {probe.memory}) and remove them; at most"
            f" {lab.timings.deadline_s / 60:.0f} min"
        )
        lines += [f"  apps  {_session(app)}" for app in cluster.apps if app.state != "parked"]
    return lines


def _session(app: App) -> str:
    """What an app is asked, and what it does for us."""
    way = app.url or f"the pod of {app.workload}, through the API server"
    does = "reads only"
    if app.kind == "jellyfin" and app.expect.item:
        does = f"transcodes a few seconds of item {app.expect.item}; the session is ended again"
    elif app.kind == "ollama" and app.expect.model:
        does = f"where nothing is loaded, {app.expect.model} is loaded for one short answer and unloaded again"
    elif app.kind == "openai" and app.expect.min_tokens_per_s:
        does = f"one answer of 16 tokens by {app.expect.model}"
    return f"{app.name} at {way}: {does}"
