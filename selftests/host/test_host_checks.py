"""Both ways: every host clause passes on the healthy host, and names every cause it lists on a broken one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labproof.checks.judgement import Fail, Pass, Unchecked
from labproof.checks.registry import clauses
from labproof.facts.host import (
    Initramfs,
    IommuGroup,
    LxcGpuUse,
    MemoryRange,
    TextFile,
)
from labproof.facts.reading import absent
from selftests.host.broken_parts import (
    AUDIO,
    FUNCTIONS,
    IGPU,
    IGPU_LAB,
    LATE,
    OFF,
    OLD,
    PLAIN,
    USB,
    VF,
    VF_LAB,
    WANTED,
    grub,
    log,
    shares,
)
from selftests.host.world import BOOT, CARD, DISK, HOST, LIVE, NIC, T4, VFIO_CONF, card, host, judge, lab

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
    (
        "HOST-IRQ-001",
        "P01",
        host(
            firmware_tables=("IVRS",),
            cmdline=(*LIVE, "amd_iommu=off"),
            boot_files=(grub("amd_iommu=off"),),
            kernel_log=log("Linux version 6.8"),
            **OFF,
        ),
        None,
    ),
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
    ("HOST-DEVICE-001", "P44", host(pci=(replace(IGPU, numvfs=0),)), VF_LAB),
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
            modprobe_config=("options vfio_pci ids=10de-1eb8",),
            modprobe_files=(TextFile("/etc/modprobe.d/vfio.conf", ("options vfio-pci ids=10de-1eb8",)),),
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
        "HOST-DRIVER-004",
        "P25",
        host(pci=(CARD, replace(CARD, address="0000:af:00.0", pci_class="030000", boot_vga=True))),
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
