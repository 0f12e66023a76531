"""The host model: every visible state follows from firmware, boot files, kernel, topology and module configuration."""

from __future__ import annotations

from typing import Any

import pytest

from labproof.simlab.host import bootfiles, modprobe
from labproof.simlab.host.machine import Host, boot
from labproof.simlab.host.topology import iommu_groups
from labproof.simlab.world import load_inputs, merge_patch

T4 = "0000:3b:00.0"


def booted(patch: dict[str, Any] | None = None) -> Host:
    """pve5 booted with a patch on its inputs."""
    return boot("pve5", merge_patch(load_inputs("t4-jellyfin")["hosts"]["pve5"], patch or {}), {})


def grub(line: str) -> dict[str, Any]:
    """Inputs with another GRUB command line."""
    return {"files": {bootfiles.GRUB: {"text": f'GRUB_CMDLINE_LINUX_DEFAULT="{line}"\n'}}}


@pytest.mark.parametrize(
    ("patch", "live"),
    [
        ({}, "intel"),
        ({"firmware": {"iommu": False}}, ""),
        (grub("quiet"), "intel"),  # default-on from 6.8
        ({**grub("quiet"), "kernel": {"version": "6.5.13-6-pve"}}, ""),
        ({**grub("intel_iommu=on"), "kernel": {"version": "6.5.13-6-pve"}}, "intel"),
        (grub("intel_iommu=off"), ""),
        (grub("intel_iommu=off quiet intel_iommu=on"), "intel"),  # the later one wins, facts real-host pitfall 3
        (grub("iommu=off"), ""),
        ({**grub("quiet"), "cpu": {"vendor": "amd"}}, "amd"),
        ({**grub("amd_iommu=off"), "cpu": {"vendor": "amd"}}, ""),
        ({**grub("intel_iommu=off"), "cpu": {"vendor": "amd"}}, "amd"),
    ],
)
def test_iommu_is_live_only_where_firmware_and_kernel_agree(patch: dict[str, Any], live: str) -> None:
    """And then, only then, there are groups."""
    host = booted(patch)
    assert host.iommu == live
    assert bool(host.groups) is bool(live)


def test_the_argument_parsers_line_is_printed_even_with_vtd_off() -> None:
    """facts proxmox 0.2: `DMAR: IOMMU enabled` proves nothing."""
    texts = [line.text for line in booted({"firmware": {"iommu": False}}).journal]
    assert "DMAR: IOMMU enabled" in texts
    assert not any(t.startswith(("ACPI: DMAR", "DMAR: DRHD", "DMAR-IR")) or "Adding to iommu group" in t for t in texts)


def test_remapping_lines_stay_when_the_iommu_is_switched_off() -> None:
    """facts real-host capture with intel_iommu=off: table, DRHD and IR lines are there, groups are not."""
    texts = [line.text for line in booted(grub("intel_iommu=off")).journal]
    assert "DMAR-IR: Enabled IRQ remapping in x2apic mode" in texts
    assert not any("Adding to iommu group" in t for t in texts)


def test_card_is_alone_behind_a_root_port_with_acs() -> None:
    """The chipset's functions and the BMC behind its bridge share groups, the card does not."""
    host = booted()
    assert host.groups[host.group_of[T4]] == (T4,)
    assert host.group_of["0000:00:1f.0"] == host.group_of["0000:00:1f.4"]
    assert host.group_of["0000:02:00.0"] == host.group_of["0000:03:00.0"]


def test_group_follows_acs_and_the_override() -> None:
    """Without ACS the port, the card and its neighbour share; the override asserts that they do not."""
    devices = {
        "0000:3a:00.0": {"id": "8086:2030", "class": "0x060400", "acs": False},
        "0000:3b:00.0": {"id": "10de:1eb8", "class": "0x030200", "parent": "0000:3a:00.0"},
        "0000:3b:01.0": {"id": "8086:1533", "class": "0x020000", "parent": "0000:3a:00.0"},
        "0000:3c:00.0": {"id": "10de:1e84", "class": "0x030000", "acs": False},
        "0000:3c:00.1": {"id": "10de:10f8", "class": "0x040300", "acs": False},
    }
    assert list(iommu_groups(devices).values()) == [
        ("0000:3a:00.0", "0000:3b:00.0", "0000:3b:01.0"),
        ("0000:3c:00.0", "0000:3c:00.1"),
    ]
    split = iommu_groups(devices, frozenset({"downstream", "multifunction"}))
    assert [len(members) for members in split.values()] == [1] * 5


@pytest.mark.parametrize(
    ("conf", "driver"),
    [
        ("options vfio-pci ids=10de:1eb8\n", "vfio-pci"),
        ("options vfio-pci ids=0x10de:0x1eb8\n", "vfio-pci"),
        ("options vfio-pci ids=10de-1eb8\n", None),
        ("options vfio_pci ids=8086:1234,10DE:1EB8 disable_vga=1\n", "vfio-pci"),
        ("# options vfio-pci ids=10de:1eb8\n", None),
    ],
)
def test_ids_bind_the_card(conf: str, driver: str | None) -> None:
    """nouveau is blacklisted in the healthy lab, so a card that no id names stays without driver."""
    assert booted({"files": {"/etc/modprobe.d/vfio.conf": {"text": conf}}}).drivers.bound.get(T4) == driver


