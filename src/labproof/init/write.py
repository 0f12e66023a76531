"""The file onto the disk: judged by lab.yaml's own loader first, whole or not at all, never over another."""

from __future__ import annotations

import os
from pathlib import Path

from labproof.init.page import Block, rendered
from labproof.inventory.load import load_lab
from labproof.inventory.models import Lab


class Exists(Exception):
    """There is a file already, and nobody said --force."""


def text_of(block: Block, head: list[str]) -> str:
    """The file's text: head lines as comments, then the block."""
    lines = [f"# {line}".rstrip() for line in head] + rendered(block)
    return "\n".join(line if line.strip() != "#" else "" for line in lines) + "\n"


def write(text: str, path: Path, force: bool) -> Lab:
    """Write `text` where `path` says, when it declares a lab.

    Raises:
        Exists: the file is there and `force` is not set (also when it came while we looked).
        LabError: the text declares no lab: a defect of labproof; nothing is written.
        OSError: the folder cannot be written to.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, "utf-8")
    try:
        lab = load_lab(part, read_secrets=False)
        if force:
            part.replace(path)
        else:
            try:
                os.link(part, path)  # unlike a rename, this fails where a file is
            except FileExistsError:
                raise Exists(str(path)) from None
    finally:
        part.unlink(missing_ok=True)
    return lab
