"""The T4 lab's healthy host and VM as typed facts, and a judge for one clause on changed copies of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from labproof.checks.registry import clauses
from labproof.checks.subject import Subject
from labproof.facts.host import (
    Bar,
    HostFacts,
    Initramfs,
    IommuGroup,
    KernelLog,
    Module,
    PciDevice,
    QemuProcess,
    Reservation,
    TextFile,
)
from labproof.facts.reading import Reading, failed, value
from labproof.facts.vm import (
    Guest,
    Mapping,
    NodeStatus,
    PveFacts,
    PvePci,
    PveVersion,
    StartTask,
    VmConfig,
    VmFacts,
    VmStatus,
)
from labproof.inventory.chains import targets_of
from labproof.inventory.models import Lab

T4 = "0000:3b:00.0"
BOOT = 1_700_000_000.0
LIVE = ("BOOT_IMAGE=/boot/vmlinuz-6.8.12-4-pve", "root=/dev/mapper/pve-root", "ro", "quiet", "iommu=pt")

CARD = PciDevice(
    address=T4,
    ids="10de:1eb8",
    pci_class="030200",
    subsystem="10de:12a2",
    revision="a1",
    driver="vfio-pci",
    iommu_group=45,
    power_state="D0",
    config_head="de10b81e",
    bars=(Bar(0xC8000000, 0xC8FFFFFF, 0x40200), Bar(0x3B0000000, 0x3BFFFFFFF, 0x14220C)),
    link_width=16,
    max_link_width=16,
)
PORT = PciDevice("0000:3a:00.0", "8086:2030", "060400", driver="pcieport", iommu_group=44)
NIC = PciDevice("0000:18:00.0", "8086:1563", "020000", driver="ixgbe", iommu_group=30, interfaces=("eno1",))
DISK = PciDevice("0000:00:1f.2", "8086:a182", "010601", driver="ahci", iommu_group=31, mounted=("sda3",))

VFIO_CONF = TextFile(
    "/etc/modprobe.d/vfio.conf", ("options vfio-pci ids=10de:1eb8", "softdep nouveau pre: vfio-pci"), BOOT - 7200
)
LOG = KernelLog(
    (
        "Linux version 6.8.12-4-pve",
        "DMAR: Host address width 46",
        "DMAR-IR: Enabled IRQ remapping in x2apic mode",
        "pci 0000:3b:00.0: Adding to iommu group 45",
    ),
    True,
)

HOST = HostFacts(
    name="pve5",
    hostname=value("pve5", "hostname"),
    kernel=value("6.8.12-8-pve", "uname -r"),
    boot_time=value(BOOT, "/proc/stat"),
    uid=value(0, "id -u"),
    cpu_vendor=value("GenuineIntel", "/proc/cpuinfo"),
    pve_mounted=value(True, "/proc/mounts"),
    cmdline=value(LIVE, "/proc/cmdline"),
    boot_evidence=value({"efi": "no"}, "boot"),
    boot_files=value(
        (
            TextFile(
                "/etc/default/grub", ('GRUB_CMDLINE_LINUX_DEFAULT="quiet iommu=pt"', 'GRUB_CMDLINE_LINUX=""'), BOOT - 9
            ),
        ),
        "/etc/default/grub",
    ),
    kernel_config=value({"CONFIG_INTEL_IOMMU_DEFAULT_ON": "y"}, "/boot/config"),
    installed_kernels=value(("6.8.12-8-pve", "6.5.13-6-pve"), "/boot"),
    firmware_tables=value(("APIC", "DMAR", "DSDT"), "ls /sys/firmware/acpi/tables"),
    iommus=value(("dmar0", "dmar1"), "ls /sys/class/iommu"),
    iommu_groups=value(
        (
            IommuGroup(30, (NIC.address,), "DMA-FQ"),
            IommuGroup(31, (DISK.address,), "DMA-FQ"),
            IommuGroup(44, (PORT.address,), "DMA-FQ"),
            IommuGroup(45, (T4,), "DMA-FQ", (("0x00000000fee00000", "0x00000000feefffff", "msi"),)),
        ),
        "ls /sys/kernel/iommu_groups",
    ),
    remapped_interrupts=value(0, "/proc/interrupts"),
    pci=value((DISK, NIC, PORT, CARD), "/sys/bus/pci/devices"),
    pci_drivers=value(("ahci", "ixgbe", "vfio-pci"), "ls /sys/bus/pci/drivers"),
    modules=value((Module("vfio_pci", 1),), "/proc/modules"),
    module_parameters=value({"vfio_iommu_type1/allow_unsafe_interrupts": "N"}, "/sys/module"),
    kernel_modules_dir=value(True, "/lib/modules"),
    available_modules=value(("nouveau", "vfio", "vfio_iommu_type1", "vfio_pci"), "modules.dep"),
    modprobe_config=value(
        ("options vfio_pci ids=10de:1eb8", "softdep nouveau pre: vfio-pci", "blacklist nvidiafb"), "modprobe -c"
    ),
    modprobe_files=value((VFIO_CONF,), "/etc/modprobe.d"),
    modules_load_files=value((TextFile("/etc/modules", ("vfio", "vfio_pci")),), "/etc/modules"),
    driverctl_files=value((), "/etc/driverctl.d"),
    initramfs=value(
        Initramfs("/boot/initrd.img-6.8.12-8-pve", BOOT - 3600, ("etc/modprobe.d/vfio.conf",)), "lsinitramfs"
    ),
    kernel_log=value(LOG, "journalctl -k -b"),
    framebuffers=value((), "/proc/iomem"),
    qemu=value(
        (
            QemuProcess(
                4242,
                1105,
                "moody-good",
                ("vfio-pci,host=0000:3b:00.0,id=hostpci0,bus=ich9-pcie-port-1,addr=0x0",),
                ("/dev/vfio/45", "/dev/vfio/vfio"),
            ),
        ),
        "/proc",
    ),
    reservations=value((Reservation(T4, 1105, 4242),), "/run/qemu-server/pci-id-reservations"),
    lxc_gpu_use=value((), "/etc/pve/lxc"),
    gpu_file_holders=value((), "/proc/*/fd"),
    hugepages=value((), "/sys/kernel/mm/hugepages"),
)

CONFIG = VmConfig(
    1105,
    {
        "name": "moody-good",
        "machine": "q35",
        "bios": "ovmf",
        "cpu": "host",
        "memory": "243712",
        "balloon": "0",
        "numa": "1",
        "onboot": "1",
        "net0": "virtio=94:96:CC:43:7D:80,bridge=vmbr0,tag=2",
        "hostpci0": "mapping=t4,pcie=1",
    },
)
VM = VmFacts(
    name="moody-good",
    vmid=value(1105, "lab.yaml"),
    config=value(CONFIG, "config"),
    current=value(CONFIG, "config?current=1"),
    pending=value((), "pending"),
    status=value(VmStatus("running", 4242, 100), "status/current"),
    start_task=value(StartTask("UPID:pve5:...", BOOT, BOOT + 300, "OK"), "tasks"),
)
T4_ENTRY = {"node": "pve5", "path": T4, "id": "10de:1eb8", "subsystem-id": "10de:12a2", "iommugroup": "45"}
GIB = 1024**3
PVE = PveFacts(
    name="pve5",
    node="pve5",
    identity="labproof@pve!suite",
    version=value(PveVersion("8.4.1", "8.4"), "/version"),
    nodes=value(("pve5",), "/nodes"),
    node_status=value(
        NodeStatus("6.8.12-8-pve", "pve-manager/8.4.1", "legacy-bios", None, 256 * GIB, 12 * GIB), "status"
    ),
    pci=value((PvePci(T4, "10de:1eb8", "030200", 45), PvePci(NIC.address, NIC.ids, NIC.pci_class, 30)), "hardware/pci"),
    guests=value((Guest(1105, "pve5", "qemu", "moody-good", "running", False, 238 * GIB),), "/cluster/resources"),
    mappings=value((Mapping("t4", (T4_ENTRY,)),), "/cluster/mapping/pci"),
    backup_jobs=value((), "/cluster/backup"),
    vms=(VM,),
    configs=value((CONFIG,), "config"),
    permissions=value({"/": ("Sys.Audit",), "/mapping/pci": ("Mapping.Audit",)}, "/access/permissions"),
)


def lab(host: dict | None = None, gpu: dict | None = None, vm: dict | None = None, extra: dict | None = None) -> Lab:
    """The T4 lab's lower half; keywords replace settings."""
    return Lab.model_validate(
        {
            "lab": "t4",
            "hosts": [
                {
                    "name": "pve5",
                    "ssh": {"address": "192.0.2.5"},
                    "pve": {"url": "https://192.0.2.5:8006", "token_id": "labproof@pve!suite"},
                    **(host or {}),
                }
            ],
            "gpus": [{"name": "t4", "host": "pve5", "device": "10de:1eb8", "address": T4, **(gpu or {})}],
            "vms": [
                {
                    "name": "moody-good",
                    "host": "pve5",
                    "id": 1105,
                    "mac": "94:96:CC:43:7D:80",
                    "gpus": ["t4"],
                    "mapping": "t4",
                    "machine": "q35",
                    "bios": "ovmf",
                    "cpu": "host",
                    "memory_mib": 243712,
                    **(vm or {}),
                }
            ],
            **(extra or {}),
        }
    )


