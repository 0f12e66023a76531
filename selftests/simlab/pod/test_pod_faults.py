"""Every fault of the workload and transcode layers shows its symptom in a program, and the sound lab does not."""

from __future__ import annotations

import asyncio
import re

import pytest

from labproof.simlab.faults import load_faults
from labproof.simlab.pod import programs

VECTOR_ADD = "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0"
SRC = ("-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=30:duration=2", "-pix_fmt", "yuv420p")
CUDA = ("-hwaccel", "cuda", "-hwaccel_output_format", "cuda")
FAULTS = {name: fault for name, fault in load_faults("t4-jellyfin").items() if fault.layer in ("workload", "transcode")}


def said(ran):
    return f"status {ran.status}\n{ran.out}\n{ran.err}"


def smi(box):
    return said(box.run("nvidia-smi", "-q", "-x", kill_at=100))


def libraries(box):
    return said(box.run("ls", "/usr/lib/x86_64-linux-gnu"))


def opened(box):
    nodes = ("nvidiactl", "nvidia0", "nvidia-uvm", "nvidia-uvm-tools")
    return "".join(
        said(box.run("dd", "if=/dev/null", f"of=/dev/{n}", "count=0", "conv=notrunc,nocreat")) for n in nodes
    )


def vector_add(box):
    return box.error or said(box.run("/cuda-samples/vectorAdd"))


def h264(box):
    return said(box.ffmpeg("-re", *SRC, "-c:v", "h264_nvenc", "-b:v", "6M", "/tmp/h.mp4"))


def hevc(box):
    return said(box.ffmpeg("-re", *SRC, "-c:v", "hevc_nvenc", "-b:v", "4M", "/tmp/x.mp4"))


def av1(box):
    return said(box.ffmpeg(*SRC, "-c:v", "av1_nvenc", "-b:v", "3M", "/tmp/a.mp4"))


def decode(box):
    box.ffmpeg(*SRC, "-c:v", "libx264", "-b:v", "6M", "/tmp/sw.mp4")
    return said(box.ffmpeg(*CUDA, "-i", "/tmp/sw.mp4", "-vf", "hwdownload,format=nv12", "-f", "null", "-"))


def scaled(box):
    box.ffmpeg(*SRC, "-c:v", "libx264", "-b:v", "6M", "/tmp/sw.mp4")
    return said(box.ffmpeg(*CUDA, "-i", "/tmp/sw.mp4", "-vf", "scale_cuda=640:360", "-c:v", "h264_nvenc", "/tmp/t.mp4"))


def cost(box):
    log = h264(box)
    user = float(re.search(r"bench: utime=([\d.]+)", log)[1])
    return f"{'dear' if user * 1000 / 60 > 11 else 'cheap'}"


def quality(box):
    h264(box)
    average = float(re.search(r"average:([\d.]+)", box.psnr("/tmp/h.mp4", SRC[3]).err)[1])
    return "damaged" if average < 30 else "whole"


def two_at_once(box):
    streams = [type(box)._streams() for _ in range(2)]

    async def both():
        words = [
            "-re",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=1920x1080:rate=30:duration=2",
            "-c:v",
            "h264_nvenc",
            "-b:v",
            "6M",
        ]
        argv = [
            "/usr/lib/jellyfin-ffmpeg/ffmpeg",
            "-hide_banner",
            "-v",
            "verbose",
            "-progress",
            "pipe:1",
            "-y",
            *words,
        ]
        jobs = [programs.run([*argv, f"/tmp/{n}.mp4"], box.pod, io) for n, io in enumerate(streams)]
        peak = 0

        async def watch():
            nonlocal peak
            for _ in range(40):
                peak = max(peak, sum(box.card.vram.values()) + box.others())
                await asyncio.sleep(0)

        done = await asyncio.gather(*jobs, watch())
        return done[:2], peak

    statuses, peak = asyncio.run(both())
    text = "\n".join(io.stdout.decode() + io.stderr.decode() for io in streams)
    share = peak / (box.card.inputs["memory_mib"] - box.card.inputs["reserved_mib"])
    return f"statuses {statuses}\n{text}\nmemory {'full' if share > 0.9 else 'ample'}"


