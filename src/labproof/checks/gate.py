"""The gate: which broken clause below makes this one pointless.

`blocked` is computed by evaluating the lower blocking checks on facts, never from other tests' outcomes, so order,
selection by keyword and parallel workers change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from labproof.checks.judgement import Fail, Judgement, Pass, Problem, Unchecked
from labproof.checks.registry import BLOCKING, Clause, clauses
from labproof.checks.subject import Subject
from labproof.facts.bundle import Facts
from labproof.inventory.chains import Chain, Target, features_of, targets_of
from labproof.inventory.models import Acceptance, Lab


@dataclass(frozen=True)
class Blocker:
    """The failing blocking clause that blocks another."""

    clause: str
    target: str
    cause: str


@dataclass(frozen=True)
class Ruling:
    """A clause's verdict for one target, with what it rests on.

    Attributes:
        verdict: pass | fail | blocked | unchecked | excepted.
        judgement: what the check returned; None when blocked.
        blocker: what blocks it, when blocked.
        accepted_because: reason (and date) of the exception in lab.yaml, when excepted.
    """

    verdict: str
    judgement: Judgement | None = None
    blocker: Blocker | None = None
    accepted_because: str = ""


class Gate:
    """Judges clauses of one run and remembers each judgement.

    Args:
        facts: facts of the run.
        lab: the declared lab.
        layers: layers selected in this run; only these gate (under `-m` nothing else may be contacted).
    """

    def __init__(self, facts: Facts, lab: Lab, layers: Iterable[str]) -> None:
        self.facts = facts
        self.lab = lab
        self.layers = frozenset(layers)
        self._judged: dict[tuple[str, str], Judgement] = {}
        self._targets: dict[str, list[Target]] = {}
        self._blockers: dict[tuple[str, str, str], Blocker | None] = {}

    def judge(self, clause: Clause, target: Target) -> Judgement:
        """The clause's judgement for one target, evaluated once."""
        key = (clause.id, target.name)
        if key not in self._judged:
            self._judged[key] = clause.judge(Subject(self.facts, self.lab, target))
        return self._judged[key]

    def rule(self, clause: Clause, target: Target) -> Ruling:
        """The verdict of one clause for one target."""
        blocker = self.blocker(clause, target)
        if blocker is not None:
            return Ruling("blocked", blocker=blocker)
        judgement = self.judge(clause, target)
        if isinstance(judgement, Pass):
            return Ruling("pass", judgement)
        if isinstance(judgement, Unchecked):
            return Ruling("unchecked", judgement)
        if self.failing(clause, target) is not None:
            return Ruling("fail", judgement)
        accepted = accepted_by(self.lab, clause, target, judgement.problems[0], self.facts.now)
        assert accepted is not None
        until = f" (until {accepted.until})" if accepted.until else ""
        return Ruling("excepted", judgement, accepted_because=f"{accepted.reason}{until}")

    def blocker(self, clause: Clause, target: Target) -> Blocker | None:
        """What blocks the clause on this target: something on every chain that passes through it, or None.

        A clause that counts over all chains (`whole`) is blocked by one broken chain: the count cannot be right then.
        """
        first: Blocker | None = None
        for chain in target.chains:
            found = self._blocker_on(clause, chain, target)
            if found is None and not clause.whole:
                return None
            first = first or found
        return first

    def _blocker_on(self, clause: Clause, chain: Chain, spoken_of: Target) -> Blocker | None:
        key = (clause.id, chain.id, spoken_of.name if spoken_of.scope == "app" else "")
        if key not in self._blockers:
            self._blockers[key] = self._find_blocker(clause, chain, spoken_of)
        return self._blockers[key]

    def _find_blocker(self, clause: Clause, chain: Chain, spoken_of: Target) -> Blocker | None:
        for lower in clauses().values():
            below = lower.layer in clause.below and lower.severity is BLOCKING
            if not (below or lower.id in clause.after) or lower.layer not in self.layers:
                continue
            if below and lower.layer not in chain.layers:
                continue
            for target in self.expected_targets(lower):
                if chain.id not in {c.id for c in target.chains}:
                    continue
                if target.scope == spoken_of.scope == "app" and target.name != spoken_of.name:
                    continue  # another app on the same card
                broken = self.failing(lower, target)
                # one of `after` that is blocked itself is not judged: it blocks only by what blocks it on this chain
                if broken is not None and (below or self.blocker(lower, target) is None):
                    return Blocker(lower.id, target.name, broken.cause)
                if lower.id in clause.after:  # what blocks the one before, blocks this one too
                    deeper = self._blocker_on(lower, chain, target)
                    if deeper is not None:
                        return deeper
        return None

    def failing(self, clause: Clause, target: Target) -> Problem | None:
        """The first problem that lab.yaml does not accept, when the clause fails."""
        judgement = self.judge(clause, target)
        if not isinstance(judgement, Fail):
            return None
        left = [p for p in judgement.problems if accepted_by(self.lab, clause, target, p, self.facts.now) is None]
        return left[0] if left else None

    def expected_targets(self, clause: Clause) -> list[Target]:
        """Targets for which the lab declares what the clause needs."""
        if clause.id not in self._targets:
            self._targets[clause.id] = expected_targets(self.lab, clause)
        return self._targets[clause.id]


def expected_targets(lab: Lab, clause: Clause) -> list[Target]:
    """Targets whose chains have all layers the clause reads, all features it wants and the right it needs."""
    found = []
    for target in targets_of(lab, clause.scope, clause.layer):
        chains = tuple(c for c in target.chains if all(layer in c.layers for layer in clause.reads))
        if not chains:
            continue
        kept = Target(target.scope, target.name, chains)
        if not set(clause.wants) <= features_of(lab, kept):
            continue
        if clause.needs_right and clause.needs_right not in (lab.rights.host, lab.rights.talos):
            continue
        found.append(kept)
    return found


def accepted_by(lab: Lab, clause: Clause, target: Target, problem: Problem, now: float) -> Acceptance | None:
    """The exception of lab.yaml that accepts this problem today, if any."""
    today = datetime.fromtimestamp(now, UTC).date()
    names = {target.name, *(c.id for c in target.chains)}
    for acceptance in lab.exceptions:
        if acceptance.clause != clause.id:
            continue
        if acceptance.cause is not None and acceptance.cause != problem.cause:
            continue
        if acceptance.chain is not None and acceptance.chain not in names:
            continue
        if acceptance.subject is not None and acceptance.subject != problem.subject:
            continue
        if acceptance.until is not None and acceptance.until < today:
            continue
        return acceptance
    return None
