"""One simulated lab whose lines can be disturbed, judged in this process with short limits."""

import time

import pytest

from labproof.checks.registry import LAYERS
from labproof.simlab.server import SimLab
from labproof.simlab.transport import Lines

from ..matrix.harness import judge

#: Far below the real defaults: a hang shows after seconds.
SHORT = {"connect_s": 0.7, "request_s": 0.7, "command_s": 2.0, "stable_reads": 2, "pod_start_s": 5.0}


@pytest.fixture(scope="session")
def lines():
    return Lines()


@pytest.fixture(scope="session")
def simlab(lines):
    with SimLab("t4-jellyfin", lines=lines) as lab:
        yield lab


@pytest.fixture
def judged(simlab, lines, tmp_path):
    """Judge the lab, some layers of it; the lines are quiet again afterwards, and the outcome knows its seconds."""

    def run(layers=LAYERS, **timings):
        patch = {**simlab.overlay["patch"]}
        patch["timings"] = {**patch["timings"], **SHORT, **timings}
        began = time.monotonic()
        outcome = judge({"patch": patch}, tmp_path, layers=layers)
        outcome.seconds = time.monotonic() - began
        return outcome

    yield run
    lines.clear()
