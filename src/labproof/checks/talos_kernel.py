"""From the image to a card that answers: flavour, modules, binding, device nodes, one link of the chain a clause."""

from __future__ import annotations

from labproof.catalogue.gpus import Generation, generation
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.talos_view import (
    CORE_MODULES,
    bound_to_nvidia,
    displays,
    driver_of,
    kmods,
    listed,
    log_evidence,
    log_lines,
    problem,
    seen,
)
from labproof.facts.reading import need
from labproof.facts.talos import Module, TalosFacts


@clause_check(
    "TALOS-DRIVER-001",
    title="The driver supports this GPU generation",
    severity=BLOCKING,
    scope="chain",
    reads=("talos",),
    causes=("T15", "T16", "T17"),
    wants=("nvidia",),
    after=("TALOS-EXT-001",),
)
def driver_supports_the_generation(subject: Subject) -> Judgement:
    """Open modules need Turing or newer, Blackwell needs open ones, branches after 580 drop all before Turing."""
    facts = subject.talos_facts
    extensions = need(facts.extensions, "extensions of the node")
    gpu = subject.chain.gpu
    chip = generation(gpu.device)
    problems: list[Problem] = []
    for kmod in kmods(extensions):
        told = seen(facts.extensions, f"{kmod.name} {kmod.version}; {gpu.device} is {chip.name if chip else 'unknown'}")
        cause = _unfit(chip, kmod.name.startswith("nvidia-open"), driver_of(kmod)) or _refusal_in_log(facts)
        if cause is not None:
            said = log_evidence(facts, log_lines(facts, "is not supported by", "RmInitAdapter failed"))
            problems.append(problem(subject, cause, told, *said, about=gpu.name))
        else:
            return Pass((told,))
    return verdict_of(problems)


def _unfit(chip: Generation | None, open_flavour: bool, driver: str) -> str | None:
    if chip is None:
        return None
    if open_flavour and not chip.gsp:
        return "T15"
    if chip.last_branch is not None and driver.partition(".")[0].isdigit():
        return "T16" if int(driver.partition(".")[0]) > chip.last_branch else None
    return "T17" if chip.open_only and not open_flavour else None


def _refusal_in_log(facts: TalosFacts) -> str | None:
    """The driver's own refusal, for chips the table does not know."""
    if log_lines(facts, "not supported by open nvidia.ko"):
        return "T15"
    return (
        "T16" if any("driver release" in line for line in log_lines(facts, "is not supported by the NVIDIA")) else None
    )


@clause_check(
    "TALOS-MODULE-001",
    title="The machine configuration loads the NVIDIA modules",
    severity=BLOCKING,
    scope="node",
    reads=("talos",),
    causes=("T10", "T22"),
    wants=("nvidia",),
    after=("TALOS-EXT-001",),
)
def core_modules_are_configured(subject: Subject) -> Judgement:
    """The extension blacklists its modules, so only `machine.kernel.modules` loads them (facts talos 0, T10)."""
    facts = subject.talos_facts
    specs = need(facts.module_specs, "modules of the machine configuration")
    missing = [name for name in CORE_MODULES if name not in specs]
    evidence = seen(facts.module_specs, f"machine.kernel.modules: {listed(specs)}")
    if not missing:
        return Pass((evidence,))
    cause = "T10" if "nvidia" in missing else "T22"
    return Fail((problem(subject, cause, evidence, remedy=_modules_remedy(subject, missing)),))


def _modules_remedy(subject: Subject, missing: list[str]) -> str:
    talos = subject.node.talos
    wanted = dict.fromkeys([*missing, *(talos.modules if talos else ())])
    lines = "\n".join(f"      - name: {name}" for name in wanted)
    node = subject.node.name
    return (
        f"Put into the machine configuration of {node} (`talosctl edit machineconfig -n {node}`; no reboot needed):\n"
        f"machine:\n  kernel:\n    modules:\n{lines}\n"
        f"Then `talosctl get kernelmodulespecs -n {node}` lists them and /dev/nvidia0 appears."
    )


