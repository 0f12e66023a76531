"""`labproof bench`: what the suite costs on this machine, with its method beside every figure."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from labproof import __version__, places
from labproof.facts.atomic import write_text


@dataclass(frozen=True)
class Cost:
    """One command, run several times: CPU seconds (children included) and wall seconds."""

    cpu: tuple[float, ...]
    wall: tuple[float, ...]

    def row(self, name: str) -> str:
        """A table row: median and range."""
        cells = (f"{statistics.median(x):.2f} ({min(x):.2f} to {max(x):.2f})" for x in (self.cpu, self.wall))
        return f"| {name} | {' | '.join(cells)} | {len(self.cpu)} |"


def bench(output: str, repeat: int) -> int:
    """Measure, write `output` and say where it is. Returns 1 when a measured command did not succeed."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "test_nothing.py").write_text("def test_nothing():\n    pass\n", "utf-8")
        suites = str(places.folder("suites"))
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        try:
            rows = _rows(folder, pytest, suites, repeat)
        except subprocess.CalledProcessError as broken:
            sys.stderr.write(
                f"labproof bench: {' '.join(broken.cmd)} ended with {broken.returncode}\n{broken.output}\n"
            )
            return 1
    write_text(Path(output), _page(rows))
    sys.stdout.write(f"{output} written\n")
    return 0


def _rows(folder: Path, pytest: list[str], suites: str, repeat: int) -> list[str]:
    def cost(*words: str) -> Cost:
        return _measure([*pytest, *words], folder, repeat)

    bare = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:labproof", "test_nothing.py"]
    steps: Sequence[tuple[str, Callable[[], Cost]]] = (
        ("pytest on one empty test, without the plugin", lambda: _measure(bare, folder, repeat)),
        ("the same, with the plugin", lambda: cost("test_nothing.py")),
        ("`pytest --collect-only`, the T4 lab", lambda: cost(suites, "--collect-only")),
        ("`pytest`, the simulated T4 lab, -n0", lambda: cost(suites)),
        ('`pytest -m "not workload and not transcode"`', lambda: cost(suites, "-m", "not workload and not transcode")),
        ("`pytest -m proxmox`", lambda: cost(suites, "-m", "proxmox")),
        ("`pytest -n 2`, the simulated T4 lab", lambda: cost(suites, "-n", "2")),
    )
    return [step().row(name) for name, step in steps]


def _measure(command: list[str], folder: Path, repeat: int) -> Cost:
    cpu, wall = [], []
    warm = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(
        command, cwd=folder, env=warm, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    for _ in range(repeat):
        before, began = os.times(), time.perf_counter()
        subprocess.run(
            command, cwd=folder, env=warm, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        after = os.times()
        wall.append(time.perf_counter() - began)
        cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return Cost(tuple(cpu), tuple(wall))


def _page(rows: list[str]) -> str:
    model = next(
        (
            x.split(":", 1)[1].strip()
            for x in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if "model name" in x
        ),
        platform.machine(),
    )
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"labproof {__version__}, {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, "
            f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}.",
            "",
            "Repeat with `labproof bench`. Each command runs once unmeasured (so that bytecode is there), then several",
            "times, each in a fresh process, one after the other. CPU seconds include child processes (the simulated",
            "lab, workers); they come from `times(2)`, which counts a child once it has ended. Median, then the range.",
            "The simulated lab declares short timings; a real one waits for real things.",
            "",
            "| What | CPU s | Wall s | Runs |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )
