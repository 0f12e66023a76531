"""Each shipped lab runs by its name, and a lab without Proxmox is told without one."""

import json
import os
import subprocess
import sys

from labproof import places

ROOT = places.folder("suites").parent


def run(folder, *words):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LABPROOF_", "PYTEST_"))}
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", ROOT / "suites"]
    argv += ["--reports", folder / "reports", *words]
    return subprocess.run(argv, cwd=folder, env=clean, text=True, capture_output=True, timeout=180)


def test_a_lab_on_the_metal_has_no_host_and_no_vm(tmp_path):
    done = run(tmp_path, "--sim=bare-metal-rtx2070")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "SIMULATED lab goldentooth" in done.stdout
    result = json.loads((tmp_path / "reports" / "latest" / "run.json").read_text())
    (chain,) = result["chains"].items()
    assert chain[0] == "velaryon/0000:2d:00.0"
    assert [layer["layer"] for layer in chain[1]["layers"]] == ["talos", "kubernetes", "workload", "transcode"]
    assert not {v["layer"] for v in result["verdicts"]} & {"host", "vm"}
    page = (tmp_path / "reports" / "latest" / "index.html").read_text()
    assert "velaryon" in page
    assert "proxmox" not in page.lower()


def test_a_layer_above_is_blocked_by_the_lowest_there_is(tmp_path):
    done = run(tmp_path, "--sim=bare-metal-rtx2070", "--fault=rtx-node-not-labelled")
    assert done.returncode == 1
    assert "first broken layer: kubernetes (K13)" in done.stdout
    result = json.loads((tmp_path / "reports" / "latest" / "run.json").read_text())
    assert {v["verdict"] for v in result["verdicts"] if v["layer"] in ("workload", "transcode")} == {"blocked"}


def test_a_fault_of_another_lab_is_refused(tmp_path):
    done = run(tmp_path, "--sim=bare-metal-rtx2070", "--fault=vtd-off")
    assert done.returncode == 4
    assert "--sim=t4-jellyfin" in done.stdout + done.stderr
