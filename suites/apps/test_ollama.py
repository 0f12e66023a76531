"""Ollama's model is there, on the card, and fast enough."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("APP-OLLAMA-001")
def test_model_is_served(judgement):
    """The declared model MUST be there and load.

    Preconditions: expect.model is declared; Ollama answers
    Expected: it is listed; loading it for a moment succeeds where nothing else is loaded
    """
    assert_holds(judgement)


@clause("APP-OLLAMA-002")
def test_model_lies_on_the_card(judgement):
    """The loaded model MUST lie in card memory.

    Preconditions: the model is loaded, by its user or for a moment by us
    Expected: size_vram equals size; with fully_on_gpu false it is at least not 0
    """
    assert_holds(judgement)


@clause("APP-OLLAMA-003")
def test_model_answers_fast_enough(judgement):
    """The model MUST answer at the declared rate.

    Preconditions: expect.min_tokens_per_s is declared; a short answer of ours
    Expected: eval_count / eval_duration
    """
    assert_holds(judgement)
