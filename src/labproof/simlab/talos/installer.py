"""What an installer image reference installs: schematics that a factory knows, releases that exist, and pull errors.

Source: facts/talos.md 1 (reference form, `installer/<id>:<ver>`) and 5 (the plain installer ends with 1.13).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from labproof.simlab.talos.image import canonical, installed, schematic_id
from labproof.simlab.talos.releases import release

_FACTORY = re.compile(
    r"(?P<host>[^/]+)/(?P<kind>(?:[a-z0-9-]+-)?installer(?:-secureboot)?)/(?P<id>[0-9a-f]{64}):"
    r"(?P<tag>v\d+\.\d+\.\d+(?:-(?:alpha|beta|rc)\.\d+)?)"
)
_PLAIN = re.compile(r"ghcr\.io/siderolabs/installer:(?P<tag>v\d+\.\d+\.\d+)")
HOST = "factory.talos.dev"


class NoSuchImage(Exception):
    """The image cannot be pulled or built; the text is the registry's."""


class Factory:
    """The schematics that one Image Factory knows, by id: canonical text. It begins with those that nodes run."""

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        """Seed with the empty schematic and those of the inputs' nodes."""
        self.known: dict[str, str] = {}
        self.add(canonical(()))
        for node in (inputs.get("nodes") or {}).values():
            talos = (node or {}).get("talos") or {}
            if talos.get("kind", "factory") == "factory":
                arguments = [str(arg) for arg in talos.get("kernel_args") or ()]
                self.add(canonical([str(e) for e in talos.get("extensions") or ()], arguments))

    def add(self, text: str) -> str:
        """Keep a canonical schematic; returns its id."""
        ident = schematic_id(text)
        self.known[ident] = text
        return ident


def image_inputs(factory: Factory, reference: str, before: Mapping[str, Any]) -> dict[str, Any]:
    """The `talos` inputs of a node after installing an image.

    Raises:
        NoSuchImage: no such reference, schematic or release, or an extension that this release lacks.
    """
    kept = {key: before[key] for key in ("platform", "uki", "boot_mib") if key in before}
    plain = _PLAIN.fullmatch(reference)
    found = _FACTORY.fullmatch(reference)
    try:
        if plain is not None:
            if release(plain["tag"]).minor >= (1, 14):
                raise NoSuchImage(f"{reference}: not found: manifest unknown")
            return {**kept, "version": plain["tag"], "kind": "plain", "extensions": [], "kernel_args": []}
        if found is None or found["host"] != HOST or found["id"] not in factory.known:
            raise NoSuchImage(f"{reference}: not found: manifest unknown")
        ship = release(found["tag"])
        custom = yaml.safe_load(factory.known[found["id"]]).get("customization") or {}
        names = (custom.get("systemExtensions") or {}).get("officialExtensions") or []
        inputs = {
            **kept, "version": ship.tag, "kind": "factory", "kernel_args": custom.get("extraKernelArgs") or [],
            "extensions": [str(name).removeprefix("siderolabs/") for name in names],
        }  # fmt: skip
        installed(inputs, ship)
        return inputs
    except ValueError as wrong:  # a release or an extension that is not there
        raise NoSuchImage(f"{reference}: error enhancing profile from schematic: {wrong}") from None
