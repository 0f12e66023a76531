"""APP-PLEX, APP-EMBY, APP-IMMICH, APP-OPENAI, APP-COMFYUI: what these say of the device they work on."""

from __future__ import annotations

import re

from labproof.checks.apps_view import nothing_to_judge, values_of
from labproof.checks.judgement import Evidence, Fail, Judgement, Measurement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.facts.reading import State, need

_PROVIDERS = re.compile(r"Setting execution providers to \[([^\]]*)\]")


def _sessions(subject: Subject, cause: str) -> Judgement:
    facts = subject.app_facts
    nothing = nothing_to_judge(subject, facts)
    if nothing is not None:
        return nothing
    seen = need(facts.sessions, "sessions")
    soft = [s for s in seen if not s.hardware]
    texts = [f"{s.title}: {s.decoder or 'software'} -> {s.encoder or 'software'}" for s in seen]
    told = Evidence(facts.sessions.source, "; ".join(texts) or "no session transcodes now")
    return verdict_of([Problem(cause, subject.app.name, (told,), values_of(subject))] if soft else [], (told,))


@clause_check(
    "APP-PLEX-001",
    title="Plex's transcodes are done by the card",
    severity=DEGRADED,
    scope="app",
    reads=("apps",),
    causes=("W112",),
    wants=("app:plex",),
    after=("APP-ANSWER-001",),
    upon=("workload", "transcode"),
)
def plex_uses_the_card(subject: Subject) -> Judgement:
    """Hardware in the TranscodeSession of every session that transcodes now."""
    return _sessions(subject, "W112")


@clause_check(
    "APP-EMBY-001",
    title="Emby's transcodes are done by the card",
    severity=DEGRADED,
    scope="app",
    reads=("apps",),
    causes=("W62",),
    wants=("app:emby",),
    after=("APP-ANSWER-001",),
    upon=("workload", "transcode"),
)
def emby_uses_the_card(subject: Subject) -> Judgement:
    """VideoEncoderIsHardware of every session that transcodes now."""
    return _sessions(subject, "W62")


@clause_check(
    "APP-IMMICH-001",
    title="Immich's models run on the card's provider",
    severity=DEGRADED,
    scope="app",
    reads=("apps",),
    causes=("W64", "W113"),
    wants=("app:immich-ml",),
    after=("APP-RUN-001",),
    upon=("workload",),
)
def immich_uses_the_card(subject: Subject) -> Judgement:
    """The first execution provider its log names when it loads a model; no model loaded is nothing wrong."""
    facts = subject.app_facts
    nothing = nothing_to_judge(subject, facts)
    if nothing is not None:
        return nothing
    log, pod = need(facts.log, "log of Immich"), facts.pod.value
    found = _PROVIDERS.findall(log)
    if not found:
        return Pass((Evidence(facts.log.source, "no model was loaded in what is left of the log"),))
    told = Evidence(facts.log.source, f"Setting execution providers to [{found[-1]}]")
    first = found[-1].split(",")[0].strip(" '\"")
    if first != "CPUExecutionProvider":
        return Pass((told,))
    images = pod.images if pod is not None else ()
    pinned = any(re.search(r"(cuda|openvino|rocm).*@", image) for image in images)
    image = Evidence("image", ", ".join(images))
    return Fail((Problem("W64" if pinned else "W113", subject.app.name, (told, image), values_of(subject)),))


@clause_check(
    "APP-OPENAI-001",
    title="The declared model is served by name",
    severity=DEGRADED,
    scope="app",
    reads=("apps",),
    causes=("W66", "W110"),
    wants=("app:openai", "app:openai:model"),
    after=("APP-ANSWER-001",),
    upon=("workload",),
)
def model_is_listed(subject: Subject) -> Judgement:
    """`/v1/models` lists it, and a short completion comes at the declared rate; health alone says neither."""
    facts = subject.app_facts
    nothing = nothing_to_judge(subject, facts)
    if nothing is not None:
        return nothing
    if facts.models.state is State.FAILED and facts.models.source.startswith("POST"):
        told = Evidence(facts.models.source, facts.models.why)
        return Fail((Problem("W66", subject.app.name, (told,), values_of(subject)),))
    seen, expect = need(facts.models, "models"), subject.app.expect
    rate = "" if seen.tokens_per_s is None else f"; {seen.tokens_per_s:g} tokens/s"
    told = Evidence(facts.models.source, f"{', '.join(seen.names) or 'no model'}{rate}")
    if expect.model not in seen.names:
        return Fail((Problem("W66", subject.app.name, (told,), values_of(subject)),))
    if expect.min_tokens_per_s is None:
        return Pass((told,))
    if seen.tokens_per_s is None:
        return Unchecked(f"{subject.app.name}: the completion told no number of tokens")
    measured = (Measurement("tokens_per_s", seen.tokens_per_s, "1/s"),)
    if seen.tokens_per_s < expect.min_tokens_per_s:
        return Fail((Problem("W110", subject.app.name, (told,), values_of(subject)),), (told,), measurements=measured)
    return Pass((told,), measurements=measured)


@clause_check(
    "APP-COMFYUI-001",
    title="ComfyUI works on the card",
    severity=DEGRADED,
    scope="app",
    reads=("apps",),
    causes=("W114",),
    wants=("app:comfyui",),
    after=("APP-ANSWER-001",),
    upon=("workload",),
)
def comfyui_uses_the_card(subject: Subject) -> Judgement:
    """The type of its first device."""
    facts = subject.app_facts
    nothing = nothing_to_judge(subject, facts)
    if nothing is not None:
        return nothing
    seen = need(facts.devices, "devices of ComfyUI")
    told = Evidence(facts.devices.source, "; ".join(f"{d.name} ({d.type})" for d in seen) or "no device")
    good = bool(seen) and seen[0].type not in {"cpu", ""}
    return verdict_of([] if good else [Problem("W114", subject.app.name, (told,), values_of(subject))], (told,))
