"""The ffmpeg and ffprobe command lines of the transcode probe, as argv lists (facts transcode 1 and 2.7).

Every command carries `-v verbose` (nearly every proof line is verbose), `-nostdin` (exec gives none) and keeps
progress on stdout apart from the log on stderr. Sources are 1080p: NVENC refuses very small frames.
"""

from __future__ import annotations

from dataclasses import dataclass

RATE = 30
DECODE_LOOPS = 10  # a hardware decoder eats a short clip between two samples of its counter; ten times is seconds
LIMIT_BITRATE = "6M"


@dataclass(frozen=True)
class Commands:
    """Command lines for one pod.

    Attributes:
        ffmpeg, ffprobe: paths in the image.
        prefix: what names of written files begin with, so that no earlier run's file can be mistaken for ours.
        seconds: length of the test clip.
    """

    ffmpeg: str
    ffprobe: str
    prefix: str
    seconds: float

    @property
    def frames(self) -> int:
        """Frames of the test clip."""
        return round(self.seconds * RATE)

    @property
    def source(self) -> str:
        """The generator: the same frames on every version and machine, so that no download is needed."""
        return f"testsrc2=size=1920x1080:rate={RATE}:duration={self.seconds:g}"

    def file(self, name: str) -> str:
        """Path of the file a run writes."""
        return f"{self.prefix}{name}.mp4"

    def version(self) -> list[str]:
        """ffmpeg's version."""
        return [self.ffmpeg, "-version"]

    def _common(self) -> list[str]:
        return [self.ffmpeg, "-hide_banner", "-nostdin", "-v", "verbose", "-benchmark", "-nostats",
                "-progress", "pipe:1", "-y"]  # fmt: skip

    def software(self) -> list[str]:
        """The CPU reference, and the input of every decode: H.264 by libx264."""
        return [*self._common(), "-f", "lavfi", "-i", self.source, "-pix_fmt", "yuv420p", "-c:v", "libx264",
                "-preset", "medium", "-b:v", LIMIT_BITRATE, "-g", "60", self.file("software")]  # fmt: skip

    def encode_h264(self, name: str = "h264") -> list[str]:
        """H.264 by NVENC, paced to real time so that counters can be read while it works and neighbours breathe."""
        return [*self._common(), "-re", "-f", "lavfi", "-i", self.source, "-pix_fmt", "yuv420p",
                "-c:v", "h264_nvenc", "-preset", "p4", "-tune", "hq", "-rc", "vbr", "-b:v", LIMIT_BITRATE, "-g", "60",
                self.file(name)]  # fmt: skip

    def load(self, seconds: float) -> list[str]:
        """H.264 by NVENC, paced, of that length, written nowhere: for a counter that is read only now and then."""
        source = f"testsrc2=size=1920x1080:rate={RATE}:duration={seconds:g}"
        return [*self._common(), "-re", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p",
                "-c:v", "h264_nvenc", "-preset", "p4", "-b:v", LIMIT_BITRATE, "-f", "null", "-"]  # fmt: skip

    def encode_hevc(self) -> list[str]:
        """HEVC 8 bit by NVENC, paced."""
        return [*self._common(), "-re", "-f", "lavfi", "-i", self.source, "-pix_fmt", "yuv420p",
                "-c:v", "hevc_nvenc", "-preset", "p4", "-b:v", "4M", "-tag:v", "hvc1", self.file("hevc")]  # fmt: skip

    def decode(self) -> list[str]:
        """H.264 by NVDEC; `hwdownload` cannot take software frames, so a silent fallback becomes an error."""
        return [*self._common(), "-hwaccel", "cuda", "-hwaccel_output_format", "cuda",
                "-stream_loop", str(DECODE_LOOPS - 1), "-i", self.file("software"),
                "-vf", "hwdownload,format=nv12", "-f", "null", "-"]  # fmt: skip

    def transcode(self) -> list[str]:
        """Decode, scale and encode without a frame leaving the card."""
        return [*self._common(), "-re", "-hwaccel", "cuda", "-hwaccel_output_format", "cuda",
                "-i", self.file("software"), "-vf", "scale_cuda=w=1280:h=720:format=nv12",
                "-c:v", "h264_nvenc", "-preset", "p4", "-b:v", "4M", "-an", self.file("transcode")]  # fmt: skip

    def app(self) -> list[str]:
        """What a media server really does: no filter that would notice frames decoded in software. Not paced."""
        return [*self._common(), "-hwaccel", "cuda", "-hwaccel_output_format", "cuda", "-i", self.file("software"),
                "-c:v", "h264_nvenc", "-preset", "p4", "-b:v", LIMIT_BITRATE, "-an", self.file("app")]  # fmt: skip

    def encode_av1(self) -> list[str]:
        """One second of AV1 by NVENC: Ada and newer do it, older chips must refuse."""
        source = f"testsrc2=size=1920x1080:rate={RATE}:duration=1"
        return [*self._common(), "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p",
                "-c:v", "av1_nvenc", "-preset", "p4", "-b:v", "3M", self.file("av1")]  # fmt: skip

    def compare(self, name: str, codec: str, measure: str) -> list[str]:
        """PSNR or SSIM of a written file against the regenerated source, decoded in software.

        Both sides get frame numbers as timestamps: comparing by time is off by up to half a frame and costs 19 dB
        (facts transcode 2.7).
        """
        normal = f"settb=1/{RATE},setpts=N"
        graph = f"[0:v]{normal}[a];[1:v]{normal}[b];[a][b]{measure}=shortest=1"
        return [self.ffmpeg, "-hide_banner", "-nostdin", "-v", "info", "-nostats", "-c:v", codec,
                "-i", self.file(name), "-f", "lavfi", "-i", self.source, "-lavfi", graph,
                "-f", "null", "-"]  # fmt: skip

    def probe(self, name: str) -> list[str]:
        """The file's video stream, frames counted."""
        return [self.ffprobe, "-v", "error", "-select_streams", "v:0", "-count_frames", "-show_entries",
                "stream=codec_name,profile,pix_fmt,width,height,r_frame_rate,nb_read_frames,nb_frames,color_transfer"
                ":stream_tags=encoder", "-of", "json", self.file(name)]  # fmt: skip

    def clean(self) -> list[str]:
        """Remove everything written (only needed in a pod that is not ours)."""
        return ["rm", "-f", *(self.file(n) for n in ("software", "h264", "hevc", "transcode", "app", "av1"))]
