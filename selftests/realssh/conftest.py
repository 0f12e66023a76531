"""This machine, declared as a lab of kind linux and reached over its own sshd."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..clients import sshd as debian

ROOT = Path(__file__).parents[2]


@dataclass
class Judged:
    """One run of the suite on this machine."""

    exit_status: int
    terminal: str
    folder: Path

    @property
    def run(self):
        """run.json."""
        return json.loads((self.folder / "run.json").read_text())

    def verdicts(self, clause=None):
        """Verdict by clause, or the records of one clause."""
        if clause:
            return [v for v in self.run["verdicts"] if v["clause"] == clause]
        return {(v["clause"], v["target"]): v["verdict"] for v in self.run["verdicts"]}


def some_pci_device():
    """A function this machine really has: (address, vendor:device); one with a driver where there is one."""
    found = sorted(Path("/sys/bus/pci/devices").iterdir(), key=lambda d: not (d / "driver").exists())
    device = found[0]
    ids = [(device / name).read_text().strip().removeprefix("0x") for name in ("vendor", "device")]
    return device.name, ":".join(ids)


@pytest.fixture(scope="session")
def server(request, tmp_path_factory):
    """Debian's sshd on loopback, with fresh keys."""
    if not request.config.getoption("--run-realssh"):
        pytest.skip("the real-SSH lane runs with: tox -e realssh")
    if not debian.present():
        pytest.fail("no /usr/sbin/sshd: apt install openssh-server (the lane cannot run without it)")
    if not any(Path("/sys/bus/pci/devices").glob("*")):
        pytest.fail("this machine has no PCI device that could be declared")
    folder = tmp_path_factory.mktemp("sshd")
    key = debian.keygen(folder / "user_key")
    running = debian.start(folder, [key])
    running.user_key = key
    yield running
    running.stop()


@pytest.fixture(scope="session")
def write_lab(server, tmp_path_factory):
    """Write a lab.yaml that declares this machine; returns its folder."""

    def write(known_hosts_text, name="lab"):
        address, device = some_pci_device()
        folder = tmp_path_factory.mktemp(name)
        (folder / "known_hosts").write_text(known_hosts_text)
        (folder / "lab.yaml").write_text(
            f"""\
lab: this-machine
hosts:
  - name: this-machine
    kind: linux
    bind_at_boot: false
    ssh:
      address: 127.0.0.1
      port: {server.port}
      user: {os.environ.get("USER") or "root"}
      key: {server.user_key}
      agent: false
      known_hosts: known_hosts
gpus:
  - {{name: card, host: this-machine, device: {device}, address: {address}}}
"""
        )
        return folder

    return write


@pytest.fixture(scope="session")
def judge():
    """Run the suite as its owner does; returns what came of it."""

    def run(folder, *options):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("LABPROOF_", "PYTEST_"))}
        command = [sys.executable, "-m", "pytest", str(ROOT / "suites"), "-p", "no:cacheprovider", *options]
        done = subprocess.run(command, cwd=folder, env=clean, text=True, capture_output=True, timeout=120)
        print(done.stdout, done.stderr)
        return Judged(done.returncode, done.stdout + done.stderr, folder / "reports" / "latest")

    return run


@pytest.fixture(scope="session")
def judged(server, write_lab, judge):
    """`pytest -m host` on this machine."""
    return judge(write_lab(server.known_hosts_line), "-m", "host")
