"""What the files of one lab say together: Talos versions, sharing, charts, nodes. Judging one file uses the others."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from labproof.lint.finding import Finding, NotJudged, Report, Unreadable
from labproof.lint.hcl import HclFile
from labproof.lint.sources import Source
from labproof.lint.tree import Node

_ALLOW = re.compile(r"labproof:\s*allow((?:[ ,]+[A-Z]\d{2,})+)")


@dataclass
class Document:
    """One YAML document. `complete` is False for an excerpt or where a template adds to it."""

    source: Source
    root: Node
    complete: bool

    def value(self, *path: str) -> str:
        """A scalar as text, empty where there is none."""
        node = self.root.get(*path)
        return (node.text if node is not None else None) or ""

    @property
    def kind(self) -> str:
        """`kind` of a Kubernetes object or of a Talos document."""
        return self.value("kind")

    @property
    def api(self) -> str:
        """`apiVersion`."""
        return self.value("apiVersion")

    @property
    def complete_labels(self) -> bool:
        """Whether its labels are all to be seen."""
        labels = self.root.get("metadata", "labels")
        return not self.root.open and not (labels is not None and labels.open)

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.value("metadata", "name")


@dataclass
class Chart:
    """A Helm chart with its values, from whichever object installs it. `version` is empty when nobody says."""

    document: Document
    name: str
    version: str
    values: Node
    namespace: str
    complete: bool


@dataclass(frozen=True)
class Sharing:
    """What a sharing configuration promises."""

    path: str
    line: int
    resource: str
    replicas: int
    renamed: bool
    fails: bool


@dataclass
class DeclaredNode:
    """A node as Talos or talhelper files declare it."""

    name: str
    labels: dict[str, str]
    taints: tuple[tuple[str, str, str], ...]
    complete: bool


@dataclass
class Scope:
    """All sources that speak of one lab, and what was learnt from them."""

    report: Report
    documents: list[Document] = field(default_factory=list)
    hcl: list[HclFile] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    tags: dict[str, tuple[str, int]] = field(default_factory=dict)
    talos: bool = False
    talos_named: set[str] = field(default_factory=set)
    assumed_tag: str | None = None
    charts: list[Chart] = field(default_factory=list)
    sharing: list[Sharing] = field(default_factory=list)
    config_maps: dict[str, set[str]] = field(default_factory=dict)
    namespaces: dict[str, Document] = field(default_factory=dict)
    runtime_classes: set[str] = field(default_factory=set)
    nodes: list[DeclaredNode] = field(default_factory=list)
    default_runtime: bool = False
    cdi_dirs: tuple[str, ...] = ()
    allowed: dict[tuple[str, int], frozenset[str]] = field(default_factory=dict)

    @property
    def tag(self) -> str | None:
        """The one Talos version of this lab; None when the files name none or several."""
        if self.assumed_tag:
            return self.assumed_tag
        return next(iter(self.tags)) if len(self.tags) == 1 else None

    def on_talos(self, source: Source) -> bool:
        """Whether a file belongs to a Talos cluster: Talos' own files are among these, or the file says so."""
        return self.talos or source.path in self.talos_named

    def find(self, source: Source, line: int, cause: str, text: str) -> None:
        """Note a mistake, once, unless a comment on that line or the one above allows it."""
        for near in (line, line - 1):
            if cause in self.allowed.get((source.path, near), frozenset()):
                return
        finding = Finding(source.path, line, cause, text)
        if finding not in self.report.findings:
            self.report.findings.append(finding)

    def skip(self, source: Source, line: int, reason: str) -> None:
        """Note a place that nobody can judge as it stands."""
        place = NotJudged(source.path, line, reason)
        if place not in self.report.not_judged:
            self.report.not_judged.append(place)

    def unreadable(self, source: Source, line: int, reason: str) -> None:
        """Note input that is not what it claims to be."""
        self.report.unreadable.append(Unreadable(source.path, line, reason))

    def note_allowances(self, source: Source) -> None:
        """Remember comments of the form `# labproof: allow K46`."""
        for at, line in enumerate(source.text.split("\n")):
            found = _ALLOW.search(line)
            if found:
                ids = frozenset(re.findall(r"[A-Z]\d{2,}", found[1]))
                self.allowed[(source.path, source.first_line + at)] = ids
