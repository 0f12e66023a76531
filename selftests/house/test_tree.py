"""What no tracked file may hold, and sizes that keep the house readable."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tracked():
    said = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if said.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in said.stdout.split("\0") if name and (ROOT / name).is_file()]


def lines_with(pattern, *suffixes):
    found = []
    for path in tracked():
        if suffixes and path.suffix not in suffixes:
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(text.splitlines(), 1)
            if re.search(pattern, line)
        ]
    return found


def test_no_path_of_a_build_machine():
    assert lines_with(r"(?<![\w.])/(work|root|home/[a-z]+)/(main|shared|\.library|\.pyenv|\.cache)\b") == []


def test_no_unfinished_code():
    words = ("TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error", "pragma: no " + "cover")
    assert lines_with("|".join(words), ".py", ".yaml", ".sh") == []


def test_modules_are_read_in_one_sitting():
    long = {}
    for path in tracked():
        if path.suffix == ".py" and "selftests" not in path.parts:
            count = len(path.read_text("utf-8").splitlines())
            if count > 410:
                long[str(path.relative_to(ROOT))] = count
    assert long == {}


def test_sleeping_is_left_to_the_wait_helper():
    """`clients/wait.py` is the only place of the suite's own code that sleeps; the simulator keeps its own clock."""
    found = [x for x in lines_with(r"\btime\.sleep\(", ".py") if x.startswith(("src/labproof", "suites", "fixtures"))]
    assert [x for x in found if not x.startswith(("src/labproof/clients/wait.py", "src/labproof/simlab/"))] == []
