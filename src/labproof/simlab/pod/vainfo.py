"""vainfo: opens a DRM node, loads a libva driver and lists what it offers (facts/transcode.md 3.2, 7c)."""

from __future__ import annotations

from labproof.simlab.pod.access import open_error
from labproof.simlab.pod.process import NotSimulatedError, ProcessIO
from labproof.simlab.pod.vacodec import open_libva
from labproof.simlab.world.states import PodWorld


async def run(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """`vainfo --display drm --device NODE`."""
    if "--device" not in argv or "drm" not in argv:
        raise NotSimulatedError("vainfo without --display drm --device NODE")
    node = argv[argv.index("--device") + 1]
    io.write_stdout(b"Trying display: drm\n")
    if open_error(pod, node) is not None:
        io.write_stderr(b"Failed to open the given device!\n")
        return 1
    va = open_libva(pod, node)
    io.write_stderr("".join(f"libva {level}: {text}\n" for level, text in va.lines).encode())
    if not va.driver:
        io.write_stderr(b"vaInitialize failed with error code -1 (unknown libva error),exit\n")
        return 3
    head = "vainfo: VA-API version: 1.22 (libva 2.22.0)\n"
    head += f"vainfo: Driver version: {va.vendor}\nvainfo: Supported profile and entrypoints\n"
    rows = "".join(f"      {profile:32}:\t{entrypoint}\n" for profile, entrypoint in va.pairs)
    io.write_stdout(f"{head}{rows}".encode())
    return 0
