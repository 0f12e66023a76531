"""Jellyfin uses the card, not only its settings."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("APP-JELLYFIN-001")
def test_jellyfin_is_set_to_the_card(judgement):
    """Jellyfin MUST be set to the declared acceleration, with hardware encoding on.

    Preconditions: expect.acceleration is declared; Jellyfin answers
    Expected: HardwareAccelerationType as declared, EnableHardwareEncoding true
    """
    assert_holds(judgement)


@clause("APP-JELLYFIN-002")
def test_jellyfin_transcodes_on_the_card(judgement):
    """A transcode of Jellyfin MUST be encoded by the card.

    Preconditions: expect.item names a video; one short session of ours, ended again
    Expected: the session's ffmpeg log maps the video to the hardware encoder and knows no error
    """
    assert_holds(judgement)
