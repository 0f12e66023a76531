"""K8S-SKEW: API server, kubelet and Talos are of releases that go together."""

from __future__ import annotations

import re

from labproof.catalogue.upgrades import kubelet_skew, numbers
from labproof.catalogue.versions import supported_kubernetes
from labproof.checks.judgement import Evidence, Judgement, Problem, verdict_of
from labproof.checks.kubernetes_view import NodeView
from labproof.checks.registry import DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.facts.reading import need


@clause_check(
    "K8S-SKEW-001",
    title="API server, kubelet and Talos go together",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K130", "K131"),
    after=("K8S-NODE-001",),
)
def releases_go_together(subject: Subject) -> Judgement:
    """A kubelet at most three minors older and never newer; a Kubernetes that this Talos release supports."""
    view = NodeView(subject)
    version = need(view.facts.version, "version of the API server")
    server, kubelet = numbers(version), numbers(view.node.kubelet)
    seen = [Evidence(view.facts.version.source, f"API server {version}")]
    seen.append(Evidence(view.facts.nodes.source, f"{view.name}: kubelet {view.node.kubelet}, {view.node.os_image}"))
    problems = []
    if len(server) > 1 and len(kubelet) > 1 and not 0 <= server[1] - kubelet[1] <= kubelet_skew():
        problems.append(Problem("K130", view.name, tuple(seen), view.values()))
    talos = re.match(r"Talos \((v\d+\.\d+\.\d+[^)]*)\)", view.node.os_image)
    known = supported_kubernetes(talos[1]) if talos else None
    if talos and known and len(kubelet) > 1 and not known[0] <= kubelet[1] <= known[1]:
        range_ = Evidence("catalogue", f"Talos {talos[1]} supports Kubernetes 1.{known[0]} to 1.{known[1]}")
        problems.append(Problem("K131", view.name, (*seen, range_), view.values()))
    return verdict_of(problems, seen)
