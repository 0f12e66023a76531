"""Step `device_plugin`: namespace, NFD, device plugin and GFD; declared labels and taints on the GPU nodes."""

from __future__ import annotations

from typing import Any

from labproof.inventory.models import Cluster
from labproof.provision import cluster_manifests as manifests
from labproof.provision import runtime_class
from labproof.provision.bench import Bench
from labproof.provision.cluster_plan import LAYER, Draft, planned
from labproof.provision.gitops import owner_of
from labproof.provision.objects import Obj, is_ours, path_of
from labproof.provision.plan import Refusal, StepPlan

__all__ = ["LAYER", "NAME", "VERIFIED", "clusters", "plan"]

NAME = "device_plugin"
#: What must hold afterwards.
VERIFIED = (
    "K8S-PLUGIN-001",
    "K8S-PLUGIN-002",
    "K8S-ADMIT-001",
    "K8S-ALLOC-001",
    "K8S-LABEL-001",
    "K8S-LABEL-003",
    "K8S-NFD-001",
    "K8S-TAINT-001",
    "K8S-TAINT-002",
)
#: Causes that other values of the plugin's chart cure; what else is red is no matter of this step.
CURABLE = frozenset({"K13", "K14", "K16", "K19", "K20", "K23", "K33", "K58", "K59", "K71", "K76", "K90"})
_GPU_PRESENT = "nvidia.com/gpu.present"
clusters = runtime_class.clusters


def plan(bench: Bench, cluster: Cluster, pending: bool = False) -> StepPlan:
    """What the cluster lacks. Reads only."""
    return planned(Draft(bench, cluster, NAME, pending, VERIFIED), _fill)


def _fill(draft: Draft) -> None:
    if draft.cluster.injection == "nri":
        if draft.problems(VERIFIED) and not draft.pending:
            text = "injection nri comes with the GPU operator: bring that by its chart"
            draft.refusals.append(Refusal("K90", text))
        return
    tolerated = tolerations(draft)
    theirs = foreign(draft, "plugin")
    if theirs is not None:
        refuse_foreign(draft, theirs, VERIFIED, CURABLE, manifests.helm_values(draft.cluster, tolerated))
        _dress_nodes(draft, labelled=True)
        return
    for obj in manifests.objects("namespace", draft.cluster):
        draft.want(obj, "K8S-ADMIT-001", "its pods mount host paths, which Pod Security `baseline` refuses")
    labelled = _bring_discovery(draft, tolerated)
    _dress_nodes(draft, labelled)
    for obj in manifests.device_plugin(draft.cluster, tolerated):
        draft.want(obj, "K8S-PLUGIN-001", "no device plugin offers the card")
    _dress_taints(draft)
    if draft.changes or draft.problems(VERIFIED):
        wait(draft, VERIFIED, what="the device plugin to offer the cards")


def tolerations(draft: Draft) -> list[dict[str, str]]:
    """What the stack must tolerate on the GPU nodes: taints that are there, and declared ones (facts 1.4)."""
    facts = draft.facts
    rows: list[tuple[str, str, str]] = []
    for node in (facts.nodes.value or ()) if facts is not None else ():
        if node.name in draft.nodes:
            rows += [(t.key, t.value, t.effect) for t in node.taints if not t.key.startswith("node.kubernetes.io/")]
    rows += [(t.key, t.value, t.effect) for t in draft.cluster.scheduling.taints]
    known = ("CriticalAddonsOnly", "nvidia.com/gpu")
    return [
        {"effect": effect, "key": key, "operator": "Exists"}
        for key, effect in dict.fromkeys((key, effect) for key, _, effect in rows)
        if not (key in known and effect == "NoSchedule")
    ]


def foreign(draft: Draft, role: str) -> Obj | None:
    """A DaemonSet of that role that labproof did not make, None when there is none."""
    facts = draft.facts
    for daemonset in (facts.daemonsets.value or ()) if facts is not None else ():
        if daemonset.role != role:
            continue
        named = {
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"namespace": daemonset.namespace, "name": daemonset.name},
        }  # fmt: skip
        live = draft.live(named)
        if live is not None and not is_ours(live):
            return live
    return None


def refuse_foreign(draft: Draft, plugin: Obj, idents: tuple[str, ...], curable: frozenset[str], values: str) -> None:
    """A plugin of somebody else is left to them: what is red and curable there is refused with values to commit."""
    if draft.pending:
        return
    for problem in draft.problems(idents):
        if problem.cause in curable:
            said = problem.evidence[0].text if problem.evidence else problem.subject
            draft.refuse_owner(plugin, owner_of(plugin), f"{problem.cause}: {said}. Commit these values there", values)
            return


