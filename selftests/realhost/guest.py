"""The guest over its own sshd, with OpenSSH's client: what the tests do to it, independent of labproof's SSH."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

#: Longest times in seconds, generous: without hardware virtualisation and beside other work everything is slow.
COMMAND_S, BOOT_S, INITRAMFS_S = 300.0, 900.0, 2400.0


class Guest:
    """A booted guest at a port of the loopback interface.

    Args:
        port: where QEMU forwards to the guest's sshd.
        key: private key that the guest accepts for root.
        host_key: the guest's public host key, known before it boots.
        known_hosts: file that is written with it.
    """

    def __init__(self, port: int, key: Path, host_key: str, known_hosts: Path) -> None:
        self.port, self.key, self.known_hosts = port, key, known_hosts
        kind, text = host_key.split()[:2]
        known_hosts.write_text(f"[127.0.0.1]:{port} {kind} {text}\n")

    def run(self, script: str, limit_s: float = COMMAND_S) -> str:
        """Run a shell script as root; returns what it printed.

        Raises:
            RuntimeError: it ended with another status than 0.
        """
        done = self._ssh(["sh", "-s"], f"set -e\n{script}\n", limit_s)
        if done.returncode != 0:
            raise RuntimeError(f"status {done.returncode} of: {script}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def wait_up(self, alive: Callable[[], None], not_boot_id: str = "", limit_s: float = BOOT_S) -> str:
        """Wait until a command succeeds in a boot other than the given one; returns the boot's id.

        QEMU takes connections before the guest listens, so only a command that ran counts (facts real-host,
        pitfall 13).
        """
        deadline = time.monotonic() + limit_s
        while True:
            alive()
            try:
                done = self._ssh(["cat", "/proc/sys/kernel/random/boot_id"], "", 20)
                if done.returncode == 0 and done.stdout.strip() != not_boot_id:
                    return done.stdout.strip()
            except subprocess.TimeoutExpired:
                pass
            if time.monotonic() > deadline:
                raise TimeoutError(f"the guest did not answer within {limit_s:.0f} s")
            time.sleep(1)

    def reboot(self, alive: Callable[[], None]) -> None:
        """Reboot really, and wait for the next boot."""
        before = self.run("cat /proc/sys/kernel/random/boot_id").strip()
        self._ssh(["systemctl", "reboot"], "", COMMAND_S)  # its connection is closed by the guest: any status
        self.wait_up(alive, before)
        # Units that come up beside sshd: what they load or bind is part of the boot.
        self.run("systemctl is-system-running --wait || true")

    def _ssh(self, command: list[str], script: str, limit_s: float) -> subprocess.CompletedProcess[str]:
        options = {
            "UserKnownHostsFile": self.known_hosts, "GlobalKnownHostsFile": "/dev/null", "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes", "BatchMode": "yes", "ConnectTimeout": "15", "LogLevel": "ERROR",
        }  # fmt: skip
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        argv = ["ssh", "-F", "/dev/null", "-i", str(self.key), "-p", str(self.port), *words, "root@127.0.0.1", *command]
        return subprocess.run(argv, input=script, text=True, capture_output=True, timeout=limit_s)
