"""How ffmpeg writes: log levels, context prefixes, error numbers and what each version calls things.

Versions 5 and 7-9 differ in prefixes, wording and exit status (facts/transcode.md 1.0); 5.1 texts were compared with
Debian's real ffmpeg.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from labproof.simlab.pod.images import FfmpegBuild
from labproof.simlab.pod.process import ProcessIO

LEVELS = {
    "quiet": -8,
    "panic": 0,
    "fatal": 8,
    "error": 16,
    "warning": 24,
    "info": 32,
    "verbose": 40,
    "debug": 48,
    "trace": 56,
}

EPERM, ENOENT, ENOMEM, EACCES, EISDIR, EINVAL, EROFS, ENOSYS = -1, -2, -12, -13, -21, -22, -30, -38
EXTERNAL, ENCODER_NOT_FOUND, FILTER_NOT_FOUND, OPTION_NOT_FOUND = (
    -542398533,
    -1129203192,
    -1279870712,
    -1414549496,
)
DECODER_NOT_FOUND, INVALID_DATA, EXIT = -1128613112, -1094995529, -1

MEANING = {
    EPERM: "Operation not permitted",
    ENOENT: "No such file or directory",
    ENOMEM: "Cannot allocate memory",
    EACCES: "Permission denied",
    EISDIR: "Is a directory",
    EINVAL: "Invalid argument",
    EROFS: "Read-only file system",
    ENOSYS: "Function not implemented",
    EXTERNAL: "Generic error in an external library",
    ENCODER_NOT_FOUND: "Encoder not found",
    DECODER_NOT_FOUND: "Decoder not found",
    FILTER_NOT_FOUND: "Filter not found",
    OPTION_NOT_FOUND: "Option not found",
    INVALID_DATA: "Invalid data found when processing input",
}


class FfmpegError(Exception):
    """ffmpeg gave up; the message lines are already written."""

    def __init__(self, code: int) -> None:
        super().__init__(MEANING.get(code, str(code)))
        self.code = code


@dataclass
class Log:
    """Standard error of one ffmpeg run.

    Attributes:
        level: numeric level of `-v`; lines above it are dropped.
    """

    io: ProcessIO
    build: FfmpegBuild
    level: int = LEVELS["info"]
    seen: dict[str, str] = field(default_factory=dict)

    @property
    def modern(self) -> bool:
        """Since 6.1 pipelines run as threads with their own contexts, and the exit status is the error's low byte."""
        return self.build.major >= 7

    def line(self, level: str, text: str, context: str = "") -> None:
        """Write one line with its context's prefix."""
        if LEVELS[level] <= self.level:
            prefix = f"[{context} @ {self._address(context)}] " if context else ""
            self.io.write_stderr(f"{prefix}{text}\n".encode())

    def verbose(self, text: str, context: str = "") -> None:
        """A line only `-v verbose` shows; nearly every proof of hardware use is one."""
        self.line("verbose", text, context)

    def note(self, text: str, context: str = "") -> None:
        """A line of the default level."""
        self.line("info", text, context)

    def err(self, text: str, context: str = "") -> None:
        """An error line."""
        self.line("error", text, context)

    def device_context(self, kind: str) -> str:
        """Name of a hardware device's context: it changed after 5.1."""
        return {"cuda": "CUDA", "vaapi": "VAAPI"}[kind] if self.modern else "AVHWDeviceContext"

    def exit_status(self, code: int) -> int:
        """Exit status of the process for an error."""
        return code & 0xFF if self.modern else 1

    def _address(self, context: str) -> str:
        return self.seen.setdefault(context, f"0x55d0{zlib.crc32(context.encode()):08x}")

    # ---- the endings of each stage, which differ by version

    def encoder_failed(self, encoder: str, code: int) -> FfmpegError:
        """An encoder did not open."""
        cause = "maybe incorrect parameters such as bit_rate, rate, width or height"
        if not self.modern:
            head = "Error initializing output stream 0:0 -- Error while opening encoder for output stream #0:0"
            self.err(f"{head} - {cause}")
            self.note("Conversion failed!")
            return FfmpegError(code)
        stream = f"vost#0:0/{encoder}"
        self.err(f"[enc:{encoder} @ {self._address('enc')}] Error while opening encoder - {cause}.", stream)
        self._thread_failed("vf#0:0", "Error sending frames to consumers: " + MEANING[code], code)
        self._not_written(stream, encoder)
        return FfmpegError(code)

    def filters_failed(self, encoder: str, code: int, stream: str = "0:0") -> FfmpegError:
        """A filter graph could not be built."""
        if not self.modern:
            self.err("Error reinitializing filters!")
            self.err(f"Failed to inject frame into filter network: {MEANING[code]}")
            self.err(f"Error while processing the decoded data for stream #{stream}")
            self.note("Conversion failed!")
            return FfmpegError(code)
        self._thread_failed("vf#0:0", "Error reinitializing filters!", code)
        self._not_written(f"vost#0:0/{encoder}", encoder)
        return FfmpegError(code)

    def _thread_failed(self, context: str, text: str, code: int) -> None:
        self.err(text, context)
        self.err(f"Task finished with error code: {code} ({MEANING[code]})", context)
        self.err(f"Terminating thread with return code {code} ({MEANING[code]})", context)

    def _not_written(self, stream: str, encoder: str) -> None:
        self.err(f"[enc:{encoder} @ {self._address('enc')}] Could not open encoder before EOF", stream)
        self.err(f"Task finished with error code: {EINVAL} ({MEANING[EINVAL]})", stream)
        self.err(f"Terminating thread with return code {EINVAL} ({MEANING[EINVAL]})", stream)
        nothing = "Nothing was written into output file, because at least one of its streams received no packets."
        self.err(nothing, "out#0")
        self.note("frame=    0 fps=0.0 q=0.0 Lsize=       0KiB time=N/A bitrate=N/A speed=N/A    ")
        self.note("Conversion failed!")
