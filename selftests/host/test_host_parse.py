"""Parsing: recordings of real hosts, hexadecimal functions and domains, and text that must not be taken for ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labproof.checks.host_boot_loader import boot_configuration, grub_tokens, intel_iommu_default_on
from labproof.checks.host_devices import base_version
from labproof.checks.judgement import Fail, Pass
from labproof.facts.host import QemuProcess, TextFile
from labproof.facts.reading import State, value
from labproof.probes.host_parse import parse_host
from labproof.probes.host_pci import mounted_blocks
from labproof.probes.host_sections import sections_of
from selftests.host.world import host, judge, lab

CAPTURES = Path(__file__).parent.parent / "captures" / "host"


def section(name: str, *lines: str, status: int = 0) -> str:
    return "\n".join((f"@@ {name} source of {name}", *lines, f"@@= {status}", ""))


def recording(name: str) -> list[str]:
    return (CAPTURES / name).read_text().splitlines()


def lspci_sections(lines: list[str], groups: dict[str, int]) -> str:
    """A recorded `lspci -nnk` as the probe's own sections: sysfs holds the same words."""
    pci, links, address = [], [], ""
    for line in lines:
        head = re.match(
            r"([0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) .*\[([0-9a-f]{4})\]: .*\[([0-9a-f]{4}):([0-9a-f]{4})\]", line
        )
        if head:
            address = f"0000:{head[1]}"
            pci += [f"device {address}", f"vendor 0x{head[3]}", f"device 0x{head[4]}", f"class 0x{head[2]}00"]
            if address in groups:
                links.append(
                    f"|/sys/bus/pci/devices/{address}/iommu_group -> ../../../kernel/iommu_groups/{groups[address]}"
                )
        elif "Kernel driver in use:" in line:
            driver = line.rsplit(" ", 1)[1]
            links.append(f"|/sys/bus/pci/devices/{address}/driver -> ../../../bus/pci/drivers/{driver}")
    return section("pci", *pci) + section("links", *links)


BEFORE = lab(host={"kind": "linux"}, gpu={"device": "10de:2204", "address": "0000:01:00.0"})


@pytest.fixture
def before():
    """Debian 12 in QEMU with a vIOMMU, started with intel_iommu=off, nouveau loaded, nothing provisioned."""
    misc = recording("before-misc.txt")
    text = lspci_sections(recording("before-lspci-nnk.txt"), {})
    text += section("host", "hostname vm", "kernel 6.1.0-50-amd64", "uid 0")
    text += section("cmdline", f"|{misc[1]}")
    text += section("iommus") + section("iommu_groups") + section("firmware_tables", "|DMAR", "|FACP")
    text += section("boot", "efi no")
    text += section(
        "boot_files", "file /etc/default/grub.d/00-old-default.cfg", '|GRUB_CMDLINE_LINUX="intel_iommu=off"'
    )
    text += section(
        "modules",
        *(
            f"{name} {count} {users}"
            for name, _, count, users in (re.split(r" +", f"{m} -")[:4] for m in misc if re.match(r"\w+ +\d+ +\d", m))
        ),
    )
    return parse_host(text, "vm")


def test_recorded_host_before_provisioning(before):
    cards = {d.address: d for d in before.pci.value}
    assert cards["0000:01:00.0"].ids == "10de:2204"
    assert cards["0000:01:00.0"].driver is None, "`Kernel modules: nouveau` is a candidate, not the bound driver"
    assert cards["0000:01:00.1"].driver == "snd_hda_intel"
    assert "intel_iommu=off" in before.cmdline.value
    assert next(m for m in before.modules.value if m.name == "nouveau").refcount == 0
    assert {p.cause for p in judge("HOST-IOMMU-001", before, declared=BEFORE).problems} == {"P01"}
    assert isinstance(judge("HOST-DEVICE-001", before, declared=BEFORE), Pass)
    assert {p.cause for p in judge("HOST-GROUP-001", before, declared=BEFORE).problems} == {"P01"}


def test_recorded_host_on_6_12():
    """Debian 13: IOMMU on by default, so no `IOMMU enabled` line and no argument; remapping is there."""
    lines = recording("provisioned-6.12.txt")
    log = [line for line in lines if line.startswith("[")]
    settings = [line for line in lines if "CONFIG_" in line]
    text = section("host", f"kernel {lines[0]}") + section("cmdline", f"|{lines[2]}")
    text += section("journal", *(f"|{line}" for line in log), "|labproof_status 0") + section(
        "kernel_config", *(f"|{s}" for s in settings)
    )
    text += section("interrupts", "remapped 0") + section("parameters")
    facts = parse_host(text)
    assert intel_iommu_default_on(facts)
    assert facts.kernel_config.value["CONFIG_INTEL_IOMMU_DEFAULT_ON"] == "n"
    assert not any("IOMMU enabled" in line for line in facts.kernel_log.value.lines)
    assert facts.kernel_log.value.lines[0].startswith("ACPI: DMAR"), "time stamps are taken off"
    assert isinstance(judge("HOST-IRQ-001", facts), Pass)


