"""From a bare host to a green lab, and back to every byte; the second plan is empty."""

import pytest

WAYS = [None, "pve9-systemd-boot", "amd-host", "two-cards", "partial-vfio-ids", "two-hosts", "talos-1.13", "rtx-5090"]


@pytest.mark.parametrize("variation", WAYS, ids=lambda v: v or "plain")
def test_a_bare_lab_is_brought_to_green_and_back(ground, variation):
    ground.reset(variation)
    before = ground.world()
    assert ground.red(("host", "vm", "talos"))
    outcome = ground.provision()
    assert outcome.complete, "\n".join(outcome.lines)
    assert ground.red() == {}
    second = ground.plan()
    assert second.empty, "\n".join(second.lines())
    assert ground.provision().changed == 0
    back = ground.undo()
    assert back.complete, "\n".join(back.lines)
    assert ground.world() == before
    assert ground.journal.standing() == []


def test_a_raw_address_goes_by_a_root_ticket(ground):
    """Four functions of one slot, for a VM that is off: it is configured and left off."""
    ground.reset("second-gpu")
    ground.as_root()
    before = ground.world()
    outcome = ground.provision()
    assert outcome.complete, "\n".join(outcome.lines)
    assert ground.world()["configs"]["1120"]["hostpci0"] == "host=0000:af:00,pcie=1"
    assert 1120 not in ground.world()["running"]
    assert ground.red() == {}
    assert ground.plan().empty
    assert ground.undo().complete
    assert ground.world() == before


def test_the_files_say_what_they_are_and_hold_only_what_is_needed(ground):
    ground.reset("partial-vfio-ids")
    ground.patch = {"gpus": {"t4": {"functions": ["10de:10f8", "10de:1ad8", "10de:1ad9"]}}}
    assert ground.provision().complete
    files = ground.world()["files"]
    text, mode = files["/etc/modprobe.d/labproof-vfio.conf"]
    assert mode == "0644"
    assert text.splitlines()[0].startswith("# Written by labproof")
    assert text.splitlines()[1:] == [
        "options vfio-pci ids=10de:1e84,10de:10f8,10de:1ad8,10de:1ad9",
        "softdep nouveau pre: vfio-pci",
        "softdep nvidia pre: vfio-pci",
        "softdep snd_hda_intel pre: vfio-pci",
        "softdep xhci_pci pre: vfio-pci",
        "softdep i2c_nvidia_gpu pre: vfio-pci",
    ]
    loaded = files["/etc/modules-load.d/labproof-vfio.conf"][0].splitlines()[1:]
    assert loaded == ["vfio", "vfio_iommu_type1", "vfio_pci"]
    assert {ground.world()["drivers"][f"0000:3b:00.{n}"] for n in range(4)} == {"vfio-pci"}


def test_the_start_gets_the_time_pve_gives_it(ground):
    """238 GiB with a passed card and one NIC: 957 s (facts proxmox 3.2)."""
    (step,) = [s for s in ground.plan().steps if s.step == "hostpci"]
    restart = next(change for change in step.changes if change.action == "vm-restart")
    assert restart.detail["timeout"] == 957


def test_a_plan_is_grouped_and_says_what_reboots_and_how_long(ground):
    before = ground.world()
    plan = ground.plan(allow=frozenset())
    text = "\n".join(plan.lines())
    assert text.index("host: vfio pve5") < text.index("vm: hostpci moody-good")
    for word in (
        "reboots pve5", "restarts VM moody-good", "+ options vfio-pci ids=10de:1eb8", "because HOST-PERSIST-001",
        "iommugroup=(known after the reboot)", "[missing: --allow host-reboot]", "Missing: --allow host-boot",
    ):  # fmt: skip
        assert word in text, text
    assert ground.world() == before
    assert plan.as_json()["steps"][0]["missing_allow"] == ["host-files", "host-boot", "host-reboot"]


@pytest.mark.parametrize("variation", [None, "pve9-systemd-boot", "second-gpu", "igpu-on-host", "gpu-stays-with-host"])
def test_a_healthy_lab_needs_nothing(healthy_ground, variation):
    healthy_ground.reset(variation)
    plan = healthy_ground.plan()
    assert plan.empty, "\n".join(plan.lines())
