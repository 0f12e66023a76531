"""APP-OLLAMA: the declared model is there, lies in card memory, and answers at the declared rate."""

from __future__ import annotations

from labproof.checks.apps_view import nothing_to_judge, values_of
from labproof.checks.judgement import Evidence, Fail, Judgement, Measurement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.facts.apps import LoadedModel, Ollama
from labproof.facts.reading import State, need

#: A model counts as wholly on the card from this share on: sizes are rounded up to pages.
_WHOLE = 0.99


@clause_check(
    "APP-OLLAMA-001",
    title="The declared model is served",
    severity=DEGRADED,
    scope="app",
    reads=("apps",),
    causes=("W66",),
    wants=("app:ollama", "app:ollama:model"),
    after=("APP-ANSWER-001",),
    upon=("workload",),
)
def model_is_served(subject: Subject) -> Judgement:
    """On disk, and it can be loaded: a healthy server may have neither."""
    facts = subject.app_facts
    nothing = nothing_to_judge(subject, facts)
    if nothing is not None:
        return nothing
    if facts.ollama.state is State.FAILED and facts.ollama.source.startswith("POST"):
        told = Evidence(facts.ollama.source, facts.ollama.why)
        return Fail((Problem("W66", subject.app.name, (told,), values_of(subject)),))
    seen, wanted = need(facts.ollama, "Ollama"), str(subject.app.expect.model)
    told = Evidence(facts.ollama.source, f"there: {', '.join(seen.there) or 'none'}")
    there = any(_is(name, wanted) for name in seen.there)
    return verdict_of([] if there else [Problem("W66", subject.app.name, (told,), values_of(subject))], (told,))


@clause_check(
    "APP-OLLAMA-002",
    title="The loaded model lies in card memory",
    severity=DEGRADED,
    scope="app",
    reads=("apps",),
    causes=("W61",),
    wants=("app:ollama", "app:ollama:model"),
    after=("APP-ANSWER-001", "APP-OLLAMA-001"),
    upon=("workload",),
)
def model_is_on_the_card(subject: Subject) -> Judgement:
    """size_vram against size: 0 is the CPU, between is a spill into main memory, which is as slow."""
    facts = subject.app_facts
    nothing = nothing_to_judge(subject, facts)
    if nothing is not None:
        return nothing
    seen = need(facts.ollama, "Ollama")
    model = _loaded(subject, seen)
    if model is None:
        busy = bool(seen.left_alone)
        return Unchecked(
            f"{subject.app.expect.model} is not loaded: {seen.left_alone or 'loading it failed'}", busy=busy
        )
    told = Evidence(
        facts.ollama.source,
        f"{model.name}: {model.size_vram >> 20} of {model.size >> 20} MiB in card memory ({model.on_gpu:.0%})",
    )
    short = model.on_gpu < _WHOLE if subject.app.expect.fully_on_gpu else model.size_vram == 0
    return verdict_of([Problem("W61", subject.app.name, (told,), values_of(subject))] if short else [], (told,))


@clause_check(
    "APP-OLLAMA-003",
    title="The model answers at the declared rate",
    severity=DEGRADED,
    scope="app",
    reads=("apps",),
    causes=("W110",),
    wants=("app:ollama", "app:ollama:model", "app:ollama:min_tokens_per_s"),
    after=("APP-ANSWER-001", "APP-OLLAMA-001", "APP-OLLAMA-002"),
    upon=("workload",),
)
def model_is_fast_enough(subject: Subject) -> Judgement:
    """Tokens per second of our own short answer, as Ollama itself counts them."""
    facts = subject.app_facts
    nothing = nothing_to_judge(subject, facts)
    if nothing is not None:
        return nothing
    seen = need(facts.ollama, "Ollama")
    if seen.tokens_per_s is None:
        return Unchecked("no answer of ours: the model was in use and is left alone", busy=True)
    wanted = subject.app.expect.min_tokens_per_s or 0.0
    told = Evidence(facts.ollama.source, f"{seen.tokens_per_s:g} tokens/s, declared {wanted:g}")
    measured = (Measurement("tokens_per_s", seen.tokens_per_s, "1/s"),)
    if seen.tokens_per_s < wanted:
        problem = Problem("W110", subject.app.name, (told,), values_of(subject))
        return Fail((problem,), (told,), measurements=measured)
    return Pass((told,), measurements=measured)


def _loaded(subject: Subject, seen: Ollama) -> LoadedModel | None:
    wanted = str(subject.app.expect.model)
    return next((m for m in seen.loaded if _is(m.name, wanted)), None)


def _is(name: str, wanted: str) -> bool:
    return name in {wanted, f"{wanted}:latest"}
