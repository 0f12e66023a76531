"""False alarms and missing readings: what works is left alone, what was not read is never a verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labproof.checks.judgement import Pass, Unchecked
from labproof.facts.host import (
    Initramfs,
    IommuGroup,
    PciDevice,
    QemuProcess,
    TextFile,
)
from labproof.facts.reading import failed, unsupported
from selftests.host.broken_parts import (
    AUDIO,
    OFF,
    OLD,
    grub,
    log,
    shares,
)
from selftests.host.world import BOOT, CARD, LIVE, NIC, PORT, T4, card, host, judge, lab

HARMLESS = [
    # the argument is absent and the line `DMAR: IOMMU enabled` too: default on is live
    ("HOST-IOMMU-001", host(cmdline=LIVE), None),
    ("HOST-CMDLINE-001", host(cmdline=("quiet",), boot_files=()), None),
    ("HOST-CMDLINE-001", host(firmware_tables=("IVRS",), iommus=("ivhd0",)), None),
    # iommu=off of the other vendor has no effect
    ("HOST-IOMMU-001", host(cmdline=(*LIVE, "amd_iommu=off")), None),
    # the later of two switches counts
    ("HOST-CMDLINE-002", host(boot_files=(grub("intel_iommu=off intel_iommu=on"),)), None),
    # a bridge and other functions of the slot in the group
    ("HOST-GROUP-001", host(**shares(PORT, AUDIO)), None),
    # a driverless host bridge beside the slot, as on AMD boards
    ("HOST-GROUP-001", host(**shares(PciDevice("0000:00:01.0", "1022:1482", "060000"))), None),
    # a member that is passed to the same VM
    (
        "HOST-GROUP-002",
        replace(
            host(**shares(NIC)),
            qemu=host(qemu=(QemuProcess(1, 1105, "", ("vfio-pci,host=0000:3b:00.0", "vfio-pci,host=18:00.0")),)).qemu,
        ),
        None,
    ),
    ("HOST-RMRR-001", host(iommu_groups=(IommuGroup(45, (T4,), "DMA", (("0x0", "0x1", "direct-relaxable"),)),)), None),
    # an idle card in D3cold that answers; `unknown` after an unbind; a virtual function's ff
    ("HOST-DEVICE-002", card(power_state="D3cold"), None),
    ("HOST-DEVICE-002", card(power_state="unknown", driver=None), None),
    ("HOST-DEVICE-002", card(physfn="0000:3b:00.4", config_head="ffffffff"), None),
    # boot_vga alone is no fault
    ("HOST-CONSOLE-001", card(boot_vga=True), None),
    ("HOST-CONSOLE-001", host(framebuffers=failed("/proc/iomem", "root is needed", "forbidden")), None),
    # a stopped VM's card without driver, or with nouveau, which PVE unbinds
    ("HOST-DRIVER-001", card(driver=None), None),
    ("HOST-DRIVER-001", card(driver="nouveau"), None),
    ("HOST-DRIVER-002", card(driver="nouveau"), lab(host={"bind_at_boot": False})),
    ("HOST-PERSIST-001", host(modprobe_config=(), modprobe_files=()), lab(host={"bind_at_boot": False})),
    ("HOST-PERSIST-001", host(modprobe_config=(), cmdline=(*LIVE, "vfio-pci.ids=10de:1eb8")), None),
    (
        "HOST-PERSIST-001",
        host(modprobe_config=(), driverctl_files=(TextFile(f"/etc/driverctl.d/pci-{T4}", ("vfio-pci",)),)),
        None,
    ),
    # nouveau is not installed, so nothing can come first; vfio-pci from the initramfs comes first anyway
    (
        "HOST-PERSIST-003",
        host(available_modules=("vfio_pci",), modprobe_config=("options vfio_pci ids=10de:1eb8",)),
        None,
    ),
    (
        "HOST-PERSIST-003",
        host(
            modprobe_config=("options vfio_pci ids=10de:1eb8",),
            modules_load_files=(TextFile("/etc/initramfs-tools/modules", ("vfio_pci",)),),
        ),
        None,
    ),
    # below 6.2 vfio_virqfd is a module of its own
    (
        "HOST-MODULES-001",
        host(kernel="6.1.0-50-amd64", modules_load_files=(TextFile("/etc/modules", ("vfio_virqfd",)),)),
        None,
    ),
    # undeclared functions are nobody's business; another card's complaint neither
    ("HOST-PERSIST-004", host(pci=(CARD, AUDIO)), None),
    ("HOST-JOURNAL-001", host(kernel_log=log("vfio-pci 0000:af:00.0: BAR 1: can't reserve [mem]")), None),
    # a second identical card elsewhere
    ("HOST-DEVICE-001", host(pci=(CARD, replace(CARD, address="0000:af:00.0"))), None),
    # two identical cards on vfio-pci, one of them undeclared: a display adapter the host does not miss
    ("HOST-DRIVER-004", host(pci=(CARD, replace(CARD, address="0000:af:00.0"))), None),
    ("HOST-KERNEL-001", host(kernel="6.8.12-12-pve"), None),
    # vfio-pci is loaded although the running kernel's modules were purged
    ("HOST-VFIO-001", host(kernel_modules_dir=False, available_modules=()), None),
    # the next boot's pin is for the next boot
    ("HOST-KERNEL-003", host(boot_files=(TextFile("/etc/kernel/next-boot-pin", ("6.5.13-6-pve",)),)), None),
]


@pytest.mark.parametrize(("clause", "facts", "declared"), HARMLESS)
def test_working_labs_hear_nothing(clause, facts, declared):
    judgement = judge(clause, facts, declared=declared)
    assert isinstance(judgement, Pass), judgement


UNDECIDED = [
    ("HOST-JOURNAL-001", host(kernel_log=failed("journalctl -k -b", "no entries"))),
    ("HOST-IRQ-001", host(kernel_log=log("vfio", complete=False), qemu=())),
    ("HOST-PERSIST-001", host(modprobe_config=failed("modprobe -c", "exit status 1"))),
    (
        "HOST-CONSOLE-001",
        replace(card(boot_vga=True), framebuffers=failed("/proc/iomem", "root is needed", "forbidden")),
    ),
    ("HOST-DEVICE-002", card(config_head=None, power_state="unknown")),
    ("HOST-GROUP-001", host(iommu_groups=failed("groups", "truncated"))),
]


@pytest.mark.parametrize(("clause", "facts"), UNDECIDED)
def test_unread_is_never_a_verdict(clause, facts):
    assert isinstance(judge(clause, facts), Unchecked)


def test_qualifiers():
    edited = host(boot_files=(grub("quiet intel_iommu=on", BOOT + 60),), **OFF, **OLD)
    forgotten = host(boot_files=(grub("quiet intel_iommu=on", BOOT - 60),), **OFF, **OLD)
    for clause in ("HOST-IOMMU-001", "HOST-CMDLINE-001"):
        assert judge(clause, edited).qualifier == "pending-reboot"
        assert judge(clause, forgotten).qualifier is None, "an old file means that the refresh was forgotten"
    assert judge("HOST-GROUP-001", host(cmdline=(*LIVE, "pcie_acs_override=downstream"))).qualifier == "asserted-only"
    newer = host(initramfs=Initramfs("/boot/initrd.img-x", BOOT + 60, ("etc/modprobe.d/vfio.conf",)))
    assert judge("HOST-PERSIST-002", newer).qualifier == "pending-reboot"
    unsafe = host(module_parameters={"vfio_iommu_type1/allow_unsafe_interrupts": "Y"}, kernel_log=log("Linux version"))
    assert judge("HOST-IRQ-001", unsafe).qualifier == "asserted-only"


def test_moved_card_reports_its_new_address():
    moved = host(pci=(replace(CARD, address="0000:af:00.0"), replace(NIC, address=T4)))
    (problem,) = judge("HOST-DEVICE-001", moved).problems
    assert "0000:af:00.0" in problem.remedy
    assert NIC.ids in problem.evidence[0].text


def test_host_without_modprobe_is_judged():
    bare = host(modprobe_config=unsupported("modprobe -c", "not installed"), modprobe_files=())
    assert {p.cause for p in judge("HOST-PERSIST-001", bare).problems} == {"P66"}


def test_two_identical_cards_without_addresses():
    two = host(pci=(CARD, replace(CARD, address="0000:af:00.0")))
    one_declared = lab(gpu={"address": None})
    assert isinstance(judge("HOST-DEVICE-001", two, declared=one_declared), Unchecked)
    both = one_declared.model_dump()
    both["gpus"] = [{**both["gpus"][0], "name": name} for name in ("t4", "t4b")]
    assert isinstance(judge("HOST-DEVICE-001", two, declared=type(one_declared).model_validate(both)), Pass)
