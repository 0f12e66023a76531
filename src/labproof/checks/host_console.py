"""The card is not the host's own console, and the kernel log has nothing against it."""

from __future__ import annotations

import re

from labproof.checks.host_devices import seen, the_card
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.facts.host import Bar, MemoryRange, PciDevice
from labproof.facts.reading import State, need

#: What the kernel says of a device that will not work, with its cause (facts proxmox section 5).
COMPLAINTS = (
    (re.compile(r"can't reserve"), "P20"),
    (re.compile(r"ineligible for IOMMU domain attach"), "P08"),
    (
        re.compile(r"not ready \d+ms after|Unable to change power state|stuck in D3|device inaccessible"),
        "P18",
    ),
    (re.compile(r"AER: .*(Fatal|Uncorrect)|PCIe Bus Error: severity=Uncorrect", re.IGNORECASE), "P53"),
    (re.compile(r"\[DMA \w+.*\] Request device|IO_PAGE_FAULT"), "P58"),
)


def overlap(bars: tuple[Bar, ...], framebuffers: tuple[MemoryRange, ...]) -> MemoryRange | None:
    """The framebuffer range that lies inside one of the card's memory ranges."""
    return next((f for f in framebuffers for b in bars if b.size and b.start <= f.start <= b.end), None)


@clause_check(
    "HOST-CONSOLE-001",
    title="The host's console is not on the GPU",
    severity=BLOCKING,
    scope="chain",
    reads=("host",),
    causes=("P20",),
    after=("HOST-DEVICE-001",),
)
def console_is_elsewhere(subject: Subject) -> Judgement:
    """H14: no boot framebuffer inside the card's memory.

    `boot_vga=1` alone is no fault: it is normal for an iGPU that is passed on. It decides only whether the memory
    map has to be read at all.
    """
    host, card = subject.host_facts, the_card(subject)
    flag = {None: "no such file (not a VGA device)", True: "1", False: "0"}[card.boot_vga]
    vga = seen(subject, f"cat /sys/bus/pci/devices/{card.address}/boot_vga", flag)
    values = (("host", subject.host.name), ("address", card.address))
    said = [line for line in _log_lines(subject, card) if "can't reserve" in line]
    evidence: list[Evidence] = [vga]
    if host.framebuffers.state is State.VALUE:
        framebuffers = need(host.framebuffers)
        hit = overlap(card.bars, framebuffers)
        listed = "; ".join(f"{f.start:x}-{f.end:x} {f.name}" for f in framebuffers) or "no boot framebuffer"
        evidence.append(seen(subject, "grep -iE 'bootfb|simplefb|efifb' /proc/iomem", listed))
        if hit is not None:
            return Fail((Problem("P20", card.address, tuple(evidence), values),))
    elif card.boot_vga:
        return Unchecked(
            f"{card.address} is the boot VGA device, and /proc/iomem: {host.framebuffers.why}",
            host.framebuffers,
        )
    if card.boot_vga and said:
        evidence.append(seen(subject, host.kernel_log.source, said[-1]))
        return Fail((Problem("P20", card.address, tuple(evidence), values),))
    return Pass(tuple(evidence))


def _log_lines(subject: Subject, card: PciDevice) -> list[str]:
    log = subject.host_facts.kernel_log.value
    return [line for line in (log.lines if log else ()) if names(line, card.address)]


def names(line: str, address: str) -> bool:
    """Whether a kernel line is about the device: with domain, or in the DMAR form `[3b:00.0]`."""
    return address in line or f"[{address.removeprefix('0000:')}]" in line


@clause_check(
    "HOST-JOURNAL-001",
    title="The kernel log has no complaint about the GPU",
    severity=DEGRADED,
    scope="chain",
    reads=("host",),
    causes=tuple(sorted({cause for _, cause in COMPLAINTS})),
    after=("HOST-DEVICE-001",),
)
def log_is_clean(subject: Subject) -> Judgement:
    """H16: lines of this boot that name the card's slot; other devices' errors are not evidence."""
    host, card = subject.host_facts, the_card(subject)
    log = need(host.kernel_log, "kernel log")
    problems: dict[str, Problem] = {}
    mine = [line for line in log.lines if names(line, card.address)]
    for line in mine:
        for pattern, cause in COMPLAINTS:
            if pattern.search(line):
                values = (("host", subject.host.name), ("address", card.address))
                shown = seen(subject, host.kernel_log.source, line)
                problems.setdefault(cause, Problem(cause, card.address, (shown,), values))
    text = f"{len(mine)} lines name {card.address}, none is a complaint"
    return verdict_of(problems.values(), (seen(subject, host.kernel_log.source, text),))
