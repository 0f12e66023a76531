"""modprobe.d as modprobe reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

FOLDERS = ("/etc/modprobe.d/", "/run/modprobe.d/", "/usr/local/lib/modprobe.d/", "/lib/modprobe.d/")
#: vfio-pci reads its ids with sscanf's %x: a leading 0x is no mistake to it (recorded, captures/host/guest).
_ID = re.compile(r"^(?:0x)?([0-9a-f]{1,4}):(?:0x)?([0-9a-f]{1,4})(?::.*)?$", re.IGNORECASE)


@dataclass
class ModprobeConfig:
    """Directives that modprobe would obey."""

    blacklist: set[str] = field(default_factory=set)
    options: list[tuple[str, str]] = field(default_factory=list)
    softdeps: list[tuple[str, str]] = field(default_factory=list)
    installs: list[tuple[str, str]] = field(default_factory=list)

    def vfio_ids(self) -> tuple[str, ...]:
        """Ids that vfio-pci accepts of its `ids=` options (lower case vendor:device); malformed ones are dropped."""
        ids: list[str] = []
        for module, text in self.options:
            if module == "vfio_pci":
                for word in text.split():
                    if word.startswith("ids="):
                        found = (_ID.match(w) for w in word[4:].split(","))
                        ids = [f"{m[1].lower():0>4}:{m[2].lower():0>4}" for m in found if m]
        return tuple(ids)

    def parameter(self, module: str, name: str) -> str | None:
        """The last value given for a module's parameter."""
        found = None
        for owner, text in self.options:
            for word in text.split():
                if owner == module and word.startswith(f"{name}="):
                    found = word.split("=", 1)[1]
        return found

    def loads_before(self, module: str) -> list[str]:
        """Modules that `softdep <module> pre:` names."""
        before: list[str] = []
        for owner, text in self.softdeps:
            if owner.replace("-", "_") == module:
                words = text.replace("post:", "\0").split("\0")[0].split()
                before += [w.replace("-", "_") for w in words if w != "pre:"]
        return before

    def printed(self) -> str:
        """What `modprobe -c` prints: names with underscores, softdep as written (facts real-host)."""
        lines = [f"blacklist {name}" for name in sorted(self.blacklist)]
        lines += [f"install {name} {text}" for name, text in self.installs]
        lines += [f"options {name} {text}" for name, text in self.options]
        lines += [f"softdep {name} {text}" for name, text in self.softdeps]
        return "".join(f"{line}\n" for line in lines)


def parse(files: Mapping[str, str]) -> ModprobeConfig:
    """The configuration of all files that modprobe reads: `*.conf` in its folders, by base name."""
    config = ModprobeConfig()
    names: dict[str, str] = {}
    for path in files:
        folder = next((f for f in FOLDERS if path.startswith(f)), None)
        if folder and path.endswith(".conf") and "/" not in path[len(folder) :]:
            names.setdefault(path[len(folder) :], path)
    for _, path in sorted(names.items()):
        for line in files[path].replace("\\\n", " ").splitlines():
            words = line.split("#", 1)[0].split(None, 2) if not line.lstrip().startswith("#") else []
            if len(words) >= 2:
                _add(config, words)
    return config


def _add(config: ModprobeConfig, words: list[str]) -> None:
    keyword, name, rest = words[0], words[1], words[2] if len(words) > 2 else ""
    module = name.replace("-", "_")
    if keyword == "blacklist":
        config.blacklist.add(module)
    elif keyword == "options" and rest:
        config.options.append((module, " ".join(rest.split())))
    elif keyword == "softdep" and rest:
        config.softdeps.append((name, " ".join(rest.split())))
    elif keyword == "install":
        config.installs.append((module, rest))
