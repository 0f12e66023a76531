"""Judges a simulated lab in this process: real servers, unmodified clients, no pytest run around it."""

import itertools
from dataclasses import dataclass
from pathlib import Path

from labproof import places
from labproof.checks.gate import Gate, Ruling
from labproof.checks.judgement import Fail
from labproof.checks.registry import LAYERS, clauses
from labproof.facts.bundle import Facts
from labproof.facts.scrub import Scrubber
from labproof.facts.store import FactsStore, now
from labproof.inventory.load import load_lab
from labproof.inventory.secrets import secrets_of
from labproof.plugin.probing import add_probes

_COUNTER = itertools.count()


@dataclass
class Outcome:
    """All verdicts of one judged lab, by clause and target."""

    rulings: dict[tuple[str, str], Ruling]
    facts: Facts
    chains: dict[tuple[str, str], frozenset[str]]

    def of(self, verdict):
        """Clause ids with that verdict."""
        return sorted({clause for (clause, _), r in self.rulings.items() if r.verdict == verdict})

    def unchecked_but_not_busy(self):
        """Clause ids that could not be judged for any other reason than a GPU in use."""
        return sorted({i for (i, _), r in self.rulings.items() if r.verdict == "unchecked" and not r.judgement.busy})

    def causes(self, clause):
        """Causes a clause names, over all its targets."""
        found = set()
        for (ident, _), ruling in self.rulings.items():
            if ident == clause and isinstance(ruling.judgement, Fail):
                found |= {p.cause for p in ruling.judgement.problems}
        return found

    def first_broken(self):
        """Lowest failing blocking clause and its first cause, None when there is none."""
        for (ident, _), ruling in self.rulings.items():
            if ruling.verdict == "fail" and clauses()[ident].severity == "blocking":
                return ident, ruling.judgement.problems[0].cause
        return None

    def describe(self):
        """What did not pass, for a failing assertion."""
        lines = []
        for (ident, target), r in self.rulings.items():
            if r.verdict == "pass":
                continue
            told = ""
            if r.verdict == "unchecked":
                told = r.judgement.reason
            elif r.verdict == "blocked":
                told = f"by {r.blocker.clause}"
            elif isinstance(r.judgement, Fail):
                told = "; ".join(
                    f"{p.cause} {p.subject} {[e.text[:160] for e in p.evidence]}" for p in r.judgement.problems
                )
            lines.append(f"{r.verdict:9} {ident} [{target}] {told}")
        return "\n".join(lines)


def judge(overlay, folder: Path, lab="t4-jellyfin", layers=LAYERS):
    """Judge the lab that `overlay` lays over the shipped one; facts go into a fresh folder below `folder`."""
    declared = load_lab(places.lab_file(lab), overlay["patch"])
    store = FactsStore(folder / f"facts-{next(_COUNTER)}", scrubber=Scrubber(secrets_of(declared)))
    add_probes(store, declared)
    facts = Facts(store, now())
    gate = Gate(facts, declared, layers)
    rulings, chains = {}, {}
    for clause in clauses().values():
        if set(clause.reads) <= set(layers):
            for target in gate.expected_targets(clause):
                rulings[clause.id, target.name] = gate.rule(clause, target)
                chains[clause.id, target.name] = frozenset(chain.id for chain in target.chains)
    return Outcome(rulings, facts, chains)
