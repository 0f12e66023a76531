"""Debian's real ffmpeg on this GPU-less machine: the probe's own command lines, parsers, gates and error table.

The lane needs /usr/bin/ffmpeg and /usr/bin/ffprobe (Debian 12: 5.1.9). Without them it is skipped, loudly.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from labproof.catalogue.ffmpeg_errors import classify
from labproof.checks.transcode_codecs import judge_quality
from labproof.facts import ffmpeg
from labproof.facts.pod_command import Ran
from labproof.facts.reading import NOT_ASKED
from labproof.probes.transcode import read_run
from labproof.probes.transcode_commands import Commands
from selftests.workload.world import pod

FFMPEG, FFPROBE = "/usr/bin/ffmpeg", "/usr/bin/ffprobe"
SECONDS = 1.0

pytestmark = pytest.mark.skipif(
    not (Path(FFMPEG).is_file() and Path(FFPROBE).is_file()),
    reason="LANE NOT RUN: no real ffmpeg here (apt-get install ffmpeg)",
)


def run(argv: list[str]) -> Ran:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    return Ran(tuple(argv), done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    return Commands(FFMPEG, FFPROBE, f"{tmp_path_factory.mktemp('media')}/labproof-", SECONDS)


@pytest.fixture(scope="module")
def software(commands):
    """The probe's own software reference, really encoded."""
    ran = run(commands.software())
    assert ran.ok, ran.said()
    return read_run("software", "h264", "encode", pod("probe"), ran, commands.frames)


def test_progress_cost_and_mapping_of_a_real_run(software, commands):
    progress, cost = software.progress.value, software.cost.value
    assert (progress.ended, progress.frames, progress.dropped) == (True, commands.frames, 0)
    assert cost.user_s > 0
    assert cost.maxrss_kib > 10_000
    assert 1 < cost.cpu_ms_per_frame(commands.frames) < 1000
    assert software.mappings == (ffmpeg.Mapping("rawvideo", "native", "h264", "libx264"),)
    assert software.hardware == ()
    assert software.fallback == ""


def test_ffprobe_counts_the_frames_and_names_the_encoder(software, commands):
    stream = ffmpeg.parse_ffprobe(run(commands.probe("software")).stdout).value
    assert (stream.codec, stream.width, stream.height, stream.frames) == ("h264", 1920, 1080, commands.frames)
    assert stream.encoder.endswith("libx264")


def test_good_encode_passes_the_gate(software, commands):
    psnr = ffmpeg.parse_psnr(run(commands.compare("software", "h264", "psnr")).stderr)
    ssim = ffmpeg.parse_ssim(run(commands.compare("software", "h264", "ssim")).stderr)
    bad, text = judge_quality(psnr, ssim)
    assert bad is False, text
    assert psnr.value.average > 35


def test_hevc_encode_passes_the_gate(commands):
    argv = [*commands.software()[:-9], "-c:v", "libx265", "-preset", "ultrafast", "-b:v", "4M", "-tag:v", "hvc1"]
    ran = run([*argv, commands.file("hevc")])
    assert ran.ok, ran.said()
    stream = ffmpeg.parse_ffprobe(run(commands.probe("hevc")).stdout).value
    assert (stream.codec, stream.frames) == ("hevc", commands.frames)
    bad, text = judge_quality(ffmpeg.parse_psnr(run(commands.compare("hevc", "hevc", "psnr")).stderr), None)
    assert bad is False, text


