"""Bad input ends with exit status 4 and one clear message; nothing is contacted, nothing is written, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOOD = """\
lab: home
hosts:
  - name: pve1
    ssh: {address: pve1.invalid}
gpus:
  - {name: card, host: pve1, device: 10de:2204, address: 0000:01:00.0}
"""


@pytest.fixture
def run(tmp_path):
    def go(*words, **environment):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("LABPROOF_", "PYTEST_"))}
        command = [sys.executable, "-m", "pytest", str(ROOT / "suites"), "-p", "no:cacheprovider", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env={**clean, **environment}, text=True, capture_output=True, timeout=60
        )
        return done.returncode, done.stdout + done.stderr

    return go


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lab", "nowhere.yaml"], "no lab at nowhere.yaml"),
        (["--sim", "t5-jellyfin"], "no lab called 't5-jellyfin'; shipped labs: "),
        (["--sim", "t4-jellyfin", "--lab", "x.yaml"], "contradict each other"),
        (["--require-lab"], "no lab is declared"),
        (["--facts", "."], "no saved facts there"),
        (["-m", "proxmx"], "proxm"),
        (["--sim", "t4-jellyfin", "--fault", "vtd-of"], "vtd-off"),
    ],
)
def test_wrong_options(run, tmp_path, words, said):
    status, output = run(*words)
    assert status == 4, output
    assert said in output
    assert "Traceback" not in output
    assert not (tmp_path / "reports" / "latest").exists()


@pytest.mark.parametrize("option", [["--fault", "vtd-off"], ["--variation", "amd-host"]])
def test_a_real_lab_is_never_broken_on_purpose(run, tmp_path, option):
    (tmp_path / "lab.yaml").write_text(GOOD)
    status, output = run(*option)
    assert status == 4, output
    assert "exists only for a simulated lab" in output


def test_every_error_of_a_lab_file_with_its_line(run, tmp_path):
    (tmp_path / "lab.yaml").write_text(
        GOOD.replace("address: pve1.invalid", "adress: x").replace("host: pve1", "host: b")
    )
    status, output = run()
    assert status == 4, output
    assert "lab.yaml:4:11: hosts[0].ssh.adress: unknown key, did you mean 'address'?" in output
    assert "Traceback" not in output


def test_the_environment_names_a_lab(run, tmp_path):
    (tmp_path / "mine.yaml").write_text("lab: [")
    status, output = run(LABPROOF_LAB=str(tmp_path / "mine.yaml"))
    assert status == 4, output
    assert "mine.yaml:1:" in output


def test_collecting_contacts_and_writes_nothing(run, tmp_path):
    (tmp_path / "lab.yaml").write_text(GOOD)
    status, output = run("--collect-only", "-q")
    assert status == 0, output
    assert "test_iommu" in output
    assert not (tmp_path / "reports").exists()
