"""What is refused, with the reason and with nothing changed; every missing --allow; limits that are reached."""

import pytest

from labproof.provision.bench import Limits
from labproof.provision.scopes import ORDINARY, UnknownScope, allowed

T4 = "0000:3b:00.0"
NEED = {"vfio": ("host-files", "host-boot", "host-reboot"), "hostpci": ("vm-config", "vm-restart")}


def refusals(ground, step="vfio"):
    """Causes and texts of a step's refusals; applying must change nothing."""
    found = next(s for s in ground.plan().steps if s.step == step)
    return {r.cause: r.text for r in found.refusals}


def unchanged(ground, before):
    outcome = ground.provision()
    assert not outcome.complete
    assert outcome.changed == 0, outcome.lines
    assert ground.world() == before
    assert ground.journal.entries() == []
    return "\n".join(outcome.lines)


@pytest.mark.parametrize("missing", NEED["vfio"])
def test_what_is_not_allowed_is_not_begun(ground, missing):
    before = ground.world()
    outcome = ground.provision(allow=set(ORDINARY) - {missing})
    assert outcome.changed == 0
    assert f"missing --allow {missing}" in "\n".join(outcome.lines)
    assert ground.world() == before


@pytest.mark.parametrize("missing", NEED["hostpci"])
def test_the_host_is_done_where_only_the_vm_is_not_allowed(ground, missing):
    configs = ground.world()["configs"]
    outcome = ground.provision(allow=set(ORDINARY) - {missing})
    assert not outcome.complete
    assert f"hostpci moody-good: not begun, missing --allow {missing}" in "\n".join(outcome.lines)
    assert ground.world()["configs"] == configs
    assert ground.world()["mappings"] == {}
    assert ground.red(("host",)) == {}


def test_all_never_means_an_override():
    assert "console-loss" not in allowed(["all"])
    assert "acs-override" in allowed(["all", "acs-override"])
    with pytest.raises(UnknownScope, match="did you mean 'host-boot'"):
        allowed(["host-bot"])


def test_undo_needs_what_going_back_touches(ground):
    assert ground.provision().complete
    after = ground.world()
    outcome = ground.undo(allow={"host-files", "host-boot", "vm-config"})
    assert not outcome.complete
    assert "--allow host-reboot" in outcome.lines[0]
    assert "--allow vm-restart" in outcome.lines[0]
    assert ground.world() == after


def test_an_override_token_needs_its_own_word(ground):
    ground.patch = {"hosts": {"pve5": {"kernel": {"wanted": ["pcie_acs_override=downstream"]}}}}
    before = ground.world()
    assert "missing --allow acs-override" in unchanged(ground, before)


# ------------------------------------------------------------------ the host


def test_the_iommu_is_off_in_firmware(ground):
    ground.reset(faults=["vtd-off"])
    assert "P02" in refusals(ground)
    unchanged(ground, ground.world())


def test_another_device_is_at_the_declared_address(ground):
    ground.reset()
    ground.patch = {"gpus": {"t4": {"device": "10de:1db6"}}}
    assert "HOST-DEVICE-001" in refusals(ground)
    assert "P17" in refusals(ground, "hostpci")
    unchanged(ground, ground.world())


@pytest.mark.parametrize(
    "neighbour",
    [
        {"id": "8086:1533", "class": "0x020000", "net": {"enp59s1": "up"}},
        {"id": "144d:a808", "class": "0x010802", "block": ["nvme1n1"]},
    ],
    ids=["nic", "disk"],
)
def test_a_group_with_something_of_the_hosts_is_never_given_to_a_vm(ground, neighbour):
    """The group shows only with the IOMMU on: the host is done, the VM is not touched."""
    ground.host["pci"]["0000:3a:00.0"]["acs"] = False
    ground.host["pci"]["0000:3b:01.0"] = {"revision": "0x03", "parent": "0000:3a:00.0", **neighbour}
    if "block" in neighbour:
        ground.host["mounts"].append(["/dev/nvme1n1", "/srv", "ext4"])
    ground.sim.world.boot_host("pve5")
    configs = ground.world()["configs"]
    outcome = ground.provision()
    assert not outcome.complete
    assert "hostpci moody-good: refused (P09)" in "\n".join(outcome.lines)
    assert ground.world()["configs"] == configs


