"""APP-JELLYFIN, APP-FRIGATE: the media apps use the card.

Configured is not used: Jellyfin's witness is its ffmpeg log.
"""

from __future__ import annotations

from labproof.catalogue.ffmpeg_errors import classify
from labproof.checks.apps_view import nothing_to_judge, values_of
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.facts.reading import need

#: What a hardware encoder's name ends with, by Jellyfin's acceleration type (EncodingHelper.cs).
_SUFFIX = {"nvenc": "_nvenc", "vaapi": "_vaapi", "qsv": "_qsv", "amf": "_amf", "rkmpp": "_rkmpp", "v4l2m2m": "_v4l2m2m"}


@clause_check(
    "APP-JELLYFIN-001",
    title="Jellyfin is set to the declared acceleration",
    severity=DEGRADED,
    scope="app",
    reads=("apps",),
    causes=("W58", "W107"),
    wants=("app:jellyfin", "app:jellyfin:acceleration"),
    after=("APP-ANSWER-001",),
    upon=("workload",),
)
def jellyfin_is_configured(subject: Subject) -> Judgement:
    """Type, and whether it may encode with it at all."""
    facts = subject.app_facts
    nothing = nothing_to_judge(subject, facts)
    if nothing is not None:
        return nothing
    seen = need(facts.jellyfin, "Jellyfin's encoding options")
    wanted = subject.app.expect.acceleration
    told = Evidence(
        f"GET {facts.where}/System/Configuration/encoding",
        f"HardwareAccelerationType {seen.acceleration}, EnableHardwareEncoding {seen.hardware_encoding}",
    )
    if seen.acceleration != wanted:
        return Fail((Problem("W107", subject.app.name, (told,), values_of(subject)),))
    if not seen.hardware_encoding:
        return Fail((Problem("W58", subject.app.name, (told,), values_of(subject)),))
    return Pass((told,))


@clause_check(
    "APP-JELLYFIN-002",
    title="Jellyfin's transcode is done by the card",
    severity=DEGRADED,
    scope="app",
    reads=("apps",),
    causes=("W25", "W57", "W58"),
    wants=("app:jellyfin", "app:jellyfin:item"),
    after=("APP-ANSWER-001", "APP-JELLYFIN-001"),
    upon=("workload", "transcode"),
)
def jellyfin_uses_the_card(subject: Subject) -> Judgement:
    """The encoder in the stream mapping of our session's log; a failed ffmpeg is told by its own first known line."""
    facts = subject.app_facts
    nothing = nothing_to_judge(subject, facts)
    if nothing is not None:
        return nothing
    seen = need(facts.jellyfin, "our session")
    if not seen.log_name:
        direct = "the video was not encoded: choose an item that must be" if seen.direct else "no ffmpeg log appeared"
        return Unchecked(f"{subject.app.name}: {direct} ({seen.played or 'nothing was sent'})")
    source = f"GET {facts.where}/System/Logs/Log?name={seen.log_name}"
    encoders = [m.encoder for m in seen.mappings]
    suffix = _SUFFIX.get(seen.acceleration, "")
    meaning = classify(seen.telling)
    if suffix and any(e.endswith(suffix) for e in encoders) and meaning is None:
        return Pass((Evidence(source, ", ".join(f"{m.source_codec} -> {m.encoder}" for m in seen.mappings)),))
    evidence = [Evidence(source, seen.command[:300] or "no command line")]
    if encoders and not any(suffix and e.endswith(suffix) for e in encoders):
        evidence.append(Evidence(source, f"encoded by {', '.join(encoders)}"))
        return Fail((Problem("W58", subject.app.name, tuple(evidence), values_of(subject)),))
    if "libx264" in seen.command or "libx265" in seen.command:
        return Fail((Problem("W58", subject.app.name, tuple(evidence), values_of(subject)),))
    line = meaning.line if meaning is not None else seen.telling[-300:] or seen.played
    evidence.append(Evidence(source, line))
    cause = meaning.cause if meaning is not None and meaning.cause == "W25" else "W57"
    return Fail((Problem(cause, subject.app.name, tuple(evidence), values_of(subject)),))


