"""What would be done, step by step: changes, refusals, and which `--allow` is missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from labproof.provision.changes import Change


@dataclass(frozen=True)
class Refusal:
    """Why a step is not taken: the clause or cause that says so, and a line for the owner.

    Attributes:
        values: what the owner commits elsewhere instead, as text of several lines.
    """

    cause: str
    text: str
    values: str | None = None


@dataclass(frozen=True)
class StepPlan:
    """One step for one target. With a refusal nothing of it is applied.

    Attributes:
        step: its name (`vfio`, `hostpci`).
        layer: layer it changes.
        target: declared name of the host or VM.
        notes: what an owner should know beside the changes.
    """

    step: str
    layer: str
    target: str
    changes: tuple[Change, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing is to be done, and nothing is refused."""
        return not self.changes and not self.refusals

    def missing(self, allow: Collection[str]) -> tuple[str, ...]:
        """Scopes the changes need and nobody allowed, in the order of need."""
        return tuple(dict.fromkeys(c.scope for c in self.changes if c.scope not in allow))

    @property
    def seconds(self) -> float:
        """How long it may take at most."""
        return sum(change.seconds for change in self.changes)


@dataclass(frozen=True)
class Plan:
    """All steps of one run, lowest layer first."""

    lab: str
    steps: tuple[StepPlan, ...]
    allow: frozenset[str]

    @property
    def empty(self) -> bool:
        """Whether nothing is to be done."""
        return all(step.empty for step in self.steps)

    def lines(self) -> list[str]:
        """The plan for a person."""
        if self.empty:
            return [f"Plan for {self.lab}: nothing to do."]
        lines = [f"Plan for {self.lab}:"]
        for step in self.steps:
            lines += _step_lines(step, self.allow)
        return [*lines, "", self._total()]

    def _total(self) -> str:
        changes = [c for s in self.steps if not s.refusals for c in s.changes]
        reboots = sorted({c.target for c in changes if c.action == "reboot"})
        restarts = sorted({s.target for s in self.steps for c in s.changes if c.action == "vm-restart"})
        refused = [s for s in self.steps if s.refusals]
        text = f"{len(changes)} changes"
        text += f"; reboots {', '.join(reboots)}" if reboots else "; no reboot"
        text += f"; restarts VM {', '.join(restarts)}" if restarts else ""
        text += f"; at most {sum(c.seconds for c in changes):.0f} s" if changes else ""
        text += f"; {len(refused)} steps refused" if refused else ""
        missing = sorted({scope for s in self.steps if not s.refusals for scope in s.missing(self.allow)})
        if missing:
            text += f"\nMissing: {' '.join(f'--allow {scope}' for scope in missing)}"
        return text

    def as_json(self) -> dict[str, Any]:
        """The plan for a program. File contents are left out; their digests are there."""
        return {"schema": 1, "lab": self.lab, "allowed": sorted(self.allow), "empty": self.empty,
                "steps": [_step_json(step, self.allow) for step in self.steps]}  # fmt: skip


def _step_lines(step: StepPlan, allow: Collection[str]) -> list[str]:
    if step.empty:
        return ["", f"{step.layer}: {step.step} {step.target}: nothing to do"]
    lines = ["", f"{step.layer}: {step.step} {step.target}"]
    for refusal in step.refusals:
        lines.append(f"  ! refused ({refusal.cause}): {refusal.text}")
        lines += [f"      {line}" for line in (refusal.values or "").splitlines()]
    missing = step.missing(allow)
    for number, change in enumerate(step.changes, 1):
        lacks = f"  [missing: --allow {change.scope}]" if change.scope in missing else f"  [{change.scope}]"
        takes = f" (at most {change.seconds:.0f} s)" if change.seconds else ""
        lines.append(f"  {number}. {change.title}{takes}{lacks}")
        lines += [f"       {line}" for line in change.difference()]
        lines.append(f"       because {change.clause}: {change.reason}")
    lines += [f"  note: {note}" for note in step.notes]
    return lines


def _step_json(step: StepPlan, allow: Collection[str]) -> Mapping[str, Any]:
    return {
        "step": step.step, "layer": step.layer, "target": step.target, "seconds": step.seconds,
        "missing_allow": list(step.missing(allow)), "notes": list(step.notes),
        "refused": [
            {"cause": r.cause, "text": r.text, **({"values": r.values} if r.values else {})} for r in step.refusals
        ],
        "changes": [
            {"action": c.action, "title": c.title, "target": c.target, "scope": c.scope, "clause": c.clause,
             "reason": c.reason, "seconds": c.seconds, "difference": list(c.difference())}
            for c in step.changes
        ],
    }  # fmt: skip
