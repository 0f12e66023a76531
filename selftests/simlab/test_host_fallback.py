"""The simulated host where namespaces are refused (macOS, hardened kernels): the read-only probe, and nothing else."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from labproof.simlab.host import jail as jails
from labproof.simlab.host.jail import Jail, Toolbox
from labproof.simlab.host.root import build_root
from labproof.simlab.world import load_inputs
from labproof.simlab.world.lab import World


@pytest.fixture
def jail() -> Iterator[Jail]:
    """The generated root of the healthy pve5."""
    world = World({**load_inputs("t4-jellyfin"), "nodes": {}, "clusters": {}})
    with tempfile.TemporaryDirectory(dir=jails.place_for_roots()) as folder:
        root = Path(folder) / "root"
        root.mkdir()
        tree = build_root(world.hosts["pve5"], root, world.pve["pve5"])
        made = Jail(root, Toolbox(Path(folder) / "toolbox"), "pve5")
        made.prepare(tree.character_devices)
        yield made


def probe_lines(jail: Jail) -> list[str]:
    """What the suite's own probe prints, without the clock."""
    script = (files("labproof.probes") / "host_probe.sh").read_bytes()
    rc, out, err = asyncio.run(jail.run("sh -s", script))
    assert (rc, err) == (0, b"")
    return [line for line in out.decode().splitlines() if not line.startswith(("uptime ", "clock "))]


@pytest.mark.skipif(jails.unshare_command() is None, reason="this machine refuses namespaces")
def test_the_probe_reads_the_same_with_and_without_namespaces(jail: Jail, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of the script are rewritten to the generated root; nothing of the machine comes in between."""
    real = probe_lines(jail)
    monkeypatch.setattr(jails, "unshare_command", lambda: None)
    assert probe_lines(jail) == real


@pytest.mark.parametrize(
    "command",
    [
        "echo x > /etc/new",
        "touch /etc/new",
        "cat ../../../etc/hostname",
        "cd / && cat etc/hostname",
        "rm -r $HOME",
        "tee /etc/x",
    ],
)
def test_writes_and_escapes_are_refused(jail: Jail, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """There is no kernel to hold them back, so they are not tried."""
    monkeypatch.setattr(jails, "unshare_command", lambda: None)
    rc, out, err = asyncio.run(jail.run(command))
    assert (rc, out) == (126, b"")
    assert b"only the read-only probe" in err
    assert asyncio.run(jail.run("sh -s", command.encode()))[0] == 126


def test_reads_find_only_the_generated_root(jail: Jail, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Absolute paths lead into it, names of programs to the stand-ins."""
    monkeypatch.setattr(jails, "unshare_command", lambda: None)
    (tmp_path / "canary").write_text("machine underneath")
    rc, out, _ = asyncio.run(jail.run(f"cat /etc/hostname; uname -n; hostname; cat {tmp_path}/canary; env"))
    assert rc == 0
    assert out.decode().splitlines()[:3] == ["pve5"] * 3
    assert b"machine underneath" not in out
    assert {line.split("=")[0] for line in out.decode().splitlines()[3:]} <= {
        "PATH",
        "HOME",
        "LANG",
        "PWD",
        "_",
        "SHLVL",
        "OLDPWD",
    }
