"""The card encodes, and what it writes is right."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("CODEC-H264-001")
def test_card_encodes_h264(judgement):
    """The card MUST encode H.264, proven by two independent witnesses.

    Preconditions: a pod with one slot runs; ffmpeg is in its image
    Expected: all frames written by h264_nvenc at real time; sessions or encoder use rise above the baseline
    """
    assert_holds(judgement)


@clause("CODEC-HEVC-001")
def test_card_encodes_hevc(judgement):
    """The card MUST encode HEVC where its capability row says so.

    Preconditions: the card encodes H.264
    Expected: all frames written by hevc_nvenc at real time; sessions or encoder use rise above the baseline
    """
    assert_holds(judgement)


@clause("CODEC-QUALITY-001")
def test_picture_is_right(judgement):
    """What the encoder writes MUST be the picture that went in.

    Preconditions: an encode ended with 0
    Expected: PSNR and SSIM of a software decode against the regenerated source are above the floors
    """
    assert_holds(judgement)


@clause("CODEC-UNSUPPORTED-001")
def test_unsupported_codec_is_refused(judgement):
    """A codec that the card's row does not list MUST be refused in a known way.

    Preconditions: the row of the card lacks AV1
    Expected: ffmpeg fails with a line that says the codec is not supported
    """
    assert_holds(judgement)
