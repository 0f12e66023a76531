"""The server process: overlay, life and death; SimLab in process: reset and speed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labproof.simlab import starter
from labproof.simlab.server import SimLab


def alive(pid: int) -> bool:
    """Whether a process still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_overlay_replaces_only_endpoints_credentials_and_timings() -> None:
    """What the owner declares comes from lab.yaml alone."""
    handle = starter.start("t4-jellyfin")
    try:
        assert set(handle.overlay) == {"hosts", "nodes", "clusters", "timings"}
        assert set(handle.overlay["hosts"]["pve5"]["ssh"]) == {"address", "port", "user", "agent", "key", "known_hosts"}
        assert set(handle.overlay["hosts"]["pve5"]["pve"]) == {"url", "token_id", "token_secret", "ca"}
        assert handle.lab.name == "lab.yaml"
        written = json.loads(handle.overlay_file.read_text())
        assert written == {"lab": str(handle.lab), "patch": handle.overlay}
        secret = Path(handle.overlay["hosts"]["pve5"]["pve"]["token_secret"].removeprefix("file:"))
        assert secret.read_text() not in handle.overlay_file.read_text()
        assert secret.stat().st_mode & 0o077 == 0
    finally:
        handle.close()
    assert not handle.overlay_file.exists()
    assert not secret.exists()


def test_the_process_ends_when_its_stdin_closes() -> None:
    """A test run that dies takes its lab with it."""
    handle = starter.start("t4-jellyfin")
    port = handle.overlay["hosts"]["pve5"]["ssh"]["port"]
    socket.create_connection(("127.0.0.1", port)).close()
    assert handle.process.stdin is not None
    handle.process.stdin.close()
    assert handle.process.wait(10) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    handle.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"lab": "no-such-lab"}, "no simulated lab 'no-such-lab'"),
        ({"lab": "t4-jellyfin", "faults": ["no-such-fault"]}, "unknown fault 'no-such-fault'"),
        ({"lab": "t4-jellyfin", "variation": "no-such"}, "unknown variation 'no-such'"),
    ],
)
def test_a_typo_is_refused_in_words(arguments: dict[str, object], said: str) -> None:
    """No traceback, no process left."""
    with pytest.raises(starter.SimulationRefused, match=said):
        starter.start(**arguments)  # type: ignore[arg-type]


def test_what_a_killed_lab_leaves_is_swept_by_the_next_and_only_that() -> None:
    """SIGKILL leaves the credential folder; the next start removes it, a living lab keeps its own."""
    first, other = starter.start("t4-jellyfin"), starter.start("t4-jellyfin")
    left = Path(first.overlay["hosts"]["pve5"]["ssh"]["key"]).parent
    kept = Path(other.overlay["hosts"]["pve5"]["ssh"]["key"]).parent
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(5)
    assert left.is_dir()
    third = starter.start("t4-jellyfin")
    assert not left.exists()
    assert kept.is_dir()
    for handle in (first, other, third):
        handle.close()
        assert not alive(handle.process.pid)


def test_the_starter_imports_nothing_heavy() -> None:
    """A run that never starts a lab must not pay for one."""
    code = (
        "import sys, labproof.simlab.starter; "
        "print([m for m in ('asyncssh', 'aiohttp', 'grpclib', 'yaml', 'cryptography') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_reset_keeps_endpoints_and_credentials() -> None:
    """The matrix resets the world behind the same servers; a fresh world shows nothing of the old one."""
    with SimLab("t4-jellyfin") as lab:
        before = lab.overlay
        taken = []
        for faults in (["vtd-off"], ["mapping-stale"], []):
            begin = time.perf_counter()
            after = lab.reset(faults)
            taken.append(time.perf_counter() - begin)
            assert after["patch"]["hosts"] == before["patch"]["hosts"]
        assert lab.world.hosts["pve5"].iommu == "intel"
        assert lab.world.vm_state("pve5", 1105).running
        assert min(taken) < 0.5


def test_a_guest_sees_what_hostpci_passes() -> None:
    """V10's source: functions, topology by pcie, overridden ids, and nothing while the VM is off."""
    with SimLab("t4-jellyfin") as lab:
        (card,) = lab.world.vm_state("pve5", 1105).pci
        assert (card.address, card.host_address, card.vendor_device) == ("0000:01:00.0", "0000:3b:00.0", "10de:1eb8")
        assert card.card is lab.world.cards["t4"]
        lab.reset(["mapping-stale"])
        state = lab.world.vm_state("pve5", 1105)
        assert (state.running, state.pci) == (False, ())
        assert state.why_not.startswith("PCI device mapping invalid")
        lab.reset(["console-on-the-card"])
        assert [f.defect for f in lab.world.vm_state("pve5", 1105).pci] == ["bar"]
