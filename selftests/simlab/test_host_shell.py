"""The simulated host's shell: the real sh in a generated root, the machine underneath untouched and unseen."""

from __future__ import annotations

import platform
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from labproof.simlab.host.jail import unshare_command
from labproof.simlab.server import SimLab

T4 = "/sys/bus/pci/devices/0000:3b:00.0"
Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.skipif(unshare_command() is None, reason="this machine refuses namespaces")


@pytest.fixture(scope="module")
def lab() -> Iterator[SimLab]:
    """One lab for the module."""
    with SimLab("t4-jellyfin") as started:
        yield started


def connected(lab: SimLab) -> paramiko.SSHClient:
    """A client with the overlay's key and known_hosts, unknown hosts refused."""
    ssh = lab.overlay["patch"]["hosts"]["pve5"]["ssh"]
    client = paramiko.SSHClient()
    client.load_host_keys(ssh["known_hosts"])
    client.connect(
        ssh["address"], ssh["port"], ssh["user"], key_filename=ssh["key"], allow_agent=False, look_for_keys=False
    )
    return client


@pytest.fixture
def run(lab: SimLab) -> Iterator[Run]:
    """Run a command on pve5 of a fresh healthy world."""
    lab.reset([])
    client = connected(lab)

    def execute(command: str, stdin: str = "") -> tuple[int, str, str]:
        into, out, err = client.exec_command(command, timeout=20)
        into.write(stdin)
        into.channel.shutdown_write()
        text, errors = out.read().decode(), err.read().decode()
        return out.channel.recv_exit_status(), text, errors

    yield execute
    client.close()


def test_it_says_that_it_is_simulated(lab: SimLab) -> None:
    """The SSH banner names the simulator."""
    client = connected(lab)
    assert "labproof-sim" in client.get_transport().remote_version
    client.close()


def test_only_the_suites_key_gets_in(lab: SimLab) -> None:
    """Another key, and another user, are refused."""
    ssh = lab.overlay["patch"]["hosts"]["pve5"]["ssh"]
    for user, key in (("root", paramiko.Ed25519Key.from_private_key(_other_key())), ("admin", None)):
        client = paramiko.SSHClient()
        client.load_host_keys(ssh["known_hosts"])
        with pytest.raises(paramiko.AuthenticationException):
            client.connect(
                ssh["address"], ssh["port"], user, pkey=key, key_filename=None if key else ssh["key"],
                allow_agent=False, look_for_keys=False,
            )  # fmt: skip
        client.close()


def _other_key():
    import io

    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return io.StringIO(pem.decode())


def test_the_machine_underneath_is_not_seen(run: Run) -> None:
    """Names, kernel, processes, files, mounts, environment: all are the simulated host's."""
    rc, out, _ = run(
        "hostname; uname -r; cat /proc/sys/kernel/hostname /proc/version /etc/hostname; id -u; env; "
        "ls / /proc /lib/modules /home /srv 2>&1; "
        "cat /etc/shadow /proc/self/mountinfo /proc/1/environ 2>&1; ls /usr/local /usr/share 2>&1; df 2>&1"
    )
    assert rc in (0, 1)
    words = set(out.split())
    assert out.splitlines()[0] == "pve5"
    assert platform.node() not in words
    assert platform.release() not in out
    assert str(Path.cwd()) not in out
    assert "root:" not in out
    assert not any(name.startswith(("PYTEST", "VIRTUAL_ENV", "LABPROOF")) for name in words)
    assert {"cmdline", "modules", "meminfo"} <= words


def test_absolute_and_relative_paths_do_not_lead_out(run: Run, tmp_path: Path) -> None:
    """Neither .. nor absolute names nor a symlink reach the machine."""
    canary = tmp_path / "canary"
    canary.write_text("machine underneath")
    rc, out, _ = run(
        f"cat {canary}; cd /; cat ../../../../..{canary}; ln -s {canary} /etc/canary; cat /etc/canary; echo done"
    )
    assert rc == 0
    assert out == "done\n"


def test_nothing_is_written_outside(run: Run, tmp_path: Path) -> None:
    """System folders are read-only, and a write to a path of the machine lands nowhere."""
    target = tmp_path / "written"
    _, out, _ = run(
        f"echo x > {target}; for d in /usr/bin /usr/lib/modules /sys /proc /opt /boot /dev; "
        "do touch $d/labproof-wrote && echo $d; done; "
        "chmod 777 /usr/bin/cat && echo chmod; echo x > /dev/null; echo 1 > /sys/bus/pci/drivers/vfio-pci/unbind"
    )
    assert out == ""
    assert not target.exists()
    assert not Path("/usr/bin/labproof-wrote").exists()