def test_black_output_fails_the_gate(commands):
    source = f"color=black:size=1920x1080:rate=30:duration={SECONDS:g}"
    ran = run([FFMPEG, "-v", "error", "-y", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p", commands.file("black")])
    assert ran.ok, ran.said()
    psnr = ffmpeg.parse_psnr(run(commands.compare("black", "h264", "psnr")).stderr)
    ssim = ffmpeg.parse_ssim(run(commands.compare("black", "h264", "ssim")).stderr)
    assert psnr.value.average < 15
    assert judge_quality(psnr, ssim)[0] is True
    assert judge_quality(psnr, None)[0] is True


def test_damaged_output_fails_the_gate(software, commands):
    """Bytes of the picture data overwritten, as by a broken encoder: ffmpeg decodes on and ends with 0."""
    content = bytearray(Path(commands.file("software")).read_bytes())
    begin = content.index(b"mdat") + 4096
    for at in range(begin, len(content) - 4096, 1500):
        content[at : at + 40] = b"\xa5" * 40
    Path(commands.file("damaged")).write_bytes(bytes(content))
    compared = run(commands.compare("damaged", "h264", "psnr"))
    bad, text = judge_quality(ffmpeg.parse_psnr(compared.stderr), None)
    assert bad is not False, text


def test_timestamps_are_normalised(software, commands):
    """Matroska keeps milliseconds: compared by time the same picture loses many dB (facts transcode 2.7)."""
    matroska = commands.file("software").replace(".mp4", ".mkv")
    assert run([FFMPEG, "-v", "error", "-y", "-i", commands.file("software"), "-c", "copy", matroska]).ok
    ours = [
        matroska if word == commands.file("software") else word for word in commands.compare("software", "h264", "psnr")
    ]
    naive = ["[0:v][1:v]psnr" if word.startswith("[0:v]settb") else word for word in ours]
    normal = ffmpeg.parse_psnr(run(ours).stderr).value.average
    by_time = ffmpeg.parse_psnr(run(naive).stderr).value.average
    assert normal == pytest.approx(
        ffmpeg.parse_psnr(run(commands.compare("software", "h264", "psnr")).stderr).value.average
    )
    assert by_time < normal - 5


NO_GPU = [
    ("encode_h264", "W12", "defect"),
    ("encode_hevc", "W12", "defect"),
    ("decode", "W12", "defect"),
    ("transcode", "W12", "defect"),
    ("app", "W12", "defect"),
    ("encode_av1", "W25", "environment"),  # 5.1.9 has no av1_nvenc
]


@pytest.mark.parametrize(("method", "cause", "verdict"), NO_GPU)
def test_our_commands_on_a_machine_without_gpu(software, commands, method, cause, verdict):
    ran = run(getattr(commands, method)())
    assert ran.rc != 0
    meaning = classify(ran.stderr)
    assert meaning is not None, ran.stderr[-800:]
    assert (meaning.cause, meaning.verdict) == (cause, verdict)


@pytest.mark.parametrize(("device", "cause"), [("vaapi=va:/dev/dri/renderD199", "W29"), ("vaapi=va", "W34")])
def test_vaapi_on_a_machine_without_render_node(commands, device, cause):
    ran = run([FFMPEG, "-nostdin", "-v", "verbose", "-init_hw_device", device, "-f", "lavfi", "-i", commands.source,
               "-f", "null", "-"])  # fmt: skip
    assert ran.rc != 0
    assert classify(ran.stderr).cause == cause


def test_hardware_filter_refuses_software_frames(software, commands):
    """The fallback detector itself: without `-hwaccel`, frames are software frames and hwdownload must refuse them."""
    argv = [word for word in commands.decode() if word not in ("-hwaccel", "-hwaccel_output_format", "cuda")]
    ran = run(argv)
    assert ran.rc != 0
    assert classify(ran.stderr).cause == "W24"


def test_opening_an_input_is_no_fallback(software, commands):
    """Real ffmpeg logs a software `Reinit context` when it opens any input."""
    ran = run([FFMPEG, "-nostdin", "-v", "verbose", "-i", commands.file("software"), "-f", "null", "-"])
    assert "Reinit context to 1920x1088, pix_fmt: yuv420p" in ran.stderr
    assert ffmpeg.fallback_line(ran.stderr) == ""


def test_generic_last_line_does_not_decide(commands):
    ran = run(commands.encode_h264())
    assert classify(ran.stderr.splitlines()[-1]) is None


def test_short_run_is_seen_by_its_frames(commands):
    """A run stopped early (here: by a shorter source) ends with 0; the counted frames tell."""
    half = replace(commands, seconds=SECONDS / 2, prefix=commands.prefix + "half-")
    ran = run(half.software())
    seen = read_run("software", "h264", "encode", pod("probe"), ran, commands.frames)
    assert ran.ok
    assert seen.progress.value.frames == half.frames != seen.wanted_frames
    assert seen.output == NOT_ASKED
