"""One command that was run inside a container, with both of its streams kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ran:
    """A finished (or failed) exec.

    Attributes:
        argv: what was run; never a shell line.
        rc: exit status, None when the command did not end or never started.
        stdout: its output, decoded; nvidia-smi prints most failures here, not to stderr (facts transcode 4).
        stderr: its other output.
        why: for `rc is None`: why there is no status (not in the image, timed out, connection lost).
        missing: the runtime said that the executable does not exist in the container.
        started: Unix seconds on the probing machine.
        ended: likewise.
    """

    argv: tuple[str, ...]
    rc: int | None
    stdout: str = ""
    stderr: str = ""
    why: str = ""
    missing: bool = False
    started: float = 0.0
    ended: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it ended with status 0."""
        return self.rc == 0

    @property
    def seconds(self) -> float:
        """Wall clock seconds from start to end, the exec's own round trip included."""
        return max(0.0, self.ended - self.started)

    @property
    def text(self) -> str:
        """Everything it said, for matching messages that change streams between versions."""
        return "\n".join(part for part in (self.stdout, self.stderr, self.why) if part)

    def said(self, limit: int = 300) -> str:
        """One line for evidence: the status and the last things it said."""
        status = self.why or f"exit status {self.rc}"
        tail = " | ".join(line.strip() for line in (self.stdout + "\n" + self.stderr).splitlines() if line.strip())
        return f"{status}: {tail[-limit:]}" if tail else status

    def line(self) -> str:
        """The command as it would be typed after `kubectl exec ... --`."""
        return " ".join(self.argv)
