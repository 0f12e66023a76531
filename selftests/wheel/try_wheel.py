"""Build the wheel, install it into a fresh environment, and run the suite from an empty folder.

Usage: python selftests/wheel/try_wheel.py WORK_FOLDER
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command, cwd, expect=0):
    """Run one command; print it, and fail with its output when it ends otherwise than expected."""
    print("$", *[str(c).replace(str(ROOT), ".") for c in command], flush=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LABPROOF_", "PYTEST_", "VIRTUAL_ENV"))}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=clean, text=True, capture_output=True)
    if done.returncode != expect:
        sys.exit(f"exit status {done.returncode}, expected {expect}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def main(work):
    """Build, install, judge."""
    shutil.rmtree(work, ignore_errors=True)
    empty, dist, env = work / "empty", work / "dist", work / "env"
    empty.mkdir(parents=True)
    uv = shutil.which("uv") or sys.exit("uv is missing")
    run(uv, "build", "--wheel", "--out-dir", dist, cwd=ROOT)
    (wheel,) = dist.glob("labproof-*.whl")
    venv.create(env)
    python = env / "bin" / "python"
    run(uv, "pip", "install", "-q", "--python", python, "-c", ROOT / "constraints.txt", wheel, cwd=empty)
    said = run(python, "-m", "pytest", "--pyargs", "labproof.suites", cwd=empty)
    print(said.splitlines()[-1])
    assert (empty / "reports" / "latest" / "run.json").is_file()
    assert "SIMULATED" in said
    metal = run(python, "-m", "pytest", "--pyargs", "labproof.suites", "--sim=bare-metal-rtx2070", cwd=empty)
    print(metal.splitlines()[-1])
    assert "SIMULATED lab goldentooth" in metal
    assert "host" not in json.loads((empty / "reports" / "latest" / "run.json").read_text())["versions"]
    wrong = subprocess.run(
        [str(python), "-m", "pytest", "--pyargs", "labproof.suites", "-m", "proxmx"],
        cwd=empty, text=True, capture_output=True,
    )  # fmt: skip
    assert wrong.returncode == 4, wrong.stdout + wrong.stderr
    assert "proxmox" in wrong.stdout + wrong.stderr
    listed = run(env / "bin" / "labproof", "faults", cwd=empty)
    print(f"{len(listed.splitlines())} faults listed; 1 wheel tried: ok")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