@clause_check(
    "TALOS-MODULE-002",
    title="The NVIDIA modules are live",
    severity=BLOCKING,
    scope="node",
    reads=("talos",),
    causes=("T13", "T20", "T22", "T66"),
    wants=("nvidia",),
    after=("TALOS-GUEST-001", "TALOS-EXT-003", "TALOS-DRIVER-001", "TALOS-MODULE-001"),
)
def core_modules_are_live(subject: Subject) -> Judgement:
    """Configured is not loaded: the module refuses to stay when it finds no card it may drive."""
    facts = subject.talos_facts
    modules = need(facts.modules, "kernel modules of the node")
    missing = [name for name in CORE_MODULES if not _is_live(modules, name)]
    shown = listed(f"{m.name} {m.state}".strip() for m in modules if m.name.startswith("nvidia"))
    evidence = seen(facts.modules, f"NVIDIA modules: {shown}")
    if not missing:
        driver = listed(driver_of(e) for e in kmods(facts.extensions.value or ()))
        return Pass((evidence, seen(facts.extensions, f"driver {driver}")))
    texts = log_evidence(facts, log_lines(facts, "error loading module", "No NVIDIA GPU found"))
    if "nvidia" not in missing:
        return Fail((problem(subject, "T22", evidence, *texts),))
    elsewhere = _held_elsewhere(facts)
    if elsewhere:
        return Fail((problem(subject, "T66", evidence, *elsewhere),))
    region = log_evidence(facts, log_lines(facts, "PCI I/O region assigned to your NVIDIA device is invalid"))
    return Fail((problem(subject, "T20" if region else "T13", evidence, *region, *texts),))


def _is_live(modules: tuple[Module, ...], name: str) -> bool:
    """Talos 1.11 to 1.13 say `Live`, 1.14 `live` or `built-in`; before 1.11 a folder in /sys/module is all there is."""
    return any(m.name == name and m.state in ("", "live", "built-in") for m in modules)


def _held_elsewhere(facts: TalosFacts) -> tuple[Evidence, ...]:
    """NVIDIA cards that another driver holds in the guest, and the configuration that gave them away."""
    cards = {d.address for d in displays(facts.pci.value or ())}
    held = [f"{a} -> {d}" for a, d in facts.drivers.value or () if a in cards and d != "nvidia"]
    asked = [f"{a} -> {d}" for a, d in facts.rebound.value or () if a in cards]
    told = (seen(facts.drivers, listed(held)),) if held else ()
    return (*told, seen(facts.rebound, listed(asked))) if asked else told


@clause_check(
    "TALOS-MODULE-003",
    title="Every declared module is configured and live",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T10", "T23"),
    wants=("nvidia",),
    after=("TALOS-MODULE-002",),
)
def declared_modules_are_live(subject: Subject) -> Judgement:
    """nvidia_drm and nvidia_modeset: without them no /dev/dri for the card, while CUDA and NVENC go on working."""
    facts = subject.talos_facts
    talos = subject.node.talos
    declared = [name for name in (talos.modules if talos else ()) if name not in CORE_MODULES]
    specs = need(facts.module_specs, "modules of the machine configuration")
    modules = need(facts.modules, "kernel modules of the node")
    lost = [name for name in declared if name not in specs or not _is_live(modules, name)]
    evidence = (
        seen(facts.module_specs, f"machine.kernel.modules: {listed(specs)}"),
        seen(facts.modules, f"live: {listed(m.name for m in modules if m.name.startswith('nvidia'))}"),
    )
    if not lost:
        return Pass(evidence)
    cause = "T23" if "nvidia_drm" in lost else "T10"
    return Fail((problem(subject, cause, *evidence, remedy=_modules_remedy(subject, lost)),))


@clause_check(
    "TALOS-DEVICE-001",
    title="The driver holds the card",
    severity=BLOCKING,
    scope="chain",
    reads=("talos",),
    causes=("T20", "T66"),
    wants=("nvidia",),
    after=("TALOS-MODULE-002",),
)
def card_is_bound_to_the_driver(subject: Subject) -> Judgement:
    """Judged from /sys/bus/pci/drivers/nvidia: the `driver` field of PCIDevices is a snapshot of the boot (T55)."""
    facts = subject.talos_facts
    devices = need(facts.pci, "PCI devices of the node")
    cards = [d for d in displays(devices) if d.vendor_device == subject.chain.gpu.device]
    bound = bound_to_nvidia(facts)
    evidence = seen(facts.drivers, f"bound to nvidia: {listed(bound)}")
    loose = [d.address for d in cards if d.address not in bound]
    if not loose:
        stale = [f"{d.address} {d.driver or '(empty)'}" for d in cards if d.driver != "nvidia"]
        note = (seen(facts.pci, f"driver as scanned at boot: {listed(stale)}"),) if stale else ()
        return Pass((evidence, *note))
    holders = [f"{address} -> {driver}" for address, driver in facts.drivers.value or () if address in loose]
    more = (seen(facts.drivers, listed(holders)),) if holders else log_evidence(facts, log_lines(facts, "NVRM"))
    cause = "T66" if holders else "T20"
    unbound = Evidence(facts.pci.source, f"not bound: {listed(loose)}")
    return Fail((problem(subject, cause, evidence, unbound, *more, about=subject.chain.gpu.name),))


