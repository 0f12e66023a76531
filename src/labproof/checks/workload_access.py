"""POD-CAPS, POD-OPEN, POD-UVM, POD-CUDA: libraries, device nodes and a kernel, as the pod's user gets them."""

from __future__ import annotations

import re

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.workload_view import outcome_evidence, pod_problem, values_of
from labproof.facts.pod_command import Ran
from labproof.facts.pod_outcome import Outcome
from labproof.facts.reading import need
from labproof.facts.workload import DeviceSeen

CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"


@clause_check(
    "POD-CAPS-001",
    title="The video libraries are in the pod",
    severity=BLOCKING,
    scope="chain",
    reads=("workload",),
    causes=("K48", "W12", "W13", "W14"),
    wants=("nvidia",),
    after=("POD-SMI-001",),
)
def video_libraries_are_there(subject: Subject) -> Judgement:
    """By the files, not by the variable: the toolkit's default is utility and compute only (W13, W14, K48)."""
    facts = subject.workload_facts
    paths = need(facts.libraries, "driver libraries")
    names = {path.rsplit("/", 1)[-1] for path in paths}
    declared = facts.variable(CAPABILITIES)
    seen = (
        Evidence("ls -d <library paths>", ", ".join(sorted(paths)) or "none"),
        Evidence(f"env {CAPABILITIES}", declared if declared is not None else "not set"),
    )
    asked = {part.strip() for part in (declared or "utility,compute").split(",")}
    wants_video = bool({"all", "video"} & asked)
    causes = []
    if "libcuda.so.1" not in names:
        causes.append("W12")
    elif not wants_video and facts.env.value is not None and not {"libnvidia-encode.so.1", "libnvcuvid.so.1"} <= names:
        causes.append("K48")
    else:
        causes += ["W13"] if "libnvidia-encode.so.1" not in names else []
        causes += ["W14"] if "libnvcuvid.so.1" not in names else []
    where, values = f"probe pod on {facts.node}", values_of(subject, facts.probe.value)
    return verdict_of((Problem(cause, where, seen, values) for cause in causes), seen)


@clause_check(
    "POD-OPEN-001",
    title="The pod's user can open the card's device nodes",
    severity=BLOCKING,
    scope="chain",
    reads=("workload",),
    causes=("K37", "W03", "W73"),
    wants=("nvidia",),
    after=("POD-RUN-001",),
)
def device_nodes_open(subject: Subject) -> Judgement:
    """Opened, not looked at: EACCES is the node's mode (W73), EPERM the device cgroup, of all nodes (W03) or one (K37).

    Nodes that are not there at all, or behind which no driver answers, are POD-SMI-001's to explain, /dev/nvidia-uvm
    is POD-UVM-001's.
    """
    facts = subject.workload_facts
    devices = [d for d in need(facts.devices, "device nodes") if d.path != "/dev/nvidia-uvm"]
    user = f"uid {facts.uid.value}" if facts.uid.value is not None else "the pod's user"
    values = values_of(subject, facts.probe.value)
    seen = tuple(Evidence(f"open {d.path} as {user}", _opened(d)) for d in devices)
    if not devices:
        return Pass((Evidence("ls -ln /dev", "no /dev/nvidia* to open"),))
    closed = [d for d in devices if not d.opens and not _nobody_answers(d)]
    if closed and all(_by_cgroup(d) for d in devices):
        return Fail((Problem("W03", f"probe pod on {facts.node}", seen, values),))
    return verdict_of(
        (
            Problem(
                "K37" if _by_cgroup(d) else "W73", d.path, (Evidence(f"open {d.path} as {user}", _opened(d)),), values
            )
            for d in closed
        ),
        seen,
    )


