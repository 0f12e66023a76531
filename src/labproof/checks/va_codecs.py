"""CODEC-VA...: encode, decode and transcode through VA-API on Intel and AMD, one stream at a time."""

from __future__ import annotations

from labproof.catalogue.ffmpeg_errors import classify
from labproof.catalogue.media import media_row
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.checks.transcode_codecs import judge_quality
from labproof.checks.transcode_proof import (
    command,
    failure_of,
    measurements_of,
    output_problems,
    run_of,
    started,
)
from labproof.checks.va_proof import VA_CODEC_CAUSES, VA_DECODE_CAUSES, VA_ENCODE_CAUSES, VA_FILTER_CAUSES, media_proof
from labproof.checks.workload_view import values_of
from labproof.facts.transcode import Run, TranscodeFacts


@clause_check(
    "CODEC-VAH264-001",
    title="VA-API encodes H.264 on the GPU",
    severity=BLOCKING,
    scope="chain",
    reads=("transcode",),
    causes=VA_ENCODE_CAUSES,
    wants=("dri",),
)
def encodes_h264(subject: Subject) -> Judgement:
    """Frames counted, encoder tag and pace right, and two kinds of proof that the GPU did it."""
    return judge_run(subject, "h264", "h264", "encode", VA_ENCODE_CAUSES)


@clause_check(
    "CODEC-VAHEVC-001",
    title="VA-API encodes HEVC on the GPU",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=VA_CODEC_CAUSES,
    wants=("dri", "own-pod"),
    after=("CODEC-VAH264-001",),
)
def encodes_hevc(subject: Subject) -> Judgement:
    """From Skylake on; the free build of the driver lacks it up to Tiger Lake."""
    return judge_run(subject, "hevc", "hevc", "encode", VA_CODEC_CAUSES)


@clause_check(
    "CODEC-VAVP9-001",
    title="VA-API encodes VP9 on the GPU",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=VA_CODEC_CAUSES,
    wants=("dri", "own-pod", "low-power"),
    after=("CODEC-VAH264-001",),
)
def encodes_vp9(subject: Subject) -> Judgement:
    """Ice Lake to Meteor Lake, by the low-power engine alone, which needs HuC for it."""
    return judge_run(subject, "vp9", "vp9", "encode", VA_CODEC_CAUSES)


@clause_check(
    "CODEC-VADEC-001",
    title="VA-API decodes H.264 on the GPU",
    severity=BLOCKING,
    scope="chain",
    reads=("transcode",),
    causes=VA_DECODE_CAUSES,
    wants=("dri",),
    after=("CODEC-VAH264-001",),
)
def decodes_h264(subject: Subject) -> Judgement:
    """Proven apart from encoding: a filter that takes no software frames, and the video engine's own time."""
    return judge_run(subject, "decode", "h264", "decode", VA_DECODE_CAUSES)


@clause_check(
    "CODEC-VADEC-002",
    title="VA-API decodes HEVC on the GPU",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=VA_DECODE_CAUSES,
    wants=("dri", "own-pod"),
    after=("CODEC-VADEC-001", "CODEC-VAHEVC-001"),
)
def decodes_hevc(subject: Subject) -> Judgement:
    """What the card itself has encoded is decoded again, so nothing has to be downloaded."""
    return judge_run(subject, "decode-hevc", "hevc", "decode", VA_DECODE_CAUSES)


@clause_check(
    "CODEC-VADEC-003",
    title="VA-API decodes VP9 on the GPU",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=VA_DECODE_CAUSES,
    wants=("dri", "own-pod", "low-power"),
    after=("CODEC-VADEC-001", "CODEC-VAVP9-001"),
)
def decodes_vp9(subject: Subject) -> Judgement:
    """As HEVC; only where VP9 can be encoded is there something to decode."""
    return judge_run(subject, "decode-vp9", "vp9", "decode", VA_DECODE_CAUSES)