def test_reboot_and_kill_stay_inside(lab: SimLab, run: Run) -> None:
    """kill -1 finds only the command's own processes; reboot drops the connection, the boot id changes only there."""
    sentinel = subprocess.Popen(["sleep", "30"])
    machine = Path("/proc/sys/kernel/random/boot_id").read_text()
    try:
        run("kill -9 -1; kill -9 1; true")
        assert sentinel.poll() is None
        before = lab.world.hosts["pve5"].boot_id
        with pytest.raises((paramiko.SSHException, EOFError, OSError, AssertionError)):
            rc, _, _ = run("sync; reboot")
            assert rc == 0  # paramiko reports -1 when the connection drops
        assert lab.world.hosts["pve5"].boot_id != before
        assert Path("/proc/sys/kernel/random/boot_id").read_text() == machine
        assert sentinel.poll() is None
    finally:
        sentinel.kill()
        sentinel.wait()


def test_no_network_is_reachable(run: Run) -> None:
    """The namespace has no interface up: the command cannot even reach loopback of the machine."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.2)
    run(f"bash -c 'echo hi > /dev/tcp/127.0.0.1/{server.getsockname()[1]}'")
    with pytest.raises(TimeoutError):
        server.accept()
    server.close()


def test_sysfs_has_real_links_and_binary_config(run: Run) -> None:
    """readlink and od work as on a host."""
    _, out, _ = run(
        f"readlink {T4}/driver; basename $(readlink -f {T4}/iommu_group); od -An -tx1 -N4 {T4}/config; "
        "test -c /dev/vfio/11 && echo node; "
        f"ls {T4}/boot_vga {T4}/../vendor 2>&1 | head -1; cat {T4}/driver_override; "
        "ls /sys/module/vfio_pci/parameters | grep -c ids"
    )
    assert out.splitlines() == [
        "../../../../bus/pci/drivers/vfio-pci", "11", " de 10 b8 1e", "node",
        f"ls: cannot access '{T4}/boot_vga': No such file or directory", "(null)", "0",
    ]  # fmt: skip


def test_running_qemu_is_seen_to_hold_the_card(run: Run) -> None:
    """pid file, command line, open files and reservations agree."""
    _, out, _ = run(
        "p=$(cat /run/qemu-server/1105.pid); tr '\\0' '\\n' < /proc/$p/cmdline | grep vfio-pci; "
        "ls -l /proc/$p/fd | grep -c '/dev/vfio/11$'; "
        'grep -c "^0000:3b:00.0 1105 pid:$p\\$" /run/qemu-server/pci-id-reservations'
    )
    assert out.splitlines() == ["vfio-pci,host=0000:3b:00.0,id=hostpci0,bus=ich9-pcie-port-1,addr=0x0", "1", "1"]


def test_stand_ins_print_the_derived_state(run: Run) -> None:
    """lspci, lsmod, modprobe, journalctl, lsinitramfs, qm, proxmox-boot-tool, efibootmgr."""
    _, out, _ = run("lspci -nnk -s 3b:00.0")
    assert out == (
        "3b:00.0 3D controller [0302]: NVIDIA Corporation TU104GL [Tesla T4] [10de:1eb8] (rev a1)\n"
        "\tSubsystem: NVIDIA Corporation Device [10de:12a2]\n"
        "\tKernel driver in use: vfio-pci\n\tKernel modules: nouveau\n"
    )
    _, out, _ = run("lspci -Dnnvmmk -d 10de:")
    assert out.splitlines()[0] == "Slot:\t0000:3b:00.0"
    assert {"Driver:\tvfio-pci", "IOMMUGroup:\t11", "Device:\tTU104GL [Tesla T4] [1eb8]"} <= set(out.splitlines())
    assert run("lsmod")[1].splitlines()[0].split() == ["Module", "Size", "Used", "by"]
    assert "options vfio_pci ids=10de:1eb8\n" in run("modprobe -c")[1]
    assert run("modprobe -n -v -b nouveau")[:2] == (0, "")  # facts real-host pitfall 6
    assert run("modprobe -n -v nouveau")[1].startswith("insmod ")
    rc, _, err = run("modprobe no_such")
    assert (rc, err) == (1, "modprobe: FATAL: Module no_such not found in directory /lib/modules/6.8.12-9-pve\n")
    kernel = run("journalctl -k -b -o cat")[1]
    assert "pci 0000:3b:00.0: Adding to iommu group 11" in kernel
    assert "Inserted module" not in kernel
    assert "Inserted module 'vfio'" in run("journalctl -b -u systemd-modules-load -o cat --no-pager -q")[1]
    assert "etc/modprobe.d/vfio.conf\n" in run("lsinitramfs /boot/initrd.img-$(uname -r)")[1]
    assert "hostpci0: mapping=t4,pcie=1\n" in run("qm config 1105")[1]
    assert "configured with: grub" in run("proxmox-boot-tool status")[1]
    assert "grubx64.efi" in run("efibootmgr -v")[1]
    assert run("systemctl is-system-running")[1] == "running\n"


def test_script_on_standard_input(run: Run) -> None:
    """`sh -s` gets the client's script."""
    assert run("sh -s a b", "echo $# $2; exit 3")[:2] == (3, "2 b\n")