@clause_check(
    "POD-UVM-001",
    title="The pod's user can open /dev/nvidia-uvm",
    severity=BLOCKING,
    scope="chain",
    reads=("workload",),
    causes=("W19",),
    wants=("nvidia",),
    after=("POD-SMI-001",),
)
def unified_memory_opens(subject: Subject) -> Judgement:
    """nvidia-smi works without it and CUDA, so NVENC too, does not: cuInit fails with `unknown error` (W19)."""
    facts = subject.workload_facts
    uvm = next((d for d in need(facts.devices, "device nodes") if d.path == "/dev/nvidia-uvm"), None)
    seen = Evidence("ls -ln /dev", "no /dev/nvidia-uvm") if uvm is None else Evidence(f"open {uvm.path}", _opened(uvm))
    if uvm is not None and uvm.opens:
        return Pass((seen,))
    return Fail((Problem("W19", f"probe pod on {facts.node}", (seen,), values_of(subject, facts.probe.value)),))


# What the CUDA runtime says, most specific first (facts transcode W10, W11, W18-W20; wild W65; kubernetes-gpu K69).
_CUDA_TEXTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("W11", re.compile(r"driver version is insufficient|SYSTEM_DRIVER_MISMATCH|forward compatibility was attempted")),
    ("W65", re.compile(r"no kernel image is available")),
    ("W20", re.compile(r"no CUDA-capable device")),
    ("W18", re.compile(r"out of memory")),
    ("K69", re.compile(r"unknown error|initialization error|OS call failed|operation not supported on this OS")),
)


@clause_check(
    "POD-CUDA-001",
    title="A CUDA kernel returns the right result",
    severity=DEGRADED,
    scope="chain",
    reads=("workload",),
    causes=("K40", "K41", "K69", "W10", "W11", "W18", "W20", "W65", "W79"),
    wants=("compute", "nvidia", "device-plugin"),
    after=("POD-SMI-001", "POD-UVM-001"),
)
def cuda_kernel_is_right(subject: Subject) -> Judgement:
    """NVIDIA's vectorAdd checks its own sum; that it proves CUDA says nothing about video (facts transcode 1.5)."""
    facts = subject.workload_facts
    seen = need(facts.vector_add, "vectorAdd pod")
    values = values_of(subject, seen)
    if "Test PASSED" in seen.log:
        return Pass((Evidence(f"logs of pod {seen.namespace}/{seen.name}", "Test PASSED"),))
    outcome = seen.outcome
    if outcome is not None and outcome.terminal and outcome.outcome in (
        Outcome.SUCCEEDED, Outcome.EXITED, Outcome.OOM_KILLED
    ):  # fmt: skip
        cause = next((c for c, pattern in _CUDA_TEXTS if pattern.search(seen.log)), "W79")
        log = Evidence(f"logs of pod {seen.namespace}/{seen.name}", seen.log.strip()[-600:] or "empty")
        return Fail((Problem(cause, f"vectorAdd on {facts.node}", (log, outcome_evidence(seen)), values),))
    if outcome is not None and outcome.detail == "cuda too new for driver":
        return Fail((Problem("W10", f"vectorAdd on {facts.node}", (outcome_evidence(seen),), values),))
    problem = pod_problem(subject, seen, facts.slots)
    if isinstance(problem, Unchecked):
        return problem
    if problem.cause in ("K40", "K41"):
        return Fail((problem,))
    return Unchecked(f"the vectorAdd pod did not run: {outcome_evidence(seen).text}")


def _opened(device: DeviceSeen) -> str:
    if device.opens:
        return f"{device.mode} {device.uid}:{device.gid}, opens for reading and writing"
    failed = device.opened_read if not device.opened_read.ok else device.opened_write
    return f"{device.mode} {device.uid}:{device.gid}, {_reason(failed)}"


def _by_cgroup(device: DeviceSeen) -> bool:
    return "Operation not permitted" in device.opened_read.text + device.opened_write.text


def _nobody_answers(device: DeviceSeen) -> bool:
    """ENXIO and EIO: the rights are there, the module or the card behind the node is gone."""
    return bool(re.search(r"No such device|Input/output error", device.opened_read.text + device.opened_write.text))


def _reason(ran: Ran) -> str:
    line = next((text for text in ran.stderr.splitlines() if "open" in text), "")
    return line.strip() or ran.said(160)
