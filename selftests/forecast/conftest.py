"""A simulated lab that is judged, forecast and upgraded."""

import contextlib

import pytest
import yaml

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
def labs():
    """Simulated labs by name, each started when it is first asked for."""
    with contextlib.ExitStack() as running:
        started = {}

        def start(name):
            if name not in started:
                started[name] = running.enter_context(SimLab(name))
            return started[name]

        yield start


def declared(name, to):
    """What an owner changes in lab.yaml when ordering these versions."""
    lab = yaml.safe_load(places.lab_file(name).read_text("utf-8"))
    patch = {}
    if "talos" in to:
        patch["nodes"] = {n["name"]: {"talos": {"version": f"v{to['talos']}"}} for n in lab["nodes"] if "talos" in n}
    cluster = {}
    if "kubernetes" in to:
        cluster["version"] = f"v{to['kubernetes']}"
    if "plugin" in to:
        cluster["plugin"] = {"version": to["plugin"]}
    return {**patch, **({"clusters": {c["name"]: cluster for c in lab["clusters"]}} if cluster else {})}


@pytest.fixture
def judged(labs, tmp_path):
    """Judge the lab of a variation with the owner's own choices, upgraded or not: its outcome and its Lab."""

    def run(variation=None, patch=None, lab=None, upgrade=None, layers=LAYERS, name="t4-jellyfin"):
        simlab = labs(name)
        simlab.reset((), variation, patch=patch, upgrade=upgrade)
        overlay = merge_patch(simlab.overlay["patch"], merge_patch(lab or {}, declared(name, upgrade or {})))
        return judge({"patch": overlay}, tmp_path, lab=name, layers=layers), load_lab(places.lab_file(name), overlay)

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
