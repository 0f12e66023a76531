"""Numbers that a transcode is held against, with their sources: `floors.yaml`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

TABLE = Path(__file__).with_name("floors.yaml")


def floor(name: str) -> float:
    """A floor (or ceiling) by name, in the unit its name says.

    Raises:
        KeyError: there is no such number.
    """
    return _table()[name][0]


def floor_source(name: str) -> str:
    """Where the number comes from."""
    return _table()[name][1]


@cache
def _table() -> dict[str, tuple[float, str]]:
    rows = yaml.safe_load(TABLE.read_text("utf-8"))
    return {name: (float(row["floor"]), str(row["source"])) for name, row in rows.items()}
