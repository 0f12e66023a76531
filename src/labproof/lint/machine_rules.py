"""Talos machine configurations: modules, image, containerd part (facts talos 0, 2, 6)."""

from __future__ import annotations

import re
from collections.abc import Callable

from labproof.catalogue.versions import does, parse_tag
from labproof.lint.machine import CriPart, Machine
from labproof.lint.scope import Document, Scope
from labproof.lint.tree import Node

_Say = Callable[[int, str, str], None]
_NVIDIA = ("nvidia", "nvidia_uvm", "nvidia_drm", "nvidia_modeset")
_CUSTOMIZATION = "/etc/cri/conf.d/20-customization.part"


def judge_machine(machine: Machine, scope: Scope) -> None:
    """All rules that speak of one machine."""

    def say(line: int, cause: str, text: str) -> None:
        scope.find(machine.source, line, cause, text)

    _image(machine, say)
    _modules(machine, say)
    for part in machine.parts:
        _part(part, machine, say)
    _sysctls(machine, say)


def _image(machine: Machine, say: _Say) -> None:
    image = machine.image
    if image is None:
        return
    listed = [name for name, _ in machine.modules if name.startswith("nvidia")]
    if not image.well_formed and not re.search(r"[<>${}]", image.ident or ""):
        say(machine.image_line, "T45", f"`{image.ident}` is no schematic id (64 hex digits), so there is no such image")
    elif not image.factory and image.tag is not None and not does(image.tag, "plain_installer"):
        say(machine.image_line, "T45", f"the plain installer image is not published for {image.tag}")
    elif machine.extensions == () and listed and image.factory:
        say(machine.image_line, "T62", f"the empty schematic, but kernel modules are listed: {', '.join(listed)}")


def _modules(machine: Machine, say: _Say) -> None:
    listed = {name for name in _NVIDIA if machine.module(name) is not None}
    first = next((line for name, line in machine.modules if name.replace("-", "_").startswith("nvidia")), machine.line)
    wanted = machine.has_kmod or (machine.extensions is None and _wants_nvidia(machine))
    closed = machine.complete or (machine.modules_line is not None and not machine.modules_open)
    if machine.has_kmod is False and listed:
        empty = machine.extensions == () and machine.image is not None and machine.image.factory
        if not empty:  # that is T62, said at the image
            what = "the plain installer" if not machine.extensions else "its schematic"
            say(first, "T14", f"{', '.join(sorted(listed))} listed, but {what} has no NVIDIA kernel module extension")
        return
    if not wanted or not closed or machine.modules_open:
        return
    at = machine.modules_line or (machine.image_line if machine.image is not None else machine.line)
    if "nvidia" not in listed and machine.whole:
        text = "the extension blacklists its modules: without entries for nvidia, nvidia_uvm, nvidia_drm and"
        say(at, "T10", f"{text} nvidia_modeset in machine.kernel.modules nothing binds the card")
    elif "nvidia" in listed and "nvidia_uvm" not in listed:
        say(first, "T22", "nvidia is listed and nvidia_uvm is not: no CUDA without /dev/nvidia-uvm")
    elif "nvidia" in listed and "nvidia_drm" not in listed:
        say(first, "T23", "nvidia is listed and nvidia_drm is not: the card gets no render node in /dev/dri")


def _wants_nvidia(machine: Machine) -> bool:
    listed = any(name.startswith("nvidia") for name, _ in machine.modules)
    return listed or any(_default_is_nvidia(part) is not None for part in machine.parts)


def _default_is_nvidia(part: CriPart) -> int | None:
    if "/etc/cri/conf.d/" not in part.path:
        return None
    return _line_with(part, r"^\s*default_runtime_name\s*=\s*[\"']nvidia[\"']")


def _line_with(part: CriPart, pattern: str) -> int | None:
    return next((part.line + at for at, line in enumerate(part.content.split("\n")) if re.search(pattern, line)), None)


