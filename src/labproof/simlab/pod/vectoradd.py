"""NVIDIA's vectorAdd sample: allocates three vectors, adds two on the card, compares with the CPU.

Lines are those of the sample (NVIDIA cuda-samples, vectorAdd.cu); it proves CUDA, not video (facts/transcode.md 1.5).
"""

from __future__ import annotations

from labproof.simlab.pod.access import (
    NO_DEVICE,
    CudaError,
    context_refusal,
    cuda_devices,
    cuda_version,
    has_library,
)
from labproof.simlab.pod.images import image_config
from labproof.simlab.pod.process import KILLED, ProcessIO
from labproof.simlab.world.states import NodeGpu, PodWorld

_TOO_OLD = CudaError("cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version", 35)
_NO_CODE = CudaError("cudaErrorNoKernelImageForDevice", "no kernel image is available for execution on the device", 209)
_VRAM_MIB = 108


async def run(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Run the sample: 0 and `Test PASSED`, or the CUDA runtime's error and 1."""
    io.write_stdout(b"[Vector addition of 50000 elements]\n")
    found = _first_card(pod)
    if isinstance(found, CudaError):
        text = f"Failed to allocate device vector A (error code {found.text})!\n"
        io.write_stderr(text.encode())
        return 1
    card = found.card
    owner = f"{pod.owner}#vectorAdd{id(io)}"
    card.vram[owner] = _VRAM_MIB
    try:
        io.write_stdout(b"Copy input data from the host memory to the CUDA device\n")
        await io.sleep(0.3)
        if io.cancelled:
            return KILLED
        io.write_stdout(b"CUDA kernel launch with 196 blocks of 256 threads\n")
        config = image_config(pod.image, pod.image_inputs)
        capability = str(card.inputs["compute_capability"])
        if config and config.capabilities and not _has_code(config.capabilities, capability):
            io.write_stderr(f"Failed to launch vectorAdd kernel (error code {_NO_CODE.text})!\n".encode())
            return 1
        io.write_stdout(b"Copy output data from the CUDA device to the host memory\n")
        await io.sleep(0.1)
    finally:
        card.vram.pop(owner, None)
    if card.inputs.get("arithmetic_error"):
        io.write_stderr(b"Result verification failed at element 0!\n")
        return 1
    io.write_stdout(b"Test PASSED\nDone\n")
    return 0


def _first_card(pod: PodWorld) -> CudaError | NodeGpu:
    config = image_config(pod.image, pod.image_inputs)
    if not has_library(pod, "libcuda.so.1"):
        return _TOO_OLD  # the runtime library reports a missing driver library as driver version 0
    cards = cuda_devices(pod)
    if isinstance(cards, CudaError):
        return cards
    if config and config.cuda and config.cuda[0] > cuda_version(pod.node.driver_version)[0]:
        return _TOO_OLD  # within one major version CUDA's minor version compatibility holds
    if not cards:
        return NO_DEVICE
    refused = context_refusal(cards[0].card, pod.node.driver_version)
    return refused or cards[0]


def _has_code(built: tuple[str, ...], capability: str) -> bool:
    """Machine code of the same major capability, or intermediate code of an older one (the newest built is kept so)."""
    want = tuple(int(n) for n in capability.split("."))
    have = [tuple(int(n) for n in c.split(".")) for c in built]
    return any(c[0] == want[0] and c <= want for c in have) or max(have) < want
