"""One virtual machine: QEMU q35 with an emulated IOMMU, two GPUs that are only ids, an overlay that is thrown away."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from pathlib import Path

from ..clients.sshd import keygen
from . import config_space
from .guest import Guest
from .qmp import Qmp, QmpError

QEMU = "qemu-system-x86_64"
#: Addresses of the slots: pinned, since `-device amd-iommu` would else shift them (facts real-host, pitfall 11).
CARD, AUDIO, SHARED, STRANGER = "0000:01:00.0", "0000:01:00.1", "0000:02:01.0", "0000:02:02.0"
#: vendor:device of the card, of its audio function, of the card in a shared group: disguised, and as QEMU gives them.
NVIDIA, PLAIN = ("10de:2204", "10de:1aef", "10de:1f08"), ("1234:1111", "8086:293e", "1234:1111")
_BOARD = {
    "intel": ["-machine", "q35,kernel-irqchip=split", "-device", "intel-iommu,intremap=on,caching-mode=on"],
    "intel-no-remapping": ["-machine", "q35", "-device", "intel-iommu,intremap=off,caching-mode=on"],
    "amd": ["-machine", "q35", "-device", "amd-iommu"],
    "none": ["-machine", "q35"],
}
_SLOTS = (
    "pcie-root-port,id=rp1,chassis=1,slot=1,bus=pcie.0,addr=0x10",
    "secondary-vga,bus=rp1,addr=0x0.0,multifunction=on,rombar=0",
    "ich9-intel-hda,bus=rp1,addr=0x0.1",
    "pcie-pci-bridge,id=br1,bus=pcie.0,addr=0x12",
    "bochs-display,bus=br1,addr=0x1",
    "edu,bus=br1,addr=0x2",
    "qemu-xhci,bus=pcie.0,addr=0x13",
)


class Machine:
    """QEMU with a Debian guest. `close` ends it; so does the death of the process that started it.

    Args:
        image: the base image, never written.
        folder: for the overlay, sockets and keys; private to this machine.
        board: which IOMMU the board has (`intel`, `intel-no-remapping`, `amd`, `none`).
        disguised: whether the GPUs get NVIDIA's ids; without, they are what QEMU emulates.
    """

    def __init__(self, image: Path, folder: Path, board: str = "intel", disguised: bool = True) -> None:
        folder.mkdir(parents=True)
        self.folder, self.board = folder, board
        self.console = folder / "console.log"
        overlay = folder / "run.qcow2"
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image), "-F", "qcow2", str(overlay)]
        subprocess.run(create, check=True)
        user, host = keygen(folder / "user_key"), keygen(folder / "host_key")
        port = _free_port()
        self.guest = Guest(port, user, host.with_suffix(".pub").read_text(), folder / "known_hosts")
        self._process = subprocess.Popen(
            self._command(overlay, port), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=(folder / "qemu.log").open("wb"),
        )  # fmt: skip
        try:
            self._qmp = Qmp(folder / "qmp")
            self.disguised = disguised and self._disguise()
            self._qmp.execute("cont")
        except (OSError, QmpError) as failed:
            self.close()
            raise RuntimeError(f"QEMU did not start: {failed}; {(folder / 'qemu.log').read_text()[-500:]}") from failed

    def _command(self, overlay: Path, port: int) -> list[str]:
        user = (self.folder / "user_key.pub").absolute()
        # fmt: off
        return [
            "setpriv", "--pdeathsig", "KILL", QEMU, *_BOARD[self.board],
            "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-smp", "2", "-m", "1024",
            "-display", "none", "-vga", "none", "-serial", f"file:{self.console}", "-S",
            "-qmp", f"unix:{self.folder / 'qmp'},server=on,wait=off", "-monitor", "none",
            "-fw_cfg", f"name=opt/labproof/user,file={user}",
            "-fw_cfg", f"name=opt/labproof/host,file={self.folder / 'host_key'}",
            "-drive", f"file={overlay},if=none,id=d0,format=qcow2,cache=unsafe",
            "-device", "virtio-blk-pci,drive=d0,addr=0x3",
            "-netdev", f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22",
            "-device", "virtio-net-pci,netdev=n0,addr=0x4",
            "-object", "rng-random,id=r0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=r0,addr=0x5",
            *(word for slot in _SLOTS for word in ("-device", slot)),
        ]
        # fmt: on

    def _disguise(self) -> bool:
        try:
            config_space.disguise(self._process.pid)
        except (config_space.NotFound, PermissionError) as why:
            print(f"the GPUs keep the ids that QEMU gave them: {why}")
            return False
        return True

    @property
    def ids(self) -> tuple[str, str, str]:
        """vendor:device of the card, of its audio function, and of the card in a shared group."""
        return NVIDIA if self.disguised else PLAIN

    def save(self, name: str) -> None:
        """Take a snapshot of memory and disk."""
        self.guest.run("sync")
        self._qmp.monitor(f"savevm {name}")

    def restore(self, name: str) -> None:
        """Go back to a snapshot of this QEMU process; its ids are still those that were written."""
        self._qmp.monitor(f"loadvm {name}")
        self._qmp.execute("cont")
        self.guest.wait_up(self.alive)

    def alive(self) -> None:
        """Raise with the console's end when QEMU is gone."""
        if self._process.poll() is not None:
            raise RuntimeError(f"QEMU ended with {self._process.returncode}: {self.told()}")

    def told(self) -> str:
        """The end of the serial console, for a failing test."""
        return self.console.read_text("utf-8", "replace")[-3000:] if self.console.exists() else "(no console)"

    def close(self) -> None:
        """End QEMU and throw its overlay away."""
        with contextlib.suppress(AttributeError, OSError, QmpError, ValueError):
            self._qmp.close()
        self._process.kill()
        self._process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(look, limit_s: float, what: str, every_s: float = 1.0):
    """Wait until `look` returns something true; returns it."""
    deadline = time.monotonic() + limit_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {limit_s:.0f} s")
        time.sleep(every_s)
    return found
