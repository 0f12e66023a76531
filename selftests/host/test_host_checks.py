"""Both ways: every host clause passes on the healthy host, and names every cause it lists on a broken one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labproof.checks.judgement import Fail, Pass, Unchecked
from labproof.checks.registry import clauses
from labproof.facts.host import (
    Initramfs,
    IommuGroup,
    KernelLog,
    LxcGpuUse,
    MemoryRange,
    PciDevice,
    QemuProcess,
    TextFile,
)
from labproof.facts.reading import absent, failed, unsupported
from selftests.host.world import BOOT, CARD, DISK, HOST, LIVE, NIC, PORT, T4, VFIO_CONF, card, host, judge, lab

OFF = {"iommus": (), "iommu_groups": (), "pci": (replace(CARD, iommu_group=None, driver=None),)}
OLD = {"kernel": "6.5.13-6-pve", "kernel_config": absent("/boot/config")}
GRUB = "/etc/default/grub"
PLAIN = "/etc/kernel/cmdline"


def grub(text: str, mtime: float = BOOT - 9) -> TextFile:
    return TextFile(GRUB, (f'GRUB_CMDLINE_LINUX_DEFAULT="{text}"',), mtime)


def shares(*others: PciDevice) -> dict:
    """The card's group with other members."""
    members = tuple(d.address for d in others)
    return {"iommu_groups": (IommuGroup(45, (T4, *members)),), "pci": (*others, CARD)}


def log(*lines: str, complete: bool = True) -> KernelLog:
    return KernelLog(lines, complete)


REMAP = HOST.kernel_log.value.lines
IGPU = replace(CARD, address="0000:00:02.0", ids="8086:9a49", pci_class="030000", iommu_group=None, boot_vga=True)
IGPU_LAB = lab(gpu={"device": "8086:9a49", "address": "0000:00:02.0"})
VF = replace(CARD, physfn="0000:3b:00.1", config_head=None)
AUDIO = replace(CARD, address="0000:3b:00.1", ids="10de:10f8", pci_class="040300", driver="snd_hda_intel")
USB = replace(CARD, address="0000:3b:00.2", ids="10de:1ad8", pci_class="0c0330", driver="xhci_hcd")
FUNCTIONS = lab(gpu={"functions": ["10de:10f8", "10de:1ad8"]})
LATE = {"cmdline": LIVE[:-1], "boot_files": (grub("quiet"),)}
WANTED = lab(host={"kernel": {"wanted": ["iommu=pt"]}})

