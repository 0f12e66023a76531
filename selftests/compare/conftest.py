"""One simulated lab for all comparisons; a healthy run of each variation is saved once."""

import pytest

from labproof.simlab.server import SimLab

from .saved import save


@pytest.fixture(scope="session")
def simlab():
    with SimLab("t4-jellyfin") as lab:
        yield lab


@pytest.fixture(scope="session")
def reports(tmp_path_factory):
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="session")
def healthy(simlab, reports):
    """The saved healthy run of a variation."""
    runs = {}

    def run(variation=None, **options):
        key = (variation, *options.values())
        if key not in runs:
            runs[key] = save(simlab, reports, f"healthy-{len(runs)}", (), variation, **options)
        return runs[key]

    return run


@pytest.fixture
def broken(simlab, reports, request):
    """A saved run with these faults, an hour later."""
    made = 0

    def run(*faults, variation=None, **options):
        nonlocal made
        made += 1
        name = f"{request.node.name}-{made}".replace("/", "-")
        return save(simlab, reports, name, faults, variation, after_s=3600.0 * made, **options)

    return run
