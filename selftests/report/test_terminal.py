"""What a terminal shows: layers as they settle, the same in plain lines in CI, one line with -q."""

import os
import pty
import re
import subprocess
import sys

import pytest

WORDS = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--sim=t4-jellyfin", "-m", "vm"]
SETTLED = re.compile(r"^  vm +[✓✗] .*\d pass.* s$", re.MULTILINE)


def run(folder, *words):
    return subprocess.run([*WORDS, *words], cwd=folder, capture_output=True, text=True, timeout=120)


def test_in_ci_a_plain_line_for_each_settled_layer(tmp_path):
    ran = run(tmp_path)
    assert ran.returncode == 0, ran.stdout
    assert len(SETTLED.findall(ran.stdout)) == 1
    assert "\r" not in ran.stdout
    assert "\x1b" not in ran.stdout
    assert "test_machine.py" not in ran.stdout
    assert "[100%]" not in ran.stdout


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        ((), 0, r"SIMULATED moody-good: green; \d+ pass; [\d.]+ s; \S+index\.html"),
        (("--fault=mapping-stale",), 1, r"SIMULATED moody-good: RED; vm VM-MAPPING-001: P\d+ .+; \S+index\.html"),
        (("-k", "nothing_of_this_name"), 5, "moody-good: nothing was judged"),
    ],
)
def test_quiet_is_one_line(tmp_path, words, status, line):
    ran = run(tmp_path, "-q", *words)
    said = [text for text in ran.stdout.splitlines() if text.strip()]
    assert ran.returncode == status, ran.stdout
    assert len(said) == 1, ran.stdout
    assert re.fullmatch(line, said[0]), said[0]


def test_verbose_is_pytests_own(tmp_path):
    ran = run(tmp_path, "-v", "-k", "test_vm_is_what_is_declared or mapping")
    assert re.search(r"test_\w+\.py::test_\w+.* PASSED", ran.stdout), ran.stdout
    assert not SETTLED.search(ran.stdout)


def test_on_a_terminal_the_layer_at_work_is_shown_and_ends_as_one_line(tmp_path):
    ours, theirs = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR")} | {"TERM": "xterm"}
    with subprocess.Popen(WORDS, cwd=tmp_path, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not piece:
                break
            said += piece
        assert process.wait(timeout=120) == 0
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;]*[mK]", "", said.decode())
    assert re.search(r"\r  vm +0 of \d+ \.\.\.", text), text
    last = [line.split("\r")[-1] for line in text.replace("\r\n", "\n").splitlines()]
    assert len([line for line in last if SETTLED.match(line)]) == 1, last
    assert not [line for line in last if line.endswith("...")]
