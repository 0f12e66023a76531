"""POD-VRAM: the declared workloads fit into the card's memory, and the declared memory can really be taken."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Fail, Judgement, Measurement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.workload_view import values_of
from labproof.facts.reading import need
from labproof.inventory.chains import chains_of
from labproof.inventory.models import Workload

#: ffmpeg's words for memory that the card does not have (FFmpeg libavutil/hwcontext_cuda.c).
_NO_MEMORY = ("CUDA_ERROR_OUT_OF_MEMORY", "Cannot allocate memory")


@clause_check(
    "POD-VRAM-001",
    title="The workloads fit into the card's memory together",
    severity=DEGRADED,
    scope="chain",
    reads=("workload",),
    causes=("W80",),
    wants=("nvidia", "vram-budget"),
    after=("POD-SMI-001",),
)
def workloads_fit_together(subject: Subject) -> Judgement:
    """Time-slicing divides time, not memory (facts kubernetes-gpu 1.2): what may run at once must fit at once.

    Counted are workloads that hold a slot of this node now, and those declared `always` where no other node has a GPU.
    One that is parked needs nothing.
    """
    facts = subject.workload_facts
    report = need(need(facts.nvidia_smi, "nvidia-smi").report, "nvidia-smi -q -x")
    card = need(report.gpus[0].memory_total, "memory of the card") if report.gpus else 0
    beside = [c for c in chains_of(subject.lab) if c.cluster is not None and c.cluster.name == subject.cluster.name]
    cards = sum(c.node is not None and c.node.name == facts.node for c in beside)
    elsewhere = len(beside) > cards  # with GPUs on other nodes too, only those seen here are known to be meant for here
    holding = {h.name for h in facts.slots.holders if not h.ours}

    def holds(workload: Workload) -> bool:
        return any(name == workload.name or name.startswith(f"{workload.name}-") for name in holding)

    told: list[tuple[Workload, str]] = []
    for workload in subject.cluster.workloads:
        if workload.vram_mib and holds(workload):
            told.append((workload, "holds a slot now"))
        elif workload.vram_mib and workload.state == "always" and not elsewhere:
            told.append((workload, "declared always"))
    needed = sum(w.vram_mib or 0 for w, _ in told)
    sums = " + ".join(f"{w.name} {w.vram_mib} MiB ({why})" for w, why in told) or "nothing that runs at once"
    evidence = (
        Evidence("lab.yaml workloads[].vram_mib; pods on the node", f"{sums} = {needed} MiB"),
        Evidence("nvidia-smi -q -x fb_memory_usage/total", f"{cards} x {card} MiB"),
    )
    problems = []
    if needed > card * cards:
        names = ", ".join(w.name for w, _ in told)
        problems.append(Problem("W80", names, evidence, values_of(subject)))
    return verdict_of(problems, evidence)


@clause_check(
    "POD-VRAM-002",
    title="The declared card memory can be taken",
    severity=DEGRADED,
    scope="chain",
    reads=("workload",),
    causes=("W81",),
    wants=("nvidia", "vram-allocation"),
    after=("POD-SMI-001", "POD-UVM-001", "POD-CUDA-001", "POD-VRAM-001"),
)
def declared_memory_can_be_taken(subject: Subject) -> Judgement:
    """Free by nvidia-smi is not yet allocatable; and memory that is gone while nobody holds a slot has a taker too."""
    seen = need(subject.workload_facts.vram, "card memory taken in the pod")
    ran = seen.ran.value
    before = Evidence("nvidia-smi -q -x fb_memory_usage/free", f"{seen.free_before} MiB free, {seen.wanted} MiB wanted")
    subject_name = f"probe pod on {subject.workload_facts.node}"
    if ran is None:
        if seen.held_by_others:
            return Unchecked(f"{before.text}; taking it would starve {seen.held_by_others}", busy=True)
        nobody = Evidence("pods on the node", "nobody else holds a slot")
        return Fail((Problem("W81", subject_name, (before, nobody), values_of(subject)),))
    said = Evidence(ran.line(), ran.said())
    if not ran.ok:
        if any(text in ran.text for text in _NO_MEMORY):
            return Fail((Problem("W81", subject_name, (before, said), values_of(subject)),))
        return Unchecked(f"the program that takes memory failed for another reason: {ran.said()}")
    kept = () if seen.peak is None else (Measurement("vram_taken", float(seen.peak), "MiB"),)
    most = Evidence("nvidia-smi memory.used meanwhile", f"{seen.peak} MiB" if seen.peak is not None else "no sample")
    return Pass((before, most), measurements=kept)