def _part(part: CriPart, machine: Machine, say: _Say) -> None:
    if not part.path.startswith("/etc/cri/conf.d/"):
        return
    if part.path != _CUSTOMIZATION and part.op == "create":
        say(part.path_line, "T61", f"Talos creates no file there; the only path allowed is {_CUSTOMIZATION}")
        return
    tag = machine.tag
    # other settings may stand in the old table without any GPU being concerned (facts wild 2, number 8)
    about_gpu = re.search(r"nvidia|default_runtime_name|cdi", part.content) is not None
    old, new = _line_with(part, r"io\.containerd\.grpc\.v1\.cri"), _line_with(part, r"io\.containerd\.cri\.v1\.runtime")
    if not about_gpu or tag is None:
        pass
    elif does(tag, "cri_v1_table") and old is not None and new is None:
        say(old, "T34", f'Talos {tag} reads the table "io.containerd.cri.v1.runtime"; this one is ignored')
    elif not does(tag, "cri_v1_table") and new is not None and old is None:
        say(new, "T34", f'Talos {tag} reads the table "io.containerd.grpc.v1.cri"; this one is ignored')
    default = _default_is_nvidia(part)
    if default is not None and machine.has_toolkit is False:
        text = "default_runtime_name is nvidia, but the image has no nvidia-container-toolkit: every pod on it fails"
        say(default, "T33", text)
    elif default is not None and tag is not None and not does(tag, "prefixed_cri_part"):
        say(default, "T35", f"on Talos {tag} the extension's own part sorts after this one and can override it")
    runtime = _line_with(part, r"^\s*BinaryName\s*=")
    if runtime is not None:
        binary = re.search(r"BinaryName\s*=\s*[\"']([^\"']*)", part.content)
        shipped = r"/usr/local/bin/nvidia-container-runtime(?:\.\w+)?"
        if binary and "nvidia" in binary[1] and not re.fullmatch(shipped, binary[1]):
            say(runtime, "T61", f"{binary[1]} does not exist on Talos; the extension defines the runtime itself")


def _sysctls(machine: Machine, say: _Say) -> None:
    """Only a setting that contradicts is judged: another patch may carry the missing one."""
    value = machine.sysctls.get("net.core.bpf_jit_harden")
    if value == "2" and machine.tag is not None and does(machine.tag, "bpf_jit_harden_1") and _wants_nvidia(machine):
        say(machine.sysctls_line or machine.line, "T36", f"net.core.bpf_jit_harden = 2 on Talos {machine.tag}")


def judge_install(document: Document, scope: Scope, machine: Machine, siblings: list[Document]) -> None:
    """`machine.install`: what some versions ignore or miss."""
    install = document.root.get("machine", "install")
    if install is None or machine.tag is None or install.kind != "map":
        return
    here, source = parse_tag(machine.tag), document.source
    ignored = install.get("extensions")
    if ignored is not None and ignored.members and here >= (1, 10, 0):
        text = (
            f"machine.install.extensions has no effect from Talos 1.10 on ({machine.tag}); put them into the schematic"
        )
        names = [x.get("image") for x in ignored.members]
        nvidia = any(name is not None and "nvidia" in name.scalar for name in names)
        scope.find(source, install.key_line("extensions"), "T01" if nvidia else "T69", text)
    other = any(sibling.kind in ("UnattendedInstallConfig", "UserVolumeConfig") for sibling in siblings)
    full = document.complete and not install.open and not other and document.value("machine", "type") != ""
    disk = install.get("disk") or install.get("diskSelector")
    if here >= (1, 13, 0) and full and machine.image is not None and disk is None:
        text = f"no install.disk and no install.diskSelector on Talos {machine.tag}"
        scope.find(source, install.line, "T60", text)
    arguments = install.get("extraKernelArgs")
    if here >= (1, 13, 0) and arguments is not None and arguments.members:
        grub = install.get("grubUseUKICmdline")
        if grub is None or grub.plain is not True:
            text = (
                f"Talos {machine.tag} drops install.extraKernelArgs at the next upgrade; they belong into the schematic"
            )
            scope.find(source, install.key_line("extraKernelArgs"), "T48", text)
    judge_kernel_args(arguments, source_scope=(document, scope))


def judge_kernel_args(arguments: Node | None, source_scope: tuple[Document, Scope]) -> None:
    """A misspelt blacklist leaves two drivers claiming one device (facts T31)."""
    document, scope = source_scope
    for member in arguments.members if arguments is not None else []:
        if re.match(r"module[_-]blacklist_\w+", member.scalar):
            scope.find(
                document.source, member.line, "T31", f"`{member.scalar}` is no argument: write module_blacklist=<name>"
            )
