"""The simulated ffmpeg on the card: what works, what proves it, and how each lack is told."""

from __future__ import annotations

import json
import re

import pytest

from labproof.simlab.pod.readings import read_card

SRC = "testsrc2=size=1920x1080:rate=30:duration=2"
LAVFI = ("-f", "lavfi", "-i", SRC)
SOFTWARE = (*LAVFI, "-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "medium", "-b:v", "6M", "-g", "60")
NVENC = ("-re", *LAVFI, "-pix_fmt", "yuv420p", "-c:v", "h264_nvenc", "-preset", "p4", "-tune", "hq", "-rc", "vbr")
H264 = (*NVENC, "-b:v", "6M", "-g", "60", "/tmp/h.mp4")
CUDA = ("-hwaccel", "cuda", "-hwaccel_output_format", "cuda")
DECODE = (*CUDA, "-i", "/tmp/sw.mp4", "-vf", "hwdownload,format=nv12", "-f", "null", "-")
FULL = (
    *CUDA,
    "-i",
    "/tmp/sw.mp4",
    "-vf",
    "scale_cuda=w=1280:h=720:format=nv12",
    "-c:v",
    "h264_nvenc",
    "-b:v",
    "4M",
    "-an",
    "/tmp/t.mp4",
)
APP = (*CUDA, "-i", "/tmp/sw.mp4", "-c:v", "h264_nvenc", "-preset", "p4", "-b:v", "6M", "-an", "/tmp/app.mp4")


def cpu_ms(ran, frames):
    user, system = re.search(r"bench: utime=([\d.]+)s stime=([\d.]+)s", ran.err).groups()
    return (float(user) + float(system)) * 1000 / frames


def psnr(ran):
    return float(re.search(r"PSNR .*average:([\d.]+|inf)", ran.err)[1])


def probe(box, path):
    words = "-v error -select_streams v:0 -count_frames -show_entries"
    entries = "stream=codec_name,profile,pix_fmt,width,height,r_frame_rate,nb_read_frames,nb_frames:stream_tags=encoder"
    ran = box.run("/usr/lib/jellyfin-ffmpeg/ffprobe", *words.split(), entries, "-of", "json", path)
    return json.loads(ran.out)["streams"][0]


@pytest.fixture
def clip(box):
    """The container with a software-encoded clip at /tmp/sw.mp4."""
    assert box.ffmpeg(*SOFTWARE, "/tmp/sw.mp4").status == 0
    return box


def test_encode_is_proven_by_log_counters_and_cpu_time(box):
    soft = box.ffmpeg(*SOFTWARE, "/tmp/sw.mp4")
    ran = box.ffmpeg(*H264, watch=lambda: read_card(box.card))
    assert ran.status == 0
    assert "Stream #0:0 -> #0:0 (rawvideo (native) -> h264 (h264_nvenc))" in ran.err
    assert {"Nvenc initialized successfully", "supports NVENC", "Nvenc unloaded"} <= {
        line.split("] ")[-1] for line in ran.err.splitlines()
    }
    assert max(s.sessions for s in ran.samples) == 1
    assert max(s.encoder_percent for s in ran.samples) > 0
    assert ran.seconds == pytest.approx(2.0, abs=0.01)  # paced by -re
    assert cpu_ms(ran, 60) < 0.35 * cpu_ms(soft, 60)
    assert ran.out.endswith("progress=end\n")
    assert "frame=60\n" in ran.out
    after = read_card(box.card)
    assert (after.sessions, after.encoder_percent, after.used_mib) == (0, 0, 0)


def test_output_is_a_record_that_ffprobe_and_psnr_read(box):
    box.ffmpeg(*H264)
    stream = probe(box, "/tmp/h.mp4")
    assert (stream["codec_name"], stream["nb_read_frames"], stream["width"]) == ("h264", "60", 1920)
    assert stream["tags"]["encoder"] == "Lavc61.19.101 h264_nvenc"
    assert 38 < psnr(box.psnr("/tmp/h.mp4", SRC)) < 48
    assert psnr(box.psnr("/tmp/h.mp4", "testsrc2=size=1920x1080:rate=30:duration=2".replace("testsrc2", "color"))) < 15


def test_matroska_timestamps_are_a_trap(box):
    box.ffmpeg(*H264[:-1], "/tmp/h.mkv")
    plain = box.ffmpeg("-i", "/tmp/h.mkv", *LAVFI, "-lavfi", "[0:v][1:v]psnr", "-f", "null", "-")
    assert psnr(plain) < 29
    assert psnr(box.psnr("/tmp/h.mkv", SRC)) > 38


def test_decode_on_the_card_moves_the_decoder(clip):
    ran = clip.ffmpeg(*DECODE, watch=lambda: read_card(clip.card))
    assert ran.status == 0
    assert "format supported: yes" in ran.err
    assert "Reinit context to 1920x1088, pix_fmt: cuda" in ran.err
    assert max(s.decoder_percent for s in ran.samples) > 0
    assert max(s.sessions for s in ran.samples) == 0


def test_full_transcode_copies_nothing(clip):
    ran = clip.ffmpeg(*FULL, watch=lambda: read_card(clip.card))
    assert ran.status == 0
    assert "Using input frames context (format cuda) with h264_nvenc encoder." in ran.err
    assert max(s.sessions for s in ran.samples) == 1
    assert max(s.decoder_percent for s in ran.samples) > 0
    assert probe(clip, "/tmp/t.mp4")["height"] == 720
    graph = "[0:v]settb=1/30,setpts=N[a];[1:v]scale=1280:720,settb=1/30,setpts=N[b];[a][b]psnr=shortest=1"
    assert psnr(clip.ffmpeg("-i", "/tmp/t.mp4", *LAVFI, "-lavfi", graph, "-f", "null", "-")) > 35


def test_fallback_is_loud_only_with_a_hardware_filter(clip):
    soft_ms = cpu_ms(clip.ffmpeg(*SOFTWARE, "/tmp/sw.mp4"), 60)
    assert clip.ffmpeg(*APP).status == 0
    clip.card.inputs["decode"].pop("h264")
    silent = clip.ffmpeg(*APP)
    assert silent.status == 0
    assert "hwaccel initialisation returned error" in silent.err
    assert cpu_ms(silent, 60) < soft_ms
    loud = clip.ffmpeg(*DECODE)
    assert loud.status == 218  # ENOSYS
    assert "Impossible to convert between the formats supported by the filter" in loud.err


def test_hardware_decode_is_bit_exact(clip):
    hard = clip.ffmpeg(
        *CUDA, "-i", "/tmp/sw.mp4", "-vf", "hwdownload,format=nv12,format=yuv420p", "-f", "framemd5", "-"
    )
    soft = clip.ffmpeg("-i", "/tmp/sw.mp4", "-f", "framemd5", "-")
    rows = [[line for line in ran.out.splitlines() if line.startswith("0,")] for ran in (hard, soft)]
    assert len(rows[0]) == 60
    assert rows[0] == rows[1]
    clip.card.inputs["picture_error"] = {"decode": 4.0}
    wrong = clip.ffmpeg(
        *CUDA, "-i", "/tmp/sw.mp4", "-vf", "hwdownload,format=nv12,format=yuv420p", "-f", "framemd5", "-"
    )
    assert [line for line in wrong.out.splitlines() if line.startswith("0,")] != rows[1]


def lacks(*names):
    return lambda b: b.change(libraries=frozenset(b.pod.libraries - set(names)))


@pytest.mark.parametrize(
    ("change", "status", "texts"),
    [
        (lacks("libcuda.so.1"), 255, ["Cannot load libcuda.so.1", "Nvenc unloaded"]),  # W12
        (lacks("libnvidia-encode.so.1"), 255, ["Cannot load libnvidia-encode.so.1", "520.56.06 or newer"]),  # W13
        (
            lambda b: b.node(driver_version="470.57.02", library_version="470.57.02"),
            218,
            ["Required: 12.0 Found: 11.1"],
        ),  # W15
        (
            lambda b: b.change(devices={p: n for p, n in b.pod.devices.items() if p != "/dev/nvidia-uvm"}),
            187,
            ["cuInit(0) failed -> CUDA_ERROR_UNKNOWN: unknown error"],
        ),  # W19
        (lambda b: b.change(gpus=()), 187, ["CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected"]),  # W20
    ],
)
def test_encoder_says_what_is_missing(box, change, status, texts):
    assert box.ffmpeg(*H264).status == 0
    ran = change(box).ffmpeg(*H264)
    assert ran.status == status
    assert all(text in ran.err for text in texts)
    assert "Conversion failed!" in ran.err


def test_card_without_encoder_and_codec_without_engine(make_box):
    a100 = make_box(card="a100").ffmpeg(*H264)
    assert "OpenEncodeSessionEx failed: unsupported device (2)" in a100.err
    assert "No capable devices found" in a100.err
    av1 = make_box().ffmpeg(*LAVFI, "-c:v", "av1_nvenc", "-b:v", "3M", "/tmp/av1.mp4")
    assert (av1.status, "Codec not supported" in av1.err) == (187, True)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ["-f", "lavfi", "-i", "testsrc2=size=64x64:rate=30:duration=1", "-c:v", "h264_nvenc"],
            "Frame Dimension less",
        ),
        (
            ["-f", "lavfi", "-i", "testsrc2=size=7680x4320:rate=30:duration=1", "-c:v", "h264_nvenc"],
            "Width 7680 exceeds 4096",
        ),
        ([*LAVFI, "-pix_fmt", "p010le", "-c:v", "h264_nvenc"], "10 bit encode not supported"),
        ([*LAVFI, "-c:v", "hevc_nvenc", "-bf", "6"], "Max B-frames 6 exceed 5"),
    ],
)
def test_limits_of_the_chip(box, options, text):
    ran = box.ffmpeg(*options, "/tmp/x.mp4")
    assert ran.status != 0
    assert text in ran.err


