"""References of Talos installer images, taken apart (facts talos 1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FACTORY = re.compile(
    r"^(?P<host>[^/\s]+)/(?P<kind>(?:[a-z0-9-]+-)?installer(?:-secureboot)?)/(?P<id>[^/:@\s]+)(?::(?P<tag>[^@\s]+))?(?:@.+)?$"
)
_PLAIN = re.compile(r"^(?P<host>[^/\s]+)/siderolabs/(?:imager/)?installer(?::(?P<tag>[^@\s]+))?(?:@.+)?$")
_VERSION = re.compile(r"^v?\d+\.\d+\.\d+(?:-[a-z]+\.\d+)?$")


@dataclass(frozen=True)
class Installer:
    """An installer image. `ident` is None for the plain image; `tag` None for none or a placeholder."""

    ident: str | None
    tag: str | None
    factory: bool

    @property
    def well_formed(self) -> bool:
        """Whether the id of a factory image can be one."""
        return self.ident is None or re.fullmatch(r"[0-9a-f]{64}", self.ident) is not None


def parse_installer(text: str) -> Installer | None:
    """An installer image, None when the text names none."""
    found = _PLAIN.match(text)
    if found is not None:
        return Installer(None, version_of(found["tag"]), False)
    found = _FACTORY.match(text)
    if found is None or ("factory" not in found["host"] and len(found["id"]) != 64):
        return None
    return Installer(found["id"], version_of(found["tag"]), True)


def version_of(tag: str | None) -> str | None:
    """A tag that is a Talos release, with its `v`; None for anything else."""
    return None if tag is None or not _VERSION.match(tag) else "v" + tag.removeprefix("v")
