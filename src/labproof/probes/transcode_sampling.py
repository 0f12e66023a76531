"""The card's counters while a transcode runs, read by nvidia-smi in the same container."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait

from labproof.facts.nvidia_smi import parse_smi_xml
from labproof.facts.pod_command import Ran
from labproof.facts.reading import Reading, failed, value
from labproof.facts.transcode import Sample

Run = Callable[[Sequence[str]], Ran]

FIELDS = (
    "utilization.encoder", "utilization.decoder", "encoder.stats.sessionCount", "memory.used", "memory.free",
    "temperature.gpu", "pstate", "clocks_throttle_reasons.active",
)  # fmt: skip
#: NVML's bits of clock event reasons (nvml.h, nvmlClocksEventReason*); idle and the power cap are daily life.
REASONS = {
    0x8: "hw_slowdown", 0x20: "sw_thermal_slowdown", 0x40: "hw_thermal_slowdown", 0x80: "hw_power_brake_slowdown",
}  # fmt: skip
QUERY = ("nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits")
XML = ("nvidia-smi", "-q", "-x")


ENOUGH_SAMPLES = 3


class Sampler:
    """Reads counters through one container; they count for the whole card, so a baseline is taken before each run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._by_xml = False

    def once(self) -> Reading[Sample]:
        """The counters now. Drivers that do not know a field refuse the whole query: then the XML is read."""
        if not self._by_xml:
            ran = self._run(QUERY)
            if ran.ok:
                return parse_csv(ran)
            if ran.rc != 2:
                return failed(ran.line(), ran.said(), "nvidia-smi")
            self._by_xml = True
        ran = self._run(XML)
        report = parse_smi_xml(ran.stdout).value if ran.ok else None
        if report is None or not report.gpus:
            return failed(ran.line(), ran.said(), "nvidia-smi")
        gpu = report.gpus[0]
        return value(
            Sample(
                ran.ended, gpu.encoder_util.value, gpu.decoder_util.value, gpu.encoder_sessions.value,
                gpu.memory_used.value, gpu.memory_free.value, gpu.temperature.value, gpu.slowdowns.value,
            ),
            ran.line(),
        )  # fmt: skip

    def until_done(self, running: Sequence[Future[Ran]], every_s: float) -> Reading[tuple[Sample, ...]]:
        """Samples until all of `running` are done, `every_s` seconds apart."""
        samples: list[Sample] = []
        last: Reading[Sample] | None = None
        while True:
            if all(future.done() for future in running):
                break
            last = self.once()
            if last.value is not None:
                samples.append(last.value)
            wait(running, timeout=every_s)
        if not samples:
            if last is None:
                return failed(" ".join(QUERY), "it was over before a sample could be taken", "slow")
            return failed(" ".join(QUERY), last.why, "nvidia-smi")
        return value(tuple(samples), " ".join(QUERY))


def telling(baseline: Reading[Sample], samples: Reading[tuple[Sample, ...]], ran: Ran) -> bool:
    """Whether samples of a run say anything: a counter rose, or enough of them were complete before the run ended.

    A counter that stands still in one or two samples tells nothing: the engine may have worked between them, as on a
    machine so busy that nvidia-smi takes as long as the clip. No samples at all are a reading of their own.
    """
    taken = samples.value
    if taken is None:
        return samples.kind != "slow"
    before = baseline.value
    for field in ("encoder", "decoder", "sessions"):
        start = (getattr(before, field) if before is not None else None) or 0
        if any((getattr(sample, field) or 0) > start for sample in taken):
            return True
    return sum(1 for sample in taken if sample.at <= ran.ended) >= ENOUGH_SAMPLES


def parse_csv(ran: Ran) -> Reading[Sample]:
    """One line of the query: numbers, or `[N/A]`, `[Not Supported]` and their like where the driver does not tell."""
    line = next((text for text in ran.stdout.splitlines() if "," in text), "")
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != len(FIELDS):
        return failed(ran.line(), f"expected {len(FIELDS)} values, got: {line[:120]!r}", "format")
    numbers = [int(float(cell)) if cell.replace(".", "", 1).isdigit() else None for cell in cells[:6]]
    encoder, decoder, sessions, used, free, heat = numbers
    sample = Sample(ran.ended, encoder, decoder, sessions, used, free, heat, _reasons(cells[-1]))
    return value(sample, ran.line())


def _reasons(mask: str) -> tuple[str, ...] | None:
    """The names behind `0x0000000000000008`; None when the driver does not tell."""
    try:
        bits = int(mask, 16)
    except ValueError:
        return None
    return tuple(name for bit, name in REASONS.items() if bits & bit)
