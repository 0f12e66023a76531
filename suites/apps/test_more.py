"""Plex, Emby, Immich, an OpenAI-style server and ComfyUI work on the card."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("APP-PLEX-001")
def test_plex_transcodes_on_the_card(judgement):
    """Every Plex session that transcodes now MUST be encoded by the card.

    Preconditions: Plex answers
    Expected: transcodeHwEncoding of each TranscodeSession; without a session nothing is wrong
    """
    assert_holds(judgement)


@clause("APP-EMBY-001")
def test_emby_transcodes_on_the_card(judgement):
    """Every Emby session that transcodes now MUST be encoded by the card.

    Preconditions: Emby answers
    Expected: VideoEncoderIsHardware of each session; without a session nothing is wrong
    """
    assert_holds(judgement)


@clause("APP-IMMICH-001")
def test_immich_models_run_on_the_card(judgement):
    """Models that Immich loads MUST run on the card's execution provider.

    Preconditions: its machine learning runs
    Expected: the first provider its log names is not the CPU's
    """
    assert_holds(judgement)


@clause("APP-OPENAI-001")
def test_model_is_served_by_name(judgement):
    """The declared model MUST be listed, and answer at the declared rate.

    Preconditions: expect.model is declared; the server answers
    Expected: /v1/models lists it; a completion of 16 tokens comes at min_tokens_per_s, where that is declared
    """
    assert_holds(judgement)


@clause("APP-COMFYUI-001")
def test_comfyui_works_on_the_card(judgement):
    """ComfyUI MUST work on the card.

    Preconditions: ComfyUI answers
    Expected: devices[0].type of /system_stats is not cpu
    """
    assert_holds(judgement)