@dataclass(frozen=True)
class StandInFacts:
    """Facts of one host, without a store."""

    host_reading: Reading[HostFacts]
    pve_reading: Reading[PveFacts]
    now: float = BOOT + 10_000

    def host(self, name: str) -> Reading[HostFacts]:
        return self.host_reading

    def pve(self, host: str) -> Reading[PveFacts]:
        return self.pve_reading


def judge(clause: str, host: HostFacts | None = HOST, pve: PveFacts | None = PVE, declared: Lab | None = None):
    """The judgement of one clause on the first target of its scope; None facts are unreadable."""
    facts = StandInFacts(
        value(host, "ssh") if host is not None else failed("ssh", "no route to host", "refused"),
        value(pve, "api") if pve is not None else failed("api", "401", "auth"),
    )
    declared = declared or lab()
    checked = clauses()[clause]
    target = targets_of(declared, checked.scope, checked.layer)[0]
    return checked.judge(Subject(facts, declared, target))


def host(**readings) -> HostFacts:
    """The healthy host with other readings; plain values are wrapped."""
    return replace(HOST, **{k: v if isinstance(v, Reading) else value(v, k) for k, v in readings.items()})


def card(**changes) -> HostFacts:
    """The healthy host with a changed card."""
    changed = replace(CARD, **changes)
    return host(pci=(DISK, NIC, PORT, changed))


def pve(**readings) -> PveFacts:
    """The healthy API with other readings."""
    return replace(PVE, **{k: v if isinstance(v, Reading) else value(v, k) for k, v in readings.items()})


def vm(**readings) -> PveFacts:
    """The healthy API with a changed VM."""
    return replace(
        PVE, vms=(replace(VM, **{k: v if isinstance(v, Reading) else value(v, k) for k, v in readings.items()}),)
    )


def config(**keys) -> PveFacts:
    """The healthy API with changed keys of the VM's configuration; None removes one."""
    merged = {k: v for k, v in {**CONFIG.keys, **keys}.items() if v is not None}
    changed = VmConfig(1105, merged)
    return replace(vm(config=changed), configs=value((changed,), "config"))