def test_hexadecimal_functions_and_domains():
    vmd = "../../devices/pci0000:e0/0000:e0:05.5/pci10000:e0/10000:e1:00.0"
    text = section(
        "pci",
        *(
            "device 0000:af:1f.7",
            "vendor 0x10de",
            "device 0x1eb8",
            "class 0x030200",
            "driver_override (null)",
            "boot_vga 0",
        ),
        *(
            "resource 0x00000000f0000000 0x00000000ffffffff 0x0000000000040200",
            "resource 0x0 0x0 0x0",
            "config  de 10 b8 1e",
        ),
        *("device 10000:e1:00.0", "vendor 0x8086", "device 0xf1a6", "class 0x010802", "current_link_width 255"),
    )
    text += section(
        "links",
        "|/sys/bus/pci/devices/0000:af:1f.7/iommu_group -> ../../../../kernel/iommu_groups/171",
        "|/sys/bus/pci/devices/10000:e1:00.0/driver -> ../../../../../bus/pci/drivers/nvme",
        f"|/sys/class/block/nvme0n1 -> {vmd}/nvme/nvme0/nvme0n1",
        f"|/sys/class/block/nvme0n1p3 -> {vmd}/nvme/nvme0/nvme0n1/nvme0n1p3",
        "|/sys/class/net/eno1 -> ../../devices/pci0000:ae/0000:ae:00.0/0000:af:1f.7/net/eno1",
    )
    text += section("net", "eno1 up", "vmbr0 up") + section("mounts", "used /dev/nvme0n1p3 /")
    card, disk = parse_host(text).pci.value
    assert (card.address, card.slot, card.iommu_group) == ("0000:af:1f.7", "0000:af:1f", 171)
    assert (card.driver, card.driver_override, card.boot_vga, card.config_head) == (None, None, False, "de10b81e")
    assert [bar.size for bar in card.bars] == [0x10000000]
    assert card.interfaces == ("eno1",)
    assert (disk.address, disk.driver, disk.mounted) == ("10000:e1:00.0", "nvme", ("nvme0n1p3",))


def test_disks_below_a_volume_group():
    text = section(
        "mounts",
        "used /dev/mapper/pve-root /",
        "alias /dev/mapper/pve-root /dev/dm-1",
        "slave dm-1 sda3",
        "slave dm-7 sdz1",
        "used /dev/disk/by-id/ata-SSD-part3 zpool",
        "alias /dev/disk/by-id/ata-SSD-part3 /dev/sdb3",
    )
    assert mounted_blocks(sections_of(text)["mounts"]) == {"dm-1", "sda3", "sdb3"}


def test_text_of_others_is_never_ours():
    """A file that holds our own marks cannot open or close a section."""
    text = section(
        "modprobe_files", "file /etc/modprobe.d/x.conf", "|@@= 1", "|@@ iommus fake", "|options vfio-pci ids=1:2"
    )
    facts = parse_host("Last login: today\n" + text)
    assert facts.modprobe_files.value[0].lines == ("@@= 1", "@@ iommus fake", "options vfio-pci ids=1:2")
    assert facts.iommus.state is State.FAILED


def test_pve_processes_and_reservations():
    text = section(
        "qemu",
        *("pid 4242", "vmid 1105", "id 1105", "name moody-good,debug-threads=on"),
        *(
            "arg vfio-pci,host=0000:3b:00.0,id=hostpci0,bus=ich9-pcie-port-1,addr=0x0",
            "fd /dev/vfio/45",
            "fd /dev/vfio/vfio",
        ),
        *("pid 99", "name desktop"),
    )
    text += section("reservations", "|0000:3b:00.0 1105 pid:4242", "|0000:af:00.0 1200 time:1700000000", "|garbage")
    text += section("lxc", "201 yes dev0: /dev/nvidia0") + section("hugepages", "1048576kB 16 4", "2048kB 0 0")
    facts = parse_host(text)
    mine, other = facts.qemu.value
    assert (mine.pid, mine.vmid, mine.vm_name) == (4242, 1105, "moody-good")
    assert mine.holds("0000:3b:00.0")
    assert not mine.holds("0000:3b:00.1")
    assert not mine.holds("10000:3b:00.0")
    assert (other.vmid, other.vfio_args) == (None, ())
    assert [(r.vmid, r.pid, r.until) for r in facts.reservations.value] == [
        (1105, 4242, None),
        (1200, None, 1700000000.0),
    ]
    assert facts.lxc_gpu_use.value[0].running
    assert (facts.hugepages.value[0].size_kib, facts.hugepages.value[0].free) == (1048576, 4)