def test_ten_bit_hevc_works(box):
    assert (
        box.ffmpeg(*LAVFI, "-pix_fmt", "p010le", "-c:v", "hevc_nvenc", "-profile:v", "main10", "/tmp/x.mp4").status == 0
    )
    assert probe(box, "/tmp/x.mp4")["profile"] == "Main 10"


@pytest.mark.parametrize(("driver", "limit"), [("525.60.11", 3), ("535.247.01", 5), ("570.172.08", 8)])
def test_session_limit_of_consumer_cards(make_box, driver, limit):
    box = make_box(card="rtx2070s", driver_version=driver, library_version=driver)
    box.card.sessions |= {f"other#{n}": 0.01 for n in range(limit - 1)}
    assert box.ffmpeg(*H264).status == 0
    box.card.sessions["one-more"] = 0.01
    assert "OpenEncodeSessionEx failed: out of memory (10)" in box.ffmpeg(*H264).err


def test_killed_run_leaves_nothing_on_the_card(box):
    ran = box.ffmpeg(*H264, kill_at=1.0)
    assert ran.status == 137
    assert not (box.card.sessions or box.card.vram or box.card.decoding)


def test_arguments_outside_the_model_are_said_to_be(box):
    for words in (["-vf", "boxblur=5"], ["-zerolatency", "1"]):
        ran = box.ffmpeg(*LAVFI, *words, "/tmp/x.mp4")
        assert ran.status in (1, 8)
        assert "not simulated" in ran.err or "No such filter" in ran.err