@clause_check(
    "CODEC-VATRANS-001",
    title="A whole VA-API transcode stays on the GPU",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=VA_FILTER_CAUSES,
    wants=("dri",),
    after=("CODEC-VAH264-001", "CODEC-VADEC-001"),
)
def transcode_stays_on_the_gpu(subject: Subject) -> Judgement:
    """Decode, scale, encode with no frame copied to memory, at real time."""
    return judge_run(subject, "transcode", "h264", "encode", VA_FILTER_CAUSES)


@clause_check(
    "CODEC-VALP-001",
    title="Low-power encoding holds a bit rate",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=("W25", "W28", "W36", "W37", "W42", "W70", "W71", "W72"),
    wants=("dri", "own-pod", "low-power"),
    after=("CODEC-VAH264-001",),
)
def low_power_holds_a_bit_rate(subject: Subject) -> Judgement:
    """CBR and VBR of the low-power engine need HuC; constant quality does not, and so proves nothing about it."""
    return judge_run(subject, "low-power", "h264", "encode", ("W25", "W28", "W36", "W37", "W42", "W70", "W71", "W72"))


@clause_check(
    "CODEC-QSV-001",
    title="Quick Sync encodes H.264",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=("W25", "W28", "W42", "W46", "W70", "W71", "W72"),
    wants=("intel", "own-pod", "qsv"),
    after=("CODEC-VAH264-001",),
)
def quick_sync_encodes(subject: Subject) -> Judgement:
    """On a device derived from VA-API, as media servers do it; it needs the oneVPL runtime and the iHD driver."""
    return judge_run(subject, "qsv", "h264", "encode", ("W25", "W28", "W42", "W46", "W70", "W71", "W72"))


@clause_check(
    "CODEC-TONE-001",
    title="HDR is mapped to SDR on the GPU",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=(*VA_FILTER_CAUSES, "W95"),
    wants=("dri", "own-pod", "tone-mapping"),
    after=("CODEC-VAH264-001",),
)
def hdr_is_mapped(subject: Subject) -> Judgement:
    """By the video processor, apart from OpenCL, which fails for reasons of its own."""
    return judge_run(subject, "tone-map", "h264", "encode", (*VA_FILTER_CAUSES, "W95"))


@clause_check(
    "CODEC-SUBS-001",
    title="Subtitles are burned in on the GPU",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=VA_FILTER_CAUSES,
    wants=("dri", "own-pod", "subtitles"),
    after=("CODEC-VAH264-001",),
)
def subtitles_are_burned_in(subject: Subject) -> Judgement:
    """A picture is laid over the film before it is encoded; many a lab is fine until somebody asks for subtitles."""
    return judge_run(subject, "subtitles", "h264", "encode", VA_FILTER_CAUSES)


@clause_check(
    "CODEC-VAQUAL-001",
    title="What VA-API writes is the picture that went in",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=("W70",),
    wants=("dri",),
    after=("CODEC-VAH264-001",),
)
def picture_is_right(subject: Subject) -> Judgement:
    """PSNR and SSIM of a software decode against the regenerated source; floors catch damage, not taste."""
    facts = started(subject)
    if isinstance(facts, Unchecked):
        return facts
    written = [r for r in facts.runs if r.name in ("h264", "hevc", "vp9") and r.ran.ok]
    if not written:
        return _not_expected(subject, "h264") if not _expected(subject, "h264", "encode") else Unchecked("no encode")
    problems, seen = [], []
    for run in written:
        bad, text = judge_quality(run.psnr, run.ssim)
        if bad is None:
            return Unchecked(f"{run.name}: {text}", run.psnr)
        evidence = Evidence(f"psnr and ssim of {run.name}", text)
        seen.append(evidence)
        if bad:
            problems.append(Problem("W70", run.name, (evidence,), values_of(subject, facts.probe.value)))
    return verdict_of(problems, seen)


