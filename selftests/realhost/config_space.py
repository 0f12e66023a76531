"""NVIDIA's ids in the configuration space of devices that QEMU emulates.

No property of QEMU gives a display device another vendor. Before its first instruction (`-S`) the 64 bytes lie once in
the process's heap, so they are found and rewritten there; they then survive every reboot of the guest. Needs the right
to write that process's memory. Source: facts real-host, "NVIDIA ids".
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

#: A device's heap block lies in a private mapping of moderate size; the guest's memory is a larger one.
_LARGEST_MAPPING = 64 << 20


@dataclass(frozen=True)
class Ids:
    """What a device says of itself: ids and subsystem `vvvv:dddd`, class as six digits."""

    device: str
    pci_class: str
    subsystem: str = ""
    multifunction: bool = False

    @property
    def packed(self) -> bytes:
        """Vendor and device as configuration space holds them."""
        return _packed(self.device)


#: What QEMU emulates -> what the guest shall see: a 3090 with its audio function, and a 2060 in a shared group.
DISGUISES: dict[Ids, Ids] = {
    Ids("1234:1111", "038000", multifunction=True): Ids("10de:2204", "030000", "10de:1467"),
    Ids("8086:293e", "040300"): Ids("10de:1aef", "040300", "10de:1467"),
    Ids("1234:1111", "038000"): Ids("10de:1f08", "030000", "10de:1f08"),
}


class NotFound(RuntimeError):
    """A device's configuration space was not found exactly once: this QEMU keeps it in another way."""


def disguise(pid: int) -> None:
    """Rewrite the ids of the GPUs in a QEMU that waits before its first instruction.

    Raises:
        NotFound: nothing was written; the devices keep the ids that QEMU gave them.
        PermissionError: the process's memory may not be written.
    """
    spots = _spots(pid)
    with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
        for old, place in spots.items():
            new = DISGUISES[old]
            _write(memory, place, new.packed)
            _write(memory, place + 0x09, bytes.fromhex(new.pci_class)[::-1])
            _write(memory, place + 0x2C, _packed(new.subsystem))


def _spots(pid: int) -> dict[Ids, int]:
    """Where each device's configuration space lies; every one exactly once."""
    found: dict[Ids, list[int]] = {old: [] for old in DISGUISES}
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, size in _mappings(pid):
            memory.seek(start)
            try:
                block = memory.read(size)
            except OSError:
                continue  # a mapping without pages
            for old, places in found.items():
                places += [start + at for at in _matches(block, old)]
    odd = {old.device: len(places) for old, places in found.items() if len(places) != 1}
    if odd:
        raise NotFound(f"configuration spaces not found exactly once: {odd}")
    return {old: places[0] for old, places in found.items()}


def _matches(block: bytes, old: Ids) -> list[int]:
    """Offsets at which a device with these ids begins, which no instruction has touched yet."""
    wanted_class = bytes.fromhex(old.pci_class)[::-1]
    found = []
    for match in re.finditer(re.escape(old.packed), block):
        at = match.start()
        head = block[at : at + 64]
        untouched = head[4:6] == b"\0\0" and head[0x0C:0x0E] == b"\0\0"  # command register, cache line, latency
        kind = head[0x0E] if len(head) == 64 else 0x7F
        if at % 16 == 0 and head[9:12] == wanted_class and untouched and kind == (0x80 if old.multifunction else 0):
            found.append(at)
    return found


def _mappings(pid: int) -> list[tuple[int, int]]:
    """(start, size) of private writable mappings."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights = line.split()[:2]
        start, end = (int(half, 16) for half in span.split("-"))
        if rights.startswith("rw-p") and end - start <= _LARGEST_MAPPING:
            found.append((start, end - start))
    return found


def _packed(ids: str) -> bytes:
    return struct.pack("<HH", *(int(half, 16) for half in ids.split(":")))


def _write(memory, place: int, content: bytes) -> None:
    memory.seek(place)
    if memory.write(content) != len(content):
        raise OSError("the process's memory was written in part only")
