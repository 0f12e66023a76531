"""The host probe's edges: transport failures, facts saved and read again, the tables behind the checks."""

from __future__ import annotations

import re
import subprocess
from types import SimpleNamespace

import pytest
from pydantic import TypeAdapter

from labproof.catalogue.causes import causes
from labproof.checks.host_kernels import bad_builds
from labproof.checks.registry import clauses
from labproof.clients import ssh as client
from labproof.clients.errors import Kind, TransportFailure
from labproof.facts.host import HostFacts
from labproof.facts.reading import Reading, State, value
from labproof.facts.vm import PveFacts
from labproof.probes.host import probe_host, probe_script, ssh_target
from labproof.probes.host_parse import parse_host
from selftests.host.world import HOST, PVE, lab


def fake_session(monkeypatch, stdout: bytes = b"", stderr: bytes = b"", failure: TransportFailure | None = None):
    commands: list[tuple[str, bytes]] = []

    def run(self, command, stdin=None, timeout_s=0.0):
        commands.append((command, stdin))
        if failure is not None:
            raise failure
        return SimpleNamespace(stdout=stdout, stderr=stderr, exit_status=0)

    monkeypatch.setattr(client.SshSession, "run", run)
    monkeypatch.setattr(client.SshSession, "banner", property(lambda self: "SSH-2.0-test"))
    return commands


@pytest.mark.parametrize(
    "kind", [Kind.REFUSED, Kind.TIMEOUT, Kind.AUTH, Kind.UNKNOWN_HOST_KEY, Kind.CHANGED_HOST_KEY, Kind.RESET]
)
def test_every_client_failure_is_a_failed_reading(monkeypatch, kind):
    fake_session(monkeypatch, failure=TransportFailure(kind, "ssh root@192.0.2.5:22", "said so"))
    declared = lab()
    reading = probe_host(declared.hosts[0], declared.timings)
    assert (reading.state, reading.kind) == (State.FAILED, kind.value)
    assert "said so" in reading.why


def test_one_command_and_nothing_else(monkeypatch):
    commands = fake_session(monkeypatch, b"@@ probe 1\n@@= 0\n")
    declared = lab()
    reading = probe_host(declared.hosts[0], declared.timings)
    assert reading.state is State.VALUE
    assert commands == [("sh -s", probe_script())]


def test_installed_probe_must_be_ours(monkeypatch, tmp_path):
    """Behind a forced command the host runs its own copy; another version's sections would be misread."""
    declared = lab()
    for name, script, state in (("ours", probe_script(), State.VALUE), ("old", probe_script() + b"#", State.FAILED)):
        copy = tmp_path / f"{name}-probe"
        copy.write_bytes(script)
        answer = subprocess.run(["sh", str(copy)], capture_output=True, timeout=60, check=True).stdout
        fake_session(monkeypatch, answer)
        assert probe_host(declared.hosts[0], declared.timings).state is state


def test_restricted_shell_is_told(monkeypatch):
    fake_session(monkeypatch, b"This account is not available.\n", b"no shell")
    declared = lab()
    reading = probe_host(declared.hosts[0], declared.timings)
    assert (reading.state, reading.kind) == (State.FAILED, "protocol")
    assert "no shell" in reading.why


def test_undeclared_ssh_is_a_failed_reading():
    declared = lab(host={"ssh": None})
    assert probe_host(declared.hosts[0], declared.timings).kind == "not declared"


def test_declared_access_reaches_the_client():
    declared = lab(
        host={"ssh": {"address": "pve5", "user": "root", "key": "k", "jump": "me@gate:2222", "known_hosts": "kh"}}
    )
    target = ssh_target(declared.hosts[0].ssh, 3.0)
    assert (target.host, target.user, target.identity_files, target.known_hosts) == ("pve5", "root", ("k",), ("kh",))
    assert (target.jump[0].host, target.jump[0].user, target.jump[0].port) == ("gate", "me", 2222)


@pytest.mark.parametrize(("shape", "facts"), [(HostFacts, HOST), (PveFacts, PVE), (HostFacts, parse_host("", "empty"))])
def test_facts_survive_json(shape, facts):
    adapter = TypeAdapter(Reading[shape])
    reading = value(facts, "source", 1.5)
    assert adapter.validate_json(adapter.dump_json(reading)) == reading


def test_kernel_arguments_that_look_secret_are_hidden():
    text = "@@ cmdline x\n|quiet rd.password=canary my_token=canary iommu=pt\n@@= 0\n"
    assert parse_host(text).cmdline.value == ("quiet", "rd.password=***", "my_token=***", "iommu=pt")


def test_open_files_of_others_are_unknown_without_root():
    text = "@@ host x\nuid 1000\n@@= 0\n@@ gpu_files ls\n@@= 0\n"
    assert parse_host(text).gpu_file_holders.kind == "forbidden"


def test_denied_is_neither_absent_nor_empty():
    assert parse_host("@@ lxc /etc/pve/lxc\n@@= 13\n").lxc_gpu_use.kind == "forbidden"


def test_kernel_table():
    """Each entry names a known cause, says which builds, and matches them and no neighbour."""
    known = causes()
    for build in bad_builds():
        assert build.cause in known
        assert build.concerns in {"any", "virtual-function", "intel-igpu", "amdgpu", "shared-group"}
        assert bool(build.builds) + bool(build.upstream) + bool(build.series) == 1
        assert build.why
        assert build.source

    def hit(release):
        return {b.cause for b in bad_builds() if b.matches(release)}

    assert hit("6.8.12-25-pve") == hit("6.8.12-29-pve") == {"P11"}
    assert hit("6.8.12-30-pve") == hit("6.8.12-8-pve") == hit("6.8.12-13-pve") == set()
    assert hit("6.8.12-12-pve") == {"P13"}
    assert hit("6.14.8-1-bpo12-pve") == {"P13"}
    assert hit("6.14.8-2-pve") == set()
    assert hit("6.14.2-1-pve") == set(), "Proxmox numbers its builds itself"
    assert hit("6.14.2") == hit("6.14.2-arch1-1") == {"P15"}
    assert hit("7.0.14-3-pve") == set()


def test_causes_of_the_clauses_are_catalogued():
    known = causes()
    used = {cause for c in clauses().values() if c.layer in ("host", "vm") for cause in c.causes}
    assert used <= known.keys()
    for number in range(64, 70):
        entry = known[f"P{number}"]
        assert entry.remedy
        assert set(re.findall(r"{(\w+)}", entry.remedy)) <= {"host", "address", "vm", "node", "device", "resource"}


def test_clauses_that_come_after_another_exist():
    every = clauses()
    for clause in every.values():
        if clause.layer in ("host", "vm"):
            assert all(every[lower].layer == clause.layer for lower in clause.after)
