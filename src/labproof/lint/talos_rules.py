"""Files of Talos: machine configurations, newer documents, schematics, talhelper's talconfig.yaml."""

from __future__ import annotations

import re

from labproof.catalogue.schematic import NotComputable, schematic_id
from labproof.catalogue.versions import parse_tag
from labproof.lint.extensions import Named, bare, flaws, has_graphics
from labproof.lint.gather import patch_documents
from labproof.lint.image import version_of
from labproof.lint.machine import Machine, machine_of, schematic_names
from labproof.lint.machine_rules import judge_install, judge_kernel_args, judge_machine
from labproof.lint.scope import Document, Scope
from labproof.lint.tree import Node

_OMNI = {"Cluster", "ControlPlane", "Workers", "Machine"}
_SINCE_1_14 = {"KernelModuleConfig", "UnattendedInstallConfig", "CRICustomizationConfig"}
_MACHINE_KEYS = ("kernel", "install", "files", "sysctls", "nodeLabels", "nodeTaints", "type", "kubelet", "network")


def judge_talos(document: Document, scope: Scope) -> None:
    """Judge a document that belongs to Talos; others pass untouched."""
    root = document.root
    siblings = [d for d in scope.documents if d.source is document.source and d is not document]
    machine = root.get("machine")
    if machine is not None and machine.kind == "map" and any(machine.get(key) is not None for key in _MACHINE_KEYS):
        found = machine_of(document, siblings, scope)
        judge_machine(found, scope)
        judge_install(document, scope, found, siblings)
    elif document.api == "v1alpha1" and document.kind in _SINCE_1_14:
        _newer(document, scope)
    elif root.get("customization") is not None and not document.kind:
        _schematic_file(document, scope)
    elif root.get("clusterName") is not None and root.get("nodes") is not None:
        _talconfig(document, scope)
    elif document.kind in _OMNI and root.get("systemExtensions") is not None:
        _omni(document, siblings, scope)


def _omni(document: Document, siblings: list[Document], scope: Scope) -> None:
    """A document of an Omni cluster template; the version stands in its Cluster document."""
    listed = document.root.get("systemExtensions")
    if listed is None or listed.kind != "list" or any(member.text is None for member in listed.members):
        return
    cluster = next((d for d in (document, *siblings) if d.kind == "Cluster"), None)
    tag = version_of(cluster.value("talos", "version")) if cluster is not None else None
    names = [(bare(member.scalar), member.line) for member in listed.members]
    for line, cause, text in flaws(names, tag or scope.tag):
        if cause != "T08":  # lists of cluster, machine set and machine add up
            scope.find(document.source, line, cause, text)


def _newer(document: Document, scope: Scope) -> None:
    tag = scope.tag
    if tag is not None and parse_tag(tag) < (1, 14, 0):
        text = (
            f"Talos {tag} does not know {document.kind} documents (they came with 1.14) and refuses the configuration"
        )
        scope.find(document.source, document.root.at("kind"), "K95", text)
    names = [d.value("name") for d in scope.documents if d.kind == "KernelModuleConfig" and d.source is document.source]
    alone = not any(d.root.get("machine") is not None for d in scope.documents if d.source is document.source)
    if document.value("name") == "nvidia" and alone and "nvidia_uvm" not in names and document.complete:
        text = "nvidia is loaded and nvidia_uvm is not: no CUDA without /dev/nvidia-uvm"
        scope.find(document.source, document.root.at("name"), "T22", text)


def _schematic_file(document: Document, scope: Scope) -> None:
    body = document.root
    customization = body.get("customization")
    for key, _, line in customization.items() if customization is not None else ():
        if key in ("officialExtensions", "extensions"):
            scope.find(
                document.source,
                line,
                "T62",
                f"`{key}` belongs below customization.systemExtensions; here it is refused",
            )
    extensions = body.get("customization", "systemExtensions")
    for key, _, line in extensions.items() if extensions is not None else ():
        if key != "officialExtensions":
            scope.find(document.source, line, "T62", f"the factory knows no `{key}` here: it is `officialExtensions`")
    names = schematic_names(body)
    if names is None:
        scope.skip(document.source, body.line, "a schematic whose extensions a template fills in")
        return
    for line, cause, text in flaws(names, scope.tag):
        scope.find(document.source, line, cause, text)
    judge_kernel_args(body.get("customization", "extraKernelArgs"), (document, scope))
    claimed = _claimed_ids(document)
    if len(claimed) == 1:
        _compare(document, scope, body, claimed[0])


