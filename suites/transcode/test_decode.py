"""The card decodes, transcodes whole, and nothing falls back to the CPU unseen."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("CODEC-DECODE-001")
def test_card_decodes(judgement):
    """The card MUST decode H.264, proven apart from encoding.

    Preconditions: a software-encoded clip, a filter that takes hardware frames only
    Expected: all frames decoded; decoder use rises above the baseline
    """
    assert_holds(judgement)


@clause("CODEC-TRANSCODE-001")
def test_transcode_stays_on_the_card(judgement):
    """A transcode MUST stay on the card from decode over scale to encode, at real time.

    Preconditions: encode and decode work
    Expected: scale_cuda takes the decoder's frames, h264_nvenc writes them all
    """
    assert_holds(judgement)


@clause("CODEC-NOFALLBACK-001")
def test_app_does_not_fall_back(judgement):
    """A transcode as an app runs it MUST NOT fall back to the CPU.

    Preconditions: no hardware-only filter in the command, as in media servers
    Expected: no fallback line in the log, CPU time per frame far below a software encode
    """
    assert_holds(judgement)