def test_a_command_without_input_does_not_wait_for_its_end(lab: SimLab) -> None:
    """As on any host: the client may keep its standard input open."""
    client = connected(lab)
    into, out, _ = client.exec_command("hostname", timeout=10)
    assert out.read() == b"pve5\n"
    into.close()
    client.close()


def test_a_client_that_goes_away_leaves_the_host_free(lab: SimLab, run: Run) -> None:
    """A command that hangs ends with its connection."""
    client = connected(lab)
    client.exec_command("sleep 300")
    client.close()
    assert run("hostname")[:2] == (0, "pve5\n")


def test_provisioning_takes_effect_after_refresh_and_reboot(lab: SimLab, run: Run) -> None:
    """Write the file, refresh, reboot: only then is the argument live; the initramfs likewise."""
    lab.reset(["iommu-off-old-kernel"])
    assert run("ls /sys/class/iommu")[1] == ""
    run("sed -i 's/quiet/quiet intel_iommu=on/' /etc/default/grub")
    assert "intel_iommu" not in run("cat /proc/cmdline /boot/grub/grub.cfg")[1]
    run("update-grub")
    assert "intel_iommu=on" in run("cat /boot/grub/grub.cfg")[1]
    assert "intel_iommu" not in run("cat /proc/cmdline")[1]
    run_until_dropped(run, "systemctl reboot")
    client = connected(lab)
    _, out, _ = client.exec_command("cat /proc/cmdline; ls /sys/class/iommu; qm status 1105")
    assert out.read().decode().split()[-5:] == ["quiet", "intel_iommu=on", "dmar0", "status:", "running"]
    client.close()


def run_until_dropped(run: Run, command: str) -> None:
    """A command that ends the connection."""
    try:
        run(command)
    except (paramiko.SSHException, EOFError, OSError):
        return


def test_initramfs_is_stale_until_rebuilt(run: Run) -> None:
    """A changed file is newer than the image and not in it."""
    fresh = "etc/modprobe.d/new.conf"
    run("echo 'blacklist xe' > /etc/modprobe.d/new.conf")
    assert fresh not in run("lsinitramfs /boot/initrd.img-$(uname -r)")[1]
    assert run("test /etc/modprobe.d/new.conf -nt /boot/initrd.img-$(uname -r)")[0] == 0
    run("update-initramfs -u -k all")
    assert fresh in run("lsinitramfs /boot/initrd.img-$(uname -r)")[1]


def test_sftp_shows_the_same_root_and_nothing_else(lab: SimLab, run: Run, tmp_path: Path) -> None:
    """Reads and writes inside; links and .. never lead to the machine."""
    canary = tmp_path / "canary"
    canary.write_text("machine underneath")
    client = connected(lab)
    sftp = client.open_sftp()
    assert sftp.open(f"{T4}/vendor").read() == b"0x10de\n"
    assert sftp.readlink(f"{T4}/driver") == "../../../../bus/pci/drivers/vfio-pci"
    assert sftp.open("/../../etc/hostname").read() == b"pve5\n"
    sftp.symlink(str(canary), "/etc/link")
    sftp.symlink("/", "/etc/rootlink")
    for path in ("/etc/link", f"/etc/rootlink{canary}", str(canary), "/etc/shadow"):
        with pytest.raises(OSError):
            sftp.open(path).read()
    with pytest.raises(OSError):
        sftp.open("/usr/bin/cat", "w")
    with sftp.open("/etc/modprobe.d/sftp.conf", "w") as file:
        file.write("blacklist xe\n")
    assert lab.world.hosts["pve5"].files["/etc/modprobe.d/sftp.conf"] == "blacklist xe\n"
    assert "blacklist xe" in run("modprobe -c")[1]
    client.close()


def test_roots_are_private(lab: SimLab) -> None:
    """Credential files and generated roots lie in a folder only we can enter."""
    key = Path(lab.overlay["patch"]["hosts"]["pve5"]["ssh"]["key"])
    assert key.parent.stat().st_mode & 0o077 == 0
    assert key.stat().st_mode & 0o077 == 0
