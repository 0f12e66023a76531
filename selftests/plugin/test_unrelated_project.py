"""A project that has nothing to do with labproof, in the same environment, keeps its own tests and exit status."""

import os
import subprocess
import sys

import pytest

TESTS = """
import sys
import pytest

def test_passes():
    pass

def test_fails():
    assert 1 == 2

@pytest.mark.host
def test_a_mark_of_the_same_name():
    pass

def test_nothing_heavy_is_loaded():
    heavy = {"kubernetes", "paramiko", "proxmoxer", "pydantic", "grpclib", "aiohttp", "asyncssh", "tenacity"}
    assert not heavy & set(sys.modules)

def test_labproof_is_there():
    assert "labproof.plugin" in sys.modules
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "test_mine.py").write_text(TESTS)
    (tmp_path / "lab.yaml").write_text("this: is another file of that name\n")

    def run(*words, **more):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("LABPROOF_", "PYTEST_"))}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
        return subprocess.run(
            command, cwd=tmp_path, env={**clean, **more}, text=True, capture_output=True, timeout=60
        )  # fmt: skip

    yield run
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize("words", [(), ("-n", "2"), ("-m", "host or not host"), ("-p", "no:xdist")], ids=" ".join)
def test_it_runs_as_ever(project, words):
    done = project(*words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 4 passed" in done.stdout
    assert "FAILED test_mine.py::test_fails" in done.stdout
    body = done.stdout.split("plugins:")[-1].split("\n", 1)[1]
    assert "labproof" not in body.replace("test_labproof_is_there", "")


def test_its_exit_status_is_its_own(project):
    assert project("-k", "passes").returncode == 0
    assert project("-k", "nothing_of_the_kind").returncode == 5
    assert project("--no-such-option").returncode == 4


def test_a_lab_in_the_environment_is_not_read(project):
    done = project("-k", "passes", LABPROOF_LAB="/nowhere/lab.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