# clause, cause, facts, lab
BROKEN = [
    ("HOST-ID-001", "P64", host(hostname="pve4"), None),
    ("HOST-ID-001", "P64", host(pve_mounted=False), None),
    ("HOST-FIRMWARE-001", "P02", host(firmware_tables=("APIC",), **OFF), None),
    ("HOST-FIRMWARE-001", "P02", host(firmware_tables=absent("tables"), **OFF), None),
    ("HOST-IOMMU-001", "P02", host(firmware_tables=("APIC",), cmdline=(*LIVE, "intel_iommu=on"), **OFF), None),
    (
        "HOST-IOMMU-001",
        "P01",
        host(cmdline=(*LIVE, "intel_iommu=off"), boot_files=(grub("intel_iommu=off"),), **OFF),
        None,
    ),
    ("HOST-IOMMU-001", "P01", host(cmdline=(*LIVE, "iommu=off"), boot_files=(grub("iommu=off"),), **OFF), None),
    ("HOST-IOMMU-001", "P01", host(**OFF, **OLD), None),
    ("HOST-IOMMU-001", "P04", host(boot_files=(grub("quiet intel_iommu=on", BOOT + 60),), **OFF, **OLD), None),
    ("HOST-IOMMU-001", "P04", host(cmdline=(*LIVE, "intel_iommu=off"), boot_files=(grub("quiet"),), **OFF), None),
    (
        "HOST-IOMMU-001",
        "P03",
        host(boot_files=(grub("quiet"), TextFile(PLAIN, ("root=x intel_iommu=on",))), **OFF, **OLD),
        None,
    ),
    ("HOST-IRQ-001", "P06", host(kernel_log=log("Linux version 6.8", "DMAR: dmar0")), None),
    (
        "HOST-IRQ-001",
        "P06",
        host(kernel_log=log("vfio_iommu_type1_attach_group: No interrupt remapping support.", complete=False)),
        None,
    ),
    ("HOST-IRQ-001", "P02", host(firmware_tables=(), kernel_log=log("Linux version 6.8"), **OFF), None),
    ("HOST-IRQ-002", "P07", host(module_parameters={"vfio_iommu_type1/allow_unsafe_interrupts": "Y"}), None),
    ("HOST-CMDLINE-001", "P69", host(**LATE), WANTED),
    ("HOST-CMDLINE-001", "P04", host(cmdline=LIVE[:-1]), WANTED),
    (
        "HOST-CMDLINE-001",
        "P03",
        host(cmdline=LIVE[:-1], boot_files=(grub("quiet"), TextFile(PLAIN, ("root=x iommu=pt",)))),
        WANTED,
    ),
    ("HOST-CMDLINE-001", "P01", host(**OFF, **OLD), None),
    ("HOST-CMDLINE-002", "P69", host(boot_files=(grub("quiet"),)), WANTED),
    ("HOST-CMDLINE-002", "P03", host(boot_files=(grub("quiet"), TextFile(PLAIN, ("root=x iommu=pt",)))), WANTED),
    ("HOST-CMDLINE-002", "P01", host(boot_files=(grub("quiet intel_iommu=off"),)), None),
    (
        "HOST-CMDLINE-003",
        "P05",
        host(cmdline=("initrd=\\EFI\\proxmox\\x", "root=x"), boot_files=(TextFile(PLAIN, ("root=x", "iommu=pt")),)),
        None,
    ),
    ("HOST-CMDLINE-003", "P05", host(cmdline=("initrd=\\EFI\\x",), boot_files=(TextFile(PLAIN, ("quiet",)),)), None),
    ("HOST-DEVICE-001", "P16", host(pci=(replace(CARD, address="0000:af:00.0"), replace(NIC, address=T4))), None),
    ("HOST-DEVICE-001", "P17", host(pci=(NIC,)), None),
    ("HOST-DEVICE-001", "P17", host(pci=(replace(CARD, ids="10de:1e84"),)), None),
    ("HOST-DEVICE-002", "P18", card(config_head="ffffffff"), None),
    ("HOST-DEVICE-002", "P18", card(revision="ff", config_head=None), None),
    (
        "HOST-DEVICE-002",
        "P18",
        replace(card(power_state="D3cold"), kernel_log=host(kernel_log=log(f"vfio-pci {T4}: stuck in D3")).kernel_log),
        None,
    ),
    ("HOST-DEVICE-003", "P68", HOST, FUNCTIONS),
    ("HOST-LINK-001", "P53", card(link_width=8), None),
    ("HOST-GROUP-001", "P09", host(**shares(NIC)), None),
    ("HOST-GROUP-001", "P09", host(**shares(replace(CARD, address="0000:3b:01.0"))), None),
    ("HOST-GROUP-001", "P11", host(kernel="6.8.12-27-pve", **shares(NIC)), None),
    ("HOST-GROUP-001", "P02", host(firmware_tables=(), **OFF), None),
    ("HOST-GROUP-001", "P01", host(cmdline=(*LIVE, "iommu=off"), boot_files=(grub("iommu=off"),), **OFF), None),
    (
        "HOST-GROUP-001",
        "P03",
        host(boot_files=(grub("q"), TextFile(PLAIN, ("root=x intel_iommu=on",))), **OFF, **OLD),
        None,
    ),
    ("HOST-GROUP-001", "P04", host(boot_files=(grub("intel_iommu=on"),), **OFF, **OLD), None),
    ("HOST-GROUP-001", "P12", host(pci=(IGPU,)), IGPU_LAB),
    (
        "HOST-GROUP-001",
        "P67",
        host(pci=(replace(CARD, iommu_group=None),), iommu_groups=HOST.iommu_groups.value[:3]),
        None,
    ),
    ("HOST-GROUP-002", "P09", host(**shares(NIC)), None),
    ("HOST-GROUP-002", "P09", host(**shares(DISK)), None),
    ("HOST-GROUP-002", "P11", host(kernel="6.8.12-25-pve", **shares(DISK)), None),
    ("HOST-GROUP-003", "P10", host(cmdline=(*LIVE, "pcie_acs_override=downstream,multifunction")), None),
    ("HOST-GROUP-004", "P12", host(pci=(IGPU,)), IGPU_LAB),
    (
        "HOST-GROUP-004",
        "P67",
        host(pci=(replace(CARD, iommu_group=None),), iommu_groups=HOST.iommu_groups.value[:3]),
        None,
    ),
    (
        "HOST-RMRR-001",
        "P08",
        host(iommu_groups=(IommuGroup(45, (T4,), "DMA", (("0xbdf83000", "0xbdf84fff", "direct"),)),)),
        None,
    ),
    ("HOST-VFIO-001", "P26", host(pci_drivers=("ahci",), kernel_modules_dir=False, available_modules=()), None),
    ("HOST-VFIO-001", "P26", host(pci_drivers=("ahci",), cmdline=(*LIVE, "module_blacklist=vfio_pci")), None),
    ("HOST-PERSIST-001", "P66", host(modprobe_config=("blacklist nouveau",), modprobe_files=()), None),
    (
        "HOST-PERSIST-001",
        "P28",
        host(
            modprobe_config=("options vfio_pci ids=10de:1e8b",),
            modprobe_files=(TextFile("/etc/modprobe.d/vfio.conf", ("options vfio-pci ids=10de:1e8b",)),),
        ),
        None,
    ),
    (
        "HOST-PERSIST-001",
        "P28",
        host(
            modprobe_config=("options vfio_pci ids=0x10de:0x1eb8",),
            modprobe_files=(TextFile("/etc/modprobe.d/vfio.conf", ("options vfio-pci ids=0x10de:0x1eb8",)),),
        ),
        None,
    ),
    (
        "HOST-PERSIST-001",
        "P29",
        host(modprobe_config=(), modprobe_files=(replace(VFIO_CONF, path="/etc/modprobe.d/vfio"),)),
        None,
    ),
    ("HOST-PERSIST-002", "P22", host(modprobe_files=(replace(VFIO_CONF, mtime=BOOT),)), None),
    (
        "HOST-PERSIST-002",
        "P22",
        host(initramfs=Initramfs("/boot/initrd.img-x", BOOT - 60, ("etc/modprobe.d/other.conf",))),
        None,
    ),
    ("HOST-PERSIST-003", "P66", host(modprobe_config=("options vfio_pci ids=10de:1eb8",)), None),
    ("HOST-PERSIST-004", "P23", host(pci=(CARD, AUDIO)), FUNCTIONS),
    ("HOST-PERSIST-004", "P24", host(pci=(CARD, USB)), FUNCTIONS),
    ("HOST-MODULES-001", "P27", host(modules_load_files=(TextFile("/etc/modules", ("vfio", "vfio_virqfd")),)), None),
    ("HOST-DRIVER-001", "P57", card(driver="i915"), None),
    ("HOST-DRIVER-001", "P57", card(driver="nouveau"), lab(host={"kind": "linux"})),
    ("HOST-DRIVER-001", "P57", card(driver="virtio-pci"), lab(host={"kind": "linux"})),
    (
        "HOST-DRIVER-001",
        "P30",
        replace(
            card(driver="nvidia"),
            lxc_gpu_use=host(lxc_gpu_use=(LxcGpuUse(201, "dev0: /dev/nvidia0", True),)).lxc_gpu_use,
        ),
        None,
    ),
    ("HOST-DRIVER-002", "P57", card(driver="nouveau"), None),
    ("HOST-DRIVER-003", "P23", host(pci=(CARD, AUDIO)), None),
    ("HOST-DRIVER-003", "P24", host(pci=(CARD, USB)), None),
    (
        "HOST-DRIVER-004",
        "P25",
        host(pci=(replace(CARD, pci_class="010802"), replace(CARD, address="0000:5e:00.0", pci_class="010802"))),
        None,
    ),
    (
        "HOST-CONSOLE-001",
        "P20",
        replace(
            card(boot_vga=True),
            framebuffers=host(framebuffers=(MemoryRange(0x3B0000000, 0x3B02FFFFF, "BOOTFB"),)).framebuffers,
        ),
        None,
    ),
    (
        "HOST-CONSOLE-001",
        "P20",
        replace(
            card(boot_vga=True),
            kernel_log=host(kernel_log=log(f"vfio-pci {T4}: BAR 1: can't reserve [mem 0x3b]")).kernel_log,
        ),
        None,
    ),
    ("HOST-KERNEL-001", "P11", host(kernel="6.8.12-29-pve", **shares(NIC)), None),
    ("HOST-KERNEL-001", "P12", host(kernel="6.11.0-1-pve", pci=(IGPU,)), IGPU_LAB),
    ("HOST-KERNEL-001", "P13", host(kernel="6.14.8-1-pve", pci=(VF,)), None),
    ("HOST-KERNEL-001", "P14", host(kernel="7.0.14-2-pve", pci=(replace(CARD, driver="amdgpu"),)), None),
    ("HOST-KERNEL-001", "P15", host(kernel="6.14.2-1-generic"), None),
    ("HOST-KERNEL-002", "P11", host(kernel="6.8.12-29-pve"), None),
    ("HOST-KERNEL-002", "P12", host(kernel="6.8.12-4-pve"), None),
    ("HOST-KERNEL-002", "P13", host(kernel="6.14.8-1-bpo12-pve"), None),
    ("HOST-KERNEL-002", "P14", host(kernel="7.0.14-1-pve"), None),
    ("HOST-KERNEL-002", "P15", host(kernel="6.12.23", pci=(NIC,)), None),
    (
        "HOST-KERNEL-003",
        "P61",
        host(boot_files=(TextFile("/etc/kernel/proxmox-boot-pin", ("6.5.13-6-pve",)),)),
        None,
    ),
    ("HOST-JOURNAL-001", "P20", host(kernel_log=log(f"vfio-pci {T4}: BAR 3: can't reserve [mem 0x5]")), None),
    (
        "HOST-JOURNAL-001",
        "P08",
        host(kernel_log=log(f"vfio-pci {T4}: DMAR: Device is ineligible for IOMMU domain attach")),
        None,
    ),
    (
        "HOST-JOURNAL-001",
        "P18",
        host(kernel_log=log(f"vfio-pci {T4}: not ready 65535ms after bus reset; giving up")),
        None,
    ),
    (
        "HOST-JOURNAL-001",
        "P53",
        host(kernel_log=log(f"pcieport 0000:3a:00.0: AER: Uncorrected (Fatal) error: {T4}")),
        None,
    ),
    ("HOST-JOURNAL-001", "P58", host(kernel_log=log("DMAR: [DMA Read] Request device [3b:00.0] fault addr 0")), None),
]

HOST_CLAUSES = [c for c in clauses().values() if c.layer == "host"]


@pytest.mark.parametrize("clause", [c.id for c in HOST_CLAUSES])
def test_healthy_host_holds(clause):
    judgement = judge(clause)
    assert isinstance(judgement, Pass), judgement
    assert judgement.evidence, "a pass without evidence proves nothing"


@pytest.mark.parametrize(("clause", "cause", "facts", "declared"), BROKEN)
def test_broken_host_is_named(clause, cause, facts, declared):
    judgement = judge(clause, facts, declared=declared)
    assert isinstance(judgement, Fail), judgement
    assert {p.cause for p in judgement.problems} == {cause} or cause in {p.cause for p in judgement.problems}
    assert all(p.evidence for p in judgement.problems)


def test_every_listed_cause_is_produced():
    listed = {(c.id, cause) for c in HOST_CLAUSES for cause in c.causes}
    assert {(clause, cause) for clause, cause, _, _ in BROKEN} == listed


@pytest.mark.parametrize("clause", [c.id for c in HOST_CLAUSES])
def test_unreadable_host_is_unchecked(clause):
    judgement = judge(clause, host=None)
    assert isinstance(judgement, Unchecked)
    assert "no route to host" in judgement.reason


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
