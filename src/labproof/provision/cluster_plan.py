"""Planning in a cluster: each object as it is, as the server says it would be, and who else wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from labproof.checks.judgement import Problem
from labproof.facts.kubernetes import ClusterFacts
from labproof.inventory.chains import Chain
from labproof.inventory.models import Cluster
from labproof.provision import scopes
from labproof.provision.bench import Bench
from labproof.provision.changes import CallChange, Change
from labproof.provision.cluster_hands import found_at
from labproof.provision.gitops import Owner, owner_of
from labproof.provision.objects import MANAGER, Obj, ObjectChange, content, nothing_of, path_of, title_of
from labproof.provision.plan import Refusal, StepPlan

if TYPE_CHECKING:
    from labproof.clients.errors import TransportFailure

LAYER = "kubernetes"


@dataclass
class Draft:
    """A step's plan for one cluster as it comes about.

    Attributes:
        pending: a step below has changes of its own first, so what is red now may be red because of them.
        verified: clauses that must hold afterwards.
        rights: what the account may not do, empty when nothing was refused to it.
    """

    bench: Bench
    cluster: Cluster
    step: str
    pending: bool
    verified: tuple[str, ...]
    layer: str = LAYER
    changes: list[Change] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rights: str = ""

    @property
    def manager(self) -> str:
        """The step's field manager."""
        return MANAGER + self.step.replace("_", "-")

    @property
    def chains(self) -> tuple[Chain, ...]:
        """GPUs of the cluster."""
        return self.bench.chains(cluster=self.cluster.name)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Declared GPU nodes."""
        return tuple(dict.fromkeys(chain.node.name for chain in self.chains if chain.node is not None))

    @property
    def facts(self) -> ClusterFacts | None:
        """What was read of the cluster, None when nothing could be."""
        return self.bench.facts.cluster(self.cluster.name).value

    def plan(self) -> StepPlan:
        """The finished plan. Who may only look needs no rights where there is nothing to do."""
        if self.rights and not self.problems(self.verified):
            return StepPlan(self.step, self.layer, self.cluster.name)
        if self.rights:
            self.refusals.append(Refusal("rights", self.rights))
        if self.changes and self.pending:
            self.notes.append("the steps below come first; this one is planned again after them")
        return StepPlan(
            self.step, self.layer, self.cluster.name, tuple(self.changes), tuple(self.refusals), tuple(self.notes)
        )

    def problems(self, idents: Sequence[str]) -> list[Problem]:
        """First problems of these clauses that lab.yaml does not accept."""
        found: dict[tuple[str, str], Problem] = {}
        for ident in idents:
            for chain in self.chains:
                problem = self.bench.fault(ident, chain)
                if problem is not None:
                    found.setdefault((ident, problem.subject), problem)
        return list(found.values())

    def live(self, obj: Mapping[str, Any]) -> Obj | None:
        """The object as the cluster has it."""
        return found_at(self.bench.kube(self.cluster), path_of(obj))

    def want(self, obj: Obj, clause: str, reason: str, *, part: bool = False) -> None:
        """Have this object as it is here: a change, a refusal, or nothing where it already is.

        Args:
            part: only these fields of an object that a step before makes.
        """
        from labproof.clients.errors import Kind, TransportFailure

        live, after = self.live(obj), None
        if live is None and part:
            if not self.pending:
                self.refusals.append(Refusal("K90", f"{title_of(obj)} is not there: the step before makes it"))
            live = nothing_of(obj)
        elif live is not None:
            try:
                session = self.bench.kube(self.cluster)
                after = session.apply(path_of(obj), obj, field_manager=self.manager, dry_run=True)
            except TransportFailure as failure:
                if failure.kind is Kind.FORBIDDEN:
                    self.lack(failure)
                    return
                if failure.status != 409:
                    raise
                self.refuse_owner(obj, owner_of(live), failure.answer or failure.text)
                return
            if content(after) == content(live):
                return
            owner = owner_of(live) if obj["kind"] != "Node" else None
            if owner is not None and owner.where:
                self.refuse_owner(obj, owner, "it would set it back")
                return
        self.changes.append(
            ObjectChange(
                target=self.cluster.name, scope=scopes.CLUSTER, reason=reason, clause=clause, manager=self.manager,
                configuration=obj, before=live, after=after,
            )
        )  # fmt: skip

    def call(self, name: str, call: str, clause: str, reason: str, **rest: Any) -> None:
        """A change that is no object: taints, labels by NFD, a wait."""
        self.changes.append(
            CallChange(
                target=self.cluster.name, scope=scopes.CLUSTER, reason=reason, clause=clause, name=name, call=call,
                **rest,
            )
        )  # fmt: skip

    def refuse_owner(self, obj: Mapping[str, Any], owner: Owner | None, why: str, values: str = "") -> None:
        """Somebody else's object is not touched: say whose it is, and what to commit there instead."""
        whose = owner.name if owner is not None else "somebody else"
        text = f"{title_of(obj)} belongs to {whose}: {why}"
        self.refusals.append(Refusal("conflict", text, values or None))

    def lack(self, failure: TransportFailure) -> None:
        """Something that the step needs is forbidden to the account."""
        self.rights = f"{failure.answer or failure.text} (manifests/rbac-provision.yaml has the rights of --provision)"


def planned(draft: Draft, make: Any) -> StepPlan:
    """Fill a draft; what cannot be read is a refusal of the step, never a broken run."""
    from labproof.clients.errors import Kind, TransportFailure
    from labproof.facts.reading import Unjudged

    reading = draft.bench.facts.cluster(draft.cluster.name)
    if reading.value is None:
        if not draft.pending:
            draft.refusals.append(Refusal(reading.kind or "unread", f"{reading.source}: {reading.why}"))
        else:
            draft.notes.append(f"planned after the steps below: {reading.why}")
        return draft.plan()
    try:
        make(draft)
    except TransportFailure as failure:
        if failure.kind is Kind.FORBIDDEN:
            draft.lack(failure)
        else:
            draft.refusals.append(Refusal("unread", str(failure)))
    except Unjudged as unread:
        draft.refusals.append(Refusal("unread", str(unread)))
    return draft.plan()
