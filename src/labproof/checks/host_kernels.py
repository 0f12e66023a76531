"""Kernel builds known to break passthrough. The list is data: `catalogue/kernels.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from labproof.facts.host import HostFacts


@dataclass(frozen=True)
class BadBuild:
    """One entry: which builds, which cards it concerns, why."""

    cause: str
    concerns: str
    why: str
    source: str
    builds: tuple[str, ...] = ()
    upstream: tuple[str, ...] = ()
    series: str = ""
    first: int = 0
    last: int = -1

    def matches(self, release: str) -> bool:
        """Whether `uname -r` is such a build."""
        if release in self.builds:
            return True
        if self.upstream and "-pve" not in release:  # Proxmox numbers its builds itself
            return re.split(r"[-+]", release, maxsplit=1)[0] in self.upstream
        match = re.fullmatch(r"(\d+\.\d+\.\d+)-(\d+)(?:-bpo\d+)?-pve", release)
        return match is not None and match[1] == self.series and self.first <= int(match[2]) <= self.last


@cache
def bad_builds() -> tuple[BadBuild, ...]:
    """All entries of the table."""
    import yaml

    rows: list[Mapping[str, Any]] = yaml.safe_load((files("labproof.catalogue") / "kernels.yaml").read_text("utf-8"))
    return tuple(
        BadBuild(
            cause=row["cause"],
            concerns=row["concerns"],
            why=row["why"],
            source=row["source"],
            builds=tuple(row.get("builds", ())),
            upstream=tuple(row.get("upstream", ())),
            series=row.get("series", ""),
            first=row.get("from", 0),
            last=row.get("to", -1),
        )
        for row in rows
    )


def affected_by(host: HostFacts, cause: str) -> BadBuild | None:
    """The entry for `cause` that the running kernel matches, None when it matches none."""
    release = host.kernel.value or ""
    return next((b for b in bad_builds() if b.cause == cause and b.matches(release)), None)
