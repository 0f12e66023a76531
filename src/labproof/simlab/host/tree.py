"""A file tree under construction: directories, files with mode and time, symlinks, device placeholders."""

from __future__ import annotations

import os
from pathlib import Path


class Tree:
    """Writes below one folder; paths are absolute as in the generated root."""

    def __init__(self, root: Path) -> None:
        """An empty tree at `root`, which must exist."""
        self.root = root
        self.character_devices: list[str] = []
        self._made: set[str] = {str(root)}

    def folder(self, path: str) -> str:
        """Make a folder and its parents; returns its real path."""
        real = f"{self.root}{path.rstrip('/')}"
        if real not in self._made:
            os.makedirs(real, exist_ok=True)  # noqa: PTH103 - hundreds of calls per world
            self._made.add(real)
        return real

    def file(self, path: str, content: str | bytes, *, mode: int = 0o644, changed: float | None = None) -> None:
        """Write a file; `changed` is its modification time (Unix seconds)."""
        folder, _, name = path.rpartition("/")
        real = f"{self.folder(folder)}/{name}"
        descriptor = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.write(descriptor, content.encode() if isinstance(content, str) else content)
            if mode != 0o644:
                os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)
        if changed is not None:
            os.utime(real, (changed, changed))

    def link(self, path: str, target: str) -> None:
        """A symlink with a target as it is spelled (relative inside sysfs)."""
        folder, _, name = path.rpartition("/")
        os.symlink(target, f"{self.folder(folder)}/{name}")  # noqa: PTH211

    def character_device(self, path: str, mode: int = 0o600) -> None:
        """A placeholder that the jail covers with a harmless character device."""
        self.file(path, b"", mode=mode)
        self.character_devices.append(path)


def relative(link: str, target: str) -> str:
    """Target of a symlink at `link`, spelled relative as sysfs does."""
    here, there = link.strip("/").split("/")[:-1], target.strip("/").split("/")
    common = 0
    while common < min(len(here), len(there)) and here[common] == there[common]:
        common += 1
    return "/".join([".."] * (len(here) - common) + there[common:])
