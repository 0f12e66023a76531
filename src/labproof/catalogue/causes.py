"""Causes: why a clause can fail, what it costs, and what to do about it. Data in `causes/*.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

CAUSES_FOLDER = Path(__file__).with_name("causes")
#: Order of the series in pages: host and VM, Talos, other node OS, Kubernetes, workload.
SERIES = ("P", "T", "N", "K", "W")
PLACEHOLDERS = ("host", "address", "vm", "node", "device", "resource", "pod", "namespace")


@dataclass(frozen=True)
class Remedy:
    """A remedy that holds only for some versions: `when` in words (`talos >= 1.13`)."""

    when: str
    remedy: str


@dataclass(frozen=True)
class Cause:
    """One catalogued cause.

    Attributes:
        not_simulated: why no fault of the simulated labs produces it; said only of those that none does.
    """

    id: str
    title: str
    severity: str
    impact: str
    remedy: str
    source: str
    remedy_by: tuple[Remedy, ...] = ()
    not_simulated: str = ""

    def advice(self, values: Mapping[str, str]) -> str:
        """The remedy with this lab's names filled in; a placeholder nobody knows stays as `<host>`."""
        lines = [self.remedy.strip().format_map(_Names(values))]
        lines += [f"[{r.when}] {r.remedy.strip().format_map(_Names(values))}" for r in self.remedy_by]
        return "\n".join(lines)


class _Names(dict[str, str]):
    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


@cache
def causes() -> dict[str, Cause]:
    """All causes by id, in catalogue order.

    Raises:
        ValueError: a data file is inconsistent (a duplicate id, an unknown key).
    """
    found: dict[str, Cause] = {}
    for path in sorted(CAUSES_FOLDER.glob("*.yaml")):
        for ident, entry in yaml.load(path.read_text("utf-8"), _Loader).items():  # noqa: S506 - a SafeLoader
            if ident in found:
                raise ValueError(f"{path.name}: cause {ident} is there twice")
            by = tuple(Remedy(**item) for item in entry.pop("remedy_by", ()))
            found[ident] = Cause(id=ident, remedy_by=by, **entry)
    return dict(sorted(found.items(), key=lambda item: (SERIES.index(item[0][0]), int(item[0][1:]))))


_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
