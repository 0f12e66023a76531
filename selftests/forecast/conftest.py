"""A simulated lab that is judged, forecast and upgraded."""

import pytest

from labproof import places
from labproof.checks.registry import LAYERS
from labproof.facts.bundle import Facts
from labproof.facts.store import FactsStore
from labproof.inventory.load import load_lab
from labproof.simlab.server import SimLab
from labproof.simlab.world import merge_patch

from ..matrix.harness import judge

#: Enough for a forecast: what pods see is not foretold.
BELOW_PODS = LAYERS[:4]


@pytest.fixture(scope="session")
def simlab():
    with SimLab("t4-jellyfin") as lab:
        yield lab


def declared(to):
    """What an owner changes in lab.yaml when ordering these versions."""
    patch = {}
    if "talos" in to:
        patch["nodes"] = {"moody-good": {"talos": {"version": f"v{to['talos']}"}}}
    cluster = {}
    if "kubernetes" in to:
        cluster["version"] = f"v{to['kubernetes']}"
    if "plugin" in to:
        cluster["plugin"] = {"version": to["plugin"]}
    return {**patch, **({"clusters": {"moody": cluster}} if cluster else {})}


@pytest.fixture
def judged(simlab, tmp_path):
    """Judge the lab of a variation with the owner's own choices, upgraded or not: its outcome and its Lab."""

    def run(variation=None, patch=None, lab=None, upgrade=None, layers=LAYERS):
        simlab.reset((), variation, patch=patch, upgrade=upgrade)
        overlay = merge_patch(simlab.overlay["patch"], merge_patch(lab or {}, declared(upgrade or {})))
        return judge({"patch": overlay}, tmp_path, layers=layers), load_lab(places.lab_file("t4-jellyfin"), overlay)

    return run


def saved(outcome):
    """The facts of a judged lab as a run leaves them: nothing more is ever asked."""
    return Facts(FactsStore(outcome.facts._store.folder, frozen=True), outcome.facts.now)


def failing(outcome):
    """(clause, target, cause) of everything that fails."""
    return {
        (ident, target, problem.cause)
        for (ident, target), ruling in outcome.rulings.items()
        if ruling.verdict == "fail"
        for problem in ruling.judgement.problems
    }
