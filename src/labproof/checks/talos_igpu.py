"""Intel graphics in the node: the device, its extension, the driver that holds it, its nodes, its firmware, its log.

udev loads i915 and xe by PCI alias, so no machine.kernel.modules entry is wanted (facts talos 2).
"""

from __future__ import annotations

from labproof.catalogue.media import media_row
from labproof.catalogue.versions import parse_tag
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.talos_view import listed, log_evidence, log_lines, problem, seen, tag_of
from labproof.facts.reading import State, need
from labproof.facts.talos import PciDevice, TalosFacts

DRIVERS = ("i915", "xe")
_FIRMWARE = ("Direct firmware load for i915/", "Direct firmware load for xe/", "fetch failed")


def _devices(subject: Subject) -> tuple[PciDevice, ...]:
    """The declared device as the guest has it."""
    devices = need(subject.talos_facts.pci, "PCI devices of the node")
    return tuple(d for d in devices if d.vendor_device == subject.chain.gpu.device)


def _extensions(facts: TalosFacts) -> tuple[str, ...]:
    return tuple(e.name for e in need(facts.extensions, "extensions of the node"))


def _words(facts: TalosFacts) -> tuple[str, ...]:
    return tuple((facts.cmdline.value or "").split())


@clause_check(
    "TALOS-IGPU-001",
    title="The guest sees the Intel GPU",
    severity=BLOCKING,
    scope="chain",
    reads=("talos",),
    causes=("T56",),
    wants=("intel",),
    after=("TALOS-API-001",),
)
def guest_sees_the_gpu(subject: Subject) -> Judgement:
    """By vendor and device id; where it sits on the guest's bus is the VM's business."""
    facts = subject.talos_facts
    found = _devices(subject)
    shown = listed(f"{d.address} {d.vendor_device}" for d in facts.pci.value or () if d.class_code.startswith("03"))
    evidence = seen(facts.pci, f"display controllers: {shown}")
    return Pass((evidence,)) if found else Fail((problem(subject, "T56", evidence, about=subject.chain.gpu.name),))


@clause_check(
    "TALOS-IGPU-002",
    title="The extension with the GPU's driver is installed",
    severity=BLOCKING,
    scope="chain",
    reads=("talos",),
    causes=("T25", "T29"),
    wants=("intel",),
    after=("TALOS-IGPU-001",),
)
def driver_extension_is_installed(subject: Subject) -> Judgement:
    """From Talos 1.9 on the base image has neither i915 nor its firmware; newest chips are xe's alone (E#1121)."""
    facts = subject.talos_facts
    names = _extensions(facts)
    release = parse_tag(tag_of(facts))
    there = [name for name in DRIVERS if name in names or (name == "i915" and release < (1, 9, 0))]
    evidence = seen(facts.extensions, f"extensions: {listed(sorted(names))}")
    if not there:
        return Fail((problem(subject, "T25", evidence),))
    row = media_row(subject.chain.gpu.device)
    young = row is not None and row.name in ("Lunar Lake", "Battlemage")
    if young and "xe" not in there:
        return Fail((problem(subject, "T29", evidence),))
    return Pass((evidence,))


@clause_check(
    "TALOS-IGPU-003",
    title="i915 or xe holds the GPU",
    severity=BLOCKING,
    scope="chain",
    reads=("talos",),
    causes=("T27", "T29", "T30", "T31", "T63", "T66", "T75"),
    wants=("intel",),
    after=("TALOS-IGPU-002",),
)
def driver_holds_the_gpu(subject: Subject) -> Judgement:
    """By the links of /sys/bus/pci/drivers; ROM and VBT complaints alone are in good logs too (facts talos T27)."""
    facts = subject.talos_facts
    links = need(facts.drivers, "PCI drivers of the node")
    held = dict(links)
    cards = _devices(subject)
    shown = listed(f"{d.address} -> {held.get(d.address, 'no driver')}" for d in cards)
    evidence = seen(facts.drivers, shown)
    if all(held.get(d.address) in DRIVERS for d in cards):
        return Pass((evidence,))
    cause, more = _why_not_held(facts, cards, held)
    return Fail((problem(subject, cause, evidence, *more, about=subject.chain.gpu.name),))


