"""Through the `pytest` command: plan, provision, a real SIGKILL, undo; what contradicts itself is exit status 4."""

import json
import os
import subprocess
import sys
import time

import pytest
import yaml

from labproof import places

from .conftest import laid

STEPS = ("vfio", "hostpci", "talos_image", "runtime_class", "device_plugin", "time_slicing", "metrics")


def command(folder, *options):
    return [
        sys.executable, "-m", "pytest", "--pyargs", "labproof.suites", "-p", "no:cacheprovider", *options,
    ]  # fmt: skip


def environment():
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "LABPROOF_"))}


def run(folder, *options):
    return subprocess.run(
        command(folder, *options), cwd=folder, env=environment(), capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def declared(ground, tmp_path):
    """A lab.yaml of one's own that points at the bare simulated lab: to the command it is a real one."""
    lab = yaml.safe_load(places.lab_file("t4-jellyfin").read_text("utf-8"))
    patch = ground.sim.overlay["patch"]
    lab |= {key: laid(value, patch.get(key, {})) for key, value in lab.items() if isinstance(value, list)}
    (tmp_path / "lab.yaml").write_text(json.dumps({**lab, "factory": patch["factory"], "timings": patch["timings"]}))
    return tmp_path


def test_bare_to_green(tmp_path):
    ran = run(tmp_path, "--sim", "t4-jellyfin", "--bare", "--provision", "--allow", "all")
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert "vfio pve5: 10 changes made and verified" in ran.stdout
    assert "hostpci moody-good: 5 changes made and verified" in ran.stdout
    assert "talos_image moody-good: 5 changes made and verified" in ran.stdout
    assert "device_plugin moody: 19 changes made and verified" in ran.stdout
    assert "time_slicing moody: 4 changes made and verified" in ran.stdout
    assert "metrics moody: 5 changes made and verified" in ran.stdout


def test_a_plan_changes_nothing_and_is_no_failure(declared, ground):
    before = ground.world()
    ran = run(declared, "--plan", "--plan-json", "plan.json", "--allow", "host-files")
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert "Missing: --allow host-boot --allow host-reboot" in ran.stdout
    plan = json.loads((declared / "plan.json").read_text())
    assert [step["step"] for step in plan["steps"]] == list(STEPS)
    assert not list((declared / "reports/runs").iterdir())
    assert not list((declared / "reports").rglob("journal.jsonl"))
    assert ground.world() == before


def test_only_the_selected_layer_is_provisioned(declared, ground):
    ran = run(declared, "-m", "host", "--provision", "--allow", "all")
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert ground.world()["iommu"] == "intel"
    assert ground.world()["mappings"] == {}


def test_without_leave_nothing_is_done_and_the_run_is_red(declared, ground):
    before = ground.world()
    ran = run(declared, "-m", "host", "--provision", "--allow", "host-files")
    assert ran.returncode == 1, ran.stdout[-3000:]
    assert "missing --allow host-boot --allow host-reboot" in ran.stdout
    assert ground.world() == before


@pytest.mark.parametrize("lines", [1, 6, 13, 19])
def test_a_real_kill_and_then_on_and_back(declared, ground, lines):
    before = ground.world()
    process = subprocess.Popen(
        command(declared, "-m", "proxmox", "--provision", "--allow", "all"),
        cwd=declared, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    journal = declared / "reports/provision/moody-good/journal.jsonl"
    ends = time.monotonic() + 60
    while time.monotonic() < ends and process.poll() is None:
        if journal.is_file() and journal.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.002)
    process.kill()
    process.wait(10)
    assert process.returncode == -9
    again = run(declared, "-m", "proxmox", "--provision", "--allow", "all")
    assert again.returncode == 0, again.stdout[-3000:]
    back = run(declared, "--undo", "--allow", "all")
    assert back.returncode == 0, back.stdout[-3000:]
    assert ground.world() == before
    assert "nothing to undo" in run(declared, "--undo", "--allow", "all").stdout


def test_the_header_says_that_the_run_may_write(declared):
    ran = run(declared, "-m", "host", "--provision", "--allow", "host-files")
    assert "reads, and writes what --allow names, for host pve5" in ran.stdout
    assert "one read-only script" not in ran.stdout
    assert "as labproof@pve!suite: reads, and writes what --allow names" in ran.stdout
    assert "reads only" in run(declared, "--plan").stdout


def test_an_undo_that_is_refused_is_a_failure(declared, ground):
    assert run(declared, "-m", "proxmox", "--provision", "--allow", "all").returncode == 0
    ground.host["files"]["/etc/default/grub"]["text"] += "# me\n"
    ground.sim.world.hosts["pve5"].revision += 1
    back = run(declared, "--undo", "--allow", "all")
    assert back.returncode == 1
    assert "/etc/default/grub was changed by somebody else" in back.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--bare",), "--bare exists only for a simulated lab"),
        (("--provision", "--allow", "host-bot"), "did you mean 'host-boot'"),
        (("--allow", "all"), "--allow goes with"),
        (("--undo", "--plan"), "contradict each other"),
        (("--provision", "-n", "2"), "leave -n out"),
        (("--plan-json", "x"), "goes with --plan"),
    ],
)
def test_what_contradicts_itself(declared, options, said):
    ran = run(declared, *options)
    assert ran.returncode == 4, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert said in ran.stdout + ran.stderr


def test_a_simulated_lab_has_nothing_to_take_back(tmp_path):
    ran = run(tmp_path, "--sim", "t4-jellyfin", "--undo", "--allow", "all")
    assert ran.returncode == 4
    assert "nothing to take back" in ran.stdout + ran.stderr
