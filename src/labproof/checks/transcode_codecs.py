"""CODEC-H264, -HEVC, -DECODE, -TRANSCODE, -NOFALLBACK, -QUALITY, -UNSUPPORTED: one stream at a time."""

from __future__ import annotations

from labproof.catalogue.ffmpeg_errors import classify
from labproof.catalogue.floors import floor
from labproof.catalogue.gpus import ADD_A_ROW, Capability, capability
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.checks.transcode_proof import (
    APP_CAUSES,
    DECODE_CAUSES,
    ENCODE_CAUSES,
    HEVC_CAUSES,
    TRANSCODE_CAUSES,
    Proof,
    command,
    decode_proof,
    encode_proof,
    failure_of,
    measurements_of,
    output_problems,
    run_of,
    started,
)
from labproof.checks.workload_view import values_of
from labproof.facts.ffmpeg import Quality
from labproof.facts.reading import Reading
from labproof.facts.transcode import Run, TranscodeFacts


@clause_check(
    "CODEC-H264-001",
    title="The card encodes H.264",
    severity=BLOCKING,
    scope="chain",
    reads=("transcode",),
    causes=ENCODE_CAUSES,
    wants=("nvidia",),
)
def card_encodes_h264(subject: Subject) -> Judgement:
    """Frames counted, encoder tag and pace right, and two kinds of proof that NVENC did it."""
    return _encodes(subject, "h264", ENCODE_CAUSES)


@clause_check(
    "CODEC-HEVC-001",
    title="The card encodes HEVC",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=HEVC_CAUSES,
    wants=("nvidia",),
    after=("CODEC-H264-001",),
)
def card_encodes_hevc(subject: Subject) -> Judgement:
    """As H.264; a chip or driver may lack one of the two."""
    return _encodes(subject, "hevc", HEVC_CAUSES)


@clause_check(
    "CODEC-DECODE-001",
    title="The card decodes H.264",
    severity=BLOCKING,
    scope="chain",
    reads=("transcode",),
    causes=DECODE_CAUSES,
    wants=("nvidia",),
    after=("CODEC-H264-001",),
)
def card_decodes(subject: Subject) -> Judgement:
    """Proven apart from encoding: a filter that takes no software frames, and the decoder's own counter."""
    facts = started(subject)
    if isinstance(facts, Unchecked):
        return facts
    run = run_of(facts, "decode")
    return (
        run
        if isinstance(run, Pass | Unchecked)
        else _proven(subject, facts, run, decode_proof(facts, run), DECODE_CAUSES)
    )


@clause_check(
    "CODEC-TRANSCODE-001",
    title="A whole transcode stays on the card",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=TRANSCODE_CAUSES,
    wants=("nvidia",),
    after=("CODEC-H264-001", "CODEC-DECODE-001"),
)
def transcode_stays_on_the_card(subject: Subject) -> Judgement:
    """Decode, scale, encode with no frame copied to the CPU, at real time."""
    facts = started(subject)
    if isinstance(facts, Unchecked):
        return facts
    if (left_out := _left_out(subject, "h264")) is not None:
        return left_out
    run = run_of(facts, "transcode")
    if isinstance(run, Pass | Unchecked):
        return run
    encode, decode = encode_proof(facts, run), decode_proof(facts, run)
    both = Proof(
        (*encode.log, *decode.log), ", ".join(filter(None, (encode.counter, decode.counter))),
        encode.counters_read or decode.counters_read, encode.cpu_ratio,
    )  # fmt: skip
    return _proven(subject, facts, run, both, TRANSCODE_CAUSES)


@clause_check(
    "CODEC-NOFALLBACK-001",
    title="What an app runs does not fall back to the CPU",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=APP_CAUSES,
    wants=("nvidia",),
    after=("CODEC-H264-001", "CODEC-DECODE-001"),
)
def app_does_not_fall_back(subject: Subject) -> Judgement:
    """Without a filter that would notice, ffmpeg decodes in software and ends with 0 (facts transcode 2.2)."""
    facts = started(subject)
    if isinstance(facts, Unchecked):
        return facts
    if (left_out := _left_out(subject, "h264")) is not None:
        return left_out
    run = run_of(facts, "app")
    if isinstance(run, Pass | Unchecked):
        return run
    broken = failure_of(subject, facts, run, APP_CAUSES)
    if broken is not None:
        return broken if isinstance(broken, Unchecked) else Fail((broken,))
    proof = encode_proof(facts, run)
    values = values_of(subject, facts.probe.value)
    if run.fallback:
        return Fail((Problem("W23", run.name, (Evidence(command(run), run.fallback),), values),))
    if proof.cpu_ratio is not None and not proof.cheap:
        text = f"{proof.cpu_ratio:.2f} x the CPU time of libx264, at most {floor('cpu_ratio')}"
        return Fail((Problem("W27", run.name, (Evidence(f"{command(run)}, -benchmark", text),), values),))
    if proof.cpu_ratio is None:
        return Unchecked("no software reference to hold the CPU's time against")
    return Pass((Evidence(command(run), proof.lines()),), measurements=measurements_of(facts, run))


