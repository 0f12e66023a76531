"""Runs the real `pytest` command on the simulated lab of this process, which to it is a lab like any other."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from labproof import places
from labproof.inventory.load import merge_by_name

ROOT = Path(__file__).parents[2]
SUITES = str(ROOT / "suites")


@dataclass
class Done:
    """A finished command."""

    status: int
    output: str
    folder: Path

    @property
    def result(self):
        """run.json of the latest run."""
        return json.loads((self.folder / "reports" / "latest" / "run.json").read_text("utf-8"))

    @property
    def verdicts(self):
        """Verdict by clause and target."""
        return {(v["clause"], v["target"]): v["verdict"] for v in self.result["verdicts"]}


def write_lab(simlab, folder, **timings):
    """lab.yaml as its owner would have it: the shipped one with the simulation's endpoints and credentials."""
    base = yaml.safe_load(places.lab_file("t4-jellyfin").read_text("utf-8"))
    content = merge_by_name(base, simlab.overlay["patch"])
    content["timings"] = {**content["timings"], **timings}
    path = folder / "lab.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def environment(**more):
    """The environment without what steers pytest or labproof."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LABPROOF_", "PYTEST_"))}
    return {**clean, **more}


def start(folder, *words, suites=SUITES, **env):
    """Start `pytest` in `folder`, in a process group of its own."""
    argv = [sys.executable, "-m", "pytest", suites, "-p", "no:cacheprovider", *words]
    return subprocess.Popen(
        argv, cwd=folder, env=environment(**env), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def finish(process, folder, limit_s=90):
    """Wait for it; a run that does not end is killed, and fails the test."""
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Done(process.returncode, output, folder)


def run(folder, *words, **options):
    """Start and finish."""
    return finish(start(folder, *words, **options), folder)
