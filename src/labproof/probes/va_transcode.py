"""Encodes, decodes and transcodes through VA-API on one chain's card, with its counters read meanwhile.

What is tried comes from lab.yaml, else from the card's row in the table of media engines; a card the table does not
know is tried with H.264 alone. In a pod that is not ours only what proves the engines is run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from labproof.catalogue.media import media_row
from labproof.facts.reading import Reading, State, failed, value
from labproof.facts.store import now
from labproof.facts.transcode import Run, TranscodeFacts
from labproof.facts.workload import Floors
from labproof.inventory.chains import Chain
from labproof.inventory.models import Lab
from labproof.probes.dri_inspect import read_dri
from labproof.probes.transcode_commands import DECODE_LOOPS
from labproof.probes.transcode_runs import Maker, Worker
from labproof.probes.va_commands import VaCommands
from labproof.probes.va_sampling import EngineSampler

#: How much longer a run is made each time that nothing could be seen of it while it lasted.
_TIMES = (1, 4, 16)
_ENOUGH = 5  # looks that frequency and residency need


def observe_media(
    facts: TranscodeFacts, worker: Worker, lab: Lab, chain: Chain, prefix: str
) -> Reading[TranscodeFacts]:
    """All runs of one chain.

    Args:
        facts: begun; the pod runs.
        worker: the container.
        prefix: what names of written files begin with.
    """
    cluster = chain.cluster
    assert cluster is not None, "a chain without a cluster has no pod to transcode in"
    probe = cluster.probe
    dri = read_dri(worker.run)
    node = dri.value.render_node(chain.gpu.device) if dri.value is not None else None
    if node is None:
        why = f"no render node of {chain.gpu.device} in the container"
        missing = failed(dri.source, dri.why or why, dri.kind or "absent", now())
        facts = replace(facts, render_node=missing)
        path = next((n.path for n in dri.value.nodes if n.is_render), "") if dri.value is not None else ""
    else:
        path = node.path
        facts = replace(
            facts, render_node=value(path, dri.source), kernel_driver=value(node.driver, f"sysfs of {path}"),
        )  # fmt: skip
    kernel = dri.value.kernel if dri.value is not None else ""
    commands = VaCommands(
        probe.ffmpeg, probe.ffprobe, prefix, lab.timings.sample_s, path or "/dev/dri/renderD128",
        tuple(sorted(probe.env.items())),
    )  # fmt: skip
    ran = worker.run(commands.version())
    first = ran.stdout.splitlines()[0] if ran.ok and ran.stdout else ""
    version: Reading[str] = (
        value(first.split(" Copyright", 1)[0].removeprefix("ffmpeg version "), ran.line())
        if first.startswith("ffmpeg version")
        else failed(ran.line(), ran.said(), "image" if ran.missing or ran.rc in (126, 127) else "exec")
    )
    facts = replace(
        facts, ffmpeg_version=version, kernel=value(kernel, "uname -r"),
        nvidia_smi_works=Reading(State.NOT_ASKED, why="not an NVIDIA card"),
        floors=value(Floors(None, None, None, ""), "no floors for this kind of card"),
    )  # fmt: skip
    if version.value is None:
        return value(facts)
    sampler = EngineSampler(worker.run, prefix, _card_of(worker, path))
    row = media_row(chain.gpu.device)
    counts = row is None or row.counts_engines(kernel, facts.kernel_driver.value or "")
    try:
        return value(replace(facts, runs=_runs(_Watched(worker, commands, lab, sampler, counts=counts), chain)))
    finally:
        if probe.via == "exec":
            worker.run(commands.clean())


def _card_of(worker: Worker, render: str) -> str:
    """The primary node of the render node's device: its power files are there."""
    ran = worker.run(("ls", f"/sys/class/drm/{render.rpartition('/')[2]}/device/drm"))
    return next((name for name in ran.stdout.split() if name.startswith("card")), "card0")


