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
    "temperature.gpu", "pstate",
)  # fmt: skip
QUERY = ("nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits")
XML = ("nvidia-smi", "-q", "-x")


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
                gpu.memory_used.value, gpu.memory_free.value, gpu.temperature.value,
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
            why = last.why if last is not None else "it was over before a sample could be taken"
            return failed(" ".join(QUERY), why, "nvidia-smi")
        return value(tuple(samples), " ".join(QUERY))


def parse_csv(ran: Ran) -> Reading[Sample]:
    """One line of the query: numbers, or `[N/A]`, `[Not Supported]` and their like where the driver does not tell."""
    line = next((text for text in ran.stdout.splitlines() if "," in text), "")
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != len(FIELDS):
        return failed(ran.line(), f"expected {len(FIELDS)} values, got: {line[:120]!r}", "format")
    numbers = [int(float(cell)) if cell.replace(".", "", 1).isdigit() else None for cell in cells[:6]]
    encoder, decoder, sessions, used, free, heat = numbers
    return value(Sample(ran.ended, encoder, decoder, sessions, used, free, heat), ran.line())
