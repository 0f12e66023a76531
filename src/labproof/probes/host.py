"""The host probe: one script over one SSH connection, one command, no write."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

from labproof.facts.host import HostFacts
from labproof.facts.reading import Reading, failed, value
from labproof.facts.store import now
from labproof.probes.host_parse import parse_host
from labproof.probes.host_sections import sections_of

if TYPE_CHECKING:
    from labproof.clients.ssh import SshTarget
    from labproof.inventory.models import Host, Ssh, Timings

#: The command typed on the host; the script comes over standard input, so nothing is left behind there.
COMMAND = "sh -s"


def probe_script() -> bytes:
    """The script as it is sent; its hash is what an installed copy behind a forced command is compared with."""
    return (files("labproof.probes") / "host_probe.sh").read_bytes()


def probe_host(host: Host, timings: Timings) -> Reading[HostFacts]:
    """Read one host. Never raises for what the host or the network do: that is a failed reading.

    Args:
        host: a declared host with `ssh`.
        timings: `connect_s` and `command_s` bound the probe (the listing of an initramfs is its slowest part).
    """
    from labproof.clients.errors import TransportFailure
    from labproof.clients.ssh import SshSession

    if host.ssh is None:
        return failed(f"ssh {host.name}", "lab.yaml declares no ssh for this host", "not declared")
    source = f"ssh {host.ssh.address} {COMMAND} < host_probe.sh"
    try:
        with SshSession(ssh_target(host.ssh, timings.connect_s)) as session:
            result = session.run(COMMAND, stdin=probe_script(), timeout_s=timings.command_s)
            banner = session.banner
    except TransportFailure as failure:
        return failed(source, f"{failure.target}: {failure.text}", failure.kind.value, now())
    text = result.stdout.decode("utf-8", "replace")
    if "@@ probe " not in text:
        said = " ".join(result.stderr.decode("utf-8", "replace").split())[:200] or "nothing on stderr"
        why = f"the probe did not run (exit status {result.exit_status}; {said}); is the login shell restricted?"
        return failed(source, why, "protocol", now())
    installed = installed_probe(text)
    if installed is not None and installed != sha256(probe_script()).hexdigest():
        why = "the installed probe is not the one of this labproof: copy host_probe.sh to the host again"
        return failed(source, why, "other probe", now())
    facts = parse_host(text, host.name, now())
    return value(replace(facts, ssh_server=value(banner, f"ssh {host.ssh.address}", now())), source, now())


def installed_probe(text: str) -> str | None:
    """SHA-256 of the copy that answered, None when the script we sent did."""
    section = sections_of(text).get("probe")
    said = section.words().get("installed", "").split() if section is not None else []
    return said[0] if said else None


def ssh_target(ssh: Ssh, connect_s: float) -> SshTarget:
    """The declared access as the SSH client wants it; what is not declared comes from ~/.ssh/config."""
    from labproof.clients.ssh import SshTarget

    jump: tuple[SshTarget, ...] | None = None
    if ssh.jump is not None:
        user, _, rest = ssh.jump.rpartition("@")
        name, _, port = rest.partition(":")
        jump = (SshTarget(name, user or None, int(port) if port.isdigit() else None, connect_timeout_s=connect_s),)
    return SshTarget(
        host=ssh.address,
        user=ssh.user,
        port=ssh.port,
        identity_files=(ssh.key,) if ssh.key else (),
        password=ssh.password.get_secret_value() if ssh.password else None,
        known_hosts=(ssh.known_hosts,) if ssh.known_hosts else (),
        jump=jump,
        use_agent=ssh.agent,
        connect_timeout_s=connect_s,
    )
