"""Ways in which a host is wrong, done to the real guest and to its simulated twin; both must lead to one cause.

`script` is what somebody really did there. `twin` is a merge patch on the simulated host's inputs (twin.yaml), never on
a symptom. `fault` is the fault of the T4 lab that stands for the same mistake.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .machine import CARD, SHARED

#: What makes an edit effective; a mode says which of them its owner remembered.
GRUB, INITRAMFS, REBOOT = "update-grub", "update-initramfs -u -k all", "reboot"
CONF = "/etc/modprobe.d/labproof-vfio.conf"
GRUB_FILE = "/etc/default/grub"
#: What the recorded kernel was booted with, unprovisioned.
BOOTED = (
    "BOOT_IMAGE=/boot/vmlinuz-6.12.107+deb13-amd64 root=UUID=11111111-2222-3333-4444-555555555555 ro console=ttyS0 "
    "no_timer_check intel_iommu=off quiet"
)
IDS = "options vfio-pci ids=10de:2204,10de:1aef\n"
DEPS = "softdep nouveau pre: vfio-pci\nsoftdep nvidia pre: vfio-pci\nsoftdep snd_hda_intel pre: vfio-pci\n"


@dataclass(frozen=True)
class Mode:
    """One mistake.

    Attributes:
        state: where it begins, `fresh` or `provisioned`.
        script: what is done in the guest.
        then: what was run afterwards to make it effective.
        clause, cause: what the suite must say of it.
        fault: id of the T4 lab's fault that is the same mistake, empty where it has none.
        twin: merge patch on the twin's inputs.
        card: which of the guest's cards lab.yaml declares; `wanted` kernel arguments it wants.
        unlike: fields in which the recorded guest and its twin differ, each with the reason.
        short: whether it belongs to the short set.
    """

    id: str
    title: str
    state: str
    script: str
    clause: str
    cause: str
    fault: str
    twin: dict[str, Any] = field(default_factory=dict)
    then: tuple[str, ...] = ()
    card: str = CARD
    wanted: str = ""
    unlike: dict[str, str] = field(default_factory=dict)
    short: bool = False


def grub(value: str, **entry: Any) -> dict[str, Any]:
    """/etc/default/grub of the twin with these default arguments."""
    text = (
        f'GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_DISTRIBUTOR=Debian\nGRUB_CMDLINE_LINUX_DEFAULT="{value}"\n'
        'GRUB_CMDLINE_LINUX="console=ttyS0 no_timer_check"\nGRUB_TERMINAL=console\n'
    )
    return {GRUB_FILE: {"text": text, **entry}}


def conf(text: str | None, **entry: Any) -> dict[str, Any]:
    """Our modprobe.d file of the twin."""
    return {CONF: None if text is None else {"text": text, **entry}}


MODES = (
    Mode(
        "iommu-off", "intel_iommu=off on the command line", "fresh", "true",
        "HOST-IOMMU-001", "P01", "iommu-switched-off", short=True,
    ),
    Mode(
        "edited-not-refreshed", "the arguments are in /etc/default/grub, update-grub was never run", "fresh",
        """sed -i 's/_DEFAULT="quiet"/_DEFAULT="quiet intel_iommu=on"/' /etc/default/grub""",
        "HOST-IOMMU-001", "P04", "cmdline-not-refreshed",
        {"files": grub("quiet intel_iommu=on", at_refresh=grub("quiet")[GRUB_FILE]["text"], changed=3600)}, short=True,
    ),
    Mode(
        "refreshed-not-rebooted", "the same with update-grub, but no reboot", "fresh",
        """sed -i 's/_DEFAULT="quiet"/_DEFAULT="quiet intel_iommu=on"/' /etc/default/grub""",
        "HOST-IOMMU-001", "P04", "cmdline-not-rebooted",
        {
            "files": grub("quiet intel_iommu=on", changed=3600),
            "boot": {"cmdline_at_boot": BOOTED},
        },
        (GRUB,),
    ),
    Mode(
        "two-lines-in-grub", "a second GRUB_CMDLINE_LINUX_DEFAULT line takes back what the first says", "provisioned",
        """echo 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"' >> /etc/default/grub""",
        "HOST-IOMMU-001", "P01", "iommu-switched-off",
        {"files": {GRUB_FILE: {"text": grub("quiet intel_iommu=on")[GRUB_FILE]["text"]
                               + 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n'}}},
        (GRUB, REBOOT),
    ),
    Mode(
        "next-boot-off", "the next boot's arguments have lost intel_iommu=on", "provisioned",
        """sed -i 's/ intel_iommu=on"/"/' /etc/default/grub""",
        "HOST-CMDLINE-002", "P01", "next-boot-switches-iommu-off",
        {
            "files": grub("quiet", changed=3600),
            "boot": {"cmdline_at_boot": f"{BOOTED} intel_iommu=on"},
        },
        (GRUB,),
    ),
    Mode(
        "wrong-file", "iommu=pt is written to systemd-boot's file on a host that boots by GRUB", "provisioned",
        "mkdir -p /etc/kernel; "
        "echo 'root=UUID=11111111-2222-3333-4444-555555555555 quiet iommu=pt' > /etc/kernel/cmdline",
        "HOST-CMDLINE-001", "P03", "cmdline-in-wrong-file",
        {"files": {"/etc/kernel/cmdline": {
            "text": "root=UUID=11111111-2222-3333-4444-555555555555 quiet iommu=pt\n", "changed": 3600}}},
        wanted="iommu=pt",
    ),
    Mode(
        "wanted-argument-missing", "lab.yaml wants iommu=pt, nobody gave it to the kernel", "provisioned", "true",
        "HOST-CMDLINE-001", "P69", "", wanted="iommu=pt",
    ),
    Mode(
        "shared-group", "the other card sits behind a conventional bridge with a stranger", "provisioned", "true",
        "HOST-GROUP-001", "P09", "group-shared-with-usb", card=SHARED, short=True,
    ),
    Mode(
        "acs-override", "pcie_acs_override on the command line", "provisioned",
        """sed -i 's/ intel_iommu=on"/ intel_iommu=on pcie_acs_override=downstream,multifunction"/' """
        "/etc/default/grub",
        "HOST-GROUP-003", "P10", "acs-override",
        {"files": grub("quiet intel_iommu=on pcie_acs_override=downstream,multifunction")}, (GRUB, REBOOT),
    ),
    Mode(
        "card-gone", "the card is no longer on the bus", "provisioned",
        f"echo 1 > /sys/bus/pci/devices/{CARD}/remove",
        "HOST-DEVICE-001", "P17", "card-gone", {"pci": {CARD: None}}, short=True,
        unlike={"kernel_log": "it was there at the boot"},
    ),
    Mode(
        "another-driver", "a graphics driver of the host holds the card", "provisioned",
        f"echo {CARD} > /sys/bus/pci/drivers/vfio-pci/unbind; modprobe bochs; "
        "echo 10de 2204 > /sys/bus/pci/drivers/bochs-drm/new_id",
        "HOST-DRIVER-001", "P57", "nvidia-drm-on-host",
        {"extra_modules": {"bochs-drm": {"drives": ["10de:2204"]}}}, short=True,
    ),
    Mode(
        "nouveau-first", "ids are set, but nothing holds nouveau back", "provisioned",
        f"sed -i '/nouveau/d' {CONF}", "HOST-PERSIST-003", "P66", "nouveau-comes-first",
        {"files": conf(IDS + DEPS.replace("softdep nouveau pre: vfio-pci\n", ""))}, (INITRAMFS, REBOOT),
        unlike={"kernel_log": "udev and modules-load.d race: there vfio-pci was first, in the twin nouveau is"},
    ),
    Mode(
        "audio-left-behind", "the ids leave the card's audio function out", "provisioned",
        f"sed -i -e 's/,10de:1aef//' -e '/snd_hda_intel/d' {CONF}", "HOST-DRIVER-003", "P23", "audio-on-host-driver",
        {"files": conf("options vfio-pci ids=10de:2204\n" + DEPS.replace("softdep snd_hda_intel pre: vfio-pci\n", ""))},
        (INITRAMFS, REBOOT), short=True,
    ),
    Mode(
        "ids-typo", "ids=10de-2204: a dash for the colon", "provisioned", f"sed -i 's/ids=.*/ids=10de-2204/' {CONF}",
        "HOST-PERSIST-001", "P28", "vfio-ids-typo",
        {"files": conf("options vfio-pci ids=10de-2204\n" + DEPS)}, (INITRAMFS, REBOOT),
    ),
    Mode(
        "ids-with-0x", "ids=0x10de:0x2204 binds the card, and nothing the audio function", "provisioned",
        f"sed -i 's/ids=.*/ids=0x10de:0x2204/' {CONF}", "HOST-PERSIST-004", "P23", "",
        {"files": conf("options vfio-pci ids=0x10de:0x2204\n" + DEPS)}, (INITRAMFS, REBOOT),
    ),
    Mode(
        "no-conf-suffix", "the options file has no .conf suffix", "provisioned", f"mv {CONF} /etc/modprobe.d/vfio",
        "HOST-PERSIST-001", "P29", "vfio-conf-without-suffix",
        {"files": {CONF: None, "/etc/modprobe.d/vfio": {"text": IDS + DEPS}}}, (INITRAMFS, REBOOT),
    ),
    Mode(
        "nothing-binds", "somebody removed the options file", "provisioned", f"rm {CONF}",
        "HOST-PERSIST-001", "P66", "no-binding-configured", {"files": conf(None)}, (INITRAMFS, REBOOT),
    ),
    Mode(
        "initramfs-stale", "the options were changed after the initramfs was made", "provisioned",
        f"echo 'options vfio-pci disable_idle_d3=1' >> {CONF}", "HOST-PERSIST-002", "P22", "initramfs-stale",
        {"files": conf(IDS + DEPS + "options vfio-pci disable_idle_d3=1\n", booted_with=IDS + DEPS,
                       in_initramfs=IDS + DEPS, changed=3600)},
        short=True,
    ),
    Mode(
        "vfio-virqfd", "vfio_virqfd in /etc/modules, as old guides say", "provisioned",
        "echo vfio_virqfd >> /etc/modules", "HOST-MODULES-001", "P27", "vfio-virqfd-listed",
        {"files": {"/etc/modules": {"text": "vfio_virqfd\n"}}}, (REBOOT,),
    ),
    Mode(
        "unsafe-interrupts", "allow_unsafe_interrupts copied from a guide", "provisioned",
        "echo 'options vfio_iommu_type1 allow_unsafe_interrupts=1' > /etc/modprobe.d/unsafe.conf; "
        "echo Y > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
        "HOST-IRQ-002", "P07", "unsafe-interrupts-allowed",
        {"files": {"/etc/modprobe.d/unsafe.conf": {
            "text": "options vfio_iommu_type1 allow_unsafe_interrupts=1\n", "changed": 3600}},
         "kernel": {"initramfs_made": 7200}},
        (INITRAMFS,),
    ),
    Mode(
        "vfio-blacklisted", "module_blacklist on the command line names vfio_pci", "provisioned",
        """sed -i 's/ intel_iommu=on"/ intel_iommu=on module_blacklist=vfio_pci"/' /etc/default/grub""",
        "HOST-VFIO-001", "P26", "vfio-module-blacklisted",
        {"files": grub("quiet intel_iommu=on module_blacklist=vfio_pci")}, (GRUB, REBOOT),
    ),
)  # fmt: skip
