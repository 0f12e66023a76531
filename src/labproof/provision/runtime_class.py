"""Step `runtime_class`: the RuntimeClass that GPU pods name exists, where the way of injection wants one."""

from __future__ import annotations

from labproof.inventory.models import Cluster
from labproof.provision import cluster_manifests as manifests
from labproof.provision.bench import Bench
from labproof.provision.cluster_plan import LAYER, Draft, planned
from labproof.provision.gitops import owner_of
from labproof.provision.plan import Refusal, StepPlan

__all__ = ["LAYER", "NAME", "VERIFIED", "clusters", "plan"]

NAME = "runtime_class"
#: What must hold afterwards.
VERIFIED = ("K8S-RTC-001", "K8S-RTC-002")


def clusters(bench: Bench) -> tuple[Cluster, ...]:
    """Declared clusters with a card of a plugin that labproof brings."""
    named = dict.fromkeys(c.cluster.name for c in bench.chains() if c.cluster is not None)
    return tuple(c for c in map(bench.lab.cluster, named) if c.plugin.flavour == "nvidia-device-plugin")


def plan(bench: Bench, cluster: Cluster, pending: bool = False) -> StepPlan:
    """What the cluster lacks. Reads only."""
    return planned(Draft(bench, cluster, NAME, pending, VERIFIED), _fill)


def _fill(draft: Draft) -> None:
    wanted = manifests.runtime_class(draft.cluster)
    live = draft.live(wanted)
    name = wanted["metadata"]["name"]
    if draft.cluster.runtime_class.expected == "absent":
        if live is not None:
            owner = owner_of(live)
            whose = owner.name if owner is not None else "labproof: --undo takes it back"
            text = f"RuntimeClass {name} is there and injection {draft.cluster.injection} wants none; it is of {whose}"
            draft.refusals.append(Refusal("K25", text))
        return
    if live is None:
        draft.want(wanted, "K8S-RTC-001", "GPU pods name it, and the API server refuses them without")
    elif live.get("handler") != wanted["handler"] and draft.problems(VERIFIED) and not draft.pending:
        owner = owner_of(live)
        text = f"RuntimeClass {name} has handler {live.get('handler')}, which cannot be changed: delete it by hand"
        draft.refusals.append(Refusal("K22", f"{text} (it is of {owner.name if owner else 'labproof'})"))
