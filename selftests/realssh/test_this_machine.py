"""The suite's host verdicts equal what independent reads of this machine say."""

from pathlib import Path

import pytest

from .conftest import some_pci_device

#: H3, H4, H6, H7, H9, H11 and H13 of facts/proxmox.md 5b: must be judged here, whatever the machine is.
MUST_BE_JUDGED = (
    "HOST-FIRMWARE-001",
    "HOST-IOMMU-001",
    "HOST-CMDLINE-001",
    "HOST-DEVICE-001",
    "HOST-GROUP-001",
    "HOST-VFIO-001",
    "HOST-DRIVER-001",
)
#: `unchecked` is allowed only for what needs the kernel's journal.
NEED_JOURNAL = ("HOST-JOURNAL-001", "HOST-IRQ-001", "HOST-IRQ-002")


def tables():
    return {p.name for p in Path("/sys/firmware/acpi/tables").glob("*")} & {"DMAR", "IVRS"}


def iommus():
    return list(Path("/sys/class/iommu").glob("*")), list(Path("/sys/kernel/iommu_groups").glob("*/devices/*"))


def device():
    return Path("/sys/bus/pci/devices") / some_pci_device()[0]


def verdict(judged, clause):
    (record,) = judged.verdicts(clause)
    return record["verdict"]


@pytest.mark.parametrize("clause", MUST_BE_JUDGED)
def test_the_clause_is_judged(judged, clause):
    assert verdict(judged, clause) in ("pass", "fail"), judged.terminal


def test_nothing_else_is_unchecked(judged):
    unchecked = {c for (c, _), v in judged.verdicts().items() if v == "unchecked"}
    assert unchecked <= set(NEED_JOURNAL), judged.terminal


def test_a_machine_is_never_called_simulated(judged):
    assert judged.run["simulated"] is False
    assert "SIMULATED" not in judged.terminal


def test_h3_firmware(judged):
    assert verdict(judged, "HOST-FIRMWARE-001") == ("pass" if tables() else "fail")


def test_h4_iommu(judged):
    live, grouped = iommus()
    assert verdict(judged, "HOST-IOMMU-001") == ("pass" if live and grouped else "fail")


def test_h6_command_line(judged):
    """The wanted tokens are those this CPU and kernel need; with a live IOMMU nothing is wanted."""
    tokens = Path("/proc/cmdline").read_text().split()
    off = {"intel_iommu=off", "amd_iommu=off", "iommu=off", "intel_iommu=igfx_off"} & set(tokens)
    live, _ = iommus()
    if live and not off:
        assert verdict(judged, "HOST-CMDLINE-001") == "pass"
    (record,) = judged.verdicts("HOST-CMDLINE-001")
    shown = " ".join(e["text"] for p in record["problems"] for e in p["evidence"]) + " ".join(
        e["text"] for e in record["evidence"]
    )
    assert record["verdict"] == "fail" or any(token in shown for token in tokens), shown


def test_h7_device(judged):
    assert verdict(judged, "HOST-DEVICE-001") == "pass"


def test_h9_group(judged):
    group = device() / "iommu_group" / "devices"
    if not group.exists():
        assert verdict(judged, "HOST-GROUP-001") == "fail"
        return
    slot = device().name.rsplit(".", 1)[0]
    strangers = [
        m for m in group.iterdir() if not m.name.startswith(slot) and not (m / "class").read_text().startswith("0x0604")
    ]
    assert verdict(judged, "HOST-GROUP-001") == ("fail" if strangers else "pass")


def test_h11_vfio(judged):
    release = Path("/proc/sys/kernel/osrelease").read_text().strip()
    loaded = Path("/sys/bus/pci/drivers/vfio-pci").is_dir()
    builtin = Path(f"/lib/modules/{release}/modules.builtin")
    dep = Path(f"/lib/modules/{release}/modules.dep")
    there = loaded or any("vfio-pci.ko" in p.read_text() for p in (builtin, dep) if p.is_file())
    assert verdict(judged, "HOST-VFIO-001") == ("pass" if there else "fail")


def test_h13_driver(judged):
    (record,) = judged.verdicts("HOST-DRIVER-001")
    link = device() / "driver"
    driver = link.resolve().name if link.exists() else None
    told = str(record["evidence"]) + str(record["problems"])
    if driver:
        assert driver in told, told
    if driver in (None, "vfio-pci"):
        assert record["verdict"] == "pass"


def test_saved_facts_give_the_same_verdicts(judged, judge, tmp_path):
    again = judge(tmp_path, "--facts", str(judged.folder.resolve()), "-m", "host")
    assert again.verdicts() == judged.verdicts()
    assert again.exit_status == judged.exit_status
    assert "nothing is contacted" in again.terminal


def test_an_unknown_host_key_is_refused_clearly(judge, write_lab):
    refused = judge(write_lab("", "unknown"), "-m", "host", "-k", "iommu_is_live")
    assert refused.exit_status == 6
    assert "known_hosts" in refused.terminal
    assert "Traceback" not in refused.terminal


def test_a_changed_host_key_is_refused_clearly(judge, write_lab, server):
    line = server.known_hosts_line
    kind, key = line.split()[1:3]
    changed = line.replace(key, key[:-8] + ("A" * 8 if not key.endswith("A" * 8) else "B" * 8))
    refused = judge(write_lab(changed, "changed"), "-m", "host", "-k", "iommu_is_live")
    assert refused.exit_status == 6
    assert "changed" in refused.terminal.lower() or "differs" in refused.terminal.lower()
    assert kind in refused.terminal or "SHA256" in refused.terminal
