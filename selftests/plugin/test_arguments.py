"""`pytest` alone runs the suites where the owner can mean nothing else, and nowhere else."""

import os
import subprocess
import sys

import pytest

LAB = """\
lab: home
hosts:
  - name: pve1
    ssh: {address: pve1.invalid}
gpus:
  - {name: card, host: pve1, device: 10de:2204, address: 0000:01:00.0}
"""


@pytest.fixture
def collect(tmp_path):
    def go(*words):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("LABPROOF_", "PYTEST_"))}
        command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", *words]
        done = subprocess.run(command, cwd=tmp_path, env=clean, text=True, capture_output=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    return go


def test_in_the_folder_of_a_lab(collect, tmp_path):
    (tmp_path / "lab.yaml").write_text(LAB)
    status, said = collect()
    assert status == 0
    assert "test_iommu_is_live[pve1]" in said


def test_with_an_option_of_ours(collect):
    status, said = collect("--sim", "t4-jellyfin", "-m", "talos")
    assert status == 0
    assert "test_modules_are_live[moody-good]" in said
    assert "test_iommu_is_live" not in said


def test_the_packaged_name_works_in_a_clone_too(collect):
    status, said = collect("--pyargs", "labproof.suites", "-m", "host")
    assert status == 0
    assert "test_iommu_is_live[pve5]" in said


def test_an_empty_folder_is_left_alone(collect):
    status, said = collect()
    assert status == 5
    assert "labproof" not in said


def test_a_project_of_its_own_is_left_alone(collect, tmp_path):
    (tmp_path / "lab.yaml").write_text(LAB)
    (tmp_path / "pytest.toml").write_text("[pytest]\n")
    (tmp_path / "test_mine.py").write_text("def test_mine():\n    pass\n")
    status, said = collect()
    assert status == 0
    assert "test_mine" in said
    assert "test_iommu" not in said


def test_what_is_named_is_what_is_collected(collect, tmp_path):
    (tmp_path / "lab.yaml").write_text(LAB)
    (tmp_path / "test_mine.py").write_text("def test_mine():\n    pass\n")
    status, said = collect("test_mine.py")
    assert status == 0
    assert "test_iommu" not in said
