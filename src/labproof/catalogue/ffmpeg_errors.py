"""What a failed ffmpeg's log means, as an ordered table: `ffmpeg_errors.yaml`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

TABLE = Path(__file__).with_name("ffmpeg_errors.yaml")
VERDICTS = ("environment", "capability", "defect")


@dataclass(frozen=True)
class Meaning:
    """The first known line of a log.

    Attributes:
        cause: id of the catalogue.
        verdict: environment (the image, not the lab), capability (the chip cannot) or defect.
        line: the log's line, unchanged.
    """

    cause: str
    verdict: str
    line: str


def classify(log: str) -> Meaning | None:
    """The meaning of a log of `ffmpeg -v verbose`; None when no line is known, which is an answer too."""
    for pattern, cause, verdict in _table():
        match = pattern.search(log)
        if match:
            begin = log.rfind("\n", 0, match.start()) + 1
            end = log.find("\n", match.end())
            return Meaning(cause, verdict, log[begin : end if end >= 0 else len(log)].strip())
    return None


def nvenc_versions(log: str) -> tuple[str, str] | None:
    """(required, found) of `Driver does not support the required nvenc API version. Required: 12.2 Found: 12.1`."""
    match = re.search(r"Required: ([\d.]+) Found: ([\d.]+)", log)
    return (match.group(1), match.group(2)) if match else None


@cache
def _table() -> tuple[tuple[re.Pattern[str], str, str], ...]:
    rows = []
    for row in yaml.safe_load(TABLE.read_text("utf-8")):
        if set(row) != {"pattern", "cause", "verdict"} or row["verdict"] not in VERDICTS:
            raise ValueError(f"{TABLE.name}: not a row: {row}")
        rows.append((re.compile(row["pattern"]), str(row["cause"]), str(row["verdict"])))
    return tuple(rows)