def test_a_vm_that_would_take_an_unknown_group_at_the_next_boot(ground):
    ground.host["vms"]["1101"]["config"]["hostpci0"] = "0000:18:00.0"
    ground.sim.world.boot_host("pve5")
    assert "qm set 1101 --onboot 0" in refusals(ground)["P09"]
    unchanged(ground, ground.world())


def test_a_twin_stays_with_the_host(ground):
    """`ids=` would take it along: the declared card is bound by its address."""
    ground.host["pci"]["0000:5f:00.0"] = {
        "id": "10de:1eb8", "subsystem": "10de:12a2", "class": "0x030200", "revision": "0xa1", "parent": "0000:5d:00.0",
    }  # fmt: skip
    ground.sim.world.boot_host("pve5")
    before = ground.world()
    outcome = ground.provision()
    assert outcome.complete, "\n".join(outcome.lines)
    after = ground.world()
    assert after["drivers"][T4] == "vfio-pci"
    assert after["drivers"]["0000:5f:00.0"] == "nouveau"
    assert "ids=" not in after["files"]["/etc/modprobe.d/labproof-vfio.conf"][0]
    assert ground.plan().empty
    assert ground.undo().complete
    assert ground.world() == before


def test_the_console_is_lost_only_by_its_own_word(ground):
    """An iGPU is boot_vga when nothing else shows the console: `all` is not enough to take it."""
    ground.reset("igpu-on-host")
    ground.host["firmware"]["primary_display"] = "0000:00:02.0"
    ground.host["pci"]["0000:00:02.0"]["class"] = "0x030000"
    ground.sim.world.boot_host("pve5")
    before = ground.world()
    outcome = ground.provision()
    assert outcome.changed == 0
    assert "missing --allow console-loss" in "\n".join(outcome.lines)
    assert ground.world() == before
    outcome = ground.provision(allow={*ORDINARY, "console-loss"})
    assert outcome.complete, "\n".join(outcome.lines)
    assert ground.world()["drivers"]["0000:00:02.0"] == "vfio-pci"
    assert ground.undo(allow={*ORDINARY, "console-loss"}).complete
    assert ground.world() == before


def test_somebody_elses_ids_are_not_overridden(ground):
    ground.host["files"]["/etc/modprobe.d/mine.conf"] = {"text": "options vfio-pci ids=1912:0014\n"}
    ground.sim.world.boot_host("pve5")
    assert "/etc/modprobe.d/mine.conf" in refusals(ground)["P28"]
    unchanged(ground, ground.world())


def test_a_file_of_our_name_that_is_not_ours(ground):
    ground.host["files"]["/etc/modprobe.d/labproof-vfio.conf"] = {"text": "# mine\n"}
    ground.sim.world.boot_host("pve5")
    assert "is not ours" in refusals(ground)["unread"]
    unchanged(ground, ground.world())


def test_kernel_cmdline_of_two_lines(ground):
    ground.reset("pve9-systemd-boot")
    ground.host["files"]["/etc/kernel/cmdline"]["text"] += "quiet\n"
    ground.sim.world.boot_host("pve5")
    assert "P05" in refusals(ground)
    unchanged(ground, ground.world())


def test_a_host_that_never_comes_back(ground):
    ground.host["firmware"]["hangs_at_reboot"] = True
    outcome = ground.provision(limits=Limits(reboot_s=1, poll_s=0.05, shutdown_s=5))
    text = "\n".join(outcome.lines)
    assert not outcome.complete
    assert "pve5 did not come back within 1 s" in text
    assert "was done: run `update-grub`" in text
    assert "run it again to go on, or --undo to go back" in text
    assert ground.host["pve"]["mapping"] == {}
    ground.host["firmware"]["hangs_at_reboot"] = False
    ground.sim.world.boot_host("pve5")
    assert ground.provision().complete


