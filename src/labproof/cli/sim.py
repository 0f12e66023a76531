"""`labproof sim`: the simulated lab alone, for kubectl, talosctl, curl and ssh."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any

from labproof import places


def run_lab(lab: str, variation: str | None, faults: Sequence[str]) -> int:
    """Run a simulated lab until interrupted; prints where it listens and with which credentials."""
    from labproof.simlab.starter import SimulationRefused, start

    try:
        handle = start(places.lab_file(lab).parent, variation=variation, faults=list(faults))
    except (SimulationRefused, FileNotFoundError) as refused:
        sys.stderr.write(f"labproof sim: {refused}\n")
        return 4
    try:
        sys.stdout.write(f"*** SIMULATED *** lab {lab}; it stops with Ctrl-C\n")
        for line in addresses(handle.overlay):
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    finally:
        handle.close()
    return 0


def addresses(overlay: dict[str, Any]) -> list[str]:
    """One command line per endpoint, ready to be pasted."""
    lines = []
    for name, host in overlay.get("hosts", {}).items():
        ssh, pve = host.get("ssh"), host.get("pve")
        if ssh:
            lines.append(
                f"ssh -p {ssh['port']} -i {ssh['key']} -o UserKnownHostsFile={ssh['known_hosts']} "
                f"{ssh.get('user', 'root')}@{ssh['address']}   # {name}"
            )
        if pve:
            secret = str(pve["token_secret"]).removeprefix("file:")
            lines.append(
                f'curl --cacert {pve["ca"]} -H "Authorization: PVEAPIToken=$(cat {secret}.header)" '
                f"{pve['url']}/api2/json/nodes   # {name}"
            )
    for name, node in overlay.get("nodes", {}).items():
        talos = node.get("talos")
        if talos:
            target = f" -n {talos['node']}" if talos.get("node") else ""
            lines.append(f"talosctl --talosconfig {talos['talosconfig']}{target} version   # {name}")
    for name, cluster in overlay.get("clusters", {}).items():
        lines.append(f"kubectl --kubeconfig {cluster['kubeconfig']} get nodes   # {name}")
    return lines
