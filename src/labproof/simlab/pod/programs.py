"""The programs of simulated containers: which exist in which image, and how to run one.

A program is a model on the pod's world, not a text: it looks at device nodes, libraries, driver and card each time.
"""

from __future__ import annotations

from labproof.simlab.pod import coreutils, smi, vainfo, vectoradd
from labproof.simlab.pod.ffmpeg import run_ffmpeg
from labproof.simlab.pod.ffprobe import run_ffprobe
from labproof.simlab.pod.images import FfmpegBuild, ImageConfig, image_config
from labproof.simlab.pod.process import KILLED, NotSimulatedError, ProcessIO, ProcessKilled, Program
from labproof.simlab.pod.tree import INJECTED_PROGRAMS
from labproof.simlab.world.states import PodWorld

__all__ = ["FfmpegBuild", "ImageConfig", "ProcessIO", "exists", "image_config", "run"]

#: Exit status after SIGSEGV.
CRASHED = 139
_COREUTILS_FOLDERS = ("/bin", "/usr/bin")
_OWN = {"vectorAdd": vectoradd.run, "vainfo": vainfo.run, "nvidia-smi": smi.run}


async def run_daemon(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """A server whose own work is modelled elsewhere (or not at all): runs until it is killed."""
    while not io.cancelled:
        await io.sleep(30.0)
    return KILLED


def exists(argv0: str, pod: PodWorld) -> bool:
    """Whether a program can be started: the runtime's `executable file not found in $PATH` is its negation."""
    return _program(argv0, pod) is not None


async def run(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Run one program to its end.

    Args:
        argv: the argument vector, program first.
        pod: what the process sees and touches.
        io: its streams and clock.

    Returns:
        The exit status; 127 for a program that is not there, 137 after a kill, 1 with `not simulated` on stderr for an
        argument vector outside the model.
    """
    program = _program(argv[0], pod)
    if program is None:
        io.write_stderr(f"{argv[0]}: not found\n".encode())
        return 127
    if pod.loader_broken:
        return CRASHED
    try:
        return await program(list(argv), pod, io)
    except NotSimulatedError as gap:
        io.write_stderr(f"not simulated: {gap}\n".encode())
        return 1
    except ProcessKilled:
        return KILLED


def _program(argv0: str, pod: PodWorld) -> Program | None:
    config = image_config(pod.image, pod.image_inputs)
    programs: dict[str, Program] = {}
    if config is not None:
        for path in config.programs:
            programs[path] = _OWN.get(path.rpartition("/")[2], run_daemon)
        if config.ffmpeg is not None:
            programs[f"{config.ffmpeg_folder}/ffmpeg"] = run_ffmpeg
            programs[f"{config.ffmpeg_folder}/ffprobe"] = run_ffprobe
        if config.shell:
            programs |= {f"{folder}/{n}": p for folder in _COREUTILS_FOLDERS for n, p in coreutils.PROGRAMS.items()}
    if "nvidia-smi" in pod.programs:
        programs[f"{INJECTED_PROGRAMS}/nvidia-smi"] = smi.run
    for name in pod.programs - {"nvidia-smi"}:
        programs[f"{INJECTED_PROGRAMS}/{name}"] = run_daemon
    if "/" in argv0:
        return programs.get(argv0)
    folders = pod.env.get("PATH", "").split(":") if pod.env.get("PATH") else list(config.path if config else ())
    return next((programs[f"{folder}/{argv0}"] for folder in folders if f"{folder}/{argv0}" in programs), None)
