"""Files of a Proxmox VE host: module lists and module options (facts proxmox 0.1, 1.6)."""

from __future__ import annotations

import re

from labproof.lint.scope import Scope
from labproof.lint.sources import Source


def judge_modules(source: Source, scope: Scope) -> None:
    """`/etc/modules` and modules-load.d."""
    for at, line in enumerate(source.text.split("\n")):
        if line.strip().partition(" ")[0] == "vfio_virqfd":
            scope.find(source, source.first_line + at, "P27", "vfio_virqfd went into the vfio module with kernel 6.2")


def judge_modprobe(source: Source, scope: Scope) -> None:
    """modprobe.d: the form of `options vfio-pci ids=`."""
    for at, line in enumerate(source.text.split("\n")):
        found = re.match(r"\s*options\s+vfio[-_]pci\s+(.*?)\s*(?:#.*)?$", line)
        if found is None:
            continue
        number, rest = source.first_line + at, found[1]
        ids = re.search(r"\bids\s*=\s*(.*)$", rest)
        if ids is None:
            if re.search(r"\bid\s*=", rest):
                scope.find(source, number, "P28", "the option is called `ids`, not `id`")
            continue
        words = re.split(r"\s+\w+=", ids[1])[0]
        if re.search(r"\bids\s+=|\bids=\s", rest) or not all(
            re.fullmatch(r"(?:0x)?[0-9a-fA-F]{1,4}:(?:0x)?[0-9a-fA-F]{1,4}(?::[0-9a-fA-Fx:]+)?", word)
            for word in words.split(",")
        ):
            scope.find(source, number, "P28", f"`ids={words}` is no comma-separated list of ids such as 10de:1eb8")
