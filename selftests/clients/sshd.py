"""Debian's own sshd on 127.0.0.1, with fresh keys, for one test session."""

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

SSHD = "/usr/sbin/sshd"


def keygen(path: Path, passphrase: str = "") -> Path:
    """Make an Ed25519 key pair with the real ssh-keygen."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)], check=True, capture_output=True
    )
    return path


@dataclass
class Sshd:
    """A running server: its port, its host key, and how to stop it."""

    port: int
    host_key: Path
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def public_key(self) -> str:
        """`ssh-ed25519 AAAA...`."""
        return " ".join(self.host_key.with_suffix(".pub").read_text().split()[:2])

    @property
    def known_hosts_line(self) -> str:
        return f"[127.0.0.1]:{self.port} {self.public_key}\n"

    def drop_connections(self) -> None:
        """Kill the server's processes for our connections, as a crash of the host does; the listener stays."""
        for pid in _children(self.process.pid):
            below = _children(pid)
            _kill(pid)  # first: it would tell the client how its command ended
            for child in below:
                _kill(child)

    def stop(self) -> None:
        self.drop_connections()
        self.process.terminate()
        self.process.wait(5)


def start(folder: Path, authorized: list[Path], port: int = 0, host_key: Path | None = None) -> Sshd:
    """Start a server that accepts the given keys."""
    folder.mkdir(parents=True, exist_ok=True)
    host_key = host_key or keygen(folder / "host_key")
    accepted = folder / "authorized_keys"
    accepted.write_text("".join(key.with_suffix(".pub").read_text() for key in authorized))
    if port == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    log = folder / "log"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # its privilege separation folder
    options = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": host_key,
        "AuthorizedKeysFile": accepted,
        "PidFile": "none",
        "StrictModes": "no",  # the temporary folder's parents are not ours to judge
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    process = subprocess.Popen([SSHD, "-D", "-f", "/dev/null", "-E", str(log), *words])
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return Sshd(port, host_key, process, log)
        if process.poll() is not None:
            break
        time.sleep(0.02)
    process.kill()
    raise RuntimeError(f"sshd did not start: {log.read_text() if log.exists() else 'no log'}")


def present() -> bool:
    """Whether the machine has sshd and ssh-keygen."""
    return Path(SSHD).exists() and shutil.which("ssh-keygen") is not None


def _children(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(status.parent.name))
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
