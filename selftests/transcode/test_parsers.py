"""Parsers of ffmpeg's and nvidia-smi's text, the error table, the capability table, the floors."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace

import pytest

from labproof.catalogue import ffmpeg_errors, floors, gpus
from labproof.catalogue.causes import causes
from labproof.facts import ffmpeg
from labproof.facts.reading import State, failed, value
from labproof.facts.transcode import Sample
from labproof.probes.transcode_sampling import QUERY, Sampler, parse_csv, telling
from selftests.workload.world import ran

BLOCK = (
    "frame={n}\nfps=29.97\nstream_0_0_q=-1.0\nbitrate=N/A\ntotal_size=N/A\nout_time_us=1\n"
    "drop_frames=0\ndup_frames=2\nspeed={s}\nprogress={p}\n"
)


def test_progress_is_its_last_block():
    text = BLOCK.format(n=10, s="   0x", p="continue") + BLOCK.format(n=300, s="13.3x", p="end")
    progress = ffmpeg.parse_progress(text).value
    assert (progress.ended, progress.frames, progress.duplicated, progress.speed) == (True, 300, 2, 13.3)


def test_progress_of_a_killed_run():
    progress = ffmpeg.parse_progress(BLOCK.format(n=10, s="N/A", p="continue")).value
    assert (progress.ended, progress.speed) == (False, None)
    assert ffmpeg.parse_progress("").state is State.FAILED


@pytest.mark.parametrize("unit", ["kB", "KiB"])
def test_cost(unit):
    cost = ffmpeg.parse_cost(f"bench: utime=0.081s stime=0.006s rtime=0.113s\nbench: maxrss=72236{unit}\n").value
    assert cost.cpu_ms_per_frame(87) == pytest.approx(1.0)
    assert cost.maxrss_kib == 72236
    assert ffmpeg.parse_cost("bench: maxrss=53428kB\n").state is State.FAILED


def test_identical_frames_are_infinite():
    quality = ffmpeg.parse_psnr("[Parsed_psnr_4 @ 0x1] PSNR y:inf u:inf v:inf average:inf min:inf max:inf").value
    assert quality.identical
    assert quality.average is None


def test_fallback_lines():
    log = "[h264 @ 0x1] Reinit context to 1920x1088, pix_fmt: cuda\n"
    opened = "[h264 @ 0x1] Reinit context to 1920x1088, pix_fmt: yuv420p\n"  # every input is opened in software first
    assert ffmpeg.fallback_line(opened) == ""
    assert ffmpeg.fallback_line(opened + log) == ""
    assert ffmpeg.fallback_line(log + "[h264 @ 0x1] Reinit context to 1920x1088, pix_fmt: yuv420p\n")
    assert "NVDEC frames" in ffmpeg.hardware_lines(log)


def test_counters_that_the_driver_does_not_tell():
    sample = parse_csv(ran(" ".join(QUERY), stdout="0, [N/A], [Not Supported], 120, 15240, 41, P0, [N/A]\n")).value
    assert (sample.encoder, sample.decoder, sample.sessions, sample.memory_free) == (0, None, None, 15240)
    assert sample.slowdowns is None


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        ("0x0000000000000001", ()),  # idle
        ("0x0000000000000004", ()),  # the power cap is a T4's daily life
        ("0x0000000000000048", ("hw_slowdown", "hw_thermal_slowdown")),
        ("0x00000000000000A0", ("sw_thermal_slowdown", "hw_power_brake_slowdown")),
    ],
)
def test_why_clocks_are_low(mask, names):
    sample = parse_csv(ran(" ".join(QUERY), stdout=f"0, 0, 0, 120, 15240, 41, P0, {mask}\n")).value
    assert sample.slowdowns == names


def test_old_driver_that_refuses_a_field_is_asked_by_xml():
    asked = []

    def run(argv):
        asked.append(argv)
        return ran(" ".join(argv), 2, 'Field "utilization.encoder" is not a valid field to query.')

    assert Sampler(run).once().state is State.FAILED
    assert [argv[1] for argv in asked] == [QUERY[1], "-q"]


def test_specific_line_decides_wherever_it_stands():
    log = "No capable devices found\nConversion failed!\n"
    log += "[h264_nvenc @ 0x1] OpenEncodeSessionEx failed: unsupported device (2)\n"
    meaning = ffmpeg_errors.classify(log)
    assert meaning is not None
    assert (meaning.cause, meaning.verdict) == ("W16", "capability")
    assert meaning.line.startswith("[h264_nvenc")


@pytest.mark.parametrize("line", ["No capable devices found", "Conversion failed!", "Error while opening encoder", ""])
def test_generic_lines_never_decide(line):
    assert ffmpeg_errors.classify(line) is None


def test_every_row_of_the_error_table_names_a_known_cause():
    assert {cause for _, cause, _ in ffmpeg_errors._table()} <= set(causes())


def test_nvenc_versions():
    log = "Driver does not support the required nvenc API version. Required: 12.2 Found: 12.1"
    assert ffmpeg_errors.nvenc_versions(log) == ("12.2", "12.1")


def test_capability_rows():
    rows = gpus.capabilities()
    assert rows["10de:1eb8"].encode == ("h264", "hevc", "hevc10")
    assert "av1" in gpus.capability("10de:27b8").encode
    assert gpus.capability("10de:2335").encode == ()  # H200: NVDEC only
    assert "av1" not in rows["10de:1e84"].decode
    assert gpus.capability("10de:ffff") is None
    assert gpus.architecture_encodes("Turing") == rows["10de:1eb8"].encode


def test_sample_depths():
    assert gpus.capability("10de:1eb8").encode_depths == {"h264": (8,), "hevc": (8, 10)}
    assert gpus.capability("10de:2b85").encode_depths["h264"] == (8, 10)  # Blackwell is the first
    assert gpus.capability("10de:13c2").encode == ("h264", "hevc")  # Maxwell 2: no 10 bit
    assert gpus.capability("10de:1d01").encode == ()  # GT 1030 has no encoder


@pytest.mark.parametrize(
    ("device", "name", "encode"),
    [
        ("10de:1383", "Maxwell 1", ("h264",)),
        ("10de:1b83", "Pascal", ("h264", "hevc", "hevc10")),
        ("10de:1e99", "Turing", ("h264", "hevc", "hevc10")),
        ("10de:2191", "Turing", ("h264", "hevc", "hevc10")),
        ("10de:20bd", "GA100", ()),
        ("10de:2488", "Ampere", ("h264", "hevc", "hevc10")),
        ("10de:2324", "Hopper", ()),
        ("10de:2860", "Ada Lovelace", ("h264", "hevc", "hevc10", "av1")),
        ("10de:2901", "GB100", ()),
        ("10DE:2C58", "Blackwell", ("h264", "hevc", "hevc10", "av1")),
    ],
)
def test_a_card_without_a_row_has_that_of_its_architecture(device, name, encode):
    row = gpus.capability(device)
    assert (row.architecture, row.encode, row.own_row, row.memory_mib) == (name, encode, False, None)
    assert device.lower() in row.name


def test_a_card_without_a_row_is_limited_in_sessions_by_its_name():
    row = gpus.capability("10de:1e99")
    assert row.session_limit("535.247.01", "NVIDIA GeForce RTX 2070 SUPER Max-Q") == 5
    assert row.session_limit("535.247.01", "Quadro RTX 5000") is None


def test_no_two_architectures_claim_one_id_and_rows_lie_in_theirs():
    spans = gpus._table().ids
    assert all(first <= last for first, last, _ in spans)
    assert all(spans[n][1] < spans[n + 1][0] for n in range(len(spans) - 1))
    for ident, row in gpus.capabilities().items():
        number = int(ident.partition(":")[2], 16)
        assert next(name for first, last, name in spans if first <= number <= last) == row.architecture, ident


@pytest.mark.parametrize("device", ["1002:744c", "10de:ffff", "10de:0fc6", "10de:zzzz", "nonsense"])
def test_what_the_table_does_not_cover_is_none(device):
    assert gpus.capability(device) is None
    assert gpus.generation(device) is None


@pytest.mark.parametrize(("driver", "limit"), [("515.105.01", 3), ("535.247.01", 5), ("570.172.08", 8), ("odd", None)])
def test_session_limit_by_driver(driver, limit):
    assert gpus.capability("10de:1e84").session_limit(driver) == limit
    assert gpus.capability("10de:1eb8").session_limit(driver) is None  # Tesla cards have none


def test_floors_have_sources():
    for name in (
        "psnr_average_db",
        "psnr_worst_frame_db",
        "ssim",
        "cpu_ratio",
        "speed",
        "overlap_share",
        "memory_share",
    ):
        assert floors.floor(name) > 0
        assert floors.floor_source(name).startswith("facts ")


def samples(*rows, at=1.0):
    """Samples of (encoder, decoder, sessions), all taken at one time."""
    return value(tuple(Sample(at, *row, 5, 14900, 40) for row in rows), "nvidia-smi")


IDLE = value(Sample(0.0, 0, 0, 1, 5, 14900, 40), "nvidia-smi")
ENDED_AT_2 = replace(ran("ffmpeg"), ended=2.0)


@pytest.mark.parametrize(
    ("read", "tells"),
    [
        (samples((0, 40, 1)), True),  # one that rose is proof
        (samples((0, 0, 2)), True),
        (samples((0, 0, 1), (0, 0, 1)), False),  # two that did not are none of anything
        (samples((None, None, 1)), False),
        (samples(*[(0, 0, 1)] * 3), True),
        (samples(*[(0, 0, 1)] * 3, at=3.0), False),  # complete only after the run had ended
        (failed("nvidia-smi", "it was over before a sample could be taken", "slow"), False),
        (failed("nvidia-smi", "NVML: Driver/library version mismatch", "nvidia-smi"), True),  # again is no better
    ],
)
def test_a_few_still_counters_tell_nothing(read, tells):
    assert telling(IDLE, read, ENDED_AT_2) is tells


def test_a_run_that_was_over_at_once_is_told_from_a_card_that_does_not_answer():
    done = Future()
    done.set_result(ENDED_AT_2)
    assert Sampler(lambda argv: ran(" ".join(argv), 9, "no")).until_done([done], 0.01).kind == "slow"
