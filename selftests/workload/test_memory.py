"""Card memory and power limit: arithmetic, the program that takes memory, and what it must not do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labproof.checks.judgement import Pass, Unchecked
from labproof.facts.reading import NOT_ASKED, State, unsupported, value
from labproof.facts.workload import VramSeen
from labproof.inventory.models import Probe, Timings
from labproof.probes.workload_memory import FRAME_MIB, command, take_memory
from labproof.simlab.pod.ffmpeg_graph import parse_graph

from .world import causes_of, gpu, healthy, holder, judge, lab, ran, slots, smi

WORKLOADS = [
    {"name": "ai/ollama", "vram_mib": 8192},
    {"name": "ai/comfyui", "vram_mib": 12288, "state": "on-demand"},
    {"name": "ai/old", "vram_mib": 30000, "state": "parked"},
]
BUDGET = lab(workloads=WORKLOADS)


def holding(*names):
    return replace(healthy(), slots=slots(holders=tuple(holder(name, 1) for name in names)))


@pytest.mark.parametrize("pods", [(), ("ai/ollama-7d9-x1",), ("ai/ollama-7d9-x1", "ai/ollamazing-0", "media/x-0")])
def test_what_runs_at_once_fits(pods):
    assert isinstance(judge("POD-VRAM-001", holding(*pods), BUDGET), Pass)


def test_flux_beside_ollama_is_refused_by_arithmetic():
    judgement = judge("POD-VRAM-001", holding("ai/ollama-7d9-x1", "ai/comfyui-0"), BUDGET)
    assert causes_of(judgement) == ["W80"]
    (problem,) = judgement.problems
    assert problem.subject == "ai/ollama, ai/comfyui"
    assert "= 20480 MiB" in problem.evidence[0].text
    assert "1 x 15360 MiB" in problem.evidence[1].text


def test_declared_always_counts_although_it_is_down():
    always = lab(workloads=[WORKLOADS[0], {**WORKLOADS[1], "state": "always"}])
    assert causes_of(judge("POD-VRAM-001", holding(), always)) == ["W80"]


def test_card_that_does_not_tell_its_memory_is_unchecked():
    facts = replace(healthy(), nvidia_smi=smi(gpu(memory_total=unsupported("x", "N/A"))))
    assert isinstance(judge("POD-VRAM-001", facts, BUDGET), Unchecked)


def taken(**fields):
    return replace(
        healthy(), vram=value(VramSeen(**({"wanted": 4096, "free_before": 14913, "held_by_others": ""} | fields)))
    )


WANTED = lab(probe={"vram_mib": 4096})


def test_memory_that_was_taken_is_told():
    judgement = judge("POD-VRAM-002", taken(ran=value(ran("ffmpeg -")), peak=4310), WANTED)
    assert isinstance(judgement, Pass)
    assert [m.value for m in judgement.measurements] == [4310.0]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (taken(ran=value(ran("ffmpeg -", 244, stderr="cu->cuMemAlloc failed -> CUDA_ERROR_OUT_OF_MEMORY"))), "W81"),
        (taken(free_before=2000), "W81"),  # nobody holds a slot, and yet it is gone
        (taken(free_before=2000, held_by_others="ai/ollama-0"), "busy"),
        (taken(ran=value(ran("ffmpeg -", 1, stderr="No such filter: 'loop'"))), "unchecked"),
        (healthy(), "unchecked"),
    ],
)
def test_memory_that_was_not_taken(facts, expected):
    judgement = judge("POD-VRAM-002", facts, WANTED)
    if expected == "W81":
        assert causes_of(judgement) == ["W81"]
    else:
        assert isinstance(judgement, Unchecked)
        assert judgement.busy is (expected == "busy")


class Pod:
    """Runs nothing and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, argv, timeout_s=None):
        self.asked.append(list(argv))
        return ran(" ".join(argv), stdout="0, 0, 0, 4310, 10000, 40, P0, 0x0\n")


def test_as_many_frames_are_held_as_the_memory_needs():
    argv = command("ffmpeg", 4097)
    (chain,) = parse_graph(argv[argv.index("-vf") + 1])
    held = next(f for f in chain.filters if f.name == "loop")
    assert int(held.option("size")) * FRAME_MIB >= 4097 > (int(held.option("size")) - 1) * FRAME_MIB
    assert argv[argv.index("-frames:v") + 1] == held.option("size")
    assert argv[-3:] == ["-f", "null", "-"]


@pytest.mark.parametrize(
    ("free", "holders", "started"),
    [
        (14913, (), True), (14913, (holder("ai/ollama-0", 1),), True), (4096, (), True), (4000, (), False),
        (5000, (holder("ai/ollama-0", 1),), False),  # 1024 MiB stay with the others
        (None, (), True),
    ],
)  # fmt: skip
def test_nobody_is_starved(free, holders, started):
    pod = Pod()
    reading = take_memory(pod, Probe(vram_mib=4096), Timings(), slots(holders=holders), free)
    assert reading.value.wanted == 4096
    assert bool(pod.asked) is started
    assert (reading.value.ran.state is State.VALUE) is started


def test_nothing_is_tried_where_nothing_is_declared():
    pod = Pod()
    assert take_memory(pod, Probe(), Timings(), slots(), 9000) == NOT_ASKED
    assert pod.asked == []


@pytest.mark.parametrize(("limit", "expected"), [(70.0, None), (70.4, None), (60.0, "W82"), (75.0, "W82")])
def test_power_limit(limit, expected):
    declared = lab()
    declared = declared.model_copy(update={"gpus": (declared.gpus[0].model_copy(update={"power_limit_watts": 70.0}),)})
    judgement = judge("POD-POWER-001", replace(healthy(), nvidia_smi=smi(gpu(power_limit=limit))), declared)
    assert (causes_of(judgement) == [expected]) if expected else isinstance(judgement, Pass)