#: fault -> (what is run, its image, what must then be said and is not said by the sound lab)
SYMPTOMS = {
    "video-capability-missing": (libraries, None, r"\A(?!.*libnvidia-encode)"),
    "compute-capability-missing": (libraries, None, r"\A(?!.*libcuda)"),
    "utility-capability-missing": (smi, None, "status 127"),
    "image-brings-nvidia-smi": (smi, None, "status 12\n.*couldn't find libnvidia-ml"),
    "image-brings-driver-libraries": (smi, None, "status 18\n.*version mismatch\nNVML library version: 535.104"),
    "encode-library-not-injected": (libraries, None, r"\A(?!.*libnvidia-encode)"),
    "decode-library-not-injected": (libraries, None, r"\A(?!.*libnvcuvid)"),
    "toolkit-finds-no-library": (smi, None, "status 127"),
    "uvm-node-not-injected": (opened, None, "'/dev/nvidia-uvm': No such file"),
    "card-node-not-injected": (smi, None, "status 6\nNo devices were found"),
    "cgroup-rule-missing": (opened, None, "'/dev/nvidia0': Operation not permitted"),
    "compute-mode-exclusive": (two_at_once, None, "CUDA_ERROR_DEVICE_UNAVAILABLE"),
    "library-cache-broken": (smi, None, "status 139"),
    "card-tells-other-device": (smi, None, "<pci_device_id>1EB910DE<"),
    "session-limit-exhausted": (h264, None, r"OpenEncodeSessionEx failed: out of memory \(10\)"),
    "ffmpeg-without-nvdec": (decode, None, "Unrecognized hwaccel: cuda"),
    "ffmpeg-decodes-h264-in-software": (decode, None, "Impossible to convert between the formats"),
    "cuda-image-not-root": (vector_add, VECTOR_ADD, "unknown error"),
    "ffmpeg-without-cuda-filters": (scaled, None, "No such filter: 'scale_cuda'"),
    "cgroup-rules-lost": (smi, None, "status 255\nFailed to initialize NVML: Unknown Error"),
    "uvm-refused-by-cgroup": (opened, None, "'/dev/nvidia-uvm': Operation not permitted"),
    "device-node-root-only": (opened, None, "'/dev/nvidia0': Permission denied"),
    "card-hangs": (smi, None, "status 137"),
    "memory-errors": (smi, None, "<dram_uncorrectable>3<"),
    "page-retirement-pending": (smi, None, "<pending_retirement>Yes<"),
    "power-brake": (smi, None, "hw_power_brake_slowdown>Active"),
    "kernel-result-wrong": (vector_add, VECTOR_ADD, "Result verification failed"),
    "image-without-code-for-the-card": (vector_add, VECTOR_ADD, "no kernel image is available"),
    "cuda-runtime-newer-than-driver": (vector_add, VECTOR_ADD, "driver version is insufficient for CUDA runtime"),
    "cuda-image-requires-newer-driver": (vector_add, VECTOR_ADD, "unsatisfied condition: cuda>=13.0"),
    "cuda-image-names-other-device": (vector_add, VECTOR_ADD, "no CUDA-capable device"),
    "ffmpeg-newer-than-driver": (h264, None, "Required: 13.1 Found: 13.0"),
    "ffmpeg-without-nvenc": (h264, None, "Unknown encoder 'h264_nvenc'"),
    "ffmpeg-wrapped-in-software": (h264, None, r"-> h264 \(libx264\)"),
    "ffmpeg-leaks-memory": (h264, None, "status 137"),
    "ffmpeg-built-for-debugging": (cost, None, "dear"),
    "cuda-visible-devices-wrong": (h264, None, "CUDA_ERROR_NO_DEVICE"),
    "image-brings-compat-libcuda": (h264, None, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
    "encoder-absent": (h264, None, r"unsupported device \(2\)"),
    "encoder-without-hevc": (hevc, None, "Codec not supported"),
    "encoder-slower-than-real-time": (h264, None, r"speed=0\.[0-8]"),
    "encoder-too-slow-for-all": (two_at_once, None, r"speed=0\.[0-8]"),
    "decoder-without-h264": (decode, None, "Hardware is lacking required capabilities"),
    "picture-damaged": (quality, None, "damaged"),
    "card-encodes-av1": (av1, None, "status 0"),
    "session-limit-reached": (two_at_once, None, r"OpenEncodeSessionEx failed: out of memory \(10\)"),
    "neighbour-loads-a-model": (two_at_once, None, "CUDA_ERROR_OUT_OF_MEMORY"),
    "neighbour-leaves-no-buffers": (two_at_once, None, "CreateBitstreamBuffer failed: out of memory"),
    "neighbour-fills-memory": (two_at_once, None, "memory full"),
}
#: Faults that show in the cluster (an object, a container that never starts), not in a program.
ELSEWHERE = {
    "workload-without-slot",
    "image-requires-newer-cuda",
    "product-label-typed-over",
    "default-runtime-nvidia",
    "all-free-devices-booked",
    "envvar-device-list-refused",
    "runtime-never-answers",
    "own-pod-without-runtime-class",
    "modules-unloaded-under-pod",
    "card-taken-under-pod",
    "card-lost-under-pod",
    "own-pod-overrides-devices",
    "cloned-machine-took-the-name",
    "slot-booked-for-nobody",
}


def test_every_fault_has_a_symptom_here():
    assert set(SYMPTOMS) | ELSEWHERE == set(FAULTS)


def test_faults_touch_inputs_only():
    for fault in FAULTS.values():
        assert set(fault.set) <= {"cards", "clusters", "nodes", "hosts"}
        assert re.fullmatch(r"(POD|CODEC)-[A-Z0-9]+-\d{3}", fault.clause)


@pytest.mark.parametrize("name", sorted(SYMPTOMS))
def test_symptom_follows_from_the_fault(make_box, name):
    run, image, pattern = SYMPTOMS[name]
    given = {"image": image, "env": {"NVIDIA_VISIBLE_DEVICES": "all"}} if image else {}
    sound, broken = make_box(**given), make_box(faults=(name,), **given)
    assert re.search(pattern, run(broken), re.S)
    assert not re.search(pattern, run(sound), re.S)