# ------------------------------------------------------------------ the VM


@pytest.fixture
def host_done(ground):
    """The host's step is done, the VM's is not."""
    ground.provision(allow=set(ORDINARY) - {"vm-config"})
    return ground


def vm_unchanged(ground):
    before = ground.world()
    outcome = ground.provision()
    assert not outcome.complete
    assert outcome.changed == 0
    assert ground.world() == before
    return "\n".join(outcome.lines)


def test_another_vm_under_the_declared_number(host_done):
    config = host_done.host["vms"]["1105"]["config"]
    config["net0"] = "virtio=94:96:CC:00:00:01,bridge=vmbr0"
    assert "refused (P52)" in vm_unchanged(host_done)


def test_without_a_mac_the_name_must_be_the_declared_one(host_done):
    host_done.patch = {"vms": {"moody-good": {"mac": None}}}
    host_done.host["vms"]["1105"]["config"]["name"] = "somebody-else"
    assert "is called somebody-else, not moody-good" in vm_unchanged(host_done)


def test_a_locked_vm(host_done):
    host_done.host["vms"]["1105"]["config"]["lock"] = "backup"
    assert "refused (P46)" in vm_unchanged(host_done)


def test_a_vm_of_the_ha_manager(host_done):
    """Its tasks are only requests: what counts is that it stopped, and that it runs."""
    host_done.host["pve"]["ha"]["1105"] = {"managed": True, "state": "started"}
    outcome = host_done.provision()
    assert outcome.complete, "\n".join(outcome.lines)
    assert host_done.host["pve"]["ha"]["1105"]["state"] == "started"


def test_a_vm_of_the_ha_manager_with_a_raw_address(host_done):
    host_done.as_root()
    host_done.patch = {**host_done.patch, "vms": {"moody-good": {"mapping": None}}}
    host_done.host["pve"]["ha"]["1105"] = {"managed": True, "state": "started"}
    assert "refused (P49)" in vm_unchanged(host_done)


def test_a_card_the_hosts_driver_still_holds(host_done):
    host_done.sim.world.hosts["pve5"].drivers.bound[T4] = "nouveau"
    host_done.sim.world.hosts["pve5"].revision += 1
    step = next(s for s in host_done.plan().steps if s.step == "hostpci")
    assert step.changes
    with host_done.bench() as bench:
        from labproof.provision import hostpci

        found = hostpci.plan(bench, bench.lab.vm("moody-good"), host_pending=False)
    assert {r.cause for r in found.refusals} == {"P62"}


def test_a_mapping_of_that_name_for_another_device(host_done):
    entry = {"node": "pve5", "path": "0000:18:00.0", "id": "8086:1563", "iommugroup": "7"}
    host_done.host["pve"]["mapping"]["t4"] = {"map": [entry]}
    assert "refused (P34)" in vm_unchanged(host_done)


def test_a_stale_mapping_is_updated_and_comes_back(host_done):
    entry = {"node": "pve5", "path": T4, "id": "10de:1eb8", "subsystem-id": "10de:12a2", "iommugroup": "99"}
    host_done.host["pve"]["mapping"]["t4"] = {"map": [dict(entry)], "description": "mine"}
    assert host_done.provision().complete
    assert host_done.host["pve"]["mapping"]["t4"]["map"][0]["iommugroup"] == "11"
    assert host_done.host["pve"]["mapping"]["t4"]["description"] == "mine"
    assert host_done.undo().complete
    assert host_done.host["pve"]["mapping"]["t4"] == {"map": [entry], "description": "mine"}


def test_a_raw_address_by_a_token(ground):
    ground.patch = {"vms": {"moody-good": {"mapping": None}}}
    assert "root@pam" in refusals(ground, "hostpci")["P33"]


