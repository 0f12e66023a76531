"""What a VA-API run proves. Two kinds that do not depend on each other are needed (DESIGN 7):

what only the hardware path logs, engine time of the run's own process (fdinfo), the GPU waking up (frequency rises, its
idle residency stands still) where no kernel counts engines, and the CPU's time per frame against a software encode.
"""

from __future__ import annotations

from labproof.catalogue.media import media_row
from labproof.checks.subject import Subject
from labproof.checks.transcode_proof import Proof, cpu_ratio
from labproof.facts.transcode import Run, Sample, TranscodeFacts

VA_ENCODE_CAUSES = ("W25", "W28", "W29", "W32", "W33", "W35", "W36", "W42", "W70", "W71", "W72")
VA_CODEC_CAUSES = ("W25", "W28", "W36", "W42", "W70", "W71", "W72")
VA_DECODE_CAUSES = ("W23", "W24", "W25", "W28", "W42", "W70", "W71")
VA_FILTER_CAUSES = ("W25", "W28", "W42", "W70", "W71", "W72")
_HARDWARE = ("VA encode", "VA zero copy", "VA frames", "VA driver")
#: Filters that take frames of a device only.
_ON_CARD = ("hwdownload", "scale_vaapi", "tonemap_vaapi", "overlay_vaapi", "vpp_qsv")


def media_proof(subject: Subject, facts: TranscodeFacts, run: Run) -> Proof:
    """Everything that speaks for the hardware in one run."""
    words = run.ran.argv
    graph = next((words[i + 1] for i, w in enumerate(words[:-1]) if w in ("-vf", "-filter_complex")), "")
    filters = tuple(name for name in _ON_CARD if name in graph) if run.ran.ok else ()
    by_encoder = tuple(f"-> {m.encoder}" for m in run.mappings if m.encoder.endswith(("_vaapi", "_qsv")))
    lines = tuple(name for name in run.hardware if name in _HARDWARE)
    log = (*by_encoder, *lines, *(f"{name} took the frames" for name in filters))
    counter, read = _moved(subject, facts, run)
    return Proof(log, counter, read, cpu_ratio(facts, run))


def _moved(subject: Subject, facts: TranscodeFacts, run: Run) -> tuple[str, bool]:
    """What moved on the card while the run lasted, and whether anything could be read."""
    samples = run.samples.value or ()
    base = run.baseline.value
    row = media_row(subject.chain.gpu.device)
    kernel, driver = facts.kernel.value or "", facts.kernel_driver.value or ""
    counted = [dict(s.engines) for s in samples if s.engines]
    if counted:
        most = {name: max(c.get(name, 0) for c in counted) for name in {n for c in counted for n in c}}
        worked = [f"{name} {most[name] / 1e6:.0f}" for name in sorted(most) if most[name] > 0]
        return (f"engine time (ms): {', '.join(worked)}" if worked else ""), True
    if row is not None and row.counts_engines(kernel, driver) and samples:
        return "", False  # this kernel counts, and the run's process could not be looked at
    woke = _woke(base, samples)
    return woke, any(s.idle_ms is not None or s.clock_mhz is not None for s in samples)


def _woke(base: Sample | None, samples: tuple[Sample, ...]) -> str:
    """Frequency above the idle one and the idle residency standing still: the GPU was awake for the run."""
    clocks = [s.clock_mhz for s in samples if s.clock_mhz is not None]
    told = []
    if clocks and base is not None and base.clock_mhz is not None and max(clocks) > base.clock_mhz:
        told.append(f"frequency {base.clock_mhz} -> {max(clocks)} MHz")
    idles = [(s.at, s.idle_ms) for s in samples if s.idle_ms is not None]
    if len(idles) > 2:
        inner = idles[1:-1] if len(idles) > 4 else idles
        grown, passed = inner[-1][1] - inner[0][1], (inner[-1][0] - inner[0][0]) * 1000.0
        if passed > 0 and grown < passed * 0.5:
            told.append(f"idle residency grew {grown} ms in {passed:.0f} ms")
    return ", ".join(told) if len(told) == 2 else ""
