"""The simulated ffmpeg 5.1.9 held against Debian's real one: software paths, ffprobe, and a machine without a GPU.

The real one runs small pictures only. Where it is not installed nothing is compared, and the skip says so.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

REAL = shutil.which("ffmpeg")
COMMON = ["-hide_banner", "-nostdin", "-v", "verbose", "-benchmark", "-nostats", "-progress", "pipe:1", "-y"]
SRC = "testsrc2=size=320x256:rate=30:duration=1"
LAVFI = ("-f", "lavfi", "-i", SRC)
ENTRIES = (
    "stream=codec_name,profile,pix_fmt,width,height,r_frame_rate,nb_read_frames,nb_frames,color_transfer:"
    "stream_tags=encoder"
)
NORMALISED = "[0:v]settb=1/30,setpts=N[a];[1:v]settb=1/30,setpts=N[b];[a][b]psnr=shortest=1"


def version(program):
    text = subprocess.run([program, "-version"], capture_output=True, text=True, check=True).stdout
    return text.split()[2]


pytestmark = pytest.mark.skipif(
    REAL is None or not version(REAL).startswith("5.1"),
    reason="no ffmpeg 5.1 on this machine: the simulated ffmpeg was NOT compared with a real one",
)


@pytest.fixture
def pair(make_box, tmp_path):
    """Run the same words in both: (simulated, real); files under /tmp are the real folder's."""
    box = make_box(image="localhost/ffmpeg:h2").without_gpu()

    def run(program, *words, common=True):
        options = COMMON if common else []
        mine = box.run(f"/usr/bin/{program}", *options, *words)
        real = subprocess.run(
            [program, *options, *(w.replace("/tmp/", f"{tmp_path}/") for w in words)],
            capture_output=True,
            text=True,
            check=False,
        )
        real_err = real.stderr.replace(f"{tmp_path}/", "/tmp/")
        return mine, type(mine)(real.returncode, real.stdout.replace(f"{tmp_path}/", "/tmp/"), real_err, 0.0, [])

    return run


