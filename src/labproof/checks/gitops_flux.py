"""GITOPS: the Flux objects that bring the GPU stack are reconciled, and what runs is what they say.

Healthy is: generation observed, Ready, not stalled, not suspended: a suspended object shows an old Ready (facts
kubernetes-gpu 9).
"""

from __future__ import annotations

import re

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.kubernetes_view import NodeView
from labproof.checks.registry import DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.facts.gitops import FluxObject, GitOpsFacts, Release
from labproof.facts.plugin_config import parse_plugin_config
from labproof.facts.plugin_log import EffectiveConfig, effective_config
from labproof.facts.reading import State, need

#: A source's words for "there is nothing at that place", whatever the protocol.
_NOT_THERE = re.compile(r"404|not found|NAME_UNKNOWN|MANIFEST_UNKNOWN|unknown manifest|name unknown", re.IGNORECASE)
_EXACT = re.compile(r"^v?\d+\.\d+\.\d+[\w.+-]*$")


def _values(subject: Subject, namespace: str = "") -> tuple[tuple[str, str], ...]:
    chain = subject.chain
    found = {
        "namespace": namespace or "flux-system",
        "pod": "",
        "node": chain.node.name if chain.node is not None else "",
        "resource": subject.cluster.plugin.resource_name,
        "host": chain.host.name if chain.host is not None else "",
        "address": chain.gpu.address or "",
        "device": chain.gpu.device,
    }
    return tuple(sorted(found.items()))


def _said(thing: FluxObject) -> Evidence:
    parts = [f"{c.type}={c.status} {c.reason}: {c.message}".strip() for c in thing.conditions if c.status != ""]
    state = f"generation {thing.generation}, observed {thing.observed}{', suspended' if thing.suspended else ''}"
    return Evidence(thing.full_name, f"{state}; {'; '.join(parts) or 'no conditions'}"[:600])


def _problem(subject: Subject, cause: str, thing: FluxObject, *more: Evidence) -> Problem:
    return Problem(cause, thing.full_name, (_said(thing), *more), _values(subject, thing.namespace))


def _facts(subject: Subject) -> GitOpsFacts:
    return subject.gitops_facts


@clause_check(
    "GITOPS-THERE-001",
    title="The declared Flux objects are there",
    severity=DEGRADED,
    scope="cluster",
    reads=("gitops",),
    causes=("K110",),
)
def objects_are_there(subject: Subject) -> Judgement:
    """What lab.yaml names is in the cluster, and Flux's resource types are served."""
    facts = _facts(subject)
    unserved = [r for r in (facts.releases, facts.kustomizations) if r.state is State.ABSENT]
    if facts.releases.state is not State.ABSENT:
        need(facts.releases, "HelmReleases")
    if facts.kustomizations.state is not State.ABSENT:
        need(facts.kustomizations, "Kustomizations")
    told = [Evidence(r.source, r.why) for r in unserved]
    told += [Evidence(facts.releases.source, f"{name} is not there") for name in facts.missing]
    if told:
        names = ", ".join(facts.missing) or "Flux"
        return Fail((Problem("K110", names, tuple(told), _values(subject)),))
    count = len(facts.releases.value or ()) + len(facts.kustomizations.value or ())
    return Pass((Evidence(facts.releases.source, f"{count} of {count} declared objects"),))


@clause_check(
    "GITOPS-SOURCE-001",
    title="The sources can be fetched",
    severity=DEGRADED,
    scope="cluster",
    reads=("gitops",),
    causes=("K32", "K65", "K111"),
    after=("GITOPS-THERE-001",),
)
def sources_are_fetched(subject: Subject) -> Judgement:
    """HelmRepository (an OCI one has no Ready), OCIRepository, GitRepository, Bucket that the objects refer to."""
    facts = _facts(subject)
    problems, seen = [], []
    for source in need(facts.sources, "sources"):
        seen.append(_said(source))
        ready = source.condition("Ready")
        if source.suspended:
            problems.append(_problem(subject, "K65", source))
        elif ready is not None and ready.status == "False":
            problems.append(_problem(subject, "K32" if _NOT_THERE.search(ready.message) else "K111", source))
    return verdict_of(problems, seen)


@clause_check(
    "GITOPS-APPLY-001",
    title="The Kustomizations are applied",
    severity=DEGRADED,
    scope="cluster",
    reads=("gitops",),
    causes=("K65", "K72", "K112"),
    after=("GITOPS-THERE-001", "GITOPS-SOURCE-001"),
)
def kustomizations_are_applied(subject: Subject) -> Judgement:
    """Ready for this generation; a manifest in an API version that is gone stops everything behind it."""
    facts = _facts(subject)
    problems, seen = [], []
    for thing in need(facts.kustomizations, "Kustomizations"):
        seen.append(_said(thing))
        ready = thing.condition("Ready")
        if thing.suspended:
            problems.append(_problem(subject, "K65", thing))
        elif ready is not None and ready.status == "False":
            cause = "K72" if "no matches for kind" in ready.message else "K112"
            problems.append(_problem(subject, cause, thing))
        elif not thing.ready or thing.observed != thing.generation:
            problems.append(_problem(subject, "K65", thing))
    return verdict_of(problems, seen)


