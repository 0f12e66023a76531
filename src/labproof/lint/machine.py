"""A Talos machine as its configuration describes it, from v1alpha1, the newer documents, or talhelper's file."""

from __future__ import annotations

from dataclasses import dataclass, field

from labproof.lint.extensions import Named, bare, is_kmod, is_toolkit, list_behind
from labproof.lint.image import Installer, parse_installer
from labproof.lint.scope import Document, Scope
from labproof.lint.sources import Source
from labproof.lint.tree import Node


@dataclass
class CriPart:
    """A containerd part that the owner writes to the node."""

    path: str
    op: str
    content: str
    line: int
    path_line: int


@dataclass
class Machine:
    """What is known of one machine.

    Attributes:
        tag: Talos version, None when not known.
        extensions: the list behind its image, None when not known; `list_line` is where it comes from.
        complete: nothing can add to this, so what is missing is missing.
        whole: this is a full machine configuration, not a patch.
    """

    source: Source
    line: int
    tag: str | None = None
    extensions: tuple[str, ...] | None = None
    list_line: int = 1
    image: Installer | None = None
    image_line: int = 1
    complete: bool = True
    whole: bool = False
    modules: list[tuple[str, int]] = field(default_factory=list)
    modules_line: int | None = None
    modules_open: bool = False
    parts: list[CriPart] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    sysctls_line: int | None = None

    @property
    def has_kmod(self) -> bool | None:
        """Whether the image carries NVIDIA's kernel modules; None when not known."""
        return None if self.extensions is None else any(is_kmod(name) for name in self.extensions)

    @property
    def has_toolkit(self) -> bool | None:
        """Whether the image carries NVIDIA's runtime; None when not known."""
        return None if self.extensions is None else any(is_toolkit(name) for name in self.extensions)

    def module(self, name: str) -> int | None:
        """Line of a kernel module's entry; `-` and `_` are the same to the kernel."""
        return next((line for word, line in self.modules if word.replace("-", "_") == name), None)

    def take_image(self, node: Node | None, version: str | None = None) -> None:
        """Learn from an installer image; `version` is the tag where the image has none (talhelper)."""
        if node is None or node.kind != "scalar":
            return
        self.image_line = self.list_line = node.line
        self.image = parse_installer(node.scalar)
        if self.image is None:
            return
        self.tag = self.image.tag or self.tag or version
        if not self.image.factory:
            self.extensions = ()
        elif self.image.ident is not None and self.image.well_formed:
            behind = list_behind(self.image.ident)
            self.extensions = behind if behind is not None else self.extensions

    def take_machine(self, machine: Node) -> None:
        """Learn from a `machine:` mapping (or a part of it in a patch)."""
        modules = machine.get("kernel", "modules")
        if modules is not None:
            kernel = machine.get("kernel")
            self.take_modules(modules, kernel.key_line("modules") if kernel is not None else modules.line)
        files = machine.get("files")
        for file in files.members if files is not None else []:
            path, content, op = file.get("path"), file.get("content"), file.get("op")
            if path is None or content is None or path.kind != "scalar" or content.kind != "scalar":
                continue
            first = content.line + (1 if content.style in ("|", ">") else 0)
            word = op.scalar if op is not None else "create"
            self.parts.append(CriPart(path.scalar, word, content.scalar, first, path.line))
        sysctls = machine.get("sysctls")
        if sysctls is not None:
            self.sysctls |= {key: value.scalar for key, value, _ in sysctls.items()}
            self.sysctls_line = machine.key_line("sysctls")

    def take_modules(self, modules: Node, line: int) -> None:
        """Learn from a list of kernel modules."""
        self.modules_line = self.modules_line or line
        self.modules_open = self.modules_open or modules.open
        for member in modules.members:
            name = member.get("name")
            if name is None or name.text is None:
                self.modules_open = True
            else:
                self.modules.append((name.text, name.line))

    def take_patch(self, patch: Node) -> None:
        """Learn from a strategic merge patch, a patch by operations, or one of the newer documents."""
        if patch.kind == "list":
            self.take_operations(patch)
            return
        machine = patch.get("machine")
        if machine is not None and machine.kind == "map":
            self.take_machine(machine)
        kind, name = patch.get("kind"), patch.get("name")
        if kind is not None and kind.text == "KernelModuleConfig" and name is not None and name.text is not None:
            self.modules.append((name.text, name.line))
            self.modules_line = self.modules_line or name.line

    def take_operations(self, operations: Node) -> None:
        """Learn from RFC 6902 operations, as far as they add kernel modules."""
        for operation in operations.members:
            path, value = operation.get("path"), operation.get("value")
            if path is None or value is None or not path.scalar.startswith("/machine/kernel"):
                continue
            if path.scalar == "/machine/kernel/modules" and value.kind == "list":
                self.take_modules(value, path.line)
            elif value.get("modules") is not None:
                self.take_modules(value.get("modules") or value, path.line)
            elif value.get("name") is not None:
                self.take_modules(Node("list", value.line, value.end, members=[value]), path.line)


def schematic_names(schematic: Node) -> Named | None:
    """Extension names of a schematic mapping; None when a template fills some in."""
    listed = schematic.get("customization", "systemExtensions", "officialExtensions")
    if listed is None:
        return []
    if listed.kind != "list" or listed.open or any(member.text is None for member in listed.members):
        return None
    return [(bare(member.scalar), member.line) for member in listed.members]


def machine_of(document: Document, siblings: list[Document], scope: Scope) -> Machine:
    """The machine of a v1alpha1 document and the documents of the same file beside it."""
    root = document.root
    body = root.get("machine") or root
    found = Machine(document.source, root.line, tag=scope.tag, complete=document.complete)
    # a patch may set the image alone, and another one the modules
    found.whole = root.get("machine", "install") is not None and root.get("machine", "type") is not None
    found.take_image(root.get("machine", "install", "image"))
    found.take_machine(body)
    for other in siblings:
        if other.kind == "KernelModuleConfig":
            found.take_patch(other.root)
        elif other.kind == "UnattendedInstallConfig" and found.image is None:
            found.take_image(other.root.get("image") or other.root.get("installer", "image"))
    return found
