"""The transcode probe: short encodes, decodes and transcodes in a pod, with the card's counters read meanwhile.

It acts (write scope `pod`). Codecs and what is expected to fail come from the card's row in the capability table and
from lab.yaml; judging is left to the checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from labproof.catalogue.floors import floor
from labproof.catalogue.gpus import capability
from labproof.facts.pod_command import Ran
from labproof.facts.reading import Reading, failed, value
from labproof.facts.store import now
from labproof.facts.transcode import AtOnce, Run, TranscodeFacts
from labproof.facts.workload import PodSeen
from labproof.inventory.chains import Chain
from labproof.inventory.models import Lab
from labproof.probes.pods import OwnPods
from labproof.probes.pods_card import mates_on_card, settle_on_card
from labproof.probes.pods_opened import in_own_pods
from labproof.probes.transcode_commands import DECODE_LOOPS, Commands
from labproof.probes.transcode_exporter import ExporterWatch
from labproof.probes.transcode_runs import ATTEMPTS, Maker, Worker, read_run
from labproof.probes.transcode_sampling import Sampler
from labproof.probes.va_transcode import observe_media
from labproof.probes.workload import Ground, declared_pod, not_asked, runs, survey
from labproof.probes.workload_dri import is_nvidia
from labproof.probes.workload_inspect import floors, read_smi


def probe_transcode(lab: Lab, chain: Chain) -> Reading[TranscodeFacts]:
    """Transcode on one chain's card and observe.

    Returns:
        The facts; failed with kind `busy` when no slot may be taken or the card is below the floors, `refused` when
        acting would do harm, or the transport's kind when the cluster does not answer.
    """
    return in_own_pods(lab, chain, _observe, _left)


def _left(facts: TranscodeFacts, pods: OwnPods) -> TranscodeFacts:
    return replace(facts, created=tuple(pods.created), left_behind=tuple(pods.left_behind))


def _observe(pods: OwnPods, lab: Lab, chain: Chain) -> Reading[TranscodeFacts]:
    probe = pods.cluster.probe
    ground = survey(pods, lab)
    if isinstance(ground, Reading):
        return ground
    facts = TranscodeFacts(
        chain.id, pods.node, probe.via, pods.run, now(), ground.slots, ground.image, failed("pods", ground.busy, "busy")
    )
    if probe.via == "exec":
        found = declared_pod(pods)
        if isinstance(found, Reading):
            return value(replace(facts, probe=found))
        worker = Worker(*found)
    elif ground.limit < 1:
        return failed("slots", ground.busy, "busy", now())
    else:
        seen = settle_on_card(pods, chain, ground.slots, ground.image.reference, ground.limit, ground.busy)
        if isinstance(seen, Reading):
            return seen
        worker = _own(pods, seen)
    facts = replace(facts, probe=value(worker.seen, f"pod {worker.seen.namespace}/{worker.seen.name}"))
    if not runs(worker.seen.outcome):
        return value(facts)
    prefix = f"/tmp/labproof-{pods.run}-"  # noqa: S108 - in the container
    if not is_nvidia(chain):
        return observe_media(facts, worker, lab, chain, prefix)
    commands = Commands(probe.ffmpeg, probe.ffprobe, prefix, lab.timings.sample_s)
    facts = _preflight(facts, worker, commands, pods)
    left = facts.floors.value
    if left is not None and left.short_of:
        return failed("nvidia-smi -q -x", f"not started: {left.short_of}", "busy", now())
    if facts.ffmpeg_version.value is None:
        return value(facts)
    try:
        if pods.cluster.metrics is None:
            return value(_all_runs(facts, pods, worker, commands, ground, chain))
        with ExporterWatch(pods, facts.uuids) as watch:
            facts = _all_runs(facts, pods, worker, commands, ground, chain)
            h264 = facts.of("h264")
            if probe.via == "exec" and not watch.risen:
                return value(replace(facts, exporter=not_asked("no long encode is made in a pod that is not ours")))
            if h264 is not None and h264.ran.ok:
                watch.insist(lambda seconds: worker.run(commands.load(seconds), seconds + lab.timings.transcode_s))
        return value(replace(facts, exporter=watch.seen()))
    finally:
        if probe.via == "exec":
            worker.run(commands.clean())


def _all_runs(
    facts: TranscodeFacts, pods: OwnPods, worker: Worker, commands: Commands, ground: Ground, chain: Chain
) -> TranscodeFacts:
    facts = replace(facts, runs=_single_runs(worker, commands, pods.lab, chain))
    return replace(facts, at_once=_at_once(pods, worker, commands, ground, chain))


def _own(pods: OwnPods, seen: PodSeen) -> Worker:
    def run(argv: Sequence[str], timeout_s: float | None = None) -> Ran:
        return pods.exec(seen, argv, timeout_s)

    return Worker(seen, run)


def _preflight(facts: TranscodeFacts, worker: Worker, commands: Commands, pods: OwnPods) -> TranscodeFacts:
    ran = worker.run(commands.version())
    first = ran.stdout.splitlines()[0] if ran.ok and ran.stdout else ""
    version: Reading[str] = (
        value(first.split(" Copyright", 1)[0].removeprefix("ffmpeg version "), ran.line())
        if first.startswith("ffmpeg version")
        else failed(ran.line(), ran.said(), "image" if ran.missing or ran.rc in (126, 127) else "exec")
    )
    smi = read_smi(worker.run)
    report = smi.value.report.value if smi.value is not None else None
    return replace(
        facts,
        ffmpeg_version=version,
        driver_version=report.driver_version if report is not None else failed(smi.source, "nvidia-smi told nothing"),
        nvidia_smi_works=value(smi.value is not None and smi.value.ran.ok, smi.source),
        floors=floors(smi, pods.cluster.probe),
        uuids=tuple(g.uuid.value for g in report.gpus if g.uuid.value) if report is not None else (),
    )


def _single_runs(worker: Worker, commands: Commands, lab: Lab, chain: Chain) -> tuple[Run, ...]:
    """One run after the other: their counters must not mix. In a pod that is not ours only what proves the engines."""
    row = capability(chain.gpu.device)
    declared = chain.cluster.transcode.encode if chain.cluster is not None else ()
    encodes = declared or (row.encode if row is not None else ("h264", "hevc"))
    frames = commands.frames
    maker = Maker(worker, commands, lab, Sampler(worker.run))
    software = maker.make("software", "h264", "encode", commands.software(), frames, sampled=False, judged=False)
    made = [software]
    if "h264" in encodes:
        made.append(maker.make("h264", "h264", "encode", commands.encode_h264(), frames))
    ours = chain.cluster is None or chain.cluster.probe.via == "pod"
    if "hevc" in encodes and ours:
        made.append(maker.make("hevc", "hevc", "encode", commands.encode_hevc(), frames))
    if software.ran.ok:
        decode = commands.decode()
        made.append(maker.make("decode", "h264", "decode", decode, frames * DECODE_LOOPS, judged=False))
        if "h264" in encodes:
            made.append(maker.make("transcode", "h264", "transcode", commands.transcode(), frames, judged=False))
        if "h264" in encodes and ours:
            made.append(maker.make("app", "h264", "transcode", commands.app(), frames, sampled=False))
    if ours and row is not None and "av1" not in row.encode:
        made.append(maker.make("av1", "av1", "encode", commands.encode_av1(), 30, sampled=False, judged=False))
    return tuple(made)


def _at_once(pods: OwnPods, worker: Worker, commands: Commands, ground: Ground, chain: Chain) -> Reading[AtOnce]:
    """As many paced encodes as slots may be held, one pod each, started together."""
    cluster = pods.cluster
    row = capability(chain.gpu.device)
    if cluster.sharing.strategy == "none":
        return not_asked("the card is not shared")
    if row is not None and "h264" not in row.encode:
        return not_asked(f"{row.name} has no H.264 encoder")
    if cluster.probe.via == "exec":
        return not_asked("only one short transcode is done in a pod that is not ours")
    wanted = min(cluster.transcode.at_once or cluster.sharing.replicas, ground.limit)
    if wanted < 2:
        return failed("slots", ground.busy or "only one slot may be held", "busy")
    more = [pods.make("probe", f"at-once-{n}", ground.image.reference, 1) for n in range(1, wanted)]
    more = [pods.settle(seen) for seen in more]
    stuck = next((seen for seen in more if not runs(seen.outcome)), None)
    if stuck is not None:
        said = stuck.text or (stuck.outcome.text if stuck.outcome is not None else "")
        return failed(f"pod {stuck.namespace}/{stuck.name}", f"a pod for the test at once does not run: {said}", "pod")
    more = mates_on_card(pods, chain, worker.seen, more, ground.image.reference, ground.limit)
    workers = [worker, *(_own(pods, seen) for seen in more)]
    if len(workers) < 2:
        return failed("slots", f"all other slots we may hold are on other cards; {ground.busy}", "busy")
    wanted = len(workers)
    timings = pods.lab.timings
    sampler = Sampler(worker.run)
    for _ in range(ATTEMPTS):  # runs that a busy machine let start one after the other are made again, never judged
        baseline = sampler.once()
        with ThreadPoolExecutor(wanted, "labproof ffmpeg") as pool:
            futures = [
                pool.submit(w.run, commands.encode_h264(f"at-once-{n}"), timings.transcode_s)
                for n, w in enumerate(workers)
            ]
            samples = sampler.until_done(futures, timings.sample_poll_s)
            ended = [future.result() for future in futures]
        made = [
            read_run(f"at-once-{number}", "h264", "encode", one.seen, ran, commands.frames)
            for number, (one, ran) in enumerate(zip(workers, ended, strict=True))
        ]
        together = AtOnce(wanted, tuple(made), baseline, samples)
        enough = floor("overlap_share") * min(ran.seconds for ran in ended)
        if together.overlap_s >= enough or not all(ran.ok for ran in ended):
            break
    made = [
        Maker(one, commands, pods.lab, sampler).compare(run, "psnr") if run.ran.ok else run
        for one, run in zip(workers, made, strict=True)
    ]
    pods.remove(*(seen.name for seen in more))
    return value(replace(together, runs=tuple(made)), "encodes started together")