@clause_check(
    "GITOPS-RELEASE-001",
    title="The releases are reconciled, and the pinned version runs",
    severity=DEGRADED,
    scope="cluster",
    reads=("gitops",),
    causes=("K07", "K65", "K66", "K113"),
    after=("GITOPS-THERE-001", "GITOPS-SOURCE-001"),
)
def releases_are_reconciled(subject: Subject) -> Judgement:
    """After a rollback Ready mirrors Remediated and the pods are healthy on the old chart: Released keeps the error."""
    problems, seen = [], []
    for release in need(_facts(subject).releases, "HelmReleases"):
        thing = release.object
        runs = Evidence(thing.full_name, f"chart {release.chart}: pinned {release.version or 'by its source'}, "
                        f"history {release.deployed or 'empty'} {release.deployed_status}")  # fmt: skip
        seen.append(runs)
        cause = _wrong_release(release)
        if cause:
            problems.append(_problem(subject, cause, thing, runs))
    return verdict_of(problems, seen)


def _wrong_release(release: Release) -> str:
    thing = release.object
    ready, stalled = thing.condition("Ready"), thing.condition("Stalled")
    if thing.suspended:
        return "K65"
    rolled_back = _pinned(release) and release.deployed.lstrip("v") != release.version.lstrip("v")
    if ready is not None and ready.status == "False" and "A default config must be provided" in ready.message:
        return "K07"
    if ready is not None and ready.status == "False":
        return "K66" if ready.reason.startswith("Rollback") or rolled_back else "K113"
    if stalled is not None and stalled.status == "True":
        return "K113"
    if not thing.ready or thing.observed != thing.generation:
        return "K65"
    return "K66" if rolled_back else ""


def _pinned(release: Release) -> bool:
    return bool(release.deployed) and _EXACT.match(release.version) is not None


@clause_check(
    "GITOPS-WAIT-001",
    title="A Ready Kustomization stands for its releases",
    severity=HYGIENE,
    scope="cluster",
    reads=("gitops",),
    causes=("K67",),
    after=("GITOPS-THERE-001", "GITOPS-SOURCE-001", "GITOPS-APPLY-001"),
)
def ready_means_ready(subject: Subject) -> Judgement:
    """Green above while a release below fails: only said where one does fail, many leave `wait` off on purpose."""
    facts = _facts(subject)
    failing = [r.object for r in need(facts.releases, "HelmReleases") if not r.object.ready]
    problems = []
    for thing in need(facts.kustomizations, "Kustomizations"):
        below = [o for o in failing if o.part_of == f"{thing.namespace}/{thing.name}"]
        if thing.ready and not thing.wait and below:
            problems.append(_problem(subject, "K67", thing, *(_said(o) for o in below)))
    return verdict_of(problems, (Evidence(facts.kustomizations.source, f"{len(failing)} releases not Ready"),))


@clause_check(
    "GITOPS-DRIFT-001",
    title="The plugin runs with the values in git",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes", "gitops"),
    causes=("K114",),
    wants=("device-plugin", "nvidia"),
    after=("GITOPS-THERE-001", "GITOPS-RELEASE-001", "K8S-PLUGIN-001"),
)
def plugin_runs_with_gits_values(subject: Subject) -> Judgement:
    """The release's own configuration against the one that the plugin printed when it started."""
    view = NodeView(subject)
    for release in need(_facts(subject).releases, "HelmReleases"):
        if not release.plugin_configs:
            continue
        key = release.plugin_default or next(iter(release.plugin_configs))
        live = view.live_config
        if live is None or key not in release.plugin_configs:
            continue
        declared = effective_config(parse_plugin_config(release.plugin_configs[key])[0])
        config, log = live
        told = (
            Evidence(release.object.full_name, f"{key}: {_sharing(declared)}"),
            Evidence(f"log of {log.namespace}/{log.pod}", _sharing(config)),
        )
        if _sharing(declared) != _sharing(config):
            return Fail((Problem("K114", release.object.full_name, told, _values(subject, release.object.namespace)),))
        return Pass(told)
    elsewhere = any(r.values_elsewhere for r in need(_facts(subject).releases, "HelmReleases"))
    more = "; some values come from elsewhere" if elsewhere else ""
    return Pass((Evidence("HelmReleases", f"no plugin configuration among their values{more}"),))


def _sharing(config: EffectiveConfig) -> str:
    """What of a configuration decides how many slots there are, as one line."""
    counts = ", ".join(f"{name} x {count}" for name, count in sorted((config.replicas or {}).items()))
    renamed = ", renamed" if config.rename else ""
    many = ", more than one refused" if config.refuse_many else ""
    return f"{config.strategy} {counts or 'unshared'}{renamed}{many}"
