"""Pins stand once in constraints.txt; uv reads the same list from pyproject.toml."""

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line]


def test_pins_are_plain_and_sorted():
    assert all(re.fullmatch(r"[a-z0-9._-]+==[A-Za-z0-9.!+]+", pin) for pin in PINS)
    names = [pin.split("==")[0] for pin in PINS]
    assert names == sorted(set(names))


def test_uv_and_pip_read_the_same_pins():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["uv"]["constraint-dependencies"] == PINS


def test_every_declared_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = list(project["project"]["dependencies"])
    for group in project["dependency-groups"].values():
        declared += [item for item in group if isinstance(item, str)]
    names = {re.split(r"[<>=!;\[ ]", item)[0].lower().replace("_", "-") for item in declared}
    assert names <= {pin.split("==")[0] for pin in PINS}


def test_what_is_installed_here_is_what_is_pinned():
    from importlib.metadata import distributions

    pinned = dict(pin.split("==") for pin in PINS)
    installed = {re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(): d.version for d in distributions()}
    wrong = {n: (v, pinned[n]) for n, v in installed.items() if n in pinned and v != pinned[n]}
    assert wrong == {}


def test_no_lock_file_is_tracked():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert not [f for f in tracked if f.endswith((".lock", "package-lock.json"))]
