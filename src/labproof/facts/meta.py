"""What a folder of facts says of itself: when it was read, and the lab as declared, without its secrets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labproof.facts.atomic import write_text
from labproof.facts.store import SCHEMA

if TYPE_CHECKING:
    from labproof.inventory.models import Lab

FILE = "run.facts.json"


@dataclass(frozen=True)
class Meta:
    """Head of a facts folder.

    Attributes:
        now: Unix time in seconds at which the run began; checks take the time from here.
        lab: the declared lab, secrets blanked.
        path: lab.yaml it came from, as it was given.
    """

    now: float
    lab: Lab
    path: str


class NotFacts(Exception):
    """The folder holds no facts this version can read; `str()` says why and what to do."""


def write(folder: Path, meta: Meta) -> None:
    """Write the head of a facts folder, secrets blanked."""
    lab = meta.lab.model_dump(mode="json", exclude_defaults=True)  # a SecretStr dumps as asterisks
    body = {"schema": SCHEMA, "now": meta.now, "path": meta.path, "lab": lab}
    write_text(folder / FILE, json.dumps(body, indent=1, sort_keys=True))


def read(folder: Path) -> Meta:
    """Read the head of a facts folder.

    Raises:
        NotFacts: it is not there, broken, or of another schema.
    """
    from pydantic import ValidationError

    from labproof.inventory.models import Lab

    try:
        body = json.loads((folder / FILE).read_text("utf-8"))
        if body["schema"] != SCHEMA:
            raise NotFacts(f"{folder}: facts schema {body['schema']}, this labproof reads schema {SCHEMA}")
        return Meta(float(body["now"]), Lab.model_validate(body["lab"]), str(body["path"]))
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as broken:
        raise NotFacts(f"{folder}: no saved facts of this version ({type(broken).__name__})") from None