def _why_not_held(
    facts: TalosFacts, cards: tuple[PciDevice, ...], held: dict[str, str]
) -> tuple[str, tuple[Evidence, ...]]:
    addresses = [d.address for d in cards]
    if any(held.get(a) for a in addresses):
        asked = [f"{a} -> {d}" for a, d in facts.rebound.value or () if a in addresses]
        return "T66", (seen(facts.rebound, listed(asked)),)
    words = _words(facts)
    kept = [w for w in words if w == "nomodeset" or w.endswith(".modeset=0")]
    if kept:
        return "T75", (seen(facts.cmdline, " ".join(kept)),)
    blocked = [w for w in words if w.startswith("module_blacklist=") and set(w[17:].split(",")) & set(DRIVERS)]
    barred = [w for w in words if ".force_probe=!" in w]
    if blocked or barred:
        return "T31", (seen(facts.cmdline, " ".join([*blocked, *barred])),)
    forced = log_lines(facts, "is not officially supported by")
    if forced:
        return "T30", log_evidence(facts, forced)
    firmware = log_lines(facts, "fetch failed")
    if firmware:
        return "T29", log_evidence(facts, firmware)
    wedged = log_lines(facts, "GuC initialization failed", "reset failed")
    if wedged:
        return "T63", log_evidence(facts, wedged)
    return "T27", log_evidence(facts, log_lines(facts, "Failed to initialize GPU", "Device initialization failed"))


@clause_check(
    "TALOS-IGPU-004",
    title="The GPU has a render node",
    severity=BLOCKING,
    scope="chain",
    reads=("talos",),
    causes=("T76",),
    wants=("intel",),
    after=("TALOS-IGPU-003",),
)
def gpu_has_a_render_node(subject: Subject) -> Judgement:
    """By its PCI path, never by its number: an emulated display takes a number too (facts transcode W45)."""
    facts = subject.talos_facts
    nodes = {n.path: n for n in need(facts.device_nodes, "device nodes of the node")}
    named: tuple[tuple[str, str], ...] = ()
    if facts.dri_links.state is not State.ABSENT:  # without any DRM device there is no such folder
        named = need(facts.dri_links, "paths of the DRM nodes")
    links = dict(named)
    rows, missing = [], []
    for device in _devices(subject):
        path = links.get(f"pci-{device.address}-render", "")
        node = nodes.get(path)
        if node is None or not node.char_device:
            missing.append(device.address)
        else:
            rows.append(f"pci-{device.address}-render -> {path} mode {node.permissions:04o}")
    evidence = seen(facts.dri_links, listed(rows))
    if not missing:
        return Pass((evidence,))
    there = seen(facts.device_nodes, listed(p for p in nodes if p.startswith("/dev/dri/")))
    return Fail((problem(subject, "T76", evidence, there, about=subject.chain.gpu.name),))


@clause_check(
    "TALOS-IGPU-005",
    title="The GPU's firmware was loaded",
    severity=DEGRADED,
    scope="chain",
    reads=("talos",),
    causes=("T29",),
    wants=("intel",),
    after=("TALOS-IGPU-003",),
)
def firmware_was_loaded(subject: Subject) -> Judgement:
    """DMC for power saving, GuC and HuC where the driver asks for them; what it does not ask for is not missing."""
    facts = subject.talos_facts
    addresses = [d.address for d in _devices(subject)]
    log = need(facts.kernel_log, "kernel log")
    mine = [line for line in log.lines if any(a in line for a in addresses)]
    lost = [line for line in mine if any(text in line for text in _FIRMWARE)]
    loaded = [line for line in mine if "firmware" in line and line not in lost]
    evidence = log_evidence(facts, loaded, 4) or (seen(facts.kernel_log, "no line about its firmware"),)
    if not lost:
        return Pass(evidence)
    return Fail((problem(subject, "T29", *log_evidence(facts, lost, 4), about=subject.chain.gpu.name),))


@clause_check(
    "TALOS-IGPU-006",
    title="No engine of the GPU hung",
    severity=DEGRADED,
    scope="chain",
    reads=("talos",),
    causes=("W43", "W63"),
    wants=("intel",),
    after=("TALOS-IGPU-003",),
)
def no_engine_hung(subject: Subject) -> Judgement:
    """Hangs and engine resets since the boot; i915 and xe word them differently (facts transcode W43, wild W63)."""
    facts = subject.talos_facts
    log = need(facts.kernel_log, "kernel log")
    patterns = {"W43": ("GPU HANG:", "for CS error"), "W63": ("Engine reset: engine_class", "guc_exec_queue_timedout")}
    problems = []
    for cause, texts in patterns.items():
        lines = [line for line in log.lines if any(text in line for text in texts)]
        if lines:
            told = log_evidence(facts, lines)
            problems.append(problem(subject, cause, *told, about=subject.chain.gpu.name))
    return verdict_of(problems, (seen(facts.kernel_log, f"{log.records} records, no hang among them"),))
