"""Measurements that no clause judges but a person follows: quality, sessions, card memory. From facts only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from labproof.facts.bundle import Facts
from labproof.facts.transcode import Run, TranscodeFacts
from labproof.inventory.chains import Chain


def measurements(facts: Facts, chains: Iterable[Chain], verdicts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """All measurements of a run as run.json holds them; those of clauses first.

    What is added here names the clause whose run of ffmpeg it comes from, so that it stands beside that clause's own.
    """
    found = [{"chain": v["chain"], "clause": v["clause"], **m} for v in verdicts for m in v["measurements"]]
    clause_of = {(m["chain"], str(m["name"]).partition("_")[0]): m["clause"] for m in found}
    for chain in chains:
        here = facts.transcode(chain.id).value
        if here is None:
            continue
        known = {m["name"] for m in found if m["chain"] == chain.id}
        for prefix, name, value, unit, samples in _of_chain(here):
            if name not in known:
                clause = clause_of.get((chain.id, prefix), "")
                found.append(
                    {
                        "chain": chain.id,
                        "clause": clause,
                        "name": name,
                        "value": round(value, 3),
                        "unit": unit,
                        "samples": samples,
                    }
                )
    return found


_Row = tuple[str, str, float, str, list[float]]


def _of_chain(here: TranscodeFacts) -> Iterator[_Row]:
    for run in here.runs:
        if run.progress.value is None:
            continue  # it did not run
        yield from _of_run(run)
    at_once = here.at_once.value
    seen = at_once.samples.value or () if at_once is not None else ()
    sessions = [float(s.sessions) for s in seen if s.sessions is not None]
    memory = [float(s.memory_used) for s in seen if s.memory_used is not None]
    if sessions:
        yield "at", "at_once_sessions", max(sessions), "sessions", sessions
    if memory:
        yield "at", "at_once_vram", max(memory), "MiB", memory


def _of_run(run: Run) -> Iterator[_Row]:
    name, progress = run.name, run.progress.value
    assert progress is not None
    psnr, ssim = run.psnr.value, run.ssim.value
    if psnr is not None and psnr.average is not None:
        yield name, f"{name}_psnr", psnr.average, "dB", []
    if ssim is not None and ssim.average is not None:
        yield name, f"{name}_ssim", ssim.average, "", []
    # a run held back to real time has a speed of 1 by intent; only free ones tell how fast the card is
    if progress.speed is not None and progress.speed > 1.2:
        yield name, f"{name}_speed", progress.speed, "x", []
    if run.cost.value is not None and name == "software":
        yield name, "software_cpu_per_frame", run.cost.value.cpu_ms_per_frame(progress.frames), "ms", []
    memory = [float(s.memory_used) for s in run.samples.value or () if s.memory_used is not None]
    if memory:
        yield name, f"{name}_vram", max(memory), "MiB", memory