def plain(text):
    """Log lines without addresses, in order."""
    return [re.sub(r" @ 0x[0-9a-f]+\]", "]", line).rstrip() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("words", "frames"),
    [
        ((*LAVFI, "-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "veryfast", "-b:v", "500k", "/tmp/a.mp4"), 30),
        ((*LAVFI, "-c:v", "libx264", "-preset", "ultrafast", "-frames:v", "12", "/tmp/a.mkv"), 12),
        ((*LAVFI, "-vf", "scale=480:384", "-c:v", "libx265", "-preset", "ultrafast", "/tmp/a.mkv"), 30),
        ((*LAVFI, "-f", "null", "-"), 30),
    ],
)
def test_software_encodes_agree(pair, words, frames):
    mine, real = pair("ffmpeg", *words)
    assert (mine.status, real.status) == (0, 0)
    last = [re.findall(r"^frame=(\d+)$", run.out, re.M)[-1] for run in (mine, real)]
    assert last == [str(frames)] * 2
    keys = [re.findall(r"^(\w+)=", run.out, re.M)[-12:] for run in (mine, real)]
    assert keys[0] == keys[1]
    for pattern in (
        r"Stream #0:0 -> #0:0 \(.*\)$",
        r"^bench: utime=[\d.]+s stime=[\d.]+s rtime=[\d.]+s$",
        r"^bench: maxrss=\d+kB$",
    ):
        found = [re.findall(pattern, run.err, re.M) for run in (mine, real)]
        assert len(found[0]) == len(found[1]) == 1
    mapping = [next(line for line in plain(run.err) if "->" in line) for run in (mine, real)]
    assert mapping[0] == mapping[1]


def test_ffprobe_agrees(pair):
    for ending, options in (("mp4", ["-b:v", "500k"]), ("mkv", [])):
        pair("ffmpeg", *LAVFI, "-c:v", "libx264", "-preset", "veryfast", *options, f"/tmp/a.{ending}")
        words = ("-v", "error", "-select_streams", "v:0", "-count_frames", "-show_entries", ENTRIES, "-of", "json")
        mine, real = pair("ffprobe", *words, f"/tmp/a.{ending}", common=False)
        expected = json.loads(real.out)
        got = json.loads(mine.out)
        assert got == expected, ending
        assert mine.out == real.out


def test_every_stream_key_we_print_is_a_real_one(pair):
    pair("ffmpeg", *LAVFI, "-c:v", "libx264", "-preset", "veryfast", "/tmp/a.mp4")
    mine, real = pair(
        "ffprobe", "-v", "error", "-of", "json", "-show_streams", "-show_format", "/tmp/a.mp4", common=False
    )
    for section in (lambda d: d["streams"][0], lambda d: d["format"]):
        got, expected = section(json.loads(mine.out)), section(json.loads(real.out))
        assert set(got) <= set(expected)
        assert {k: type(v) for k, v in got.items()} == {k: type(expected[k]) for k in got}


def test_psnr_and_ssim_lines_agree(pair):
    pair("ffmpeg", *LAVFI, "-c:v", "libx264", "-preset", "veryfast", "-b:v", "400k", "/tmp/a.mp4")
    for graph in (NORMALISED, NORMALISED.replace("psnr", "ssim")):
        mine, real = pair("ffmpeg", "-i", "/tmp/a.mp4", *LAVFI, "-lavfi", graph, "-f", "null", "-")
        form = [
            re.sub(r"\d+\.\d+", "N", next(x for x in plain(r.err) if " All:" in x or "average:" in x))
            for r in (mine, real)
        ]
        assert form[0] == form[1]
    mine, real = pair("ffmpeg", *LAVFI, *LAVFI, "-lavfi", "[0:v][1:v]psnr", "-f", "null", "-")
    assert [next(x for x in plain(r.err) if "average:" in x) for r in (mine, real)] == [
        "[Parsed_psnr_0] PSNR y:inf u:inf v:inf average:inf min:inf max:inf"
    ] * 2


def test_measured_quality_is_near_the_real_one(pair):
    source = "testsrc2=size=1280x720:rate=30:duration=1"
    lavfi = ("-f", "lavfi", "-i", source)
    averages = []
    for rate in ("1M", "4M"):
        pair("ffmpeg", *lavfi, "-c:v", "libx264", "-preset", "veryfast", "-b:v", rate, "/tmp/q.mp4")
        both = pair("ffmpeg", "-i", "/tmp/q.mp4", *lavfi, "-lavfi", NORMALISED, "-f", "null", "-")
        averages.append([float(re.search(r"average:([\d.]+)", run.err)[1]) for run in both])
    for mine, real in averages:
        assert abs(mine - real) < 5.0
    assert averages[1][0] > averages[0][0]
    assert averages[1][1] > averages[0][1]


#: Lines that only tell about the source, buffers or threads.
DULL = re.compile(
    r"size:|Input #|Duration:|Stream #|Stream mapping|Metadata|encoder +:|Statistics|w:\d+ h:|AVIOContext|"
    r"auto_scale_0\] w:|Reinit context|bench:|major_brand|minor_version|compatible_brands|handler_name|vendor_id|X11"
)


@pytest.mark.parametrize(
    "words",
    [
        (*LAVFI, "-c:v", "h264_nvenc", "/tmp/o.mp4"),
        (*LAVFI, "-c:v", "hevc_nvenc", "/tmp/o.mp4"),
        (*LAVFI, "-c:v", "h264_foo", "/tmp/o.mp4"),
        (*LAVFI, "-c:v", "av1_nvenc", "/tmp/o.mp4"),
        (
            "-hwaccel",
            "cuda",
            "-hwaccel_output_format",
            "cuda",
            "-i",
            "/tmp/a.mp4",
            "-vf",
            "hwdownload,format=nv12",
            "-f",
            "null",
            "-",
        ),
        (
            "-init_hw_device",
            "cuda=cu:0",
            "-filter_hw_device",
            "cu",
            *LAVFI,
            "-vf",
            "format=nv12,hwupload",
            "-c:v",
            "h264_nvenc",
            "/tmp/o.mp4",
        ),
        ("-init_hw_device", "vaapi=va:/dev/dri/renderD128", *LAVFI, "-vf", "format=nv12,hwupload", "-f", "null", "-"),
        ("-i", "/tmp/a.mp4", "-vf", "hwdownload,format=nv12", "-f", "null", "-"),
        ("-i", "/tmp/a.mp4", "-vf", "scale_cuda=640:360", "-f", "null", "-"),
        ("-i", "/tmp/a.mp4", "-vf", "format=nv12,hwupload", "-f", "null", "-"),
        ("-i", "/tmp/a.mp4", "-vf", "scale_npp=640:360", "-f", "null", "-"),
        ("-i", "/tmp/nope.mp4", "-f", "null", "-"),
        (*LAVFI, "-c:v", "libx264", "/tmp/nofolder/o.mp4"),
        (
            "-i",
            "/tmp/a.mp4",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=640x360:rate=30:duration=1",
            "-lavfi",
            "[0:v][1:v]psnr",
            "-f",
            "null",
            "-",
        ),
    ],
)
def test_errors_of_a_machine_without_a_gpu_agree(pair, words):
    made = pair("ffmpeg", *LAVFI, "-c:v", "libx264", "-preset", "ultrafast", "/tmp/a.mp4")
    assert [run.status for run in made] == [0, 0]
    mine, real = pair("ffmpeg", *words)
    assert mine.status == real.status == 1
    lines = [[line for line in plain(run.err) if not DULL.search(line)] for run in (mine, real)]
    assert lines[0] == lines[1]


def test_auto_hwaccel_is_silent_without_a_gpu(pair):
    pair("ffmpeg", *LAVFI, "-c:v", "libx264", "-preset", "ultrafast", "/tmp/a.mp4")
    mine, real = pair("ffmpeg", "-hwaccel", "auto", "-i", "/tmp/a.mp4", "-f", "null", "-")
    assert (mine.status, real.status) == (0, 0)
    for run in (mine, real):
        assert "Auto hwaccel disabled: no device found." in run.err


def test_listed_encoders_are_listed_alike(pair):
    mine, real = pair("ffmpeg", "-hide_banner", "-encoders", common=False)
    ours = [line for line in mine.out.splitlines() if "=" not in line]
    assert set(ours) <= set(real.out.splitlines())
    mine, real = pair("ffmpeg", "-hide_banner", "-filters", common=False)
    assert {line.split()[1] for line in mine.out.splitlines()[8:]} - {"tonemap_cuda"} <= {
        line.split()[1] for line in real.out.splitlines()[8:]
    }


def test_frame_checksums_have_the_real_form(pair):
    pair("ffmpeg", *LAVFI, "-c:v", "libx264", "-preset", "ultrafast", "/tmp/a.mp4")
    mine, real = pair("ffmpeg", "-hide_banner", "-v", "error", "-i", "/tmp/a.mp4", "-f", "framemd5", "-", common=False)
    form = [re.sub(r"[0-9a-f]{32}", "MD5", run.out) for run in (mine, real)]
    assert form[0] == form[1]
