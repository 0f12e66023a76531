"""Saved runs of a simulated lab, made in this process: facts, run.json and all, as `pytest` would leave them."""

from labproof import places
from labproof.checks.gate import Gate
from labproof.checks.registry import LAYERS, clauses
from labproof.facts import meta
from labproof.facts.bundle import Facts
from labproof.facts.scrub import Scrubber
from labproof.facts.store import FactsStore
from labproof.inventory.load import load_lab
from labproof.inventory.secrets import secrets_of
from labproof.plugin.probing import add_probes
from labproof.report import history
from labproof.report.compare_runs import load
from labproof.report.verdict import record_of
from labproof.report.write import Ended, finish_run
from labproof.simlab.world import merge_patch

from ..forecast.conftest import declared

#: Without pods: enough for everything that breaks below them, and much faster.
BELOW_PODS = LAYERS[:4]
T0 = 1_795_000_000.0


def save(simlab, reports, name, faults=(), variation=None, layers=BELOW_PODS, after_s=0.0, upgrade=None, patch=None):
    """Judge the lab and save the run as `reports/runs/<name>`, with its line in the history.

    Args:
        upgrade: component to version: performed by the simulator, and declared by its owner.
        patch: what else its owner did to the inputs.
    """
    simlab.reset(list(faults), variation, patch=patch, upgrade=upgrade)
    ordered = declared("t4-jellyfin", upgrade or {})
    lab = load_lab(places.lab_file("t4-jellyfin"), merge_patch(simlab.overlay["patch"], ordered))
    folder = reports / "runs" / name
    store = FactsStore(folder / "facts", scrubber=Scrubber(secrets_of(lab)))
    add_probes(store, lab)
    began = T0 + after_s
    meta.write(folder / "facts", meta.Meta(began, lab, "lab.yaml"))
    facts = Facts(store, began)
    gate = Gate(facts, lab, layers)
    records = [
        record_of(clause, target, gate.rule(clause, target), "")
        for clause in clauses().values()
        if set(clause.reads) <= set(layers)
        for target in gate.expected_targets(clause)
    ]
    recorded = Facts(FactsStore(folder / "facts", frozen=True), began)  # reports read nothing new
    ended = Ended(lab, recorded, name, folder, began, 1.0, records, [], [], 0, "degraded", False)
    history.append(reports, finish_run(ended))
    return load(folder)
