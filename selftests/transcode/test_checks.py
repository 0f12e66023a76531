"""Every transcode clause: green on the healthy card, red with the right cause, unchecked where proof is incomplete."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labproof.checks.judgement import Pass, Unchecked
from labproof.checks.registry import clauses
from labproof.facts.ffmpeg import Quality
from labproof.facts.pod_outcome import Outcome
from labproof.facts.reading import NOT_ASKED, failed, value
from labproof.facts.transcode import AtOnce, Sample
from selftests.transcode import world
from selftests.transcode.world import OPENED, decode, h264, healthy, hevc, stream_of, together, with_run
from selftests.workload.world import causes_of, lab, outcome, pod
from selftests.workload.world import judge as judge_layers

GOOD = healthy()
CODEC = sorted(c.id for c in clauses().values() if c.reads == ("transcode",) and "nvidia" in c.wants)


def judge(clause, facts=None, declared=None):
    return judge_layers(clause, None, declared, of_transcode=facts if facts is not None else GOOD)


@pytest.mark.parametrize("clause", CODEC)
def test_healthy_card_holds(clause):
    judgement = judge(clause)
    assert isinstance(judgement, Pass), judgement
    assert judgement.evidence


def test_numbers_are_kept_for_comparing():
    names = {m.name for m in judge("CODEC-NOFALLBACK-001").measurements}
    assert {"app_fps", "app_cpu_per_frame"} <= names


# What NVENC says when it does not open: facts transcode 7b
REFUSED = [
    ("Cannot load libcuda.so.1\nNvenc unloaded", "W12"),
    ("Cannot load libnvidia-encode.so.1\nThe minimum required Nvidia driver for nvenc is 520.56.06 or newer", "W13"),
    ("Driver does not support the required nvenc API version. Required: 13.0 Found: 12.1", "W15"),
    ("OpenEncodeSessionEx failed: unsupported device (2)\nNo capable devices found", "W16"),
    ("Codec not supported\nNo capable devices found", "W16"),
    ("OpenEncodeSessionEx failed: out of memory (10)\nNo capable devices found", "W17"),
    ("cu->cuInit(0) failed -> CUDA_ERROR_UNKNOWN: unknown error", "W19"),
    ("cu->cuInit(0) failed -> CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected", "W20"),
    ("Unknown encoder 'h264_nvenc'", "W25"),
    ("No capable devices found\nConversion failed!", "W71"),
    ("10 bit encode not supported", "W71"),
]


@pytest.mark.parametrize(("log", "cause"), REFUSED)
def test_encoder_does_not_open(log, cause):
    assert causes_of(judge("CODEC-H264-001", with_run(h264(rc=1, log=log + "\n")))) == [cause]


def test_same_words_with_a_full_card_are_no_session_limit():
    run = h264(rc=1, log="OpenEncodeSessionEx failed: out of memory (10)\n")
    full = replace(run, samples=world.samples((0, 0, 0), free=120), baseline=value(Sample(999, 0, 0, 3, 15240, 120)))
    assert causes_of(judge("CODEC-H264-001", with_run(full))) == ["W18"]


@pytest.mark.parametrize(
    "run", [h264(rc=137), h264(rc=None, why="it did not end within 180 s; it may still run there")]
)
def test_killed_or_hanging(run):
    assert causes_of(judge("CODEC-H264-001", with_run(run))) == ["W28"]


def test_lost_connection_is_unchecked():
    run = h264(rc=None, why="the connection ended before the command did")
    assert isinstance(judge("CODEC-H264-001", with_run(run)), Unchecked)


def test_status_0_without_a_moving_engine_is_no_pass():
    idle = replace(h264(), samples=world.samples((0, 0, 0), (0, 0, 0)))
    assert causes_of(judge("CODEC-H264-001", with_run(idle))) == ["W71"]


def test_neighbours_session_is_not_ours():
    shared = replace(
        h264(), baseline=value(Sample(999, 7, 0, 1, 0, 14000)), samples=world.samples((7, 0, 1), (7, 0, 1))
    )
    assert causes_of(judge("CODEC-H264-001", with_run(shared))) == ["W71"]


def test_unreadable_counters_leave_the_proof_incomplete():
    for unread in (failed("nvidia-smi", "[Not Supported]"), value((Sample(1000, None, None, None, None, None),))):
        assert isinstance(judge("CODEC-H264-001", with_run(replace(h264(), samples=unread))), Unchecked)


WRONG = [
    (replace(h264(), output=world.stream("h264", "libx264")), "W71"),
    (replace(h264(), output=world.stream("h264", "h264_nvenc", 299)), "W70"),
    (h264(frames=120), "W70"),
    (h264(speed=0.6), "W72"),
]


@pytest.mark.parametrize(("run", "cause"), WRONG)
def test_wrong_output(run, cause):
    assert causes_of(judge("CODEC-H264-001", with_run(run)))[0] == cause


def test_hevc_has_its_own_verdict():
    facts = with_run(hevc(rc=1, log="Codec not supported\nNo capable devices found\n"))
    assert causes_of(judge("CODEC-HEVC-001", facts)) == ["W16"]
    assert isinstance(judge("CODEC-H264-001", facts), Pass)


def test_card_without_encoder_is_not_asked_to_encode():
    declared = lab(transcode={"encode": [], "decode": ["h264"]})
    h200 = declared.model_copy(update={"gpus": (declared.gpus[0].model_copy(update={"device": "10de:2335"}),)})
    facts = replace(GOOD, runs=tuple(r for r in GOOD.runs if r.name in ("software", "decode")), at_once=NOT_ASKED)
    for clause in ("CODEC-H264-001", "CODEC-HEVC-001", "CODEC-DECODE-001", "CODEC-TRANSCODE-001", "CODEC-QUALITY-001"):
        assert isinstance(judge(clause, facts, h200), Pass), clause


DECODE = [
    (decode(rc=1, log="[h264 @ 0x1] Cannot load libnvcuvid.so.1\n"), "W14"),
    (decode(rc=1, log="Impossible to convert between the formats supported by the filter 'graph 0'\n"), "W24"),
    (
        decode(rc=1, log="[h264 @ 0x1] Hardware is lacking required capabilities\nImpossible to convert between the\n"),
        "W23",
    ),
    (replace(decode(), samples=world.samples((0, 0, 0))), "W71"),
]


@pytest.mark.parametrize(("run", "cause"), DECODE)
def test_decode_fails(run, cause):
    assert causes_of(judge("CODEC-DECODE-001", with_run(run))) == [cause]


TRANSCODE = [
    (world.transcode(rc=1, log="Impossible to convert between the formats supported by the filter\n"), "W24"),
    (world.transcode(rc=1, log="No such filter: 'scale_cuda'\n"), "W25"),
    (world.transcode(speed=0.4), "W72"),
]


@pytest.mark.parametrize(("run", "cause"), TRANSCODE)
def test_transcode_fails(run, cause):
    assert causes_of(judge("CODEC-TRANSCODE-001", with_run(run))) == [cause]


def test_silent_fallback_is_seen_by_the_log():
    log = OPENED + "[h264 @ 0x1] Failed setup for format cuda: hwaccel initialisation returned error.\n"
    assert causes_of(judge("CODEC-NOFALLBACK-001", with_run(world.app(log=log)))) == ["W23"]


def test_silent_fallback_is_seen_by_the_cpu():
    assert causes_of(judge("CODEC-NOFALLBACK-001", with_run(world.app(cpu_s=6.0)))) == ["W27"]


@pytest.mark.parametrize(
    "bad",
    [
        {"psnr": value(Quality(7.2, 7.0))},  # all black, facts transcode 2.7
        {"psnr": value(Quality(41.0, 12.0))},  # one torn frame
        {"ssim": value(Quality(0.81, None))},
    ],
)
def test_damaged_picture(bad):
    assert causes_of(judge("CODEC-QUALITY-001", with_run(replace(h264(), **bad)))) == ["W70"]


def test_identical_picture_is_fine():
    same = replace(h264(), psnr=value(Quality(None, None, True)), ssim=value(Quality(1.0, None, True)))
    assert isinstance(judge("CODEC-QUALITY-001", with_run(same)), Pass)


@pytest.mark.parametrize(
    "run", [world.av1(rc=0, log=""), world.av1(log="Cannot load libcuda.so.1\n"), world.av1(log="?\n")]
)
def test_av1_on_turing_does_anything_but_refuse(run):
    assert causes_of(judge("CODEC-UNSUPPORTED-001", with_run(run))) == ["W78"]


def test_build_without_av1_refuses_too():
    assert isinstance(judge("CODEC-UNSUPPORTED-001", with_run(world.av1(log="Unknown encoder 'av1_nvenc'\n"))), Pass)


def at_once(reading):
    return replace(GOOD, at_once=reading)


LIMIT = "OpenEncodeSessionEx failed: out of memory (10)\n"
AT_ONCE = [
    (together(stream_of(0), stream_of(1, rc=1, log=LIMIT)), ["W17"]),
    (
        together(stream_of(0), replace(stream_of(1, rc=1, log=LIMIT), samples=world.samples((0, 0, 3), free=100))),
        ["W18"],
    ),
    (together(stream_of(0), stream_of(1), sessions=1), ["W71"]),
    (together(stream_of(0), stream_of(1), free=800), ["K50"]),
    (together(stream_of(0, speed=0.5), stream_of(1, speed=0.5)), ["W72"]),
    (together(stream_of(0), replace(stream_of(1), psnr=value(Quality(11.0, 5.0)))), ["W70"]),
    (together(stream_of(0), stream_of(1, rc=137)), ["W28"]),
]


@pytest.mark.parametrize(("reading", "wanted"), AT_ONCE)
def test_streams_at_once_fail(reading, wanted):
    assert causes_of(judge("CODEC-CONCURRENT-001", at_once(reading))) == wanted


def test_runs_that_did_not_overlap_prove_nothing():
    reading = together(stream_of(0), stream_of(1, at=1010.0))
    assert isinstance(judge("CODEC-CONCURRENT-001", at_once(reading)), Unchecked)


def test_one_free_slot_is_busy():
    judgement = judge("CODEC-CONCURRENT-001", at_once(failed("slots", "only one slot may be held", "busy")))
    assert isinstance(judgement, Unchecked)
    assert judgement.busy


@pytest.mark.parametrize("clause", CODEC)
def test_pod_or_image_that_fails_is_no_verdict_on_the_codec(clause):
    stopped = replace(GOOD, probe=value(pod("probe", outcome(Outcome.IMAGE, "manifest unknown"))), runs=())
    no_ffmpeg = replace(GOOD, ffmpeg_version=failed("ffmpeg -version", "not found", "image"), runs=())
    assert isinstance(judge(clause, stopped), Unchecked)
    assert isinstance(judge(clause, no_ffmpeg), Unchecked)


def test_overlap_is_the_time_all_ran():
    pair = AtOnce(2, (stream_of(0, at=1000.0), stream_of(1, at=1004.0)), NOT_ASKED, NOT_ASKED)
    assert pair.overlap_s == pytest.approx(6.0)


def test_facts_survive_the_store(tmp_path):
    from labproof.facts.store import FactsStore
    from labproof.facts.transcode import TranscodeFacts

    store = FactsStore(tmp_path, {})
    store.add_probe("transcode", "c", lambda: value(GOOD))
    store.section("transcode", "c", TranscodeFacts)
    assert FactsStore(tmp_path, frozen=True).section("transcode", "c", TranscodeFacts).value == GOOD


def test_damage_that_a_single_stream_has_too_is_told_once():
    bad = value(Quality(15.6, 13.8))
    both = together(replace(stream_of(0), psnr=bad), replace(stream_of(1), psnr=bad))
    facts = replace(with_run(replace(h264(), psnr=bad)), at_once=both)
    assert causes_of(judge("CODEC-QUALITY-001", facts)) == ["W70"]
    assert isinstance(judge("CODEC-CONCURRENT-001", facts), Pass)