def test_short_address_in_qemu_arguments():
    assert QemuProcess(1, 1, "", ("vfio-pci,host=3b:00.0,id=x",)).holds("0000:3b:00.0")
    assert QemuProcess(1, 1, "", ("vfio-pci,sysfsdev=/sys/bus/pci/devices/0000:3b:00.0",)).holds("0000:3b:00.0")


def test_zero_addresses_are_missing_rights():
    text = section("iomem", "|00000000-00000000 : Reserved", "|00000000-00000000 : BOOTFB")
    assert parse_host(text).framebuffers.kind == "forbidden"
    seen = parse_host(section("iomem", "|00000000-00000fff : Reserved", "|  d0000000-d02fffff : BOOTFB")).framebuffers
    assert [(f.start, f.end, f.name) for f in seen.value] == [(0xD0000000, 0xD02FFFFF, "BOOTFB")]


def test_journal_falls_back_to_the_ring_buffer():
    text = section("journal", "|labproof_status 1") + section(
        "dmesg", "|[    0.0] Linux version 6.8", "|labproof_status 0"
    )
    reading = parse_host(text).kernel_log
    assert reading.value.complete
    assert "dmesg" in reading.source
    refused = section("journal", "|labproof_status 0") + section("dmesg", "|labproof_status 1")
    assert parse_host(refused).kernel_log.state is State.FAILED


@pytest.mark.parametrize(
    ("lines", "tokens"),
    [
        (['GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=on"'], ("quiet", "intel_iommu=on")),
        (["GRUB_CMDLINE_LINUX_DEFAULT='quiet'", "GRUB_CMDLINE_LINUX=iommu=pt"], ("iommu=pt", "quiet")),
        (['GRUB_CMDLINE_LINUX="a"', 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX b"'], ("a", "b")),
        (['GRUB_CMDLINE_LINUX="a"', 'GRUB_CMDLINE_LINUX+=" b"'], ("a", "b")),
        (['GRUB_CMDLINE_LINUX_DEFAULT="quiet" # was intel_iommu=on'], ("quiet",)),
        (['GRUB_CMDLINE_LINUX_DEFAULT="open'], ("open",)),
    ],
)
def test_grub_settings(lines, tokens):
    assert grub_tokens([TextFile("/etc/default/grub", tuple(lines))]) == tokens


@pytest.mark.parametrize(
    ("cmdline", "evidence", "files", "loader"),
    [
        (("BOOT_IMAGE=/vmlinuz",), {"efi": "yes"}, ("/etc/default/grub", "/etc/kernel/cmdline"), "grub"),
        (
            ("initrd=\\EFI\\proxmox\\6.8\\initrd.img",),
            {"efi": "yes"},
            ("/etc/default/grub", "/etc/kernel/cmdline"),
            "systemd-boot",
        ),
        (("root=x",), {"efi": "yes", "loader": "systemd-boot 252"}, ("/etc/kernel/cmdline",), "systemd-boot"),
        (
            ("root=x",),
            {"efi": "yes", "boot_entry": "proxmox File(\\EFI\\proxmox\\grubx64.efi)"},
            ("/etc/default/grub",),
            "grub",
        ),
        (
            ("root=x",),
            {"efi": "yes"},
            ("/etc/kernel/cmdline", "/etc/kernel/proxmox-boot-uuids", "/etc/default/grub"),
            "systemd-boot",
        ),
        (("root=x",), {"efi": "no"}, ("/etc/default/grub",), "grub"),
        (("root=x",), {"efi": "no"}, (), "unknown"),
    ],
)
def test_which_boot_loader(cmdline, evidence, files, loader):
    facts = host(cmdline=cmdline, boot_evidence=value(evidence), boot_files=tuple(TextFile(f, ("x",)) for f in files))
    assert boot_configuration(facts).loader == loader


def test_kernel_versions():
    assert base_version("6.8.12-4-pve") == (6, 8, 12, 4)
    assert base_version("6.12.107+deb13-amd64")[:2] == (6, 12)
    assert base_version("6.1.0-50-amd64") < (6, 2)


def test_amd_recording_judges_remapping():
    facts = host(
        kernel_log=parse_host(
            section("journal", "|AMD-Vi: Interrupt remapping enabled", "|DMAR: IOMMU disabled", "|labproof_status 0")
        ).kernel_log
    )
    assert isinstance(judge("HOST-IRQ-001", facts), Pass)


def test_unreadable_file_is_no_value():
    assert (
        parse_host(section("modprobe_files", "unreadable /etc/modprobe.d/x.conf")).modprobe_files.state is State.FAILED
    )


def test_failed_judgement_names_its_evidence():
    judged = judge("HOST-GROUP-003", host(cmdline=("pcie_acs_override=downstream",)))
    assert isinstance(judged, Fail)
    assert judged.problems[0].evidence[0].source == "pve5: cat /proc/cmdline"
