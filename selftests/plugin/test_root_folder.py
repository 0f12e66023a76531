"""A folder behind one of our options never silently becomes pytest's root folder."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def collect(*words):
    command = [sys.executable, "-m", "pytest", "-m", "host", "--collect-only", "-q", "-p", "no:cacheprovider", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("option", ["--reports", "--facts"])
def test_as_two_words_it_is_refused_with_the_way_out(tmp_path, option):
    status, said = collect(option, str(tmp_path))
    assert status == 4, said
    assert f"write {option}=FOLDER, as one word" in said


def test_as_one_word_it_works(tmp_path):
    status, said = collect(f"--reports={tmp_path}")
    assert status == 0, said
    assert "HOST" in said or "test_" in said


def test_a_folder_that_is_not_there_yet_is_not_misread(tmp_path):
    status, said = collect("--reports", str(tmp_path / "new"))
    assert status == 0, said
