"""The lane's machines: one at a time, ended whatever happens."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest

from .bed import Bed
from .image import CannotBuild, image, missing
from .machine import Machine


def pytest_collection_modifyitems(config, items):
    """Leave what only the full set does out of the short one."""
    if config.getoption("--run-realhost") != "full":
        for item in items:
            if item.get_closest_marker("realhost_full"):
                item.add_marker(pytest.mark.skip(reason="the full set runs with: tox -e realhost-full"))


@pytest.fixture(scope="session")
def runs(request):
    """Skip unless the lane was asked for; fail when it was and this machine cannot run it."""
    if not request.config.getoption("--run-realhost"):
        pytest.skip("the real-kernel lane runs with: tox -e realhost")
    why = missing()
    if why:
        pytest.fail(f"the real-kernel lane CANNOT RUN here: {why}")


@pytest.fixture(scope="session")
def place(runs):
    """A folder for overlays and labs, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="labproof-realhost-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def a_bed(place, suite, board, disguised=True):
    """A booted guest; it is ended however the body ends."""
    try:
        base = image(suite)
    except CannotBuild as why:
        pytest.fail(f"the real-kernel lane CANNOT RUN here: {why}")
    name = f"{suite}-{board}{'' if disguised else '-plain'}"
    machine = Machine(base, place / name, board, disguised)
    try:
        try:
            made = Bed(machine, place / f"{name}-labs")
        except (RuntimeError, TimeoutError) as failed:
            pytest.fail(f"the guest did not boot: {failed}\n{machine.told()}")
        yield made
    finally:
        machine.close()


@pytest.fixture(scope="session")
def bed(place, request):
    """The guest of a test: (release, board)."""
    with a_bed(place, *request.param) as made:
        yield made