def test_softdep_or_blacklist_keeps_nouveau_away() -> None:
    """Without both, nouveau's alias comes first; with the softdep alone vfio-pci is loaded before it."""
    bare = {
        "/etc/modprobe.d/blacklist-nvidia.conf": None,
        "/etc/modprobe.d/vfio.conf": {"text": "options vfio-pci ids=10de:1eb8\n"},
    }
    assert booted({"files": bare}).drivers.bound[T4] == "nouveau"
    soft = {
        **bare,
        "/etc/modprobe.d/vfio.conf": {"text": "options vfio-pci ids=10de:1eb8\nsoftdep nouveau pre: vfio-pci\n"},
    }
    assert booted({"files": soft}).drivers.bound[T4] == "vfio-pci"


def test_a_stale_initramfs_decides_the_boot() -> None:
    """What the initramfs was built with counts, not the file on disk."""
    stale = {
        "/etc/modprobe.d/blacklist-nvidia.conf": {"in_initramfs": False},
        "/etc/modprobe.d/vfio.conf": {"in_initramfs": False},
    }
    assert booted({"files": stale}).drivers.bound[T4] == "nouveau"


def test_vfio_refuses_a_device_without_group() -> None:
    """With the IOMMU off the probe fails and the card has no driver."""
    host = booted({"firmware": {"iommu": False}})
    assert T4 not in host.drivers.bound
    assert any("vfio-pci" in line.text and "-22" in line.text for line in host.journal)


def test_driverctl_moves_a_device() -> None:
    """A per-address override binds without ids."""
    files = {"/etc/modprobe.d/vfio.conf": None, f"/etc/driverctl.d/{T4}": {"text": "vfio-pci\n"}}
    host = booted({"files": files})
    assert host.drivers.bound[T4] == "vfio-pci"
    assert host.drivers.overrides[T4] == "vfio-pci"


def test_virqfd_is_no_module_from_6_2_on() -> None:
    """facts proxmox 0.1, with systemd's line."""
    host = booted({"files": {"/etc/modules": {"text": "vfio\nvfio_virqfd\n"}}})
    assert "vfio_virqfd" not in host.drivers.loaded
    assert any(line.text == "Failed to find module 'vfio_virqfd'" for line in host.journal)


def test_modprobe_configuration_is_printed_as_modprobe_prints_it() -> None:
    """facts real-host: names with underscores, softdep as written, other suffixes and folders ignored."""
    config = modprobe.parse(
        {
            "/etc/modprobe.d/vfio.conf": "options vfio-pci ids=10de:2204,10de:1aef disable_vga=1\n"
            "softdep nouveau pre: vfio-pci\n",
            "/etc/modprobe.d/b.conf": "blacklist nvidia-drm\n",
            "/etc/modprobe.d/ignored": "options vfio-pci ids=1234:5678\n",
            "/etc/other/x.conf": "blacklist kvm\n",
        }
    )
    assert config.printed() == (
        "blacklist nvidia_drm\noptions vfio_pci ids=10de:2204,10de:1aef disable_vga=1\nsoftdep nouveau pre: vfio-pci\n"
    )
    assert config.vfio_ids() == ("10de:2204", "10de:1aef")


def test_grub_files_are_read_as_shell_reads_them() -> None:
    """Snippets of grub.d come later and may extend; single quotes are literal."""
    files = {
        bootfiles.GRUB: 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX=\'a\'\n#GRUB_CMDLINE_LINUX="no"\n',
        "/etc/default/grub.d/10-x.cfg": 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT intel_iommu=on"\n',
        "/etc/default/grub.d/20-y.bak": 'GRUB_CMDLINE_LINUX="z"\n',
    }
    line = bootfiles.configured_cmdline({"loader": "grub", "root": "/dev/sda1"}, "6.8.12-9-pve", files)
    assert line == "BOOT_IMAGE=/boot/vmlinuz-6.8.12-9-pve root=/dev/sda1 ro a quiet intel_iommu=on"


def test_systemd_boot_reads_the_first_line_only() -> None:
    """And a host whose line names no root does not come up."""
    patch = {
        "boot": {"loader": "systemd-boot"},
        "files": {bootfiles.SYSTEMD_BOOT: {"text": "root=ZFS=x boot=zfs\nintel_iommu=on\n"}},
    }
    host = booted(patch)
    assert host.up
    assert "intel_iommu" not in host.cmdline
    assert not booted(merge_patch(patch, {"files": {bootfiles.SYSTEMD_BOOT: {"text": "quiet\n"}}})).up
