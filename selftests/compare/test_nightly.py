"""`labproof nightly` through the command, on a lab that to it is a real one."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from labproof.clients.kubernetes import KubeSession, KubeTarget
from labproof.report import history

from ..reliability.command import environment, write_lab

NIGHTLY = [sys.executable, "-c", "import sys; from labproof.cli import main; sys.exit(main())", "nightly"]
PODS = "/api/v1/namespaces/labproof/pods"


def begin(folder, *words):
    return subprocess.Popen(
        [*NIGHTLY, *words], cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def nightly(folder, *words):
    process = begin(folder, *words)
    output, _ = process.communicate(timeout=90)
    return process.returncode, output


def run_json(folder):
    return json.loads((folder / "reports" / "latest" / "run.json").read_text("utf-8"))


def wait_for(what, limit_s=30):
    until = time.monotonic() + limit_s
    while not (found := what()):
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)
    return found


@pytest.fixture
def lab(simlab, tmp_path):
    simlab.reset([])
    write_lab(simlab, tmp_path)
    return tmp_path


def test_a_night_after_an_upgrade_compares_with_the_night_before(simlab, lab):
    status, output = nightly(lab, "-m", "proxmox")
    assert status == 0, output
    assert "nothing to compare with" in output
    simlab.reset(["mapping-stale"])
    status, output = nightly(lab, "-m", "proxmox", "--keep", "1")
    assert status == 1, output
    assert "culprit   VM-MAPPING-001" in output
    latest = lab / "reports" / "latest"
    assert json.loads((latest / "compare.json").read_text("utf-8"))["culprits"]
    assert "PCI mapping t4" in (latest / "compare.md").read_text("utf-8").replace("\\", "")
    assert len(list((lab / "reports" / "runs").glob("2*"))) == 1, "pruned"
    assert len(history.read(lab / "reports")) == 1
    assert (lab / "reports" / "junit.xml").is_file()


def test_without_a_lab_it_is_refused(tmp_path):
    status, output = nightly(tmp_path)
    assert status == 4, output
    assert "--require-lab" in output
    status, output = nightly(tmp_path, "--sim", "t4-jellyfin")
    assert status == 4


def test_a_run_to_compare_with_that_is_not_there_is_refused_before_anything_is_contacted(lab):
    status, output = nightly(lab, "--compare", "20200101T000000Z-1")
    assert status == 4, output
    assert "--compare: no run or folder" in output
    assert not (lab / "reports" / "latest").exists()


def test_a_second_nightly_run_says_who_holds_the_first(lab):
    first = begin(lab)
    wait_for((lab / "reports" / ".nightly.lock.json").exists)
    status, output = nightly(lab)
    assert status == 75
    assert f"process {first.pid} on " in output
    first.communicate(timeout=90)
    assert first.returncode == 0
    assert nightly(lab, "-m", "host")[0] == 0, "the lock is free again"


@pytest.mark.parametrize("point", ["-probe-", "-at-once-"])
def test_a_run_that_is_told_to_end_leaves_its_facts_a_report_and_no_pod(simlab, lab, point):
    content = yaml.safe_load((lab / "lab.yaml").read_text("utf-8"))
    with KubeSession(KubeTarget(content["clusters"][0]["kubeconfig"])) as session:

        def pods():
            return [p["metadata"]["name"] for p in session.list_json(PODS)["items"]]

        process = begin(lab)
        wait_for(lambda: [name for name in pods() if point in name])
        os.kill(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 2, output
        assert pods() == []
    result = run_json(lab)
    assert result["cut_off"] == "it was told to end (SIGTERM)"
    assert result["missing"]
    assert {v["verdict"] for v in result["verdicts"]} <= {"pass"}  # what was judged before it was told to end
    facts = {p.name.split("-")[0] for p in (lab / "reports" / "latest" / "facts").glob("*-*.json")}
    assert {"host", "pve", "talos", "cluster"} <= facts
    assert "cut off: it was told to end (SIGTERM)" in output
    (entry,) = history.read(lab / "reports")
    assert entry["cut_off"], "no yardstick for --compare=last"


def test_the_deadline_of_lab_yaml_ends_a_run(simlab, tmp_path):
    simlab.reset([])
    write_lab(simlab, tmp_path, deadline_s=2.0)
    status, output = nightly(tmp_path)
    assert status == 2, output
    assert run_json(tmp_path)["cut_off"] == "its deadline of 2 s has passed"
