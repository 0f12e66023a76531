"""vainfo on a node whose GPU is NVIDIA's: there is no VA-API driver for it in the images of the catalogue."""

from __future__ import annotations

from labproof.simlab.pod.access import open_error
from labproof.simlab.pod.process import NotSimulatedError, ProcessIO
from labproof.simlab.world.states import PodWorld


async def run(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """`vainfo --display drm --device NODE`; texts: facts/transcode.md 7c, W29 and W32."""
    if "--device" not in argv or "drm" not in argv:
        raise NotSimulatedError("vainfo without --display drm --device NODE")
    node = argv[argv.index("--device") + 1]
    io.write_stdout(b"Trying display: drm\n")
    if open_error(pod, node) is not None:
        io.write_stderr(b"Failed to open the given device!\n")
        return 1
    io.write_stderr(
        b"libva info: VA-API version 1.22.0\n"
        b"libva error: vaGetDriverNames() failed with unknown libva error\n"
        b"vaInitialize failed with error code -1 (unknown libva error),exit\n"
    )
    return 3
