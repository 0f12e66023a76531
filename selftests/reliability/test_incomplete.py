"""Bad transport seen by the owner: exit status 6, the reason once for all clauses it left unchecked, no traceback."""

import time

import pytest

from labproof.simlab.transport import Trouble

from .command import run, write_lab


@pytest.fixture
def troubled(simlab, lines, tmp_path):
    def go(troubles, *words):
        simlab.reset([])
        lines.clear()
        for (kind, name), trouble in troubles.items():
            lines.disturb(kind, name, trouble)
        write_lab(simlab, tmp_path, connect_s=1, request_s=2, transcode_s=5)
        return run(tmp_path, *words)

    yield go
    lines.clear()


@pytest.mark.parametrize(
    ("troubles", "words", "why"),
    [
        ({("kube", "moody"): Trouble("refused")}, (), "connection refused"),
        ({("pve", "pve5"): Trouble("status", 403, after=6)}, ("-m", "proxmox"), "403 Forbidden"),
        (
            {("talos", "moody-good"): Trouble("reset", after=3000), ("ssh", "pve5"): Trouble("end", after=9000)},
            ("-m", "proxmox or talos", "-n", "2"),
            "broke",
        ),
    ],
    ids=["one-layer-gone", "half-of-a-layer", "two-layers"],
)
def test_the_run_is_incomplete_and_says_why_once(troubled, troubles, words, why):
    done = troubled(troubles, *words)
    assert done.status == 6, done.output[-3000:]
    assert done.result["exit_status"] == 6
    assert "Traceback" not in done.output
    assert "INCOMPLETE" in done.output
    told = [line for line in done.output.splitlines() if line.startswith("  unchecked ")]
    assert 1 <= len(told) <= 4, "\n".join(told)
    assert any(why in line for line in told), "\n".join(told)
    assert set(done.verdicts.values()) <= {"pass", "unchecked", "blocked", "fail"}
    assert "fail" not in done.verdicts.values(), done.output[-3000:]


def test_the_deadline_ends_what_nothing_else_would(simlab, lines, tmp_path):
    simlab.reset([])
    lines.clear()
    lines.disturb("kube", "moody", Trouble("stall"))
    write_lab(simlab, tmp_path, deadline_s=4, connect_s=60, request_s=60)
    began = time.monotonic()
    done = run(tmp_path)
    lines.clear()
    assert time.monotonic() - began < 50
    assert done.status == done.result["exit_status"] == 2
    assert done.result["missing"]
    assert {v["verdict"] for v in done.result["verdicts"] if v["layer"] == "host"} == {"pass"}
