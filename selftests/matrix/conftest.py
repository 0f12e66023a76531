"""One simulated lab of each name for the whole matrix; its world is reset for each fault."""

import pytest

from labproof.checks.registry import LAYERS
from labproof.simlab.faults import DEFAULT_LAB
from labproof.simlab.server import SimLab

from .harness import judge


@pytest.fixture(scope="session")
def simlabs():
    """The simulated lab of a name, started when it is first asked for."""
    running = {}

    def lab(name=DEFAULT_LAB):
        if name not in running:
            running[name] = SimLab(name)
            running[name].start()
        return running[name]

    yield lab
    for started in running.values():
        started.stop()


@pytest.fixture(scope="session")
def simlab(simlabs):
    return simlabs()


@pytest.fixture(scope="session")
def judged(simlabs, tmp_path_factory):
    """Judge a lab with these faults and this variation, these layers selected."""
    folder = tmp_path_factory.mktemp("matrix")

    def run(faults=(), variation=None, layers=LAYERS, lab=DEFAULT_LAB):
        simlab = simlabs(lab)
        simlab.reset(list(faults), variation)
        return judge({"patch": simlab.overlay["patch"]}, folder, lab, layers)

    return run
