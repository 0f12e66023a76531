"""containerd on a Talos node: which runtime handlers its configuration parts define, and which one is the default.

Parts are merged in the order of their names; of the owner's files only `/etc/cri/conf.d/20-customization.part` may be
created outside /var. Source: facts/talos.md 2 (containerd) and 6 (T32 to T35).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labproof.simlab.talos.releases import Release
from labproof.simlab.talos.state import Extension

FOLDER = "/etc/cri/conf.d/"
CUSTOMIZATION = "/etc/cri/conf.d/20-customization.part"


@dataclass(frozen=True)
class Containerd:
    """The merged configuration's effect."""

    parts: dict[str, str]
    handlers: tuple[str, ...]
    default: str
    broken: tuple[str, ...]

    @property
    def starts_pods(self) -> bool:
        """Whether a pod without a RuntimeClass gets a sandbox."""
        return self.default in self.handlers and self.default not in self.broken


def configure(
    release: Release, toolkit: Extension | None, files: Mapping[str, Any], missing_files: frozenset[str] = frozenset()
) -> Containerd:
    """Merge the parts that the base, the toolkit extension and the owner bring.

    Args:
        release: decides part name and plugin table.
        toolkit: the toolkit extension, if installed.
        files: `machine.files`, path -> content.
        missing_files: files that a defective extension build lacks.
    """
    table = release.cri_table
    parts = {"00-base.part": _base(release), "01-registries.part": ""}
    if toolkit is not None:
        parts[release.cri_part] = (
            f'[plugins."{table}".containerd.runtimes.nvidia]\n'
            '  runtime_type = "io.containerd.runc.v2"\n'
            f'[plugins."{table}".containerd.runtimes.nvidia.options]\n'
            '  BinaryName = "/usr/local/bin/nvidia-container-runtime"\n'
        )
    for path, content in files.items():
        if path.startswith(FOLDER) and content:
            parts[path.removeprefix(FOLDER)] = str(content)
    parts = {name: text for name, text in parts.items() if f"{FOLDER}{name}" not in missing_files}
    merged: dict[str, Any] = {}
    for name in sorted(parts):
        _deep_update(merged, _toml(parts[name]).get("plugins", {}).get(table, {}).get("containerd", {}))
    runtimes = {"runc": {}, **merged.get("runtimes", {})}
    here = {"/usr/local/bin/nvidia-container-runtime"} if toolkit is not None else set()
    broken = [name for name, body in runtimes.items() if _binary(body) not in {"", *here}]
    return Containerd(parts, tuple(runtimes), str(merged.get("default_runtime_name", "runc")), tuple(broken))


def _base(release: Release) -> str:
    lines = [f'[plugins."{release.cri_table}".containerd.runtimes.runc]', '  runtime_type = "io.containerd.runc.v2"']
    if release.cdi:
        lines = [f'[plugins."{release.cri_table}"]', "  enable_cdi = true", '  cdi_spec_dirs = ["/run/cdi"]', *lines]
    return "\n".join(lines) + "\n"


def _binary(body: Mapping[str, Any]) -> str:
    return str(body.get("options", {}).get("BinaryName", ""))


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}  # Talos logs it and goes on with what it had


def _deep_update(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, what in new.items():
        if isinstance(what, Mapping) and isinstance(into.get(key), dict):
            _deep_update(into[key], what)
        else:
            into[key] = what
