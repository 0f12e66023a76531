"""One simulated lab for the whole matrix; its world is reset for each fault."""

import pytest

from labproof.checks.registry import LAYERS
from labproof.simlab.server import SimLab

from .harness import judge


@pytest.fixture(scope="session")
def simlab():
    with SimLab("t4-jellyfin") as lab:
        yield lab


@pytest.fixture(scope="session")
def judged(simlab, tmp_path_factory):
    """Judge the lab with these faults and this variation, these layers selected."""
    folder = tmp_path_factory.mktemp("matrix")

    def run(faults=(), variation=None, layers=LAYERS):
        simlab.reset(list(faults), variation)
        return judge({"patch": simlab.overlay["patch"]}, folder, layers=layers)

    return run
