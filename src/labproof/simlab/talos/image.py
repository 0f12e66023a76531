"""The installed image: which extensions a schematic brings on one release, and the schematic's own entry.

Source: facts/talos.md 1 (canonical bytes, ExtensionStatus named `schematic`) and 2 (version strings, aliases).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from labproof.simlab.talos.releases import KMOD_FAMILIES, TOOLKIT_FAMILY, Release, tables
from labproof.simlab.talos.state import Extension

FACTORY = "Image Factory (https://factory.talos.dev)"


def canonical(extensions: Sequence[str], kernel_args: Sequence[str] = ()) -> str:
    """The schematic's canonical YAML as the factory stores it."""
    if not extensions and not kernel_args:
        return "customization: {}\n"
    lines = ["customization:"]
    if kernel_args:
        lines += ["    extraKernelArgs:", *(f"        - {arg}" for arg in kernel_args)]
    if extensions:
        lines += ["    systemExtensions:", "        officialExtensions:"]
        lines += [f"            - siderolabs/{name}" for name in extensions]
    return "\n".join(lines) + "\n"


def schematic_id(text: str) -> str:
    """Id of a canonical schematic."""
    return hashlib.sha256(text.encode()).hexdigest()


def installed(image: Mapping[str, Any], release: Release) -> tuple[tuple[Extension, ...], str | None]:
    """Extension entries of an image, and its schematic id (None: not from a factory).

    Args:
        image: `kind` (factory | plain | imager), `extensions`, `kernel_args`, and `builds`: name -> version text
            for an image that was built by hand with an extension of another release.
        release: the Talos release of the image.
    """
    kind = image.get("kind", "factory")
    if kind == "plain":
        return (), None
    names = [str(name) for name in image.get("extensions") or ()]
    builds: Mapping[str, str] = image.get("builds") or {}
    found = [_extension(name, release, builds) for name in names]
    if any(e.name.startswith(KMOD_FAMILIES) or tables()["extensions"].get(e.name, {}).get("modules") for e in found):
        found.append(Extension("modules.dep", release.kernel, "Talos Linux", "modules.dep with extension modules"))
    if kind == "imager":
        return tuple(found), None
    text = canonical(names, [str(arg) for arg in image.get("kernel_args") or ()])
    own = Extension("schematic", schematic_id(text), FACTORY, "Virtual extension which specifies the schematic", text)
    return (*found, own), own.version


def _extension(name: str, release: Release, builds: Mapping[str, str]) -> Extension:
    real = tables()["aliases"].get(name, name) if release.minor >= (1, 8) else name
    if real in builds:
        return Extension(real, builds[real])
    driver = release.production if real.endswith("-production") else release.lts
    if real.startswith(KMOD_FAMILIES):
        return Extension(real, f"{driver}-{release.tag}", description="NVIDIA kernel modules")
    if real.startswith(TOOLKIT_FAMILY):
        return Extension(real, f"{driver}-{release.toolkit}", description="NVIDIA libraries and container toolkit")
    if real.startswith("nvidia-fabricmanager"):
        return Extension(real, driver)
    row = tables()["extensions"].get(real)
    if row is None:
        # The factory would have refused to build it: no node can run such an image.
        raise ValueError(f'official extension "siderolabs/{name}" is not available for Talos version {release.tag}')
    return Extension(real, str(row["version"]).format(talos=release.tag))


def kmods(extensions: Sequence[Extension]) -> tuple[Extension, ...]:
    """The NVIDIA kernel module extensions among these."""
    return tuple(e for e in extensions if e.name.startswith(KMOD_FAMILIES))


def toolkit(extensions: Sequence[Extension]) -> Extension | None:
    """The NVIDIA container toolkit extension, if installed."""
    return next((e for e in extensions if e.name.startswith(TOOLKIT_FAMILY)), None)


def driver_of(extension: Extension) -> str:
    """Driver part of an extension version, `570.172.08` of `570.172.08-v1.11.6`."""
    return extension.version.split("-", 1)[0]
