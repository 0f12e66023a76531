"""Encode, decode and transcode through VA-API and Quick Sync."""

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("CODEC-VAH264-001")
def test_va_encodes_h264(judgement):
    """An H.264 encode in a pod MUST be done by the GPU.

    Preconditions: a pod with the GPU, ffmpeg in its image
    Expected: all frames, the hardware encoder's tag, real time, and two independent proofs:
    log, engine time or the GPU waking, CPU
    """
    assert_holds(judgement)


@clause("CODEC-VAHEVC-001")
def test_va_encodes_hevc(judgement):
    """An HEVC encode in a pod MUST be done by the GPU where its generation can.

    Preconditions: H.264 is encoded
    Expected: as for H.264
    """
    assert_holds(judgement)


@clause("CODEC-VAVP9-001")
def test_va_encodes_vp9(judgement):
    """A VP9 encode in a pod MUST be done by the GPU where low power is declared.

    Preconditions: H.264 is encoded
    Expected: as for H.264, by the low-power engine
    """
    assert_holds(judgement)


@clause("CODEC-VADEC-001")
def test_va_decodes_h264(judgement):
    """An H.264 decode in a pod MUST be done by the GPU.

    Preconditions: H.264 is encoded
    Expected: a filter that takes no software frames, and the video engine's time
    """
    assert_holds(judgement)


@clause("CODEC-VADEC-002")
def test_va_decodes_hevc(judgement):
    """An HEVC decode in a pod MUST be done by the GPU where its generation can.

    Preconditions: HEVC was encoded by the GPU
    Expected: as for H.264
    """
    assert_holds(judgement)


@clause("CODEC-VADEC-003")
def test_va_decodes_vp9(judgement):
    """A VP9 decode in a pod MUST be done by the GPU where low power is declared.

    Preconditions: VP9 was encoded by the GPU
    Expected: as for H.264
    """
    assert_holds(judgement)


@clause("CODEC-VATRANS-001")
def test_va_transcode_stays_on_the_gpu(judgement):
    """A whole transcode MUST stay on the GPU.

    Preconditions: encode and decode work
    Expected: decode, scale and encode on frames of the GPU, at real time, with two proofs
    """
    assert_holds(judgement)


@clause("CODEC-VALP-001")
def test_low_power_holds_a_bit_rate(judgement):
    """Low-power encoding MUST hold a bit rate where it is declared.

    Preconditions: H.264 is encoded
    Expected: an encode with -low_power 1 and a bit rate, which needs HuC
    """
    assert_holds(judgement)


@clause("CODEC-QSV-001")
def test_quick_sync_encodes(judgement):
    """Quick Sync MUST encode where it is declared.

    Preconditions: H.264 is encoded by VA-API
    Expected: an encode on a device derived from the VA-API one
    """
    assert_holds(judgement)


@clause("CODEC-TONE-001")
def test_hdr_is_mapped(judgement):
    """HDR MUST be mapped to SDR on the GPU where it is declared.

    Preconditions: H.264 is encoded
    Expected: the video processor takes HDR10 frames; OpenCL is another clause
    """
    assert_holds(judgement)


@clause("CODEC-SUBS-001")
def test_subtitles_are_burned_in(judgement):
    """Subtitles MUST be burned in on the GPU where it is declared.

    Preconditions: H.264 is encoded
    Expected: a picture is laid over the film on frames of the GPU
    """
    assert_holds(judgement)


@clause("CODEC-VAQUAL-001")
def test_va_picture_is_right(judgement):
    """What VA-API writes MUST be the picture that went in.

    Preconditions: H.264 is encoded
    Expected: PSNR and SSIM against the source above the floors that catch damage
    """
    assert_holds(judgement)


@clause("CODEC-VAUNSUP-001")
def test_va_refuses_what_it_cannot(judgement):
    """A codec the GPU cannot encode MUST be refused the expected way.

    Preconditions: H.264 is encoded
    Expected: AV1 on a chip without it: a known refusal; else the table or the card's identity is wrong
    """
    assert_holds(judgement)
