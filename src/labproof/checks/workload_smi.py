"""POD-SMI, POD-HEALTH: nvidia-smi works in the pod, and the card is well."""

from __future__ import annotations

import re

from labproof.checks.judgement import Evidence, Fail, Judgement, Measurement, Pass, Problem, Unchecked
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.workload_view import values_of
from labproof.facts.nvidia_smi import SmiGpu, SmiReport
from labproof.facts.pod_command import Ran
from labproof.facts.reading import need
from labproof.facts.workload import WorkloadFacts

# nvidia-smi prints most failures to stdout and its exit status drifts: the text decides, the status where there is
# no text (facts transcode 4 and 7a).
_TEXTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("W02", re.compile(r"Driver/library version mismatch")),
    ("W01", re.compile(r"couldn't communicate with the NVIDIA driver")),
    ("W05", re.compile(r"Unable to determine the device handle|GPU is lost")),
    ("W08", re.compile(r"couldn't find libnvidia-ml|error while loading shared libraries: libnvidia-ml")),
    ("W03", re.compile(r"Failed to initialize NVML: (Unknown Error|Insufficient Permissions)")),
    ("W04", re.compile(r"No devices were found")),
)
_BY_STATUS = {9: "W01", 12: "W08", 15: "W05", 18: "W02", 139: "K26"}
SMI_CAUSES = ("K26", "K47", "W01", "W02", "W03", "W04", "W05", "W06", "W08", "W09", "W20", "W52")


@clause_check(
    "POD-SMI-001",
    title="nvidia-smi works in the pod",
    severity=BLOCKING,
    scope="chain",
    reads=("workload",),
    causes=SMI_CAUSES,
    wants=("nvidia",),
    after=("POD-RUN-001", "POD-OPEN-001"),
)
def nvidia_smi_works(subject: Subject) -> Judgement:
    """Status 0 and a whole report with a card in it; a printed table proves neither."""
    facts = subject.workload_facts
    seen = need(facts.nvidia_smi, "nvidia-smi")
    pod = facts.probe.value
    report = seen.report.value
    if seen.ran.ok and report is not None and report.gpus:
        return Pass((Evidence(seen.ran.line(), describe(report)),))
    if seen.ran.ok and report is None:
        return Unchecked(f"nvidia-smi ended with 0, its report cannot be read: {seen.report.why}", seen.report)
    cause = _cause(seen.ran, facts)
    evidence = (_said(seen.ran), *_injected(facts))
    return Fail((Problem(cause, f"probe pod on {facts.node}", evidence, values_of(subject, pod)),))


@clause_check(
    "POD-HEALTH-001",
    title="The card is well",
    severity=DEGRADED,
    scope="chain",
    reads=("workload",),
    causes=("W69", "W75", "W76"),
    wants=("nvidia",),
    after=("POD-SMI-001",),
)
def card_is_well(subject: Subject) -> Judgement:
    """No memory damage, no slowdown by hardware, a compute mode that lets pods share; N/A is no finding (W07)."""
    facts = subject.workload_facts
    report = need(need(facts.nvidia_smi, "nvidia-smi").report, "nvidia-smi -q -x")
    problems: list[Problem] = []
    for gpu in report.gpus:
        for cause, text in _ailments(gpu, shared=subject.cluster.sharing.strategy != "none"):
            evidence = Evidence("nvidia-smi -q -x", text)
            problems.append(Problem(cause, gpu.uuid.value or facts.node, (evidence,), values_of(subject)))
    if problems:
        return Fail(tuple(problems))
    seen = tuple(Evidence("nvidia-smi -q -x", _condition(gpu)) for gpu in report.gpus)
    heat = tuple(Measurement("gpu_temperature", float(g.temperature.value), "C")
                 for g in report.gpus if g.temperature.value is not None)  # fmt: skip
    return Pass(seen, measurements=heat)


def describe(report: SmiReport) -> str:
    """Driver, CUDA and cards in one line."""
    cards = "; ".join(
        f"{g.product_name.value} {g.bus_id.value} {g.uuid.value} ({g.virtualization_mode.value or 'mode not told'})"
        for g in report.gpus
    )
    return f"driver {report.driver_version.value}, CUDA {report.cuda_version.value}: {cards}"


def _cause(ran: Ran, facts: WorkloadFacts) -> str:
    devices = [d.path for d in facts.devices.value or ()]
    if ran.missing or ran.rc in (126, 127):
        libraries = facts.libraries.value or ()
        if devices and not libraries:
            return "W52"
        if not devices and not libraries and facts.via == "exec":
            return "K47"  # the owner's pod: it never got the NVIDIA runtime
        return "W06"
    if ran.rc is None:
        return "W09"  # it hangs: the driver waits for the card's own processor
    found = next((cause for cause, pattern in _TEXTS if pattern.search(ran.text)), None) or _BY_STATUS.get(ran.rc)
    if found in (None, "W04") and facts.devices.value is not None and not any(_is_card(path) for path in devices):
        return "W20"
    return found or "W04"


def _is_card(path: str) -> bool:
    return re.fullmatch(r"/dev/nvidia\d+", path) is not None


def _said(ran: Ran) -> Evidence:
    return Evidence(ran.line(), ran.said())


def _injected(facts: WorkloadFacts) -> tuple[Evidence, ...]:
    found = []
    if facts.devices.value is not None:
        paths = ", ".join(d.path for d in facts.devices.value) or "no /dev/nvidia*"
        found.append(Evidence("ls -ln /dev", paths))
    if facts.libraries.value is not None:
        found.append(Evidence("driver libraries", ", ".join(facts.libraries.value) or "none"))
    return tuple(found)


def _ailments(gpu: SmiGpu, shared: bool) -> list[tuple[str, str]]:
    found = []
    errors = gpu.ecc_uncorrectable_volatile.value or 0
    if errors:
        found.append(("W69", f"{errors} uncorrectable memory errors since the driver was loaded"))
    if gpu.memory_repair_failed.value:
        found.append(("W69", "row remapping failed"))
    elif gpu.memory_repair_pending.value:
        found.append(("W69", "a page retirement or row remapping waits for a reset"))
    action = gpu.recovery_action.value
    if action not in (None, "None") and not found:
        found.append(("W69", f"the driver asks for recovery: {action}"))
    # 0x8, 0x40, 0x80 of the throttle bits; a T4 at its 70 W meets the software power cap all the time, which is fine
    hard = {"hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"} & set(gpu.slowdowns.value or ())
    heat, limit = gpu.temperature.value, gpu.slowdown_temperature.value
    if hard:
        found.append(("W75", f"active: {', '.join(sorted(hard))}; {heat} C"))
    elif heat is not None and limit is not None and heat >= limit:
        found.append(("W75", f"{heat} C, slowdown begins at {limit} C"))
    mode = gpu.compute_mode.value
    if mode == "Prohibited" or (mode not in (None, "Default") and shared):
        found.append(("W76", f"compute mode {mode}"))
    return found


def _condition(gpu: SmiGpu) -> str:
    return (
        f"{gpu.temperature.value} C, ECC {gpu.ecc_mode.value or 'not there'}, uncorrectable "
        f"{gpu.ecc_uncorrectable_volatile.value}, mode {gpu.compute_mode.value}, {gpu.memory_free.value} MiB free"
    )