def _claimed_ids(document: Document) -> list[tuple[str, int]]:
    """Ids that comments of the file claim for its schematic."""
    found = []
    for at, line in enumerate(document.source.text.split("\n")):
        word = re.search(r"#.*\b([0-9a-f]{64})\b", line)
        if word:
            found.append((word[1], document.source.first_line + at))
    return found


def _compare(document: Document, scope: Scope, schematic: Node, claimed: tuple[str, int]) -> None:
    try:
        computed = schematic_id(schematic.plain)
    except (NotComputable, ValueError, TypeError, AttributeError):  # fields of a form the factory would refuse
        scope.skip(document.source, claimed[1], "the id of this schematic cannot be told offline")
        return
    if computed != claimed[0]:
        scope.find(document.source, claimed[1], "T06", _other_id(computed))


def _other_id(computed: str) -> str:
    return f"this is not the id of the list: that has {computed}"


def _talconfig(document: Document, scope: Scope) -> None:
    root = document.root
    version = root.get("talosVersion")
    default_tag = version_of(version.text) if version is not None else None
    nodes = root.get("nodes")
    judged: set[int] = set()
    for node in nodes.members if nodes is not None else []:
        if node.kind == "map":
            _talhelper_node(document, scope, node, default_tag, judged)


def _talhelper_node(document: Document, scope: Scope, node: Node, tag: str | None, judged: set[int]) -> None:
    root, source = document.root, document.source
    own = node.get("talosVersion")
    tag = version_of(own.text) if own is not None else tag
    plane = node.get("controlPlane")
    group = root.get("controlPlane" if plane is not None and plane.plain is True else "worker")
    found = Machine(source, node.line, tag=tag or scope.tag, complete=document.complete and not node.open, whole=True)
    schematic = node.get("schematic") or (group.get("schematic") if group is not None else None)
    image = node.get("talosImageURL")
    found.take_image(image, tag)
    if schematic is not None:
        names = schematic_names(schematic)
        found.list_line = schematic.line
        found.extensions = tuple(name for name, _ in names) if names is not None else None
        if names is not None and schematic.line not in judged:
            judged.add(schematic.line)
            for line, cause, text in flaws(names, found.tag):
                scope.find(source, line, cause, text)
        if names is not None and found.image is not None and found.image.ident is not None and image is not None:
            _claim(document, scope, names, schematic, found)
    elif image is None:
        found.extensions = None
    for owner in (node, group, root):
        if owner is not None:
            _patches(owner, found)
    if found.extensions is None and not has_graphics([n for n, _ in found.modules]) and not found.modules:
        return
    judge_machine(found, scope)


def _claim(document: Document, scope: Scope, names: Named, schematic: Node, found: Machine) -> None:
    if found.image is None or found.image.ident is None or not found.image.well_formed:
        return
    _compare(document, scope, schematic, (found.image.ident, found.image_line))


def _patches(owner: Node, found: Machine) -> None:
    """Kernel modules of a node, its group or the whole file; a patch in another file leaves them open."""
    modules = owner.get("kernelModules")
    if modules is not None:
        found.take_modules(modules, owner.key_line("kernelModules"))
    for patch in (owner.get("patches") or Node("list", 1, 1)).members:
        if patch.kind != "scalar":
            found.complete = False
        elif patch.scalar.lstrip().startswith("@") or patch.text is None:
            found.complete, found.modules_open = False, True
        else:
            for part in patch_documents(patch):
                found.take_patch(part)
