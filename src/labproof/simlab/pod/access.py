"""What a container's process gets from the NVIDIA driver: device nodes it may open, what CUDA and NVML answer.

The order in which things fail is the driver library's: library, kernel module, versions, control node, card.
Texts and numbers: facts/transcode.md 4 and 7a/7b (W01-W20).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labproof.simlab.pod.images import image_config
from labproof.simlab.world.states import Card, NodeGpu, PodWorld

CONTROL = "/dev/nvidiactl"
UVM = "/dev/nvidia-uvm"

#: First driver that offers an NVENC API (FFmpeg libavcodec/nvenc.c; facts/transcode.md 3.1). 13.x: NVIDIA's SDK notes.
NVENC_APIS = (
    ((610, 0), (13, 1)),
    ((570, 0), (13, 0)),
    ((550, 54), (12, 2)),
    ((530, 41), (12, 1)),
    ((520, 56), (12, 0)),
    ((470, 57), (11, 1)),
    ((455, 28), (11, 0)),
)

#: CUDA version by driver branch, as nvidia-smi prints it.
CUDA_BY_BRANCH = {
    470: (11, 4),
    510: (11, 6),
    515: (11, 7),
    520: (11, 8),
    525: (12, 0),
    530: (12, 1),
    535: (12, 2),
    545: (12, 3),
    550: (12, 4),
    555: (12, 5),
    560: (12, 6),
    565: (12, 7),
    570: (12, 8),
    575: (12, 9),
    580: (13, 0),
    590: (13, 1),
    595: (13, 2),
    610: (13, 3),
}

#: Encoder sessions a consumer card allows per system, by driver branch (facts/transcode.md 3.1).
CONSUMER_SESSIONS = ((550, 8), (530, 5), (0, 3))


def numbers(version: str | None) -> tuple[int, ...]:
    """570.172.08 -> (570, 172, 8)."""
    return tuple(int(part) for part in (version or "0").split(".") if part.isdigit())


def cuda_version(driver: str | None) -> tuple[int, int]:
    """CUDA version of a driver."""
    branch = (*numbers(driver), 0)[0]
    return CUDA_BY_BRANCH[max((b for b in CUDA_BY_BRANCH if b <= branch), default=470)]


def nvenc_api(driver: str | None) -> tuple[int, int]:
    """Newest NVENC API a driver offers."""
    have = (*numbers(driver), 0, 0)[:2]
    return next((api for first, api in NVENC_APIS if have >= first), (10, 0))


def may_open(pod: PodWorld, path: str) -> bool:
    """Whether a process of this container can open a device node for reading and writing."""
    return open_error(pod, path) is None


def open_error(pod: PodWorld, path: str) -> str | None:
    """Why opening fails, in the C library's words; None when it works.

    A path the device cgroup forbids answers EPERM, mode bits answer EACCES.
    """
    node = pod.devices.get(path)
    if node is None:
        return "No such file or directory"
    if path not in pod.allowed:
        return "Operation not permitted"
    if pod.uid != 0:
        if pod.uid == node.uid:
            bits = node.mode >> 6
        elif node.gid in pod.gids:
            bits = node.mode >> 3
        else:
            bits = node.mode
        if bits & 0o6 != 0o6:
            return "Permission denied"
    if path.startswith("/dev/nvidia") and pod.node.driver_version is None:
        return "No such device or address"  # the container's node outlives the module behind it
    return None


def limits(table: Mapping[str, Any], codec: str) -> Mapping[str, Any] | None:
    """A card's row for a codec, None when the chip has no engine for it."""
    row: Mapping[str, Any] | None = table.get(codec)
    return row


@dataclass(frozen=True)
class CudaError:
    """A CUDA driver API error.

    Attributes:
        name: CUDA_ERROR_UNKNOWN; text: unknown error; runtime_text: how the runtime API words it.
    """

    name: str
    text: str
    number: int

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