class _Watched:
    """Makes runs, and makes one again, longer, that was over before anything could be seen of it."""

    def __init__(self, worker: Worker, commands: VaCommands, lab: Lab, sampler: EngineSampler, *, counts: bool) -> None:
        self.commands = commands
        self._worker, self._lab, self._sampler, self._counts = worker, lab, sampler, counts
        self._frames: dict[str, int] = {}  # of each written file

    def plain(self, name: str, argv: list[str], frames: int, *, judged: bool = False) -> Run:
        """A run whose counters nobody asks for."""
        made = Maker(self._worker, self.commands, self._lab, self._sampler, 1).make(
            name, "av1" if name == "av1" else "h264", "transcode" if name == "app" else "encode", argv, frames,
            sampled=False, judged=judged,
        )  # fmt: skip
        self._frames[name] = frames
        return made

    def encode(self, name: str, codec: str, argv: Callable[[VaCommands], list[str]], *, judged: bool = True) -> Run:
        """An encode of the generated source; of a longer one when the first told nothing."""
        for times in _TIMES:
            commands = replace(self.commands, seconds=self.commands.seconds * times)
            maker = Maker(self._worker, commands, self._lab, self._sampler, 1)
            run = maker.make(name, codec, "encode", argv(commands), commands.frames, judged=judged)
            self._frames[name] = commands.frames
            if not run.ran.ok or self._seen(run):
                break
        return run

    def transcode(self) -> Run:
        """Decode, scale and encode of the software reference."""
        for times in _TIMES:
            maker = Maker(self._worker, self.commands, self._lab, self._sampler, 1)
            frames = self._frames["software"] * times
            run = maker.make("transcode", "h264", "transcode", self.commands.transcode(times), frames, judged=False)
            if not run.ran.ok or self._seen(run):
                break
        return run

    def decode(self, name: str, codec: str, of: str) -> Run:
        """A decode of a written file, read over and over."""
        for times in _TIMES:
            loops = DECODE_LOOPS * times
            maker = Maker(self._worker, self.commands, self._lab, self._sampler, 1)
            frames = self._frames[of] * loops
            run = maker.make(name, codec, "decode", self.commands.decode(of, loops), frames, judged=False)
            if not run.ran.ok or self._seen(run):
                break
        return run

    def _seen(self, run: Run) -> bool:
        samples = run.samples.value or ()
        if self._counts:
            return any(time for sample in samples for _, time in sample.engines)
        return len(samples) >= _ENOUGH


def _runs(watched: _Watched, chain: Chain) -> tuple[Run, ...]:
    """One run after the other, so that their counters do not mix."""
    cluster = chain.cluster
    assert cluster is not None, "a chain without a cluster has no pod to transcode in"
    row, wanted, ours = media_row(chain.gpu.device), cluster.transcode, cluster.probe.via == "pod"
    encodes = wanted.encode or (row.encode if row is not None else ("h264",))
    decodes = wanted.decode or (row.decode if row is not None else ("h264",))
    commands = watched.commands
    software = watched.plain("software", commands.software(), commands.frames)
    made = [software]
    if "h264" in encodes:
        made.append(watched.encode("h264", "h264", VaCommands.encode_h264))
    if "hevc" in encodes and ours:
        made.append(watched.encode("hevc", "hevc", VaCommands.encode_hevc))
    if "vp9" in encodes and ours:
        made.append(watched.encode("vp9", "vp9", VaCommands.encode_vp9))
    written = {run.name for run in made if run.ran.ok}
    if software.ran.ok and "h264" in decodes:
        made.append(watched.decode("decode", "h264", "software"))
    for codec in ("hevc", "vp9"):  # decoded is what the card itself wrote, so nothing has to be downloaded
        if codec in decodes and codec in written:
            made.append(watched.decode(f"decode-{codec}", codec, codec))
    if software.ran.ok and "h264" in encodes:
        made.append(watched.transcode())
    if not ours:
        return tuple(made)
    if software.ran.ok and "h264" in encodes:
        made.append(watched.plain("app", commands.app(), commands.frames))
    if wanted.low_power:
        made.append(watched.encode("low-power", "h264", VaCommands.encode_low_power))
    if wanted.qsv:
        made.append(watched.encode("qsv", "h264", VaCommands.encode_qsv))
    if wanted.tone_mapping:
        made.append(watched.encode("tone-map", "h264", VaCommands.tone_map, judged=False))
    if wanted.subtitles:
        made.append(watched.encode("subtitles", "h264", VaCommands.subtitles, judged=False))
    if row is not None and "av1" not in row.encode:
        made.append(watched.plain("av1", commands.encode_av1(), 30))
    return tuple(made)
