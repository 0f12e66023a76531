"""A forecast: the very checks of the suites, judged on the facts as they will read after the upgrade.

What fails then and does not fail now is what the upgrade breaks. So a clause, a cause or a version added to the suites
is in the forecast too, and a lab's exceptions hold here as they do in a run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from labproof.catalogue.upgrades import Gate as VersionGate
from labproof.catalogue.upgrades import gates
from labproof.checks.gate import Gate, Ruling
from labproof.checks.judgement import Fail, Judgement, Problem, Unchecked
from labproof.checks.registry import LAYERS, Clause, clauses
from labproof.facts.bundle import Facts
from labproof.forecast.after import facts_after
from labproof.forecast.rules import Foretold, foretold
from labproof.forecast.steps import Missing, Plan, declared_after, plan_of
from labproof.forecast.target import Targets
from labproof.inventory.chains import Target
from labproof.inventory.models import Lab

#: Layers in which an upgrade of each component shows, as far as facts can be moved on.
_LAYERS = {
    "pve": ("host", "vm"),
    "kernel": ("host", "vm"),
    "talos": ("talos", "kubernetes"),
    "kubernetes": ("kubernetes",),
    "kubelet": ("kubernetes",),
    "plugin": ("kubernetes",),
    "operator": ("kubernetes",),
}


@dataclass(frozen=True)
class Break:
    """One clause that will fail for one target.

    Attributes:
        record: the verdict as run.json writes it (title, severity, layer, target, problems with evidence and remedy).
        gates: how sure each of its causes is, and whence.
        blocked_by: clause that will fail below it, so that a run will not get to this one; empty: a run shows it.
    """

    clause: str
    target: str
    causes: tuple[str, ...]
    record: dict[str, Any]
    gates: tuple[VersionGate, ...]
    blocked_by: str = ""

    @property
    def severity(self) -> str:
        """blocking | degraded | hygiene."""
        return str(self.record["severity"])


@dataclass(frozen=True)
class Forecast:
    """What an upgrade does to a lab.

    Attributes:
        plan: what moves from where to where.
        breaks: what a run after it will show failing and does not today, lowest layer first.
        behind: what is wrong then too, but stands behind something that blocks it.
        already: what fails today, whatever is upgraded: (clause, target, causes).
        unknown: what could not be told, and why.
        notes: how the targets were understood, and what else to know.
    """

    lab: str
    read_at: float
    plan: Plan
    breaks: tuple[Break, ...]
    behind: tuple[Break, ...]
    already: tuple[tuple[str, str, tuple[str, ...]], ...]
    unknown: tuple[Missing, ...]
    notes: tuple[str, ...]


class GateAfter(Gate):
    """The gate on projected facts, with some judgements foretold."""

    def __init__(self, facts: Facts, lab: Lab, layers: Iterable[str], told: Foretold) -> None:
        super().__init__(facts, lab, layers)
        self._told = told

    def judge(self, clause: Clause, target: Target) -> Judgement:
        """The foretold judgement where there is one, else the check's."""
        return self._told.get((clause.id, target.name)) or super().judge(clause, target)


def forecast(today: Facts, lab: Lab, targets: Targets) -> Forecast:
    """Judge the upgrade.

    Args:
        today: facts of a run.
        lab: the lab as declared in that run.
        targets: versions to upgrade to.

    Raises:
        BadTarget: the lab has nothing of a component, or it runs something newer already.
    """
    plan = plan_of(today, lab, targets)
    after = facts_after(today, lab, plan)
    before = Gate(today, lab, LAYERS)
    then = GateAfter(after, declared_after(lab, plan), LAYERS, foretold(today, after, lab, plan))
    breaks: list[Break] = []
    behind: list[Break] = []
    already: list[tuple[str, str, tuple[str, ...]]] = []
    unknown = {(m.what, m.why): m for m in plan.missing}
    moved = {layer for step in plan.steps if step.before != step.after for layer in _LAYERS[step.component]}
    for clause in clauses().values():
        # a target carries the lab it is of: the same one by name, with today's declarations and with tomorrow's
        today_of = {t.name: t for t in before.expected_targets(clause)}
        for target in then.expected_targets(clause):
            was, will = before.rule(clause, today_of[target.name]), then.rule(clause, target)
            known = _causes(was)
            if was.verdict == "fail":
                already.append((clause.id, target.name, known))
            if will.verdict == "fail":
                new = tuple(p for p in _problems(will) if p.cause not in known)
                if new:
                    breaks.append(_break(clause, target, new))
            elif will.verdict == "blocked" and was.verdict == "pass" and will.blocker is not None:
                hidden = then.judge(clause, target)
                if isinstance(hidden, Fail):
                    behind.append(_break(clause, target, hidden.problems, will.blocker.clause))
            elif will.verdict == "unchecked" and clause.layer in moved and isinstance(will.judgement, Unchecked):
                what = f"{clause.id} on {target.name}"
                unknown.setdefault((what, will.judgement.reason), Missing(what, will.judgement.reason))
    notes = (*targets.notes, *_hints(plan))
    missing = tuple(_gathered(unknown.values()))
    return Forecast(lab.lab, today.now, plan, tuple(breaks), tuple(behind), tuple(already), missing, notes)


def _problems(ruling: Ruling) -> tuple[Problem, ...]:
    return ruling.judgement.problems if isinstance(ruling.judgement, Fail) else ()


def _causes(ruling: Ruling) -> tuple[str, ...]:
    return tuple(dict.fromkeys(p.cause for p in _problems(ruling))) if ruling.verdict == "fail" else ()


def _break(clause: Clause, target: Target, problems: tuple[Problem, ...], blocked_by: str = "") -> Break:
    from labproof.report.verdict import record_of

    causes = tuple(dict.fromkeys(p.cause for p in problems))
    known = gates()
    record = record_of(clause, target, Ruling("fail", Fail(problems)), "")
    return Break(clause.id, target.name, causes, record, tuple(known[c] for c in causes if c in known), blocked_by)


def _gathered(missing: Iterable[Missing]) -> list[Missing]:
    """One line a reason: a section that was not recorded keeps many clauses from being judged."""
    by_reason: dict[str, list[str]] = {}
    for item in missing:
        by_reason.setdefault(item.why, []).append(item.what)
    return [Missing(what[0] if len(what) == 1 else f"{what[0]} and {len(what) - 1} more", why)
            for why, what in by_reason.items()]  # fmt: skip


def _hints(plan: Plan) -> list[str]:
    """What is no breakage, but belongs to doing it."""
    from labproof.catalogue.versions import parse_tag

    hints = []
    for step in plan.steps:
        if step.component != "talos" or not step.moves:
            continue
        before, after = parse_tag(step.before), parse_tag(step.after)
        if after[1] - before[1] > 1:
            way = ", ".join(f"{after[0]}.{minor}" for minor in range(before[1] + 1, after[1] + 1))
            hints.append(
                f"{step.subject}: only steps to the next minor are tested: go through the last patch of each ({way}), "
                "and forecast each of them"
            )
    return hints
