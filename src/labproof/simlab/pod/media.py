"""Pictures and media files as records: what they show, how they were coded, how much was lost on the way.

Loss is a mean squared error on 8-bit samples, so that it adds up along a chain and PSNR follows. The rate-quality
points are measured ones of testsrc2 with libx264 (facts/transcode.md 2.7).
"""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass, field, replace
from fractions import Fraction

#: (bits per pixel, average PSNR): 720p30 at 0.5, 1, 2, 4 and 8 Mb/s.
_RATE_POINTS = ((0.0181, 33.5), (0.0362, 37.5), (0.0723, 40.5), (0.1447, 46.1), (0.2894, 55.3))
#: (average PSNR, SSIM) of the same runs; the ends are an all-black output and the timestamp trap.
_SSIM_POINTS = (
    (7.2, 0.12),
    (20.0, 0.74),
    (28.9, 0.91),
    (33.5, 0.961),
    (37.5, 0.981),
    (40.5, 0.990),
    (46.1, 0.997),
    (55.3, 0.9996),
)
#: Comparing pictures one frame apart: the average that millisecond timestamps give (facts/transcode.md 2.7).
TIMESTAMP_TRAP_DB = 28.9


@dataclass(frozen=True)
class Pictures:
    """A run of decoded frames.

    Attributes:
        source: which pictures these are, e.g. testsrc2=1920x1080.
        hardware: "" for frames in memory, "cuda" for frames on the card.
        mse: damage so far; clock: exact | millisecond | counted timestamps; scalers: resamplers passed through.
        cpu_ms: CPU time per frame spent so far in this graph.
        held_mib: card memory of frames that a filter keeps.
    """

    source: str
    width: int
    height: int
    rate: Fraction
    frames: int
    pix_fmt: str
    hardware: str = ""
    mse: float = 0.0
    clock: str = "exact"
    scalers: tuple[str, ...] = ()
    cpu_ms: float = 0.0
    held_mib: float = 0.0
    feeds: tuple[str, ...] = ()  # name of the filter or input that delivers them
    transfer: str = ""  # colour transfer the frames carry: smpte2084 for HDR10, "" for none
    pending_download: str = ""  # software format that the next filter must name after hwdownload

    @property
    def megapixel_share(self) -> float:
        """Picture size relative to 1920x1080."""
        return self.width * self.height / (1920 * 1080)


@dataclass(frozen=True)
class MediaRecord:
    """A media file.

    Attributes:
        container: format name ffprobe prints.
        encoder_tag: `Lavc61.19.101 h264_nvenc`, "" when the container keeps none.
        size_bytes: file size; bit_rate: bits per second of the stream.
    """

    codec: str
    profile: str
    encoder: str
    encoder_tag: str
    container: str
    pictures: Pictures
    bit_rate: int
    size_bytes: int
    tag: str = ""
    muxer: str = ""
    color_transfer: str = ""
    level: int = 40
    b_frames: int = 0
    options: tuple[tuple[str, str], ...] = field(default_factory=tuple)

    @property
    def duration(self) -> Fraction:
        """Seconds."""
        return Fraction(self.pictures.frames) / self.pictures.rate


def interpolate(points: tuple[tuple[float, float], ...], x: float) -> float:
    """Piecewise linear, clamped at the ends."""
    if x <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]


def psnr_of_rate(bits_per_pixel: float) -> float:
    """Average PSNR of one encode, in dB; below the measured range 4 dB an octave."""
    log = math.log2(max(bits_per_pixel, 1e-6))
    points = tuple((math.log2(bpp), db) for bpp, db in _RATE_POINTS)
    if log < points[0][0]:
        return max(12.0, points[0][1] + 4 * (log - points[0][0]))
    return interpolate(points, log)


def mse_of(psnr: float) -> float:
    """Mean squared error on 8-bit samples for a PSNR in dB."""
    return 255.0**2 / 10 ** (psnr / 10)


def psnr_of(mse: float) -> float:
    """PSNR in dB; infinite for equal pictures."""
    return math.inf if mse <= 0 else 10 * math.log10(255.0**2 / mse)


def ssim_of(psnr: float) -> float:
    """SSIM of pictures with this PSNR; 1 for equal ones."""
    return 1.0 if math.isinf(psnr) else interpolate(_SSIM_POINTS, psnr)


def difference(left: Pictures, right: Pictures) -> float:
    """Mean squared error between two runs of pictures compared frame by frame."""
    if left.source != right.source:
        return mse_of(11.4)
    mse = left.mse + right.mse
    if left.scalers != right.scalers:
        mse += mse_of(41.0)  # two resamplers do not agree
    if left.clock != right.clock and "millisecond" in (left.clock, right.clock):
        mse += mse_of(TIMESTAMP_TRAP_DB)
    return mse


def frame_hash(pictures: Pictures, number: int) -> str:
    """MD5 of one decoded frame: equal for equal pictures in the same pixel format, whoever decoded them."""
    size = f"{pictures.width}x{pictures.height}"
    text = f"{pictures.source}|{size}|{pictures.pix_fmt}|{pictures.mse:.9f}|{pictures.scalers}"
    return hashlib.md5(f"{text}|{number}".encode(), usedforsecurity=False).hexdigest()


def frame_bytes(pictures: Pictures) -> int:
    """Bytes of one uncompressed frame."""
    depth = 2 if pictures.pix_fmt in ("p010le", "yuv420p10le") else 1
    return pictures.width * pictures.height * 3 // 2 * depth


def damaged(pictures: Pictures, mse: float) -> Pictures:
    """The same pictures with more loss."""
    return replace(pictures, mse=pictures.mse + mse) if mse else pictures
