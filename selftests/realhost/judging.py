"""The host's clauses on facts that are there already: recorded, or the twin's."""

from __future__ import annotations

from pathlib import Path

from labproof.checks.gate import Gate
from labproof.checks.judgement import Fail
from labproof.checks.registry import clauses
from labproof.facts.bundle import Facts
from labproof.facts.host import HostFacts
from labproof.facts.reading import value
from labproof.facts.store import FactsStore
from labproof.inventory.load import load_lab

from .bed import lab_text
from .machine import CARD


def judge(facts: HostFacts, folder: Path, card: str = CARD, wanted: str = "") -> dict[str, tuple[str, ...]]:
    """Clause -> its verdict and the causes it names, as the lane's lab.yaml declares the guest."""
    folder.mkdir(parents=True)
    (folder / "lab.yaml").write_text(lab_text(card, wanted))
    lab = load_lab(folder / "lab.yaml")
    store = FactsStore(folder / "facts")
    store.add_probe("host", "guest", lambda: value(facts, "recorded", facts.clock.value or 0.0))
    gate = Gate(Facts(store, facts.clock.value or 0.0), lab, ("host",))
    told = {}
    for clause in clauses().values():
        if set(clause.reads) <= {"host"}:
            for target in gate.expected_targets(clause):
                ruling = gate.rule(clause, target)
                failed = isinstance(ruling.judgement, Fail) and ruling.verdict == "fail"
                causes = {p.cause for p in ruling.judgement.problems} if failed else set()
                told[clause.id] = (str(ruling.verdict), *sorted(causes))
    return told
