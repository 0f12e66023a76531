"""ffmpeg's command line: global options, inputs with theirs, outputs with theirs."""

from __future__ import annotations

from dataclasses import dataclass, field

from labproof.simlab.pod.process import NotSimulatedError

_GLOBAL_FLAGS = {"hide_banner", "nostdin", "stdin", "benchmark", "nostats", "stats", "y", "n", "xerror"}
_GLOBAL_VALUES = {
    "v", "loglevel", "progress", "stats_period", "init_hw_device", "filter_hw_device", "filter_complex", "lavfi",
    "filter_complex_threads", "filter_threads",
}  # fmt: skip
_LISTINGS = {"version", "encoders", "decoders", "filters", "hwaccels", "formats", "h", "L", "buildconf"}
_FLAGS = {"re", "an", "sn", "dn", "vn", "shortest", "autorotate", "noautorotate"}
_INPUT_VALUES = {
    "f", "c", "codec", "vcodec", "hwaccel", "hwaccel_output_format", "hwaccel_device", "stream_loop", "t", "ss",
    "threads", "extra_hw_frames", "readrate", "hwaccel_flags", "probesize", "analyzeduration", "framerate", "r",
}  # fmt: skip
_OUTPUT_VALUES = {
    "f", "c", "codec", "vcodec", "vf", "filter", "pix_fmt", "b", "maxrate", "minrate", "bufsize", "preset", "tune",
    "rc", "cq", "qp", "crf", "g", "bf", "profile", "level", "tag", "frames", "vframes", "t", "surfaces", "gpu", "delay",
    "x264-params", "x265-params", "movflags", "map", "threads", "b_ref_mode", "rc-lookahead", "spatial-aq",
    "temporal-aq", "fps_mode", "vsync", "r", "max_muxing_queue_size", "map_metadata", "forced-idr", "no-scenecut",
    "keyint_min", "sc_threshold", "rc_mode", "low_power", "global_quality", "async_depth", "b_depth", "look_ahead",
}  # fmt: skip


@dataclass
class Source:
    """One `-i`."""

    url: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def realtime(self) -> bool:
        """Paced at its own frame rate (`-re`, `-readrate 1`)."""
        return "re" in self.options or self.options.get("readrate") in ("1", "1.0")

    @property
    def hwaccel(self) -> str:
        """cuda, vaapi, auto, none."""
        return self.options.get("hwaccel", "none")

    @property
    def repeats(self) -> int:
        """How often the input is read: `-stream_loop` + 1."""
        return int(self.options.get("stream_loop", "0")) + 1


@dataclass
class Target:
    """One output."""

    url: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def encoder(self) -> str | None:
        """What `-c:v` names."""
        return self.options.get("c")

    @property
    def filters(self) -> str:
        """The simple filter chain."""
        return self.options.get("vf", "")


@dataclass
class CommandLine:
    """A parsed command line."""

    settings: dict[str, str] = field(default_factory=dict)
    devices: list[tuple[str, str]] = field(default_factory=list)  # option and its value
    sources: list[Source] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    listing: str = ""

    @property
    def graph(self) -> str:
        """The complex filter graph."""
        return self.settings.get("lavfi", "")


def parse(words: list[str]) -> CommandLine:
    """Parse the words after the program's name.

    Raises:
        NotSimulatedError: an option outside the model.
    """
    line = CommandLine()
    pending: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            line.targets.append(Target(word, _known(pending, _OUTPUT_VALUES)))
            pending = {}
            continue
        name, _, stream = word[1:].partition(":")
        if stream and not stream.startswith("v"):
            if name == "c" and stream.startswith(("a", "s")):  # audio and subtitles: there are none
                rest.pop(0)
                continue
            raise NotSimulatedError(f"option {word}")
        if name in _LISTINGS:
            line.listing = name
        elif name in _GLOBAL_FLAGS:
            line.settings[name] = ""
        elif name in _FLAGS:
            pending[name] = ""
        elif not rest:
            raise NotSimulatedError(f"option {word} without a value")
        elif name == "i":
            line.sources.append(Source(rest.pop(0), _known(pending, _INPUT_VALUES)))
            pending = {}
        elif name in {"vaapi_device", "init_hw_device"}:
            line.devices.append((name, rest.pop(0)))
        elif name in _GLOBAL_VALUES:
            name = {"loglevel": "v", "filter_complex": "lavfi"}.get(name, name)
            line.settings[name] = rest.pop(0)
        elif name in _INPUT_VALUES | _OUTPUT_VALUES:
            name = {"codec": "c", "vcodec": "c", "filter": "vf", "vframes": "frames"}.get(name, name)
            pending[name] = rest.pop(0)
        else:
            raise NotSimulatedError(f"option {word}")
    if pending:
        raise NotSimulatedError(f"options after the last output: {', '.join(pending)}")
    return line


def _known(options: dict[str, str], names: set[str]) -> dict[str, str]:
    for name in options:
        if name not in names | _FLAGS:
            raise NotSimulatedError(f"option -{name} in this place")
    return options


def bits(text: str) -> int:
    """6M -> 6000000, 500k -> 500000."""
    scale = {"k": 1000, "K": 1000, "m": 10**6, "M": 10**6, "g": 10**9, "G": 10**9}
    return int(float(text[:-1]) * scale[text[-1]]) if text[-1:] in scale else int(float(text))


def seconds(text: str) -> float:
    """10, 10.5, 00:00:10 or 10s."""
    total = 0.0
    for part in text.removesuffix("s").split(":"):
        total = total * 60 + float(part)
    return total
