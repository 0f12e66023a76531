"""Starts a simulated lab in a process of its own; imports nothing of the simulator, so that a test run stays light."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

READY_S = 60.0
_PREFIX = "labproof-overlay-"


class SimulationRefused(Exception):
    """The simulated lab did not start: unknown lab, variation or fault, or it was not ready in time."""


@dataclass
class Handle:
    """A running simulated lab.

    Attributes:
        lab: path of the lab.yaml that the overlay belongs to.
        overlay: what is laid over it: endpoints, credential files, timings, the variation's own changes.
        overlay_file: the file both came from, `{"lab": ..., "patch": ...}`; gone after `close`.
    """

    lab: Path
    overlay: dict[str, Any]
    overlay_file: Path
    process: subprocess.Popen[str]
    folder: tempfile.TemporaryDirectory[str] = field(repr=False)

    def close(self) -> None:
        """Close its standard input and wait for it to end (at most 15 s, then it is killed)."""
        with contextlib.suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.folder.cleanup()


def start(
    lab: str | Path,
    *,
    variation: str | None = None,
    faults: Sequence[str] | None = None,
    bare: bool = False,
    ready_s: float = READY_S,
) -> Handle:
    """Start a simulated lab and wait until it serves.

    Args:
        lab: name of a reference lab, or a path to one with a `world` folder.
        variation: name of one of its variations.
        faults: fault ids.
        bare: as it was before anybody provisioned it.
        ready_s: longest wait, in seconds.

    Raises:
        SimulationRefused: unknown lab, variation or fault, or it did not get ready in time.
    """
    _sweep_leftovers()
    folder = tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-")
    overlay_file = Path(folder.name) / "overlay.json"
    argv = [sys.executable, "-m", "labproof.simlab", str(lab), "--overlay", str(overlay_file)]
    argv += ["--variation", variation] if variation else []
    argv += ["--bare"] if bare else []
    argv += [word for fault in faults or () for word in ("--fault", fault)]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    running = Handle(Path(), {}, overlay_file, process, folder)
    lines: queue.Queue[str] = queue.Queue()
    errors: list[str] = []
    threading.Thread(target=_forward, args=(process.stdout, lines.put), daemon=True).start()
    reader = threading.Thread(
        target=_forward, args=(process.stderr, lambda line: errors.append(line) if line else None), daemon=True
    )
    reader.start()
    try:
        line = lines.get(timeout=ready_s)
    except queue.Empty:
        process.kill()
        running.close()
        raise SimulationRefused(f"the simulated lab was not ready after {ready_s:.0f} s") from None
    if not line.startswith("simlab: ready "):
        process.wait(10)
        reader.join(5)
        running.close()
        text = (errors[-1] if errors else "it ended without a word").strip()
        raise SimulationRefused(text.removeprefix("simlab: "))
    written = json.loads(overlay_file.read_text(encoding="utf-8"))
    running.lab, running.overlay = Path(written["lab"]), written["patch"]
    return running


def _sweep_leftovers() -> None:
    """Remove overlay folders of test runs that were killed; never those of a living one."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).split("-", 1)[0]
        with contextlib.suppress(OSError):
            if pid.isdigit() and folder.lstat().st_uid == os.geteuid() and not folder.is_symlink():
                try:
                    os.kill(int(pid), 0)
                except ProcessLookupError:
                    shutil.rmtree(folder, ignore_errors=True)


def _forward(stream: IO[str] | None, put: Callable[[str], object]) -> None:
    """Read a pipe to its end, so that the child never blocks; the end is an empty line."""
    for line in stream or ():
        put(line)
    put("")
