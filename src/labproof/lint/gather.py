"""From sources to scopes: parse everything once, and learn what the files of one lab say together."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from labproof.lint.charts import charts_of
from labproof.lint.finding import Report
from labproof.lint.hcl import NotHcl, read_hcl
from labproof.lint.image import parse_installer, version_of
from labproof.lint.plugin_rules import sharing_of
from labproof.lint.scope import DeclaredNode, Document, Scope
from labproof.lint.sources import Source
from labproof.lint.templates import prepare
from labproof.lint.tree import Node, NotYaml, documents, embedded

_INSTALLER = re.compile(r"[\w.-]+/(?:[a-z0-9-]+-)?installer(?:-secureboot)?(?:/[^\s:\"']+)?:v?\d+\.\d+\.\d+\S*")


def gather(sources: Sequence[Source], report: Report, assumed_tag: str | None = None) -> list[Scope]:
    """One scope for each page, and one for all other sources."""
    scopes: dict[str, Scope] = {}
    for source in sources:
        scope = scopes.setdefault(source.scope, Scope(report, assumed_tag=assumed_tag, talos=assumed_tag is not None))
        scope.sources.append(source)
        scope.note_allowances(source)
        if source.language == "yaml":
            _read_yaml(source, scope)
        elif source.language == "hcl":
            _read_hcl(source, scope)
        if "talos" in source.text.lower():
            scope.talos_named.add(source.path)
    for scope in scopes.values():
        _learn(scope)
    return list(scopes.values())


def _read_yaml(source: Source, scope: Scope) -> None:
    prepared = prepare(source.text, source.first_line, source.excerpt)
    if not prepared.whole:
        scope.skip(source, prepared.first_template or 1, "control blocks of a template; render it and lint the result")
        return
    if prepared.first_template is not None:
        scope.skip(source, prepared.first_template, "values that a template fills in")
    try:
        found = documents(prepared.text, source.first_line, prepared.open_lines)
    except NotYaml as broken:
        if source.excerpt or prepared.first_template is not None or prepared.open_lines:
            scope.skip(source, broken.line, f"an excerpt or a template, not YAML by itself ({broken})")
        elif source.path.endswith(".json") and _other_json(source.text):
            scope.skip(source, broken.line, "JSON with tabs or comments")
        elif "\0" not in source.text:
            scope.unreadable(source, broken.line, f"not YAML: {broken}")
        else:
            scope.unreadable(source, 1, "not text")
        return
    for root in map(_whole, found):
        if root.kind != "map":
            continue
        members = root.get("items")
        kind = root.get("kind")
        parts = [root]
        if kind is not None and (kind.text or "").endswith("List") and members is not None:
            parts = [member for member in members.members if member.kind == "map"]
        for part in parts:
            scope.documents.append(Document(source, part, not part.open and not source.excerpt))


def _other_json(text: str) -> bool:
    """JSON that YAML's rules refuse: tabs between tokens, or the comments that editors' settings may hold."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return re.search(r"(?m)^\s*(?://|/\*)", text) is not None
    return True


def _whole(root: Node) -> Node:
    """A page often shows only the list of nodes of a talconfig.yaml; anything else stays as it is."""
    if root.kind != "list" or not any(member.get("hostname") is not None for member in root.members):
        return root
    name = Node("scalar", root.line, root.line, "clusterName")
    nodes = Node("scalar", root.line, root.line, "nodes")
    return Node("map", root.line, root.end, pairs=[(name, name), (nodes, root)], open=root.open)


def _read_hcl(source: Source, scope: Scope) -> None:
    try:
        scope.hcl.append(read_hcl(source.text, source.path, source.first_line))
    except NotHcl as broken:
        if source.excerpt:
            scope.skip(source, broken.line, f"an excerpt, not HCL by itself ({broken})")
        else:
            scope.unreadable(source, broken.line, f"not HCL: {broken}")


def _learn(scope: Scope) -> None:
    repositories = {}
    for document in scope.documents:
        if document.kind == "OCIRepository":
            repositories[document.name] = (document.value("spec", "url"), document.value("spec", "ref", "tag"))
    for document in scope.documents:
        scope.charts += charts_of(document, repositories)
        _learn_talos(document, scope)
        if document.kind == "ConfigMap":
            data = document.root.get("data")
            if document.name:
                scope.config_maps[document.name] = {key for key, _, _ in data.items()} if data is not None else set()
            if data is not None:
                for _, value, _ in data.items():
                    scope.sharing += sharing_of(document.source.path, value)
        elif document.kind == "Namespace":
            scope.namespaces[document.name] = document
        elif document.kind == "RuntimeClass":
            scope.runtime_classes.add(document.name)
        elif document.kind == "Node" and document.api == "v1":
            scope.nodes.append(_node_object(document))
    for chart in scope.charts:
        for path in (("config", "map"), ("devicePlugin", "config", "data")):
            embedded_configs = chart.values.get(*path)
            if embedded_configs is not None:
                for _, value, _ in embedded_configs.items():
                    scope.sharing += sharing_of(chart.document.source.path, value)


def _learn_talos(document: Document, scope: Scope) -> None:
    root, path = document.root, document.source.path
    machine = root.get("machine")
    talos = machine is not None and machine.kind == "map" and document.kind == ""
    if talos or document.api == "v1alpha1" or root.get("talosVersion") is not None:
        scope.talos = True
    for key in (("machine", "install", "image"), ("talosVersion",), ("spec", "talos", "version"), ("TALOS_VERSION",)):
        node = root.get(*key)
        if node is None or node.kind != "scalar":
            continue
        tag = version_of(node.scalar)
        if tag is None and "installer" in node.scalar:
            installer = parse_installer(node.scalar)
            found = re.search(r":(v?\d+\.\d+\.\d+[\w.-]*)$", node.scalar)
            tag = installer.tag if installer is not None else version_of(found[1]) if found else None
        if tag is not None:
            scope.tags.setdefault(tag, (path, node.line))
    for file in _parts(machine):
        if "default_runtime_name" in file and re.search(r"default_runtime_name\s*=\s*[\"']nvidia", file):
            scope.default_runtime = True
        found_dirs = re.search(r"cdi_spec_dirs\s*=\s*\[([^\]]*)\]", file)
        if found_dirs:
            scope.cdi_dirs = tuple(re.findall(r"[\"']([^\"']+)[\"']", found_dirs[1]))
    if talos and machine is not None:
        hostname = document.value("machine", "network", "hostname")
        scope.nodes.append(declared(hostname, machine.get("nodeLabels"), machine.get("nodeTaints"), document.complete))
    nodes = root.get("nodes") if root.get("clusterName") is not None else None
    for node in nodes.members if nodes is not None else []:
        scope.talos = True
        name = node.get("hostname")
        text = (name.text if name is not None else None) or ""
        scope.nodes.append(declared(text, node.get("nodeLabels"), node.get("nodeTaints"), document.complete))


def _parts(machine: Node | None) -> list[str]:
    files = machine.get("files") if machine is not None else None
    found = []
    for file in files.members if files is not None else []:
        content = file.get("content")
        if content is not None and content.kind == "scalar":
            found.append(content.scalar)
    return found


def declared(name: str, labels: Node | None, taints: Node | None, complete: bool) -> DeclaredNode:
    """A node from Talos' `nodeLabels` and `nodeTaints` (`key: value:Effect`)."""
    known = {key: value.scalar for key, value, _ in labels.items()} if labels is not None else {}
    found = []
    for key, value, _ in taints.items() if taints is not None else ():
        word, _, effect = value.scalar.rpartition(":")
        found.append((key, word, effect))
    open_labels = any(x is not None and x.open for x in (labels, taints))
    return DeclaredNode(name, known, tuple(found), complete and not open_labels)


def _node_object(document: Document) -> DeclaredNode:
    labels = document.root.get("metadata", "labels")
    taints = document.root.get("spec", "taints")
    found = []
    for taint in taints.members if taints is not None else []:
        word = {key: value.scalar for key, value, _ in taint.items()}
        found.append((word.get("key", ""), word.get("value", ""), word.get("effect", "")))
    known = {key: value.scalar for key, value, _ in labels.items()} if labels is not None else {}
    return DeclaredNode(document.name, known, tuple(found), complete=True)


def patch_documents(text: Node) -> list[Node]:
    """What an inline patch holds: a strategic merge patch or a list of operations; nothing when unreadable."""
    try:
        return embedded(text)
    except NotYaml:
        return []
