"""The probe script itself: what it may contain, and what it reads on this very machine against independent reads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from labproof.facts.reading import State
from labproof.probes.host import probe_script
from labproof.probes.host_parse import parse_host
from labproof.probes.host_sections import sections_of

SHELLS = [shell for shell in ("sh", "dash", "busybox") if shutil.which(shell)]
SYS_PCI = Path("/sys/bus/pci/devices")


def run(shell: str = "sh", **environment: str) -> subprocess.CompletedProcess[bytes]:
    argv = [shell, "sh", "-s"] if shell == "busybox" else [shell, "-s"]
    return subprocess.run(
        argv, input=probe_script(), capture_output=True, timeout=60, check=False, env={**os.environ, **environment}
    )


@pytest.fixture(scope="module")
def here():
    """Facts of this machine."""
    return parse_host(run().stdout.decode(), "here", 1.0)


def test_script_writes_nothing():
    """No redirection but to /dev/null and between descriptors, and no program that changes anything."""
    code = [line for line in probe_script().decode().splitlines() if not line.lstrip().startswith("#")]
    for line in code:
        bare = re.sub(r"'[^']*'", "''", line)
        bare = re.sub(r"\d?>&\d|\d?>\s*/dev/null", "", bare)
        assert ">" not in re.sub(r"->", "", re.sub(r'"[^"]*"', '""', bare)), line
        words = set(re.findall(r"(?<![\w/.-])[a-z][a-z0-9_.-]*(?![\w/.-])", bare))
        assert not words & {
            "rm", "mv", "cp", "tee", "touch", "mkdir", "ln", "chmod", "chown", "mount", "umount", "insmod", "rmmod",
            "reboot", "systemctl", "qm", "pct", "sudo", "dd", "kill", "sysctl", "eval", "setpci", "pvesh", "apt",
        }, line  # fmt: skip
        for call in re.findall(r"\b(modprobe|journalctl|dmesg|efibootmgr|zpool|lsinitramfs)\s+(-\w+|\w+)", bare):
            assert call in {
                ("modprobe", "-c"), ("journalctl", "-k"), ("journalctl", "-b"), ("efibootmgr", "-v"), ("zpool", "list"),
            }, line  # fmt: skip


def test_script_has_no_bashisms():
    code = "\n".join(line for line in probe_script().decode().splitlines() if not line.lstrip().startswith("#"))
    for bashism in (
        "[[",
        "function ",
        "\nlocal ",
        "<<<",
        "<(",
        "${!",
        "declare",
        "\nsource ",
        "$'",
        "&>",
        "==",
        "pipefail",
    ):
        assert bashism not in code.replace("[[:", ""), bashism


@pytest.mark.parametrize("shell", SHELLS)
def test_script_is_accepted_by(shell):
    argv = [shell, "sh", "-n"] if shell == "busybox" else [shell, "-n"]
    checked = subprocess.run(argv, input=probe_script(), capture_output=True, timeout=10, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


@pytest.mark.parametrize("shell", SHELLS)
def test_script_runs_in(shell):
    done = run(shell)
    assert done.returncode == 0
    assert done.stderr == b""
    sections = sections_of(done.stdout.decode())
    assert "finished" in sections
    assert all(section.status is not None for section in sections.values())


def test_script_survives_a_bare_path(tmp_path):
    """Every command may be missing: its absence is a reading, and files are still read by the shell."""
    shell = shutil.which("sh")
    done = subprocess.run(
        [shell, "-s"],
        input=probe_script().replace(b":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", b""),
        capture_output=True,
        timeout=60,
        check=False,
        env={"PATH": str(tmp_path)},
    )
    facts = parse_host(done.stdout.decode())
    assert "finished" in sections_of(done.stdout.decode())
    assert facts.cmdline.value == tuple(Path("/proc/cmdline").read_text().split())
    assert facts.modprobe_config.state is State.UNSUPPORTED
    assert facts.kernel_log.state is State.UNSUPPORTED
    assert facts.pci.state in (State.FAILED, State.ABSENT), "without ls no driver link is known, so nothing is claimed"


def test_cut_output_is_a_failed_reading():
    whole = run().stdout.decode()
    cut = whole[: whole.index("@@ iommus")]
    facts = parse_host(cut)
    assert facts.cmdline.state is State.VALUE
    assert facts.iommus.state is State.FAILED
    assert facts.iommus.kind == "truncated"
    assert facts.qemu.state is State.FAILED


def test_this_machine_by_independent_reads(here):
    assert here.hostname.value == Path("/proc/sys/kernel/hostname").read_text().strip()
    assert here.kernel.value == os.uname().release
    assert here.uid.value == os.getuid()
    assert here.cmdline.value == tuple(Path("/proc/cmdline").read_text().split())
    assert here.boot_id.value == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for reading, folder in ((here.iommus, "/sys/class/iommu"), (here.firmware_tables, "/sys/firmware/acpi/tables")):
        if Path(folder).is_dir():
            assert sorted(reading.value) == sorted(p.name for p in Path(folder).iterdir())
        else:
            assert reading.state is State.ABSENT


@pytest.mark.skipif(not SYS_PCI.is_dir(), reason="no PCI bus here")
def test_pci_devices_of_this_machine(here):
    assert [d.address for d in here.pci.value] == sorted(p.name for p in SYS_PCI.iterdir())
    for device in here.pci.value:
        folder = SYS_PCI / device.address
        ids = [(folder / name).read_text().strip().removeprefix("0x") for name in ("vendor", "device")]
        assert device.ids == ":".join(ids)
        assert device.pci_class == (folder / "class").read_text().strip().removeprefix("0x")
        driver, group = folder / "driver", folder / "iommu_group"
        assert device.driver == (driver.resolve().name if driver.exists() else None)
        assert device.iommu_group == (int(group.resolve().name) if group.exists() else None)
        if device.config_head is not None:
            assert device.config_head == (folder / "config").read_bytes()[:4].hex()


def test_groups_of_this_machine(here):
    folder = Path("/sys/kernel/iommu_groups")
    expected = (
        {int(g.name): sorted(p.name for p in (g / "devices").iterdir()) for g in folder.iterdir()}
        if folder.is_dir()
        else {}
    )
    assert {g.number: sorted(g.devices) for g in here.iommu_groups.value or ()} == expected


def test_root_disk_is_found_to_be_in_use(here):
    """The device behind `/` is marked, where `/` is a disk on this machine's PCI bus at all."""
    roots = [line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1] == "/"]
    name = roots[-1].removeprefix("/dev/")
    link = Path("/sys/class/block") / name
    if not roots[-1].startswith("/dev/") or not link.exists():
        pytest.skip("the root file system is no plain disk here")
    owner = re.findall(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", str(link.resolve()))[-1]
    assert name in next(d for d in here.pci.value if d.address == owner).mounted