@clause_check(
    "APP-FRIGATE-001",
    title="Frigate decodes its cameras on the card",
    severity=DEGRADED,
    scope="app",
    reads=("apps",),
    causes=("W108",),
    wants=("app:frigate", "app:frigate:hwaccel"),
    after=("APP-ANSWER-001",),
    upon=("workload",),
)
def frigate_decodes_on_the_card(subject: Subject) -> Judgement:
    """Each enabled camera's own arguments: those of a camera or an input win over the common ones."""
    facts = subject.app_facts
    nothing = nothing_to_judge(subject, facts)
    if nothing is not None:
        return nothing
    seen = need(facts.frigate, "Frigate")
    wanted = subject.app.expect.hwaccel
    told = Evidence(
        facts.frigate.source, "; ".join(f"{c.name}: {c.hwaccel or 'no hwaccel_args'}" for c in seen.cameras)
    )
    wrong = [c for c in seen.cameras if c.hwaccel != wanted]
    names = ", ".join(c.name for c in wrong)
    return verdict_of(
        [Problem("W108", f"{subject.app.name}: {names}", (told,), values_of(subject))] if wrong else [], (told,)
    )


@clause_check(
    "APP-FRIGATE-002",
    title="Frigate detects on the card",
    severity=DEGRADED,
    scope="app",
    reads=("apps",),
    causes=("W109",),
    wants=("app:frigate", "app:frigate:detector"),
    after=("APP-ANSWER-001",),
    upon=("workload",),
)
def frigate_detects_on_the_card(subject: Subject) -> Judgement:
    """A detector of the declared type that has inferred something."""
    facts = subject.app_facts
    nothing = nothing_to_judge(subject, facts)
    if nothing is not None:
        return nothing
    seen = need(facts.frigate, "Frigate")
    told = Evidence(
        facts.frigate.source, "; ".join(f"{d.name}: {d.type}, {d.inference_ms:g} ms" for d in seen.detectors) or "none"
    )
    good = [d for d in seen.detectors if d.type == subject.app.expect.detector and d.inference_ms > 0]
    return verdict_of([] if good else [Problem("W109", subject.app.name, (told,), values_of(subject))], (told,))


@clause_check(
    "APP-FRIGATE-003",
    title="Frigate reads the card's figures",
    severity=HYGIENE,
    scope="app",
    reads=("apps",),
    causes=("W60",),
    wants=("app:frigate",),
    after=("APP-ANSWER-001",),
    upon=("workload",),
)
def frigate_reads_the_card(subject: Subject) -> Judgement:
    """Empty figures are a reading that failed once and is not tried again for an hour."""
    facts = subject.app_facts
    nothing = nothing_to_judge(subject, facts)
    if nothing is not None:
        return nothing
    seen = need(facts.frigate, "Frigate")
    told = Evidence(
        facts.frigate.source, "; ".join(f"{u.name}: gpu {u.gpu!r} mem {u.memory!r}" for u in seen.gpus) or "no GPU"
    )
    latched = [u for u in seen.gpus if not u.gpu and not u.memory]
    return verdict_of([Problem("W60", subject.app.name, (told,), values_of(subject))] if latched else [], (told,))


@clause_check(
    "APP-FRIGATE-004",
    title="Frigate has the shared memory it asks for",
    severity=DEGRADED,
    scope="app",
    reads=("apps",),
    causes=("W50",),
    wants=("app:frigate",),
    after=("APP-ANSWER-001",),
    upon=("workload",),
)
def frigate_has_shared_memory(subject: Subject) -> Judgement:
    """Its own arithmetic (`min_shm`) against the size of /dev/shm; older releases do not tell and pass."""
    facts = subject.app_facts
    nothing = nothing_to_judge(subject, facts)
    if nothing is not None:
        return nothing
    seen = need(facts.frigate, "Frigate")
    if seen.shm_total_mb is None or seen.shm_needed_mb is None:
        return Pass((Evidence(facts.frigate.source, f"Frigate {seen.version} does not tell what it needs"),))
    told = Evidence(facts.frigate.source, f"shared memory {seen.shm_total_mb:g} MB, needed {seen.shm_needed_mb:g} MB")
    short = seen.shm_total_mb < seen.shm_needed_mb
    return verdict_of([Problem("W50", subject.app.name, (told,), values_of(subject))] if short else [], (told,))