def test_an_account_without_the_rights(ground):
    ground.host["pve"]["roles"]["LabproofProvisioner"] = []
    assert "VM.PowerMgmt" in refusals(ground)["P51"]
    unchanged(ground, ground.world())


def test_an_edit_of_another_key_between_look_and_hand_is_met_once(host_done, monkeypatch):
    """The digest is another one; our keys are as they were: asked again, and done."""
    from labproof.clients.pve import PveSession

    put, seen = PveSession.put, []

    def interfered(self, path, **params):
        if path.endswith("/config") and not seen:
            seen.append(path)
            host_done.host["vms"]["1105"]["config"]["tags"] = "touched"
        return put(self, path, **params)

    monkeypatch.setattr(PveSession, "put", interfered)
    assert host_done.provision().complete
    assert seen


def test_a_start_that_fails_is_told_in_pves_words(host_done, monkeypatch):
    host_done.host["memory"]["mib"] = 200000
    outcome = host_done.provision()
    assert not outcome.complete
    text = "\n".join(outcome.lines)
    assert "VM 1105 did not start" in text
    assert "Cannot allocate memory" in text


def test_a_start_task_that_times_out(host_done):
    """Pinning the guest's memory takes longer than PVE gives the start."""
    host_done.host["memory"]["pin_s_per_gib"] = 10
    outcome = host_done.provision()
    assert not outcome.complete
    text = "\n".join(outcome.lines)
    assert "VM 1105 did not start" in text
    assert "got timeout" in text
    assert "run it again to go on, or --undo to go back" in text
    host_done.host["memory"]["pin_s_per_gib"] = 2.4
    assert host_done.provision().complete


def test_an_edit_of_the_same_key_between_look_and_hand_is_left_alone(host_done, monkeypatch):
    from labproof.clients.pve import PveSession

    put = PveSession.put

    def interfered(self, path, **params):
        if path.endswith("/config"):
            host_done.host["vms"]["1105"]["config"]["cpu"] = "max"
        return put(self, path, **params)

    monkeypatch.setattr(PveSession, "put", interfered)
    outcome = host_done.provision()
    assert not outcome.complete
    assert "cpu (max) was changed by somebody else" in "\n".join(outcome.lines)
    assert host_done.host["vms"]["1105"]["config"]["cpu"] == "max"


# ------------------------------------------------------------------ undo


@pytest.mark.parametrize("what", ["file", "grub", "mapping", "vm"])
def test_undo_refuses_what_somebody_changed_since(ground, what):
    assert ground.provision().complete
    host = ground.host
    if what == "file":
        host["files"]["/etc/modprobe.d/labproof-vfio.conf"]["text"] += "# me\n"
    elif what == "grub":
        host["files"]["/etc/default/grub"]["text"] += "# me\n"
    elif what == "mapping":
        host["pve"]["mapping"]["t4"]["map"][0]["iommugroup"] = "12"
    else:
        host["vms"]["1105"]["config"]["cpu"] = "max"
    ground.sim.world.hosts["pve5"].revision += 1
    after = ground.world()
    outcome = ground.undo()
    assert not outcome.complete
    assert "was changed by somebody else" in outcome.lines[0]
    assert ground.world() == after


def test_nothing_to_undo(ground):
    outcome = ground.undo()
    assert outcome.complete
    assert outcome.changed == 0


def test_a_file_that_changes_between_look_and_hand(ground):
    """The hand compares again, on the host."""
    from labproof.provision.changes import FileState
    from labproof.provision.failure import ChangedSince

    with ground.bench() as bench:
        shell = bench.shell(bench.lab.host("pve5"))
        seen = shell.read("/etc/default/grub")
        ground.host["files"]["/etc/default/grub"]["text"] += "# me\n"
        ground.sim.world.hosts["pve5"].revision += 1
        with pytest.raises(ChangedSince):
            shell.replace("/etc/default/grub", seen, FileState(b"gone"))
    assert ground.world()["files"]["/etc/default/grub"][0].endswith("# me\n")
