"""The clauses: which check stands behind an id, what it reads, and what it speaks of.

A check is registered here so that the gate can evaluate the blocking clauses of lower layers from facts, whether or
not their tests were collected.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, cached_property

from labproof.checks.judgement import Fail, Judgement, Unchecked
from labproof.checks.subject import Subject
from labproof.facts.reading import Unjudged

#: The stack, from the bottom up.
TRUNK = ("host", "vm", "talos", "kubernetes", "workload", "transcode")
#: Side branches: each grows out of the kubernetes layer, none of them carries another.
BRANCHES = ("metrics", "apps", "gitops")
#: All layers. A clause belongs to the highest layer it reads, so a branch may also read the trunk above kubernetes.
LAYERS = (*TRUNK, *BRANCHES)
#: Clause id prefix of each layer.
PREFIX_LAYER = {
    "HOST": "host",
    "VM": "vm",
    "TALOS": "talos",
    "K8S": "kubernetes",
    "POD": "workload",
    "CODEC": "transcode",
    "METRIC": "metrics",
    "APP": "apps",
    "GITOPS": "gitops",
}


class Severity(StrEnum):
    """blocking: the GPU cannot work now; degraded: slower, fragile, not after the next boot; hygiene: only listed."""

    BLOCKING = "blocking"
    DEGRADED = "degraded"
    HYGIENE = "hygiene"


BLOCKING, DEGRADED, HYGIENE = Severity.BLOCKING, Severity.DEGRADED, Severity.HYGIENE

Check = Callable[[Subject], Judgement]


@dataclass(frozen=True)
class Clause:
    """One clause: stable id, title, severity, what it reads and speaks of, and the causes its check can name.

    Attributes:
        scope: `chain`, `host`, `node`, `cluster` or `app`: the clause runs once for each of these.
        reads: layers whose facts the check reads; the clause's own layer is the highest.
        wants: names of lab features that must be declared (`Lab.features(target)`), else the clause is deselected.
        needs_right: a declared right (`Lab.rights`) without which the clause is deselected.
        after: clauses of the layers it reads without which this one means nothing: it is `blocked` when one of them
            fails (no IOMMU groups without an IOMMU), so that one cause gives one failure. Blocking clauses of lower
            layers always gate; this list gates whatever its clauses' severity.
        upon: layers of the trunk that the clause does not read, but without which it means nothing (an app that
            encodes, where the card's encoder is broken): their blocking clauses gate a branch's clause as well.
        whole: counts what all chains of the target bring (slots, cards), so that one broken chain below blocks it;
            else only what is broken on every chain does.
        check: pure function of a Subject.
    """

    id: str
    title: str
    severity: Severity
    scope: str
    reads: tuple[str, ...]
    causes: tuple[str, ...]
    check: Check
    wants: tuple[str, ...] = ()
    needs_right: str = ""
    after: tuple[str, ...] = ()
    order: int = field(default=0)
    whole: bool = False
    upon: tuple[str, ...] = ()

    @cached_property
    def below(self) -> frozenset[str]:
        """Layers whose blocking clauses gate this one: the trunk below; for a branch, what carries it."""
        if self.layer in TRUNK:
            return frozenset(TRUNK[: TRUNK.index(self.layer)])
        return frozenset({*TRUNK[: TRUNK.index("kubernetes") + 1], *self.reads, *self.upon} - {self.layer})

    @cached_property
    def layer(self) -> str:
        """The highest layer the clause reads."""
        return max(self.reads, key=LAYERS.index)

    def judge(self, subject: Subject) -> Judgement:
        """Judge one subject; a reading the check could not do without makes it Unchecked.

        Raises:
            ValueError: the check named a cause the clause does not list (a defect of the check, never of a lab).
        """
        try:
            judgement = self.check(subject)
        except Unjudged as unread:
            what = f"{unread.what}: " if unread.what else ""
            return Unchecked(f"{what}{unread.reading.why}", unread.reading, busy=unread.reading.kind == "busy")
        if isinstance(judgement, Fail):
            strays = {p.cause for p in judgement.problems} - set(self.causes)
            if strays or not judgement.problems:
                raise ValueError(f"{self.id}: unlisted causes {sorted(strays)} or no problem in a Fail")
        return judgement


_CLAUSES: dict[str, Clause] = {}


def clause_check(
    id: str,  # noqa: A002 - the field's word
    *,
    title: str,
    severity: Severity,
    scope: str,
    reads: tuple[str, ...],
    causes: tuple[str, ...],
    wants: tuple[str, ...] = (),
    needs_right: str = "",
    after: tuple[str, ...] = (),
    whole: bool = False,
    upon: tuple[str, ...] = (),
) -> Callable[[Check], Check]:
    """Register a check as the one behind clause `id`."""

    def register(check: Check) -> Check:
        known = _CLAUSES.get(id)
        if known is not None and known.check.__qualname__ != check.__qualname__:
            raise ValueError(f"clause {id} is registered twice")
        layer = PREFIX_LAYER[id.split("-", 1)[0]]
        clause = Clause(
            id, title, severity, scope, reads, causes, check, wants, needs_right, after, len(_CLAUSES), whole, upon
        )
        if clause.layer != layer:
            raise ValueError(f"clause {id} belongs to layer {clause.layer}, its prefix says {layer}")
        _CLAUSES[id] = clause
        return check

    return register


@cache
def clauses() -> dict[str, Clause]:
    """All clauses by id, lowest layer first, in the order in which their modules declare them."""
    import labproof.checks as package

    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"labproof.checks.{module}")
    return dict(sorted(_CLAUSES.items(), key=lambda item: (LAYERS.index(item[1].layer), item[1].order)))
