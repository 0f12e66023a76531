"""ffmpeg command lines for Intel and AMD: VA-API, and Quick Sync derived from it (facts transcode 1.2 to 1.4).

Every command names its device by `-init_hw_device` and `-filter_hw_device`: ffmpeg 8 builds filters before the
decoder's own device exists, and a number in a path is found out, never assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from labproof.inventory.models import Probe
from labproof.probes.transcode_commands import DECODE_LOOPS, LIMIT_BITRATE, RATE, Commands

#: A colour volume as HDR10 discs carry it; only the tag is needed, the pictures are the generator's.
_HDR10 = "setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc"


@dataclass(frozen=True)
class VaCommands(Commands):
    """Command lines for one container and one render node.

    Attributes:
        node: the render node of the chain's card.
        env: variables that ffmpeg of this image needs.
    """

    node: str = "/dev/dri/renderD128"
    env: tuple[tuple[str, str], ...] = field(default=())

    def wrapped(self, argv: list[str]) -> list[str]:
        """The command with the image's variables in front."""
        return ["env", *(f"{k}={v}" for k, v in self.env), *argv] if self.env else argv

    def version(self) -> list[str]:
        """ffmpeg's version."""
        return self.wrapped(super().version())

    def _common(self) -> list[str]:
        return self.wrapped(super()._common())

    def _device(self) -> list[str]:
        return ["-init_hw_device", f"vaapi=va:{self.node}", "-filter_hw_device", "va"]

    def _decoder(self) -> list[str]:
        return [*self._device(), "-hwaccel", "vaapi", "-hwaccel_device", "va", "-hwaccel_output_format", "vaapi"]

    def _encode(self, encoder: str, name: str, *options: str, upload: str = "nv12") -> list[str]:
        return [*self._common(), *self._device(), "-re", "-f", "lavfi", "-i", self.source,
                "-vf", f"format={upload},hwupload", "-c:v", encoder, *options, self.file(name)]  # fmt: skip

    def encode_h264(self, name: str = "h264") -> list[str]:
        """H.264, paced to real time so that counters can be read while it works."""
        return self._encode("h264_vaapi", name, "-b:v", LIMIT_BITRATE, "-g", "60", "-bf", "0")

    def encode_hevc(self) -> list[str]:
        """HEVC 8 bit, paced."""
        return self._encode("hevc_vaapi", "hevc", "-b:v", "4M", "-bf", "0", "-tag:v", "hvc1")

    def encode_vp9(self) -> list[str]:
        """VP9 by the low-power engine, at a constant quality."""
        return self._encode("vp9_vaapi", "vp9", "-rc_mode", "CQP", "-global_quality", "60", "-bf", "0")

    def encode_low_power(self) -> list[str]:
        """H.264 by the low-power engine with a bit rate, which needs HuC up to Alder Lake."""
        return self._encode("h264_vaapi", "low-power", "-low_power", "1", "-b:v", LIMIT_BITRATE, "-bf", "0")

    def encode_qsv(self) -> list[str]:
        """H.264 by Quick Sync on top of VA-API, with the iHD driver that it needs."""
        return [*self._common(), "-init_hw_device", f"vaapi=va:{self.node},driver=iHD",
                "-init_hw_device", "qsv=qs@va", "-filter_hw_device", "qs", "-re", "-f", "lavfi", "-i", self.source,
                "-vf", "format=nv12,hwupload", "-c:v", "h264_qsv", "-preset", "7", "-b:v", LIMIT_BITRATE,
                self.file("qsv")]  # fmt: skip

    def encode_av1(self) -> list[str]:
        """One second of AV1: Arc and newer do it, older chips must refuse."""
        source = f"testsrc2=size=1920x1080:rate={RATE}:duration=1"
        return [*self._common(), *self._device(), "-f", "lavfi", "-i", source, "-vf", "format=nv12,hwupload",
                "-c:v", "av1_vaapi", "-b:v", "3M", self.file("av1")]  # fmt: skip

    def decode(self, name: str = "software", loops: int = DECODE_LOOPS) -> list[str]:
        """Decode on the card; `hwdownload` cannot take software frames, so a silent fallback becomes an error."""
        return [*self._common(), *self._decoder(), "-stream_loop", str(loops - 1), "-i", self.file(name),
                "-vf", "hwdownload,format=nv12", "-f", "null", "-"]  # fmt: skip

    def transcode(self, loops: int = 1) -> list[str]:
        """Decode, scale and encode without a frame leaving the card."""
        return [*self._common(), *self._decoder(), "-re", "-stream_loop", str(loops - 1), "-i", self.file("software"),
                "-vf", "scale_vaapi=w=1280:h=720:format=nv12", "-c:v", "h264_vaapi", "-b:v", "4M", "-bf", "0",
                "-an", self.file("transcode")]  # fmt: skip

    def app(self) -> list[str]:
        """What a media server runs; VA-API encoders take no software frames, so it says at once when it cannot."""
        return [*self._common(), *self._decoder(), "-i", self.file("software"), "-c:v", "h264_vaapi",
                "-b:v", LIMIT_BITRATE, "-bf", "0", "-an", self.file("app")]  # fmt: skip

    def tone_map(self) -> list[str]:
        """HDR10 mapped to SDR by the video processor."""
        return [*self._common(), *self._device(), "-re", "-f", "lavfi", "-i", self.source,
                "-vf", f"format=p010,{_HDR10},hwupload,tonemap_vaapi=format=nv12:t=bt709:m=bt709:p=bt709",
                "-c:v", "h264_vaapi", "-b:v", LIMIT_BITRATE, "-bf", "0", self.file("tone-map")]  # fmt: skip

    def subtitles(self) -> list[str]:
        """A picture laid over the film on the card, as burned-in subtitles are."""
        strip = f"color=color=white:size=960x120:rate={RATE}:duration={self.seconds:g}"
        upload = "format=nv12,hwupload"
        graph = f"[0:v]{upload}[film];[1:v]{upload}[text];[film][text]overlay_vaapi=x=480:y=900"
        return [*self._common(), *self._device(), "-re", "-f", "lavfi", "-i", self.source, "-f", "lavfi", "-i", strip,
                "-filter_complex", graph, "-c:v", "h264_vaapi", "-b:v", LIMIT_BITRATE, "-bf", "0",
                self.file("subtitles")]  # fmt: skip

    def compare(self, name: str, codec: str, measure: str) -> list[str]:
        """PSNR or SSIM against the regenerated source, decoded in software."""
        return self.wrapped(super().compare(name, codec, measure))

    def probe(self, name: str) -> list[str]:
        """The file's video stream, frames counted."""
        return self.wrapped(super().probe(name))

    def clean(self) -> list[str]:
        """Remove everything written."""
        names = ("software", "h264", "hevc", "vp9", "low-power", "qsv", "av1", "transcode", "app", "tone-map",
                 "subtitles")  # fmt: skip
        return ["rm", "-f", *(self.file(name) for name in names)]


def opencl_command(probe: Probe, node: str) -> list[str]:
    """A second of pictures through an OpenCL filter, on a device derived from the VA-API one."""
    argv = [probe.ffmpeg, "-hide_banner", "-nostdin", "-v", "verbose", "-nostats",
            "-init_hw_device", f"vaapi=va:{node}", "-init_hw_device", "opencl=ocl@va", "-filter_hw_device", "ocl",
            "-f", "lavfi", "-i", f"testsrc2=size=1280x720:rate={RATE}:duration=1",
            "-vf", "format=yuv420p,hwupload,avgblur_opencl=2,hwdownload,format=yuv420p", "-f", "null", "-"]  # fmt: skip
    return ["env", *(f"{k}={v}" for k, v in probe.env.items()), *argv] if probe.env else argv
