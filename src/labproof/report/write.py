"""run.json and everything rendered from it, written when a run ends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labproof import __version__
from labproof.checks.registry import LAYERS, clauses
from labproof.facts.atomic import write_text
from labproof.facts.bundle import Facts
from labproof.inventory.chains import Chain, chains_of
from labproof.inventory.models import Lab
from labproof.report.exit_status import exit_status

SCHEMA = 1


@dataclass(frozen=True)
class Ended:
    """A run that has ended, as the reports need it.

    Attributes:
        facts: what was recorded; asking them reads nothing new.
        began: Unix seconds at which the facts were begun; `seconds` is what this run took.
        verdicts: records of the judged clauses; `expected` and `deselected` name clause and target.
        pytests: the exit status pytest itself would give.
        cut_off: why the run ended before it was through (deadline, SIGTERM); None when it was not cut off.
    """

    lab: Lab
    facts: Facts
    run_id: str
    folder: Path
    began: float
    seconds: float
    verdicts: list[dict[str, Any]]
    expected: list[dict[str, str]]
    deselected: list[dict[str, str]]
    pytests: int
    fail_on: str
    others_failed: bool
    cut_off: str | None = None


def finish_run(run: Ended) -> dict[str, Any]:
    """Write run.json, the page and the summary; point `latest` at this run; return run.json's content."""
    from labproof.report.baseline import drift
    from labproof.report.compare_snapshot import Snapshot
    from labproof.report.holders import holdings
    from labproof.report.measured import measurements
    from labproof.report.versions import simulated, versions_of

    verdicts = sorted(run.verdicts, key=_height)
    judged = {(v["clause"], v["target"]) for v in verdicts}
    missing = [e for e in run.expected if (e["clause"], e["target"]) not in judged]
    chains = chains_of(run.lab)
    by_chain = {c.id: versions_of(run.facts, c) for c in chains}
    is_simulated = simulated(run.facts, run.lab)
    drifted = drift(run.folder.parent.parent, Snapshot(run.facts, run.lab), is_simulated)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "labproof": __version__,
        "run_id": run.run_id,
        "lab": run.lab.lab,
        "simulated": is_simulated,
        "started": datetime.fromtimestamp(run.began, UTC).isoformat(timespec="seconds"),
        "seconds": round(run.seconds, 3),
        "exit_status": exit_status(run.pytests, verdicts, len(missing), run.fail_on, run.others_failed, drifted),
        "chains": {c.id: {**_card(c), "layers": _layers(c, by_chain[c.id])} for c in chains},
        "verdicts": verdicts,
        "first_broken": first_broken(verdicts, chains),
        "expected": run.expected,
        "missing": missing,
        "deselected": run.deselected,
        "versions": {key: text for per in by_chain.values() for layer in per.values() for key, text in layer.items()},
        "measurements": measurements(run.facts, chains, verdicts),
        "holders": holdings(run.facts, chains),
        "exceptions": [x.model_dump(mode="json") for x in run.lab.exceptions],
        "cut_off": run.cut_off,
        "drift": drifted,
    }
    write_text(run.folder / "run.json", json.dumps(result, indent=1) + "\n")
    render(run.folder, result)
    _point_latest(run.folder)
    return result


def render(folder: Path, result: dict[str, Any]) -> None:
    """Write what is rendered from run.json, and from the history of the runs before it where there is one."""
    from labproof.report.badge import badge, sparkline
    from labproof.report.markdown import summary
    from labproof.report.page import page
    from labproof.report.past import past_runs

    past = past_runs(folder.parent.parent, result)
    comparison = _comparison(folder)
    write_text(folder / "badge.svg", badge(result))
    write_text(folder / "sparkline.svg", sparkline(result, past))
    write_text(folder / "summary.md", summary(result, past, comparison))
    write_text(folder / "index.html", page(result, past, comparison))


def _comparison(folder: Path) -> dict[str, Any] | None:
    """What `--compare` wrote beside run.json, if it did."""
    try:
        found = json.loads((folder / "compare.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def first_broken(verdicts: Iterable[dict[str, Any]], chains: Iterable[Chain]) -> list[dict[str, str]]:
    """The lowest failing blocking clause of each chain that is broken, with its first cause."""
    found = []
    for chain in chains:
        for verdict in verdicts:
            broken = verdict["verdict"] == "fail" and verdict["severity"] == "blocking"
            if broken and chain.id in verdict["chains"]:
                cause = verdict["problems"][0]["cause"]
                found.append({"chain": chain.id, "clause": verdict["clause"], "cause": cause})
                break
    return found


def _card(chain: Chain) -> dict[str, str]:
    from labproof.catalogue.gpus import capability

    known = capability(chain.gpu.device)
    return {
        "gpu": chain.gpu.device,
        "address": chain.gpu.address or "",
        "card": known.name if known and known.own_row else chain.gpu.name,
    }


def _layers(chain: Chain, versions: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    names = {
        "host": chain.host.name if chain.host else "",
        "vm": f"{chain.vm.id or ''} {chain.vm.name}".strip() if chain.vm else "",
        "talos": chain.node.name if chain.node else "",
        "kubernetes": chain.cluster.name if chain.cluster else "",
        "workload": chain.cluster.plugin.resource_name if chain.cluster else "",
        "transcode": "ffmpeg",
        "metrics": "dcgm-exporter",
        "apps": ", ".join(a.name for a in chain.cluster.apps) if chain.cluster else "",
        "gitops": "Flux",
    }
    return [{"layer": x, "name": names[x], "versions": versions.get(x, {})} for x in chain.layers]


def _height(verdict: dict[str, Any]) -> tuple[int, int, str]:
    return LAYERS.index(verdict["layer"]), clauses()[verdict["clause"]].order, verdict["target"]


def _point_latest(folder: Path) -> None:
    """Point reports/latest at this run; a reader always sees one run or the other."""
    latest = folder.parent.parent / "latest"
    part = latest.with_name(f".latest.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(Path("runs") / folder.name)
    part.replace(latest)