NO_DEVICE = CudaError("CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected", 100)
UNKNOWN = CudaError("CUDA_ERROR_UNKNOWN", "unknown error", 999)
MISMATCH = CudaError(
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
    "system has unsupported display driver / cuda driver combination",
    803,
)
OUT_OF_MEMORY = CudaError("CUDA_ERROR_OUT_OF_MEMORY", "out of memory", 2)
BUSY = CudaError("CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable", 46)


def has_library(pod: PodWorld, name: str) -> bool:
    """Whether a driver library is there: injected by the runtime, or brought along by the image."""
    config = image_config(pod.image, pod.image_inputs)
    return name in pod.libraries or bool(config and name in config.own_libraries)


def library_version(pod: PodWorld, name: str) -> str | None:
    """Version of the driver library a program loads: the injected one, unless the image's own lies in front of it."""
    config = image_config(pod.image, pod.image_inputs)
    own = config.own_libraries.get(name) if config else None
    return own or pod.node.library_version


def visible_cards(pod: PodWorld) -> tuple[NodeGpu, ...]:
    """GPUs whose device node this process can open, in the container's order."""
    return tuple(gpu for gpu in pod.gpus if may_open(pod, f"/dev/nvidia{gpu.index}"))


def cuda_devices(pod: PodWorld) -> CudaError | tuple[NodeGpu, ...]:
    """What cuInit finds: an error, or the devices CUDA_VISIBLE_DEVICES leaves."""
    node = pod.node
    if node.driver_version is None:
        return NO_DEVICE
    if library_version(pod, "libcuda.so.1") not in (None, node.driver_version):
        return MISMATCH
    if not may_open(pod, CONTROL):
        return NO_DEVICE
    cards = visible_cards(pod)
    if not cards:
        return NO_DEVICE
    if not may_open(pod, UVM):  # W19: NVML needs no UVM, CUDA does
        return UNKNOWN
    wish = pod.env.get("CUDA_VISIBLE_DEVICES")
    if wish is not None:
        words = [word.strip() for word in wish.split(",")]
        cards = tuple(
            gpu
            for number, gpu in enumerate(cards)
            if str(number) in words or any(w and gpu.uuid.startswith(w) for w in words)
        )
        if not cards:
            return NO_DEVICE
    return cards


def used_mib(card: Card) -> int:
    """Frame buffer held now, by pods and neighbours, without the driver's reserve.

    A neighbour's `burst` is what it takes once that many encoder sessions of ours are open (a model loaded meanwhile).
    """
    others = 0
    for neighbour in (card.inputs.get("neighbours") or {}).values():
        burst = neighbour.get("burst") or {}
        bursts = bool(burst) and len(card.sessions) >= int(burst.get("sessions", 1))
        others += int((burst if bursts else neighbour).get("vram_mib", 0))
    return others + sum(card.vram.values())


def free_mib(card: Card) -> int:
    """Frame buffer that can still be allocated."""
    return int(card.inputs["memory_mib"]) - int(card.inputs.get("reserved_mib", 0)) - used_mib(card)


def open_sessions(card: Card) -> int:
    """Encoder sessions open now."""
    others = sum(int(n.get("sessions", 0)) for n in (card.inputs.get("neighbours") or {}).values())
    return others + len(card.sessions)


def session_limit(card: Card, driver: str | None) -> int | None:
    """Most encoder sessions at once, None where the driver sets no limit."""
    if card.inputs.get("session_limit") != "consumer":
        return None
    branch = (*numbers(driver), 0)[0]
    return next(limit for first, limit in CONSUMER_SESSIONS if branch >= first)


def context_refusal(card: Card, driver: str | None) -> CudaError | None:
    """Why a CUDA context cannot be created on a card; about 100 MiB each (facts/transcode.md 5)."""
    mode = card.inputs.get("compute_mode", "Default")
    if mode == "Prohibited" or (mode == "Exclusive_Process" and (card.vram or card.inputs.get("neighbours"))):
        return BUSY
    return OUT_OF_MEMORY if free_mib(card) < CONTEXT_MIB else None


CONTEXT_MIB = 105
