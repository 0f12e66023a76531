"""Both ways: every VM clause passes on the healthy VM, and names every cause it lists on a broken one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labproof.checks.judgement import Fail, Pass, Unchecked
from labproof.checks.registry import clauses
from labproof.facts.host import Bar, HugePages, QemuProcess, Reservation
from labproof.facts.reading import absent, failed, value
from labproof.facts.vm import BackupJob, Guest, Mapping, NodeStatus, PendingKey, PvePci, StartTask, VmConfig, VmStatus
from selftests.host.world import (
    BOOT,
    CARD,
    CONFIG,
    GIB,
    HOST,
    PVE,
    T4,
    T4_ENTRY,
    VM,
    card,
    config,
    host,
    judge,
    lab,
    pve,
    vm,
)

RAW = lab(vm={"mapping": None})
STOPPED = VmStatus("stopped")


def start(exit_status: str, *lines: str, **readings):
    """The VM is off and its last start ended like this."""
    task = StartTask("UPID:pve5:qmstart", BOOT, BOOT + 3, exit_status, log=lines)
    return vm(status=readings.pop("status", STOPPED), start_task=task, **readings)


def other(vmid: int = 1200, running: bool = False, facts=PVE, **keys):
    """A second VM of the node that names the card."""
    rival = VmConfig(vmid, {"name": "rival", "hostpci0": f"{T4},pcie=1", **keys})
    guest = Guest(vmid, "pve5", "qemu", "rival", "running" if running else "stopped", False, GIB)
    return replace(
        facts,
        configs=value((*facts.configs.value, rival), "config"),
        guests=value((*facts.guests.value, guest), "/cluster/resources"),
    )


def status(available: int, total: int = 256 * GIB) -> NodeStatus:
    return NodeStatus("6.8.12-8-pve", "", "efi", None, total, available)


OWN_RUNNING_OFF = vm(status=STOPPED)

# clause, cause, host facts, API facts, lab
BROKEN = [
    ("VM-RIGHTS-001", "P51", HOST, pve(nodes=()), None),
    ("VM-RIGHTS-001", "P51", HOST, pve(pci=failed("hardware/pci", "403 Permission check failed", "forbidden")), None),
    ("VM-RIGHTS-001", "P51", HOST, vm(config=failed("config", "403", "forbidden")), None),
    ("VM-EXISTS-001", "P52", HOST, vm(config=absent("config", "Configuration file does not exist")), None),
    ("VM-EXISTS-001", "P52", HOST, pve(guests=(Guest(1105, "pve4", "qemu"),)), None),
    ("VM-EXISTS-001", "P52", HOST, vm(vmid=absent("match", "no VM matches")), None),
    ("VM-EXISTS-001", "P52", HOST, config(net0="virtio=00:11:22:33:44:55"), None),
    ("VM-LOCK-001", "P46", HOST, vm(status=VmStatus("running", 4242, lock="backup")), None),
    ("VM-HOSTPCI-001", "P59", HOST, config(hostpci0=None), None),
    ("VM-HOSTPCI-001", "P48", HOST, config(hostpci0="mapping=old,pcie=1"), None),
    ("VM-HOSTPCI-001", "P48", HOST, config(hostpci0="0000:af:00.0,pcie=1"), RAW),
    (
        "VM-HOSTPCI-001",
        "P16",
        HOST,
        replace(config(hostpci0=T4), pci=value((PvePci(T4, "144d:a80a", "010802", 45),), "pci")),
        RAW,
    ),
    (
        "VM-HOSTPCI-001",
        "P16",
        HOST,
        replace(config(hostpci0=T4), pci=value((PvePci("0000:00:02.0", "8086:1", "03", 1),), "pci")),
        RAW,
    ),
    ("VM-HOSTPCI-002", "P42", HOST, config(hostpci0="mapping=t4,pcie=1,x-vga=1"), None),
    ("VM-HOSTPCI-002", "P54", HOST, config(hostpci0="mapping=t4,pcie=1,device-id=0x1234"), None),
    ("VM-HOSTPCI-002", "P45", HOST, PVE, lab(gpu={"functions": ["10de:10f8"]})),
    ("VM-HOSTPCI-003", "P43", HOST, config(hostpci0="0000:00:02.0,legacy-igd=1"), None),
    (
        "VM-HOSTPCI-003",
        "P44",
        HOST,
        replace(
            config(hostpci0="00:02.0"),
            pci=value((PvePci("0000:00:02.1", "8086:1", "03", 1, physfn="0000:00:02.0"),), "pci"),
        ),
        None,
    ),
    ("VM-MACHINE-001", "P21", HOST, config(machine=None), None),
    ("VM-MACHINE-001", "P21", HOST, config(machine="pc-i440fx-9.0"), None),
    ("VM-MACHINE-002", "P69", HOST, config(bios="seabios"), None),
    ("VM-MACHINE-002", "P69", HOST, config(hostpci0=f"{T4},pcie=1"), None),
    ("VM-CPU-001", "P40", HOST, config(cpu="x86-64-v3"), None),
    ("VM-CPU-001", "P40", HOST, config(cpu=None), None),
    ("VM-FIRMWARE-001", "P41", card(bars=(Bar(0x4000000000, 0x43FFFFFFFF, 0x14220C),)), config(bios="seabios"), None),
    ("VM-BALLOON-001", "P69", HOST, config(balloon="2048"), None),
    (
        "VM-MAPPING-001",
        "P34",
        HOST,
        pve(mappings=(Mapping("t4", (T4_ENTRY,), (("error", "'iommugroup' does not match"),)),)),
        None,
    ),
    ("VM-MAPPING-001", "P35", HOST, pve(mappings=(Mapping("t4", ({**T4_ENTRY, "node": "pve4"},)),)), None),
    ("VM-MAPPING-001", "P35", HOST, pve(mappings=(Mapping("gpu", (T4_ENTRY,)),)), None),
    ("VM-MAPPING-001", "P35", HOST, pve(mappings=()), None),
    ("VM-PENDING-001", "P32", HOST, vm(pending=(PendingKey("hostpci0", None, "mapping=t4,pcie=1"),)), None),
    ("VM-PENDING-001", "P32", HOST, vm(pending=(PendingKey("machine", "q35", None, True),)), None),
    ("VM-OWNER-001", "P31", HOST, other(running=True, facts=OWN_RUNNING_OFF), None),
    ("VM-OWNER-002", "P31", HOST, other(), None),
    ("VM-OWNER-002", "P49", HOST, other(onboot="1"), None),
    (
        "VM-BACKUP-001",
        "P50",
        HOST,
        replace(other(), backup_jobs=value((BackupJob("daily", True, True),), "backup")),
        None,
    ),
    (
        "VM-BACKUP-001",
        "P50",
        HOST,
        replace(other(), backup_jobs=value((BackupJob("d", True, False, (1200,)),), "b")),
        None,
    ),
    ("VM-MEMORY-001", "P37", HOST, replace(OWN_RUNNING_OFF, node_status=value(status(100 * GIB), "status")), None),
    ("VM-MEMORY-002", "P60", HOST, pve(node_status=status(GIB, 200 * GIB)), None),
    ("VM-HUGEPAGES-001", "P38", HOST, config(hugepages="1024", numa="0"), None),
    (
        "VM-HUGEPAGES-001",
        "P38",
        host(hugepages=(HugePages(1048576, 100, 100),)),
        replace(config(hugepages="1024"), vms=(replace(config(hugepages="1024").vms[0], status=value(STOPPED, "s")),)),
        None,
    ),
    ("VM-START-001", "P65", HOST, OWN_RUNNING_OFF, None),
    ("VM-START-001", "P65", HOST, start("start failed: QEMU exited with code 1"), None),
    ("VM-START-001", "P02", HOST, start("cannot prepare PCI pass-through, IOMMU not present"), None),
    ("VM-START-001", "P26", HOST, start("Cannot find vfio-pci module!"), None),
    (
        "VM-START-001",
        "P21",
        HOST,
        start("q35 machine model is not enabled at /usr/share/perl5/PVE/QemuServer/PCI.pm line 480."),
        None,
    ),
    ("VM-START-001", "P31", HOST, start("PCI device '0000:3b:00.0' already in use by VMID '1200'"), None),
    ("VM-START-001", "P35", HOST, start("PCI device mapping not found for 'gpu'"), None),
    (
        "VM-START-001",
        "P34",
        HOST,
        start("PCI device mapping invalid (hardware probably changed): 'iommugroup' does not match"),
        None,
    ),
    ("VM-START-001", "P16", HOST, start("no PCI device found for '3b:00.0'"), None),
    ("VM-START-001", "P43", HOST, start("legacy IGD assignment requires VGA mode to be 'none'"), None),
    ("VM-START-001", "P46", HOST, start("VM is locked (backup)"), None),
    ("VM-START-001", "P46", HOST, vm(status=VmStatus("stopped", lock="migrate")), None),
    ("VM-START-001", "P57", HOST, start("Cannot bind 0000:3b:00.0 to vfio"), None),
    ("VM-START-001", "P36", HOST, start("start failed: command '/usr/bin/kvm -id 1105' failed: got timeout"), None),
    (
        "VM-START-001",
        "P06",
        HOST,
        start(
            "start failed: QEMU exited with code 1",
            "kvm: vfio 0000:3b:00.0: failed to set iommu for container: Operation not permitted",
        ),
        None,
    ),
    (
        "VM-START-001",
        "P08",
        HOST,
        start("QEMU exited", "Device is ineligible for IOMMU domain attach due to platform RMRR"),
        None,
    ),
    ("VM-START-001", "P09", HOST, start("QEMU exited", "kvm: vfio 0000:3b:00.0: group 45 is not viable"), None),
    (
        "VM-START-001",
        "P13",
        HOST,
        start("QEMU exited", "kvm: vfio 0000:00:02.1: error getting device from group 22: Permission denied"),
        None,
    ),
    ("VM-START-001", "P18", HOST, start("QEMU exited", "kvm: vfio: Unable to power on device, stuck in D3"), None),
    ("VM-START-001", "P37", HOST, start("QEMU exited", "kvm: VFIO_MAP_DMA failed: Cannot allocate memory"), None),
    ("VM-START-001", "P38", HOST, start("hugepage allocation failed at Memory.pm line 500."), None),
    (
        "VM-START-002",
        "P19",
        HOST,
        start(
            "WARNINGS: 1",
            "WARN: failed to reset PCI device '0000:3b:00.0', but trying to continue",
            status=VM.status.value,
        ),
        None,
    ),
    ("VM-HOLDS-001", "P32", host(qemu=(QemuProcess(4242, 1105, "moody-good"),)), PVE, None),
    ("VM-HOLDS-001", "P32", host(qemu=(replace(HOST.qemu.value[0], vfio_files=("/dev/vfio/vfio",)),)), PVE, None),
    (
        "VM-HOLDS-001",
        "P31",
        host(qemu=(QemuProcess(4242, 1105), QemuProcess(5, 1200, "", ("vfio-pci,host=0000:3b:00.0",)))),
        PVE,
        None,
    ),
    (
        "VM-HOLDS-001",
        "P31",
        host(reservations=(Reservation(T4, 1200, 5),), qemu=(*HOST.qemu.value, QemuProcess(5, 1200))),
        PVE,
        None,
    ),
]

VM_CLAUSES = [c for c in clauses().values() if c.layer == "vm"]


@pytest.mark.parametrize("clause", [c.id for c in VM_CLAUSES])
def test_healthy_vm_holds(clause):
    judgement = judge(clause)
    assert isinstance(judgement, Pass), judgement
    assert judgement.evidence


@pytest.mark.parametrize("clause", [c.id for c in VM_CLAUSES if "mapping" not in c.wants])
def test_healthy_raw_entry_holds(clause):
    judgement = judge(clause, pve=config(hostpci0="3b:00.0,pcie=1"), declared=RAW)
    assert isinstance(judgement, Pass), judgement


@pytest.mark.parametrize(("clause", "cause", "host_facts", "facts", "declared"), BROKEN)
def test_broken_vm_is_named(clause, cause, host_facts, facts, declared):
    judgement = judge(clause, host_facts, facts, declared)
    assert isinstance(judgement, Fail), judgement
    assert {p.cause for p in judgement.problems} == {cause}
    assert all(p.evidence for p in judgement.problems)


def test_every_listed_cause_is_produced():
    listed = {(c.id, cause) for c in VM_CLAUSES for cause in c.causes}
    assert {(clause, cause) for clause, cause, *_ in BROKEN} == listed


@pytest.mark.parametrize("clause", [c.id for c in VM_CLAUSES])
def test_unreadable_api_is_unchecked(clause):
    assert isinstance(judge(clause, pve=None), Unchecked)


TWO_PATHS = (Mapping("t4", (T4_ENTRY, {**T4_ENTRY, "path": "0000:af:00.0"})),)
HARMLESS = [
    ("VM-HOSTPCI-001", config(hostpci0="0000:3b:00,pcie=1"), RAW),
    ("VM-HOSTPCI-001", config(hostpci0="mapping=t4,pcie=1"), lab(vm={"mapping": None})),
    ("VM-HOSTPCI-001", config(hostpci3="host=3b:00.0;3b:00.1,pcie=1", hostpci0=None), RAW),
    ("VM-MACHINE-001", config(machine="pc-q35-9.2+pve1"), None),
    ("VM-MACHINE-001", config(machine="q35,viommu=intel"), None),
    ("VM-MACHINE-001", config(machine=None, hostpci0="mapping=t4"), None),
    ("VM-MACHINE-002", config(machine="pc-q35-9.0", cpu="cputype=host,flags=+aes", memory="current=243712"), None),
    ("VM-MACHINE-002", config(bios="seabios", cpu="x86-64-v3"), lab(vm={"bios": None, "cpu": None})),
    # SeaBIOS with x86-64-v3 is a working lab
    ("VM-CPU-001", config(bios="seabios", cpu="x86-64-v3"), None),
    ("VM-CPU-001", config(cpu="x86-64-v3,flags=+pdpe1gb"), None),
    ("VM-FIRMWARE-001", config(bios="seabios"), None),
    ("VM-BALLOON-001", config(balloon=None), None),
    ("VM-BALLOON-001", config(balloon="243712"), None),
    ("VM-PENDING-001", vm(pending=(PendingKey("description", "a", "b"),)), None),
    # a second VM on a mapping with two cards; templates; a declared VM that takes turns
    ("VM-OWNER-002", replace(other(hostpci0="mapping=t4"), mappings=value(TWO_PATHS, "m")), None),
    (
        "VM-OWNER-002",
        replace(other(), guests=value((*PVE.guests.value, Guest(1200, "pve5", "qemu", "tpl", "stopped", True)), "g")),
        None,
    ),
    ("VM-OWNER-001", other(), None),
    ("VM-BACKUP-001", replace(other(running=True), backup_jobs=value((BackupJob("daily", True, True),), "b")), None),
    ("VM-BACKUP-001", replace(other(), backup_jobs=value((BackupJob("off", False, True),), "b")), None),
    ("VM-START-001", OWN_RUNNING_OFF, lab(vm={"state": "parked"})),
    ("VM-START-001", start("PCI device already in use by VMID '9'", status=VM.status.value), None),
    ("VM-START-002", vm(start_task=absent("tasks", "no start on record")), None),
    ("VM-MEMORY-001", pve(node_status=status(0)), None),
]


@pytest.mark.parametrize(("clause", "facts", "declared"), HARMLESS)
def test_working_labs_hear_nothing(clause, facts, declared):
    judgement = judge(clause, pve=facts, declared=declared)
    assert isinstance(judgement, Pass), judgement


UNDECIDED = [
    ("VM-MAPPING-001", pve(mappings=(), permissions={"/vms": ("VM.Audit",)})),
    ("VM-OWNER-001", pve(configs=failed("config", "VM 1200: 403", "forbidden"))),
    ("VM-PENDING-001", vm(pending=failed("pending", "403", "forbidden"))),
    ("VM-START-001", start("running")),
    ("VM-START-001", vm(status=STOPPED, start_task=failed("tasks", "403", "forbidden"))),
    ("VM-EXISTS-001", vm(vmid=failed("match", "2 VMs match", "ambiguous"))),
]


@pytest.mark.parametrize(("clause", "facts"), UNDECIDED)
def test_unread_is_never_a_verdict(clause, facts):
    assert isinstance(judge(clause, pve=facts), Unchecked)


def test_qemu_that_the_host_does_not_show_is_unchecked():
    assert isinstance(judge("VM-HOLDS-001", host(qemu=())), Unchecked)


def test_open_files_are_not_judged_without_root():
    reader = replace(host(qemu=(replace(HOST.qemu.value[0], vfio_files=()),)), uid=value(1000, "id -u"))
    assert isinstance(judge("VM-HOLDS-001", reader), Pass)


def test_newer_qemu_opens_the_device_through_iommufd():
    files = ("/dev/iommu", "/dev/vfio/devices/vfio0")
    assert isinstance(judge("VM-HOLDS-001", host(qemu=(replace(HOST.qemu.value[0], vfio_files=files),))), Pass)


def test_two_identical_cards_in_one_vm():
    """hostpci0 and hostpci1 with one mapping: each declared GPU has an entry of its own."""
    declared = lab(
        vm={"gpus": ["t4", "t4b"]},
        extra={
            "gpus": [
                {"name": name, "host": "pve5", "device": "10de:1eb8", "address": address}
                for name, address in (("t4", T4), ("t4b", "0000:af:00.0"))
            ]
        },
    )
    both = config(hostpci1="mapping=t4,pcie=1")
    assert isinstance(judge("VM-HOSTPCI-001", pve=both, declared=declared), Pass)
    from labproof.checks.subject import Subject
    from labproof.checks.vm_devices import card_entry
    from labproof.inventory.chains import targets_of
    from selftests.host.world import StandInFacts

    entries = []
    for target in targets_of(declared, "chain", "vm"):
        subject = Subject(StandInFacts(value(HOST, "h"), value(PVE, "p")), declared, target)
        entries.append((card_entry(subject, both.configs.value[0]), card_entry(subject, CONFIG)))
    assert [pair[0].index for pair in entries] == [0, 1]
    assert entries[1][1] is None, "one entry does not serve two cards"


def test_pending_change_is_qualified():
    judged = judge("VM-PENDING-001", pve=vm(pending=(PendingKey("hostpci0", None, "x"),)))
    assert judged.qualifier == "pending-restart"


def test_card_facts_are_the_healthy_ones():
    assert CARD in HOST.pci.value
