"""Every argument list that the suite's probes run in pods is inside the model, on the sound card."""

from __future__ import annotations

import pytest

FF = "/usr/lib/jellyfin-ffmpeg/ffmpeg"
FP = "/usr/lib/jellyfin-ffmpeg/ffprobe"
COMMON = f"{FF} -hide_banner -nostdin -v verbose -benchmark -nostats -progress pipe:1 -y"
SRC = "testsrc2=size=1920x1080:rate=30:duration=2"
CUDA = "-hwaccel cuda -hwaccel_output_format cuda"
W = "/tmp/labproof-x-"
QUIET = f"{FF} -hide_banner -nostdin -v info -nostats"
ALIGN = "settb=1/30,setpts=N"
ENTRIES = (
    "stream=codec_name,profile,pix_fmt,width,height,r_frame_rate,nb_read_frames,nb_frames,color_transfer:"
    "stream_tags=encoder"
)
QUERY = "utilization.encoder,utilization.decoder,encoder.stats.sessionCount,memory.used,memory.free"

#: In order: later ones read what earlier ones wrote. (line, statuses it may end with)
LINES = [
    ("nvidia-smi -q -x", {0}),
    ("nvidia-smi -L", {0}),
    (f"nvidia-smi --query-gpu={QUERY},temperature.gpu,pstate --format=csv,noheader,nounits", {0}),
    ("env", {0}),
    ("id -u", {0}),
    ("ls -ln /dev", {0}),
    ("dd if=/dev/null of=/dev/nvidiactl count=0 conv=notrunc", {0}),
    ("dd if=/dev/null of=/dev/nvidia0 count=0 conv=notrunc,nocreat", {0}),
    ("dd if=/dev/nvidia-uvm of=/dev/null count=0", {0}),
    ("ls -d /usr/lib/x86_64-linux-gnu/libcuda.so.1 /usr/lib64/libcuda.so.1", {2}),
    (f"{FF} -version", {0}),
    (f"{COMMON} -f lavfi -i {SRC} -pix_fmt yuv420p -c:v libx264 -preset medium -b:v 6M -g 60 {W}software.mp4", {0}),
    (
        f"{COMMON} -re -f lavfi -i {SRC} -pix_fmt yuv420p -c:v h264_nvenc -preset p4 -tune hq -rc vbr -b:v 6M -g 60"
        f" {W}h264.mp4",
        {0},
    ),
    (
        f"{COMMON} -re -f lavfi -i {SRC} -pix_fmt yuv420p -c:v hevc_nvenc -preset p4 -b:v 4M -tag:v hvc1 {W}hevc.mp4",
        {0},
    ),
    (f"{COMMON} {CUDA} -stream_loop 9 -i {W}software.mp4 -vf hwdownload,format=nv12 -f null -", {0}),
    (
        f"{COMMON} -re {CUDA} -i {W}software.mp4 -vf scale_cuda=w=1280:h=720:format=nv12 -c:v h264_nvenc -preset p4"
        f" -b:v 4M -an {W}transcode.mp4",
        {0},
    ),
    (f"{COMMON} {CUDA} -i {W}software.mp4 -c:v h264_nvenc -preset p4 -b:v 6M -an {W}app.mp4", {0}),
    (
        f"{COMMON} -f lavfi -i testsrc2=size=1920x1080:rate=30:duration=1 -pix_fmt yuv420p -c:v av1_nvenc -preset p4"
        f" -b:v 3M {W}av1.mp4",
        {187},
    ),
    *(
        (
            f"{QUIET} -c:v {codec} -i {W}{name}.mp4 -f lavfi -i {SRC} -lavfi"
            f" [0:v]{ALIGN}[a];[1:v]{scale}{ALIGN}[b];[a][b]{metric}=shortest=1 -f null -",
            {0},
        )
        for metric in ("psnr", "ssim")
        for codec, name, scale in (
            ("h264", "h264", ""),
            ("hevc", "hevc", ""),
            ("h264", "transcode", "scale=1280:720,"),
        )
    ),
    (f"{FP} -v error -select_streams v:0 -count_frames -show_entries {ENTRIES} -of json {W}hevc.mp4", {0}),
    (f"rm -f {W}software.mp4 {W}h264.mp4 {W}nothing.mp4", {0}),
]


def test_all_lines_of_the_suite_are_simulated(box):
    for line, statuses in LINES:
        ran = box.run(*line.split())
        assert "not simulated" not in ran.err, line
        assert ran.status in statuses, (line, ran.err)


@pytest.mark.parametrize("card", ["rtx2070s", "a100"])
def test_lines_are_simulated_on_other_cards(make_box, card):
    box = make_box(card=card)
    for line, _ in LINES:
        assert "not simulated" not in box.run(*line.split()).err, line
