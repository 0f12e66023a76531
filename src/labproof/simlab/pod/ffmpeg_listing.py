"""ffmpeg's lists: -version, -encoders, -filters, -hwaccels. A listed encoder proves nothing about hardware."""

from __future__ import annotations

from labproof.simlab.pod.images import FfmpegBuild
from labproof.simlab.pod.process import NotSimulatedError

_ENCODERS = {
    "libx264": ("V....D", "libx264 H.264 / AVC / MPEG-4 AVC / MPEG-4 part 10 (codec h264)"),
    "libx264rgb": ("V....D", "libx264 H.264 / AVC / MPEG-4 AVC / MPEG-4 part 10 RGB (codec h264)"),
    "h264_nvenc": ("V....D", "NVIDIA NVENC H.264 encoder (codec h264)"),
    "h264_qsv": (
        "V.....",
        "H.264 / AVC / MPEG-4 AVC / MPEG-4 part 10 (Intel Quick Sync Video acceleration) (codec h264)",
    ),
    "h264_vaapi": ("V....D", "H.264/AVC (VAAPI) (codec h264)"),
    "libx265": ("V....D", "libx265 H.265 / HEVC (codec hevc)"),
    "hevc_nvenc": ("V....D", "NVIDIA NVENC hevc encoder (codec hevc)"),
    "hevc_qsv": ("V.....", "HEVC (Intel Quick Sync Video acceleration) (codec hevc)"),
    "hevc_vaapi": ("V....D", "H.265/HEVC (VAAPI) (codec hevc)"),
    "libsvtav1": ("V.....", "SVT-AV1(Scalable Video Technology for AV1) encoder (codec av1)"),
    "av1_nvenc": ("V....D", "NVIDIA NVENC av1 encoder (codec av1)"),
    "av1_qsv": ("V.....", "AV1 (Intel Quick Sync Video acceleration) (codec av1)"),
    "av1_vaapi": ("V....D", "AV1 (VAAPI) (codec av1)"),
    "mjpeg_qsv": ("V.....", "MJPEG (Intel Quick Sync Video acceleration) (codec mjpeg)"),
    "mjpeg_vaapi": ("V....D", "MJPEG (VAAPI) (codec mjpeg)"),
    "mpeg2_qsv": ("V.....", "MPEG-2 video (Intel Quick Sync Video acceleration) (codec mpeg2video)"),
    "mpeg2_vaapi": ("V....D", "MPEG-2 (VAAPI) (codec mpeg2video)"),
    "vp8_vaapi": ("V....D", "VP8 (VAAPI) (codec vp8)"),
    "vp9_vaapi": ("V....D", "VP9 (VAAPI) (codec vp9)"),
    "vp9_qsv": ("V.....", "VP9 video (Intel Quick Sync Video acceleration) (codec vp9)"),
    "rawvideo": ("VF...D", "raw video"),
    "wrapped_avframe": ("V.....", "AVFrame to AVPacket passthrough"),
}
_FILTERS = {
    "color": ("..C", "|->V", "Provide an uniformly colored input."),
    "format": ("...", "V->V", "Convert the input video to one of the specified pixel formats."),
    "hwdownload": ("...", "V->V", "Download a hardware frame to a normal frame"),
    "hwupload": ("...", "V->V", "Upload a normal frame to a hardware frame"),
    "hwupload_cuda": ("...", "V->V", "Upload a system memory frame to a CUDA device."),
    "null": ("...", "V->V", "Pass the source unchanged to the output."),
    "psnr": ("TS.", "VV->V", "Calculate the PSNR between two video streams."),
    "scale": ("..C", "V->V", "Scale the input video size and/or convert the image format."),
    "scale_cuda": ("...", "V->V", "GPU accelerated video resizer"),
    "scale_vaapi": ("...", "V->V", "Scale to/from VAAPI surfaces."),
    "setpts": ("...", "V->V", "Set PTS for the output video frame."),
    "settb": ("...", "V->V", "Set timebase for the video output link."),
    "split": ("...", "V->N", "Pass on the input to N video outputs."),
    "ssim": ("TS.", "VV->V", "Calculate the SSIM between two video streams."),
    "testsrc2": ("...", "|->V", "Generate another test pattern."),
    "tonemap_cuda": ("...", "V->V", "GPU accelerated HDR to SDR tonemapping"),
    "tonemap_opencl": ("...", "V->V", "Perform HDR to SDR conversion with tonemapping."),
    "tonemap_vaapi": ("...", "V->V", "VAAPI VPP for tone-mapping"),
}
_ENCODER_KEY = """Encoders:
 V..... = Video
 A..... = Audio
 S..... = Subtitle
 .F.... = Frame-level multithreading
 ..S... = Slice-level multithreading
 ...X.. = Codec is experimental
 ....B. = Supports draw_horiz_band
 .....D = Supports direct rendering method 1
 ------
"""
_FILTER_KEY = """Filters:
  T.. = Timeline support
  .S. = Slice threading
  ..C = Command support
  A = Audio input/output
  V = Video input/output
  N = Dynamic number and/or type of input/output
  | = Source or sink filter
"""


def banner(build: FfmpegBuild, program: str = "ffmpeg") -> str:
    """First lines of `-version`, and of every run without -hide_banner."""
    return (
        f"{program} version {build.version} Copyright (c) {build.copyright} the FFmpeg developers\n"
        "built with gcc (labproof-sim)\n"
        "configuration: --enable-gpl --enable-libx264 --enable-libx265"
        f"{' --enable-ffnvcodec --enable-nvenc --enable-nvdec --enable-cuda-llvm' if build.nvenc_api else ''}\n"
        f"libavcodec     {build.lavc.replace('.', '. ', 2)}\n"
        f"libavformat    {build.lavf.replace('.', '. ', 2)}\n"
    )


def listing(build: FfmpegBuild, kind: str) -> str:
    """What a listing option prints on stdout.

    Raises:
        NotSimulatedError: a list the model does not have.
    """
    if kind == "version":
        return banner(build)
    if kind == "encoders":
        rows = (f" {flags} {name:<20} {text}\n" for name, (flags, text) in _ENCODERS.items() if name in build.encoders)
        return _ENCODER_KEY + "".join(rows)
    if kind == "filters":
        found = ((name, row) for name, row in _FILTERS.items() if name in build.filters)
        return _FILTER_KEY + "".join(f" {flags} {name:<17} {pads:<10} {text}\n" for name, (flags, pads, text) in found)
    if kind == "hwaccels":
        return "Hardware acceleration methods:\n" + "".join(f"{name}\n" for name in build.hwaccels) + "\n"
    raise NotSimulatedError(f"ffmpeg -{kind}")
