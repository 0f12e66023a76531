"""Facts of the gitops branch: the declared Flux objects, and the sources they refer to."""

from __future__ import annotations

from dataclasses import dataclass, field

from labproof.facts.kubernetes_objects import Condition
from labproof.facts.reading import NOT_ASKED, Reading


@dataclass(frozen=True)
class FluxObject:
    """What all of Flux's objects have in common.

    Attributes:
        kind: HelmRelease, Kustomization, HelmRepository, OCIRepository, GitRepository, Bucket.
        observed: observedGeneration; -1 before anything was observed.
        url: of a source.
        source: (kind, namespace, name) it takes its chart or path from; empty texts for a source.
        part_of: Kustomization that applied it, namespace/name, by Flux's own labels.
        wait: of a Kustomization: Ready says something about what it applied (`wait`, or healthChecks).
    """

    kind: str
    namespace: str
    name: str
    generation: int
    observed: int
    suspended: bool
    conditions: tuple[Condition, ...]
    url: str = ""
    source: tuple[str, str, str] = ("", "", "")
    part_of: str = ""
    wait: bool = True

    @property
    def full_name(self) -> str:
        """`Kind namespace/name`."""
        return f"{self.kind} {self.namespace}/{self.name}"

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type."""
        return next((c for c in self.conditions if c.type == kind), None)

    @property
    def ready(self) -> bool:
        """Whether Ready is True; of a suspended object that is an old word."""
        found = self.condition("Ready")
        return found is not None and found.status == "True"


@dataclass(frozen=True)
class Release:
    """A HelmRelease.

    Attributes:
        chart: name of the chart; version: as the spec pins it, a range or empty when it does not.
        deployed: chart version of the newest history entry, and its status (deployed, failed, superseded).
        plugin_configs: device plugin configurations among its values (`config.map`, `devicePlugin.config.data`), by
            name; nothing else of the values is kept: they may hold secrets.
        values_elsewhere: some of its values come from ConfigMaps or Secrets (`valuesFrom`).
    """

    object: FluxObject
    chart: str = ""
    version: str = ""
    deployed: str = ""
    deployed_status: str = ""
    plugin_configs: dict[str, str] = field(default_factory=dict)
    plugin_default: str = ""
    values_elsewhere: bool = False


@dataclass(frozen=True)
class GitOpsFacts:
    """What was read of one cluster's Flux.

    Attributes:
        releases, kustomizations: the declared ones that are there.
        sources: those they refer to.
        missing: declared objects that are not there, `Kind namespace/name`.
    """

    name: str
    releases: Reading[tuple[Release, ...]] = NOT_ASKED
    kustomizations: Reading[tuple[FluxObject, ...]] = NOT_ASKED
    sources: Reading[tuple[FluxObject, ...]] = NOT_ASKED
    missing: tuple[str, ...] = ()
