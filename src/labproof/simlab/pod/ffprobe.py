"""ffprobe: reads a media record of the container and prints what `-show_entries` asks for."""

from __future__ import annotations

import json
from typing import Any

from labproof.simlab.pod.ffmpeg_listing import banner
from labproof.simlab.pod.images import image_config
from labproof.simlab.pod.media import MediaRecord
from labproof.simlab.pod.process import NotSimulatedError, ProcessIO
from labproof.simlab.world.states import PodWorld

_LONG = {
    "h264": "H.264 / AVC / MPEG-4 AVC / MPEG-4 part 10",
    "hevc": "H.265 / HEVC (High Efficiency Video Coding)",
}
_WITH_VALUE = {"-v", "-loglevel", "-select_streams", "-show_entries", "-of", "-print_format", "-i"}


async def run_ffprobe(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Run ffprobe.

    Raises:
        NotSimulatedError: an option outside the model.
    """
    config = image_config(pod.image, pod.image_inputs)
    if config is None or config.ffmpeg is None:
        raise NotSimulatedError("ffprobe in an image without ffmpeg")
    options: dict[str, str] = {}
    flags: set[str] = set()
    url = ""
    rest = argv[1:]
    while rest:
        word = rest.pop(0)
        if word in _WITH_VALUE and rest:
            options[word] = rest.pop(0)
        elif word in (
            "-count_frames",
            "-count_packets",
            "-show_streams",
            "-show_format",
            "-hide_banner",
            "-version",
        ):
            flags.add(word)
        elif word.startswith("-"):
            raise NotSimulatedError(f"ffprobe {word}")
        else:
            url = word
    if "-version" in flags:
        io.write_stdout(banner(config.ffmpeg, "ffprobe").encode())
        return 0
    url = options.get("-i", url)
    if options.get("-select_streams", "v:0") not in ("v:0", "v", "0"):
        raise NotSimulatedError(f"ffprobe -select_streams {options['-select_streams']}")
    record = pod.files.get(url)
    await io.sleep(0.03)
    if not isinstance(record, MediaRecord):
        reason = "No such file or directory" if record is None else "Invalid data found when processing input"
        io.write_stderr(f"{url}: {reason}\n".encode())
        return 1
    if "-count_frames" in flags:
        await io.sleep(0.002 * record.pictures.frames * record.pictures.megapixel_share)
    form = options.get("-of", options.get("-print_format", "default"))
    answer = _answer(record, url, options.get("-show_entries"), flags)
    io.write_stdout(_printed(answer, form).encode())
    return 0


def _answer(record: MediaRecord, url: str, entries: str | None, flags: set[str]) -> dict[str, Any]:
    stream, form = _stream(record, flags), _format(record, url)
    if entries is None:
        answer: dict[str, Any] = {}
        if "-show_streams" in flags:
            answer["streams"] = [stream]
        if "-show_format" in flags:
            answer["format"] = form
        return answer
    sections = {
        name: keys.split(",") if keys else None for name, _, keys in (s.partition("=") for s in entries.split(":"))
    }
    unknown = set(sections) - {
        "stream",
        "stream_tags",
        "format",
        "format_tags",
        "side_data",
        "stream_side_data",
    }
    if unknown:
        raise NotSimulatedError(f"ffprobe -show_entries {entries}")
    answer = {"programs": []}
    if "stream" in sections or "stream_tags" in sections:
        wanted = sections.get("stream", []) if "stream" in sections else []
        picked = {k: v for k, v in stream.items() if k != "tags" and (wanted is None or k in wanted)}
        tags = _picked(stream["tags"], sections, "stream_tags", wanted is None)
        answer["streams"] = [picked | ({"tags": tags} if tags else {})]
    else:
        answer["streams"] = []
    if "format" in sections or "format_tags" in sections:
        wanted = sections.get("format", [])
        picked = {k: v for k, v in form.items() if k != "tags" and (wanted is None or k in wanted)}
        tags = _picked(form["tags"], sections, "format_tags", wanted is None)
        answer["format"] = picked | ({"tags": tags} if tags else {})
    return answer


def _picked(tags: dict[str, str], sections: dict[str, list[str] | None], name: str, everything: bool) -> dict[str, str]:
    if name not in sections:
        return tags if everything else {}
    wanted = sections[name]
    return {k: v for k, v in tags.items() if wanted is None or k.lower() in map(str.lower, wanted)}


def _stream(record: MediaRecord, flags: set[str]) -> dict[str, Any]:
    p = record.pictures
    rate = f"{p.rate.numerator}/{p.rate.denominator}"
    matroska = record.container.startswith("matroska")
    stream: dict[str, Any] = {
        "index": 0,
        "codec_name": record.codec,
        "codec_long_name": _LONG.get(record.codec, record.codec),
        "profile": record.profile,
        "codec_type": "video",
        "codec_tag_string": "[0][0][0][0]" if matroska else record.tag,
        "width": p.width,
        "height": p.height,
        "coded_width": p.width,
        "coded_height": p.height,
        "has_b_frames": record.b_frames,
        "sample_aspect_ratio": "1:1",
        "pix_fmt": p.pix_fmt,
        "level": record.level,
        "field_order": "progressive",
        "refs": 1,
        "r_frame_rate": rate,
        "avg_frame_rate": rate,
        "time_base": "1/1000" if matroska else "1/15360",
        "start_pts": 0,
        "start_time": "0.000000",
    }
    if record.color_transfer:
        stream["color_transfer"] = record.color_transfer
    if not matroska:  # Matroska keeps neither bit rate nor frame count of a stream
        stream |= {
            "duration": f"{float(record.duration):.6f}",
            "bit_rate": str(record.bit_rate),
            "bits_per_raw_sample": "8",
            "nb_frames": str(p.frames),
        }
    if "-count_frames" in flags:
        stream["nb_read_frames"] = str(p.frames)
    if "-count_packets" in flags:
        stream["nb_read_packets"] = str(p.frames)
    length = float(record.duration)
    clock = f"{int(length // 3600):02d}:{int(length % 3600 // 60):02d}:{length % 60:012.9f}"
    names = {
        "matroska": {"ENCODER": record.encoder_tag, "DURATION": clock},
        "mov": {"encoder": record.encoder_tag},
    }
    base = {} if matroska else {"language": "und", "handler_name": "VideoHandler", "vendor_id": "[0][0][0][0]"}
    stream["tags"] = {**base, **names["matroska" if matroska else "mov"]}
    return stream


def _format(record: MediaRecord, url: str) -> dict[str, Any]:
    return {
        "filename": url,
        "nb_streams": 1,
        "nb_programs": 0,
        "format_name": record.container,
        "start_time": "0.000000",
        "duration": f"{float(record.duration):.6f}",
        "size": str(record.size_bytes),
        "bit_rate": str(int(record.size_bytes * 8 / float(record.duration))),
        "probe_score": 100,
        "tags": {"ENCODER" if record.container.startswith("matroska") else "encoder": f"Lavf{record.muxer}"},
    }


def _printed(answer: dict[str, Any], form: str) -> str:
    kind, _, settings = form.partition("=")
    if kind == "json":
        text = json.dumps(answer, indent=4)
        return text.replace("[]", "[\n\n    ]") + "\n"
    rows = [*answer.get("streams", []), *([answer["format"]] if "format" in answer else [])]
    flat = [
        {
            **{k: v for k, v in r.items() if k != "tags"},
            **{f"TAG:{k}": v for k, v in r.get("tags", {}).items()},
        }
        for r in rows
    ]
    if kind == "csv" and "p=0" in settings:
        return "".join(",".join(str(v) for v in row.values()) + "\n" for row in flat)
    if kind == "default" and "nw=1" in settings:
        bare = "nk=1" in settings
        return "".join(f"{v}\n" if bare else f"{k}={v}\n" for row in flat for k, v in row.items())
    raise NotSimulatedError(f"ffprobe -of {form}")