@clause_check(
    "CODEC-VAUNSUP-001",
    title="A codec the GPU cannot encode is refused the expected way",
    severity=HYGIENE,
    scope="chain",
    reads=("transcode",),
    causes=("W78",),
    wants=("dri", "own-pod"),
    after=("CODEC-VAH264-001",),
)
def unsupported_codec_is_refused(subject: Subject) -> Judgement:
    """AV1 on a chip without it: a known refusal, never success; else the table or the identity is wrong."""
    facts = started(subject)
    if isinstance(facts, Unchecked):
        return facts
    row, run = media_row(subject.chain.gpu.device), facts.of("av1")
    if run is None:
        known = f"{row.name} encodes AV1" if row is not None else f"no capability data for {subject.chain.gpu.device}"
        return Pass((Evidence("table of media engines", f"{known}: nothing to refuse"),))
    values = values_of(subject, facts.probe.value)
    if run.ran.ok:
        evidence = Evidence(command(run), f"status 0, {row.name if row else '?'} should not encode AV1")
        return Fail((Problem("W78", "av1", (evidence,), values),))
    if run.ran.rc is None:
        return Unchecked(f"av1: {run.ran.why}")
    meaning = classify(f"{run.log}\n{run.ran.stderr}")
    if meaning is not None and (meaning.verdict == "capability" or meaning.cause == "W25"):
        return Pass((Evidence(command(run), meaning.line),))
    said = meaning.line if meaning is not None else run.log[-300:]
    return Fail((Problem("W78", "av1", (Evidence(command(run), said),), values),))


def judge_run(subject: Subject, name: str, codec: str, direction: str, listed: tuple[str, ...]) -> Judgement:
    """One run: it ended well, wrote what it should, and two kinds of proof stand behind it."""
    facts = started(subject)
    if isinstance(facts, Unchecked):
        return facts
    if not _expected(subject, codec, direction):
        return _not_expected(subject, codec)
    run = run_of(facts, name)
    if isinstance(run, Pass | Unchecked):
        return run
    return _proven(subject, facts, run, listed)


def _proven(subject: Subject, facts: TranscodeFacts, run: Run, listed: tuple[str, ...]) -> Judgement:
    broken = failure_of(subject, facts, run, listed)
    if broken is not None:
        return broken if isinstance(broken, Unchecked) else Fail((broken,))
    values = values_of(subject, facts.probe.value)
    proof = media_proof(subject, facts, run)
    evidence = Evidence(command(run), proof.lines())
    wrong = [(c, e) for c, e in output_problems(subject, facts, run) if c in listed]
    if wrong:
        return Fail(tuple(Problem(cause, run.name, (found, evidence), values) for cause, found in wrong))
    if not proof.counters_read:
        why = run.samples.why or "this kernel counts engine time, and the run's process could not be seen"
        return Unchecked(f"{run.name}: proof incomplete, no counter could be read: {why}")
    if not proof.counter or not (proof.log or proof.cheap):
        return Fail((Problem("W71", run.name, (evidence,), values),))
    return Pass((evidence,), measurements=measurements_of(facts, run))


def _expected(subject: Subject, codec: str, direction: str) -> bool:
    wanted = subject.cluster.transcode
    declared = wanted.encode if direction == "encode" else wanted.decode
    row = media_row(subject.chain.gpu.device)
    if declared:
        return codec in declared
    table = (row.encode if direction == "encode" else row.decode) if row is not None else ("h264",)
    return codec in table


def _not_expected(subject: Subject, codec: str) -> Judgement:
    row = media_row(subject.chain.gpu.device)
    if row is None and codec != "h264":
        device = subject.chain.gpu.device
        return Unchecked(f"no capability data for {device}: add its id to a generation in catalogue/media.yaml")
    name = row.name if row is not None else subject.chain.gpu.device
    return Pass((Evidence("table of media engines, lab.yaml", f"{name}: {codec} is not expected"),))
