"""Boot loader configuration: which file gives the kernel command line, and what this boot got of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

GRUB = "/etc/default/grub"
GRUB_FOLDER = "/etc/default/grub.d/"
SYSTEMD_BOOT = "/etc/kernel/cmdline"

_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?([A-Z_]+)=(?:\"((?:[^\"\\]|\\.)*)\"|'([^']*)'|(\S*))\s*(?:#.*)?$")
_VARIABLE = re.compile(r"\$\{?([A-Z_]+)\}?")


def is_boot_file(path: str) -> bool:
    """Whether the boot loader's menu is made from this file."""
    return path in (GRUB, SYSTEMD_BOOT) or (path.startswith(GRUB_FOLDER) and path.endswith(".cfg"))


def grub_variables(files: Mapping[str, str]) -> dict[str, str]:
    """Variables after grub-mkconfig has sourced /etc/default/grub and grub.d/*.cfg."""
    values: dict[str, str] = {}
    snippets = sorted(p for p in files if p.startswith(GRUB_FOLDER) and p.endswith(".cfg"))
    for path in (GRUB, *snippets):
        for line in files.get(path, "").splitlines():
            match = _ASSIGNMENT.match(line)
            if match:
                name, quoted, literal, bare = match.groups()
                text = literal if literal is not None else quoted if quoted is not None else bare or ""
                values[name] = text if literal is not None else _VARIABLE.sub(lambda v: values.get(v[1], ""), text)
    return values


def configured_cmdline(boot: Mapping[str, Any], kernel: str, files: Mapping[str, str]) -> str:
    """The command line that a boot with these files gives the kernel."""
    if boot.get("loader") == "systemd-boot":
        first_line = (files.get(SYSTEMD_BOOT, "").splitlines() or [""])[0]  # later lines are ignored, facts 1.2
        return f"initrd=\\EFI\\proxmox\\{kernel}\\initrd.img-{kernel} {first_line}".rstrip()
    grub = grub_variables(files)
    words = [
        f"BOOT_IMAGE=/boot/vmlinuz-{kernel}", f"root={boot.get('root', '/dev/mapper/pve-root')}", "ro",
        grub.get("GRUB_CMDLINE_LINUX", ""), grub.get("GRUB_CMDLINE_LINUX_DEFAULT", ""),
    ]  # fmt: skip
    return " ".join(" ".join(words).split())


def switch(cmdline: str, name: str) -> list[str]:
    """All comma separated words given for `name=` on a command line, in order."""
    found: list[str] = []
    for token in cmdline.split():
        key, separator, value = token.partition("=")
        if key == name and separator:
            found += value.split(",")
    return found
