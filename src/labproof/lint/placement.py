"""Where a pod may go: selectors and tolerations, against the nodes that the files declare."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from labproof.lint.pods import Pod
from labproof.lint.scope import DeclaredNode, Scope
from labproof.lint.sources import Source
from labproof.lint.tree import Node

_Wanted = Sequence[tuple[str, tuple[str, ...], Node]]
_EXTENSIONS = "extensions.talos.dev/"


def judge_placement(pod: Pod, scope: Scope) -> None:
    """Selectors and tolerations of a pod that wants a GPU."""
    source = pod.document.source
    wanted = list(selected(pod.node_selector, pod.affinity))
    judge_selection(source, wanted, scope)
    if not pod.requests() and not any("gpu" in key for key, _, _ in wanted):
        return
    plain: _Wanted = [(k, v, n) for k, v, n in wanted if len(v) == 1 and n.text is not None]
    _against_nodes(pod, plain, scope)


def judge_selection(source: Source, wanted: _Wanted, scope: Scope) -> None:
    """Selected labels that change by themselves."""
    for key, values, node in wanted:
        if key.startswith(_EXTENSIONS) and values and node.text is not None:
            text = f"`{key}` carries a version, here {values[0]}: after the next upgrade no node matches"
            scope.find(source, node.line, "K76", text)
        if key == "nvidia.com/gpu.product" and values and node.text is not None:
            ours = [s for s in scope.sharing if s.resource == "nvidia.com/gpu"]
            shared = [s for s in ours if not s.renamed]
            if shared and len(shared) == len(ours) and not any(value.endswith("-SHARED") for value in values):
                text = f"with sharing ({shared[0].path}:{shared[0].line}) the label reads {values[0]}-SHARED"
                scope.find(source, node.line, "K09", text)


def selected(selector: Node | None, affinity: Node | None) -> Iterator[tuple[str, tuple[str, ...], Node]]:
    """Required labels: key, accepted values, and where it stands."""
    for key, value, _ in selector.items() if selector is not None else ():
        yield key, (value.scalar,) if value.kind == "scalar" else (), value
    terms = None
    if affinity is not None:
        required = affinity.get("nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
        terms = required.get("nodeSelectorTerms") if required is not None else None
    for term in terms.members if terms is not None else []:
        for expression in (term.get("matchExpressions") or term).members:
            key_node, operator, values = (expression.get(k) for k in ("key", "operator", "values"))
            if key_node is None or operator is None or key_node.text is None:
                continue
            if operator.scalar == "In" and values is not None:
                yield key_node.text, tuple(v.scalar for v in values.members), key_node


def _against_nodes(pod: Pod, wanted: _Wanted, scope: Scope) -> None:
    known = [node for node in scope.nodes if node.complete or node.labels]
    if not known or not wanted or not all(node.complete for node in scope.nodes):
        return
    source = pod.document.source
    for key, values, node in wanted:
        if key == "kubernetes.io/hostname":
            # another cluster's nodes may stand elsewhere: only what looks like a slip is one
            names = {n.name for n in scope.nodes}
            near = difflib.get_close_matches(values[0], names, 1, 0.75)
            if values[0] not in names and near:
                scope.find(
                    source, node.line, "K97", f"no declared node is called `{values[0]}`: {', '.join(sorted(names))}"
                )
            continue
        having = [n for n in known if key in n.labels]
        if having and not any(n.labels[key] == values[0] for n in having):
            there = ", ".join(sorted({n.labels[key] for n in having}))
            scope.find(source, node.line, "K97", f"no declared node carries {key}={values[0]}; declared: {there}")
    _tolerated(pod, wanted, known, scope)


def _tolerated(pod: Pod, wanted: _Wanted, known: list[DeclaredNode], scope: Scope) -> None:
    def fits(node: DeclaredNode) -> bool:
        return all(
            values[0] == (node.name if key == "kubernetes.io/hostname" else node.labels.get(key))
            for key, values, _ in wanted
            if key == "kubernetes.io/hostname" or key in {k for n in known for k in n.labels}
        )

    judged = {k for n in known for k in n.labels} | {"kubernetes.io/hostname"}
    if not any(key in judged for key, _, _ in wanted):
        return
    candidates = [node for node in known if fits(node)]
    if not candidates or (pod.tolerations is not None and pod.tolerations.open):
        return
    missing = [_untolerated(node, pod.tolerations) for node in candidates]
    if all(missing):
        key, value, effect = missing[0][0]
        line = pod.tolerations.line if pod.tolerations is not None else wanted[0][2].line
        cause = "K16" if pod.owner == "DaemonSet" else "K17"
        text = f"the selected node `{candidates[0].name}` has the taint {key}={value}:{effect}, which is not tolerated"
        scope.find(pod.document.source, line, cause, text)


def _untolerated(node: DeclaredNode, tolerations: Node | None) -> list[tuple[str, str, str]]:
    held = [{k: v.scalar for k, v, _ in t.items()} for t in (tolerations.members if tolerations is not None else [])]

    def tolerated(key: str, value: str, effect: str) -> bool:
        for one in held:
            if one.get("effect", "") not in ("", effect) or (one.get("key") and one.get("key") != key):
                continue
            if one.get("operator", "Equal") == "Exists" or (one.get("key") and one.get("value", "") == value):
                return True
        return False

    return [t for t in node.taints if t[2] in ("NoSchedule", "NoExecute") and not tolerated(*t)]