@clause_check(
    "CODEC-QUALITY-001",
    title="What the encoder writes is the picture that went in",
    severity=DEGRADED,
    scope="chain",
    reads=("transcode",),
    causes=("W70",),
    wants=("nvidia",),
    after=("CODEC-H264-001",),
)
def picture_is_right(subject: Subject) -> Judgement:
    """PSNR and SSIM of a software decode against the regenerated source; floors catch damage, not taste."""
    facts = started(subject)
    if isinstance(facts, Unchecked):
        return facts
    written = [r for r in facts.runs if r.name in ("h264", "hevc", "app") and r.ran.ok]
    if not written:
        if facts.via == "exec" and facts.of("h264") is None:
            return Pass((Evidence("lab.yaml probe.via: exec", "nothing was written in a pod that is not ours"),))
        if (left_out := _left_out(subject, "h264")) is not None:
            return left_out
        return Unchecked("no encode wrote anything to compare")
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
    "CODEC-UNSUPPORTED-001",
    title="What the card cannot do is refused the expected way",
    severity=HYGIENE,
    scope="chain",
    reads=("transcode",),
    causes=("W78",),
    wants=("nvidia",),
    after=("CODEC-H264-001",),
)
def unsupported_codec_is_refused(subject: Subject) -> Judgement:
    """AV1 on a chip without it: a known refusal, never success; else the table or the identity is wrong."""
    facts = started(subject)
    if isinstance(facts, Unchecked):
        return facts
    row = capability(subject.chain.gpu.device)
    run = facts.of("av1")
    if run is None:
        if facts.via == "exec":
            return Pass((Evidence("lab.yaml probe.via: exec", "av1 is left out in a pod that is not ours"),))
        if row is None:
            return _no_row(subject)
        return Pass((Evidence("capability table", f"{row.name} encodes AV1: nothing to refuse"),))
    values = values_of(subject, facts.probe.value)
    if run.ran.ok:
        evidence = Evidence(command(run), f"status 0, {_name(row, subject)} should not know AV1")
        return Fail((Problem("W78", "av1", (evidence,), values),))
    if run.ran.rc is None:
        return Unchecked(f"av1: {run.ran.why}")
    meaning = classify(f"{run.log}\n{run.ran.stderr}")
    if meaning is not None and (meaning.verdict == "capability" or meaning.cause == "W25"):
        return Pass((Evidence(command(run), meaning.line),))  # W25: this ffmpeg has no av1_nvenc to begin with
    said = meaning.line if meaning is not None else run.log[-300:]
    return Fail((Problem("W78", "av1", (Evidence(command(run), said),), values),))


def judge_quality(psnr: Reading[Quality], ssim: Reading[Quality] | None) -> tuple[bool | None, str]:
    """(is it bad, in words); None when it could not be measured. Without `ssim`, PSNR alone decides."""
    signal = psnr.value
    if signal is None:
        return None, f"PSNR could not be measured: {psnr.why}"
    average = float("inf") if signal.identical else signal.average
    worst = float("inf") if signal.identical else signal.minimum
    if average is None:
        return None, "PSNR has no average"
    text = (
        "identical"
        if signal.identical
        else f"PSNR {average:.1f} dB, worst frame {worst if worst is not None else '?'} dB"
    )
    bad = average < floor("psnr_average_db") or (worst is not None and worst < floor("psnr_worst_frame_db"))
    if ssim is not None:
        if ssim.value is None or ssim.value.average is None:
            return None, f"SSIM could not be measured: {ssim.why}"
        bad = bad or ssim.value.average < floor("ssim")
        text += f", SSIM {ssim.value.average:.4f}"
    return bad, text


def _encodes(subject: Subject, name: str, listed: tuple[str, ...]) -> Judgement:
    facts = started(subject)
    if isinstance(facts, Unchecked):
        return facts
    if (left_out := _left_out(subject, name)) is not None:
        return left_out
    run = run_of(facts, name)
    return run if isinstance(run, Pass | Unchecked) else _proven(subject, facts, run, encode_proof(facts, run), listed)


def _proven(subject: Subject, facts: TranscodeFacts, run: Run, proof: Proof, listed: tuple[str, ...]) -> Judgement:
    """A run that ended well, wrote what it should, and has two kinds of proof behind it."""
    broken = failure_of(subject, facts, run, listed)
    if broken is not None:
        return broken if isinstance(broken, Unchecked) else Fail((broken,))
    values = values_of(subject, facts.probe.value)
    evidence = Evidence(command(run), proof.lines())
    wrong = output_problems(subject, facts, run)
    if any(cause in listed for cause, _ in wrong):
        return Fail(
            tuple(Problem(cause, run.name, (found, evidence), values) for cause, found in wrong if cause in listed)
        )
    if not proof.counters_read:
        return Unchecked(f"{run.name}: proof incomplete, the card's counters could not be read: {run.samples.why}")
    if not proof.counter or not (proof.log or proof.cheap):
        return Fail((Problem("W71", run.name, (evidence,), values),))
    return Pass((evidence,), measurements=measurements_of(facts, run))


def _left_out(subject: Subject, codec: str) -> Pass | Unchecked | None:
    """None when the card is expected to encode it: by lab.yaml, else by its row. Without either nobody can tell."""
    declared = subject.cluster.transcode.encode
    row = capability(subject.chain.gpu.device)
    if not declared and row is None:
        return _no_row(subject)
    if codec in (declared or (row.encode if row is not None else ())):
        return None
    return Pass((Evidence("capability table, lab.yaml", f"{_name(row, subject)}: encoding {codec} is not expected"),))


def _no_row(subject: Subject) -> Unchecked:
    return Unchecked(ADD_A_ROW.format(device=subject.chain.gpu.device))


def _name(row: Capability | None, subject: Subject) -> str:
    return row.name if row is not None else subject.chain.gpu.device