def _bring_discovery(draft: Draft, tolerated: list[dict[str, str]]) -> bool:
    """NFD, where it is declared and nobody else's is there; whether the GPU nodes get PCI labels."""
    declared = draft.cluster.discovery.nfd != "none" or draft.cluster.discovery.gfd
    if not declared:
        return False
    objects = manifests.feature_discovery(draft.cluster, tolerated)
    facts = draft.facts
    mine = {o["metadata"]["name"] for o in objects if o["kind"] == "DaemonSet"}
    home = objects[-1]["metadata"]["namespace"]
    workers = [d for d in (facts.daemonsets.value or ()) if d.role == "nfd-worker"] if facts is not None else []
    others = [d for d in workers if d.namespace != home or d.name not in mine]
    if others:
        draft.notes.append(f"NFD of {others[0].full_name} is used: two would fight over the labels")
        return True
    before = len(draft.changes)
    for obj in objects:
        draft.want(obj, "K8S-LABEL-001", "the plugin goes to nodes that NFD labels")
    if len(draft.changes) > before and draft.live(objects[-1]) is None:
        _announce_labels(draft, home, before)
    return True


def _announce_labels(draft: Draft, home: str, place: int) -> None:
    """First of NFD's changes, so that undo takes its labels away last, when nobody is left to set them again."""
    draft.call(
        "discovery", "labels of NFD and GFD on the nodes", "K8S-LABEL-001", "NFD leaves them behind when it goes",
        detail={"namespace": home},
    )  # fmt: skip
    draft.changes.insert(place, draft.changes.pop())


def _dress_nodes(draft: Draft, labelled: bool) -> None:
    """Declared labels; and where no NFD labels the nodes, the one by which the plugin finds them (facts 1.4)."""
    wanted = dict(draft.cluster.scheduling.labels)
    if not labelled:
        wanted[_GPU_PRESENT] = "true"
    if not wanted:
        return
    for name in draft.nodes:
        node: Obj = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": dict(wanted)}}
        live = draft.live(node)
        if live is None:
            continue  # K8S-NODE-001 speaks of it
        held = live["metadata"].get("labels") or {}
        if any(held.get(key) != value for key, value in wanted.items()):
            draft.want(node, "K8S-LABEL-003", f"{name} lacks them")


def _dress_taints(draft: Draft) -> None:
    """Declared taints, by the API: a kubelet may not change its own node's (facts 8.4, V19)."""
    wanted = [
        {"key": t.key, **({"value": t.value} if t.value else {}), "effect": t.effect}
        for t in draft.cluster.scheduling.taints
    ]
    for name in draft.nodes if wanted else ():
        named = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        live = draft.live(named)
        rows: list[dict[str, Any]] = list((live or {}).get("spec", {}).get("taints") or [])
        held = {(row["key"], row["effect"]): row for row in rows}
        missing = [t for t in wanted if held.get((t["key"], t["effect"]), {}).get("value", "") != t.get("value", "")
                   or (t["key"], t["effect"]) not in held]  # fmt: skip
        if live is None or not missing:
            continue
        replaced = [held[t["key"], t["effect"]] for t in missing if (t["key"], t["effect"]) in held]
        draft.call(
            "taints", f"taint node {name}", "K8S-TAINT-002", f"{name} lacks them",
            before={f"{t['key']}:{t['effect']}": t.get("value", "") for t in replaced},
            after={f"{t['key']}:{t['effect']}": t.get("value", "") for t in missing},
            detail={"path": path_of(named), "taints": missing, "replaced": replaced},
        )  # fmt: skip


def wait(draft: Draft, idents: tuple[str, ...], *, what: str, **more: Any) -> None:
    """The last change of a step: nothing is done, and it is done when everything works."""
    home = draft.cluster.plugin.namespace or manifests.NAMESPACE
    names = [manifests.PLUGIN, *([manifests.GFD] if draft.cluster.discovery.gfd else [])]
    labels = {"nvidia.com/gpu.count": None} if draft.cluster.discovery.gfd else {}
    last = draft.cluster.sharing.strategy == "none" or more.get("mark") is not None
    detail = {
        "what": what, "namespace": home, "daemonsets": names, "nodes": dict.fromkeys(draft.nodes),
        "resource": "nvidia.com/gpu", "labels": labels, "clauses": list(idents),
        "workloads": [w.name for w in draft.cluster.workloads if w.state == "always"] if last else [],
    }  # fmt: skip
    draft.call(
        "effective", f"wait for {what}", idents[0], "pods that run prove nothing: what the nodes offer counts",
        seconds=draft.bench.limits.pods_s, detail={**detail, **more},
    )  # fmt: skip