@clause_check(
    "TALOS-DEVICE-002",
    title="The device nodes of CUDA and NVENC exist",
    severity=BLOCKING,
    scope="node",
    reads=("talos",),
    causes=("T19", "T20", "T22"),
    wants=("nvidia",),
    after=("TALOS-MODULE-002", "TALOS-DEVICE-001"),
)
def device_nodes_exist(subject: Subject) -> Judgement:
    """One /dev/nvidiaN a card, /dev/nvidiactl, /dev/nvidia-uvm and -tools, made by udev when a card initialises."""
    facts = subject.talos_facts
    paths = [n.path for n in need(facts.device_nodes, "device nodes of the node") if n.char_device]
    cards = [f"/dev/nvidia{number}" for number in range(len(bound_to_nvidia(facts)))]
    evidence = seen(facts.device_nodes, listed(path for path in paths if path.startswith("/dev/nvidia")))
    missing = [path for path in (*cards, "/dev/nvidiactl") if path not in paths]
    if missing:
        firmware = log_lines(facts, "Direct firmware load for nvidia/", "Cannot initialize GSP firmware RM")
        failed = log_lines(
            facts, "RmInitAdapter failed", "rm_init_adapter failed", "BAR1 is 0M", "assigned to your NVIDIA"
        )
        said = log_evidence(facts, (*firmware, *failed))
        told = Evidence(facts.device_nodes.source, f"missing: {listed(missing)}")
        unfit = _firmware_gap(facts)
        cause = "T19" if firmware or unfit else "T20"
        return Fail((problem(subject, cause, evidence, told, *unfit, *said),))
    unified = [path for path in ("/dev/nvidia-uvm", "/dev/nvidia-uvm-tools") if path not in paths]
    if unified:
        told = Evidence(facts.device_nodes.source, f"missing: {listed(unified)}")
        return Fail((problem(subject, "T22", evidence, told),))
    return Pass((evidence,))


def _firmware_gap(facts: TalosFacts) -> tuple[Evidence, ...]:
    """Open modules load the GSP's firmware of exactly their own version; the proprietary ones can do without."""
    versions = facts.firmware.value
    kmod = next(iter(kmods(facts.extensions.value or ())), None)
    if versions is None or kmod is None or not kmod.name.startswith("nvidia-open") or driver_of(kmod) in versions:
        return ()
    return (seen(facts.firmware, f"firmware for {listed(versions)}, driver {driver_of(kmod)}"),)


@clause_check(
    "TALOS-DEVICE-003",
    title="The card has its DRM and modeset nodes",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T23",),
    wants=("nvidia",),
    after=("TALOS-MODULE-003", "TALOS-DEVICE-002"),
)
def drm_nodes_exist(subject: Subject) -> Judgement:
    """A render node a card, and /dev/nvidia-modeset, where the declared modules bring them."""
    facts = subject.talos_facts
    talos = subject.node.talos
    declared = talos.modules if talos else ()
    paths = [n.path for n in need(facts.device_nodes, "device nodes of the node")]
    evidence = seen(facts.device_nodes, listed(path for path in paths if "dri/" in path or "modeset" in path))
    cards = len(bound_to_nvidia(facts))
    renders = [path for path in paths if path.startswith("/dev/dri/renderD")]
    missing = []
    if "nvidia_drm" in declared and len(renders) < cards:
        missing.append(f"{cards - len(renders)} x /dev/dri/renderD*")
    if "nvidia_modeset" in declared and "/dev/nvidia-modeset" not in paths:
        missing.append("/dev/nvidia-modeset")
    if not missing:
        return Pass((evidence,))
    told = Evidence(facts.device_nodes.source, f"missing: {listed(missing)}")
    return Fail((problem(subject, "T23", evidence, told),))
