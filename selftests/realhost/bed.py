"""A guest with its snapshots and its lab: brought to a state, judged by the suite's own command line, brought back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from labproof.probes.host import probe_script

from .guest import INITRAMFS_S
from .machine import AUDIO, CARD, NVIDIA, SHARED, Machine

ROOT = Path(__file__).parents[2]
#: Without hardware virtualisation and on a busy machine; the suite's own limits come first.
JUDGE_S, PROVISION_S = 900, 5400
ALLOW = ("--allow", "all", "--allow", "console-loss")  # the card is the guest's only display

LAB = """\
lab: guest
hosts:
  - name: guest
    kind: linux
    kernel: {{wanted: [{wanted}]}}
    ssh: {{address: 127.0.0.1, port: {port}, user: root, key: {key}, agent: false, known_hosts: {known_hosts}}}
gpus:
  - {{name: card, host: guest, device: "{device}", address: "{address}", functions: [{functions}]}}
timings: {{connect_s: 60, command_s: 600, initramfs_s: {initramfs_s:.0f}, reboot_s: 1800}}
"""


def lab_text(
    card: str = CARD,
    wanted: str = "",
    ids: tuple[str, str, str] = NVIDIA,
    port: int = 22,
    key: str | Path = "user_key",
    known_hosts: str | Path = "known_hosts",
) -> str:
    """lab.yaml that declares the guest and one of its cards.

    Args:
        ids: vendor:device of the card, its audio function and the card in a shared group.
    """
    alone = card != SHARED
    return LAB.format(
        wanted=wanted, port=port, key=key, known_hosts=known_hosts, device=ids[0] if alone else ids[2], address=card,
        functions=f'"{ids[1]}"' if alone else "", initramfs_s=INITRAMFS_S,
    )  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """One run of `pytest -m host`."""

    exit_status: int
    terminal: str
    run: dict

    @property
    def verdicts(self) -> dict[str, str]:
        """Verdict by clause; the lab has one card, so a clause has one target."""
        return {v["clause"]: v["verdict"] for v in self.run.get("verdicts", [])}

    @property
    def causes(self) -> dict[str, tuple[str, ...]]:
        """Causes by failed clause."""
        return {
            v["clause"]: tuple(sorted({p["cause"] for p in v["problems"]}))
            for v in self.run.get("verdicts", []) if v["verdict"] == "fail"
        }  # fmt: skip


class Bed:
    """One machine. Its states are made when first asked for, and snapshots of it bring them back in seconds."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        """Boot it and take the first snapshot."""
        self.machine, self.guest, self.folder = machine, machine.guest, folder
        self.guest.wait_up(machine.alive)
        self.guest.run("systemctl is-system-running --wait || true")
        machine.save("fresh")

    def lab(self, name: str, card: str = CARD, wanted: str = "") -> Path:
        """A folder with a lab.yaml that declares the guest and one of its cards."""
        folder = self.folder / name
        if not folder.exists():
            folder.mkdir(parents=True)
            text = lab_text(card, wanted, self.machine.ids, self.guest.port, self.guest.key, self.guest.known_hosts)
            (folder / "lab.yaml").write_text(text)
        return folder

    def pytest(self, folder: Path, *options: str, limit_s: float = JUDGE_S) -> Judged:
        """`pytest -m host` as an owner types it, in the folder of a lab.yaml."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("LABPROOF_", "PYTEST_"))}
        suite = [sys.executable, "-m", "pytest", str(ROOT / "suites"), "-p", "no:cacheprovider", "-m", "host"]
        done = subprocess.run(
            [*suite, *options], cwd=folder, env=clean, text=True, capture_output=True, timeout=limit_s
        )
        print(done.stdout, done.stderr)
        report = folder / "reports" / "latest" / "run.json"
        reported = not {"--plan", "--undo"} & set(options) and report.exists()
        return Judged(done.returncode, done.stdout + done.stderr, json.loads(report.read_text()) if reported else {})

    # ------------------------------------------------------------- states

    @cached_property
    def unprovisioned(self) -> Judged:
        """What the suite says of the guest as it was installed; the guest stays there."""
        self.machine.restore("fresh")
        return self.pytest(self.lab("cycle"))

    @cached_property
    def provisioned(self) -> Judged:
        """What it says after it provisioned the guest itself: a real initramfs, a real reboot."""
        self.files_before = self.files()
        _ = self.unprovisioned
        judged = self.pytest(self.lab("cycle"), "--provision", *ALLOW, limit_s=PROVISION_S)
        self.guest.run("systemctl is-system-running --wait || true")
        self.machine.save("provisioned")
        return judged

    def go(self, state: str) -> None:
        """Bring the guest to a state, `fresh` or `provisioned`."""
        if state == "provisioned":
            _ = self.provisioned
        self.machine.restore(state)

    def files(self) -> dict[str, str]:
        """SHA-256, mode and owner of every file below /etc, and of the boot loader's menu."""
        told = self.guest.run(
            "find /etc /boot/grub/grub.cfg -xdev ! -type d ! -name .updated -exec stat -c '%n %a %u:%g' {} + | sort;"
            "find /etc /boot/grub/grub.cfg -xdev -type f ! -name .updated -exec sha256sum {} + | sort -k 2"
        )
        found: dict[str, str] = {}
        for line in told.splitlines():
            first, second = line.split(None, 1)
            path, fact = (first, second) if first.startswith("/") else (second, first)
            found[path] = f"{found.get(path, '')} {fact}"
        return found

    def probe(self) -> str:
        """What the host probe prints there, by OpenSSH's client."""
        return self.guest.run(probe_script().decode())

    @property
    def drivers(self) -> dict[str, str]:
        """Address -> driver of the card and its audio function, as sysfs links them."""
        told = self.guest.run(
            f"for a in {CARD} {AUDIO}; do echo $a $(basename $(readlink -f /sys/bus/pci/devices/$a/driver)); done"
        )
        return {address: driver for address, driver in map(str.split, told.splitlines()) if driver != "driver"}
