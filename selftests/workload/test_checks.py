"""Every workload clause: green on the healthy chain, red with the right cause on each fault, unchecked on neither."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from labproof.checks.judgement import Pass, Unchecked
from labproof.checks.registry import clauses
from labproof.facts.pod_outcome import Outcome, PodOutcome
from labproof.facts.reading import absent, failed, unsupported, value
from labproof.facts.workload import LeakSeen, OverflowSeen
from selftests.workload.world import (
    INSUFFICIENT,
    LIBRARY_FOLDER,
    RUNNING,
    UUID,
    causes_of,
    device,
    expected,
    gpu,
    healthy,
    holder,
    judge,
    lab,
    outcome,
    pod,
    ran,
    slots,
    smi,
    smi_failed,
)

GOOD = healthy()
TALOS = SimpleNamespace(pci=value((SimpleNamespace(address="0000:01:00.0", vendor_device="10de:1eb8"),), "PCIDevices"))
LABELLED = SimpleNamespace(
    nodes=value((SimpleNamespace(name="moody-good", labels={"nvidia.com/gpu.product": "Tesla-T4-SHARED"}),))
)
BUSY = failed("slots", "all 4 slots of nvidia.com/gpu are held: media/jellyfin (4)", "busy")
WORKLOAD = sorted(c.id for c in clauses().values() if c.layer == "workload" and expected(c.id))


def probe(state: PodOutcome, **fields):
    return replace(GOOD, probe=value(pod("probe", state, **fields)))


def bare(state: PodOutcome):
    return replace(GOOD.runtime_class_only.value, pod=pod("runtime-class-only", state, asked=0))


def stopped(kind: Outcome, detail: str, name: str = "", text: str = "...", code: int | None = None):
    return probe(outcome(kind, text, detail, name=name, exit_code=code))


@pytest.mark.parametrize("clause", WORKLOAD)
def test_healthy_chain_holds(clause):
    judgement = judge(clause, of_talos=TALOS, of_cluster=LABELLED)
    assert isinstance(judgement, Pass), judgement
    assert judgement.evidence


PAIR = [
    (stopped(Outcome.START, "cdi hook missing"), ["K24"]),
    (stopped(Outcome.CREATE, "cdi device unresolvable"), ["K25"]),
    (stopped(Outcome.EXITED, "", code=139), ["K26"]),
    (stopped(Outcome.START, "cuda too new for driver"), ["K35"]),
    (stopped(Outcome.START, "cgroup device rules refused"), ["K49"]),
    (stopped(Outcome.CREATE, "device node missing", "/dev/nvidia-uvm"), ["W19"]),
    (stopped(Outcome.CREATE, "device node missing", "/dev/nvidia0"), ["W20"]),
]


@pytest.mark.parametrize(("facts", "wanted"), PAIR)
def test_request_breaks_the_pod(facts, wanted):
    assert causes_of(judge("POD-PAIR-001", facts)) == wanted


def test_runtime_that_starts_nothing_is_not_the_requests_fault():
    broken = outcome(Outcome.SANDBOX, "no runtime", "no such runtime handler")
    facts = replace(probe(broken), runtime_class_only=value(bare(broken)))
    assert isinstance(judge("POD-PAIR-001", facts), Pass)
    assert causes_of(judge("POD-RUN-001", facts)) == ["K22"]


RUN = [
    (stopped(Outcome.SANDBOX, "no such runtime handler"), ["K22"]),
    (replace(probe(None), probe=value(pod("probe", None, refused="no such RuntimeClass", text="403"))), ["K23"]),
    (replace(probe(None), probe=value(pod("probe", None, refused="pod security", text="403"))), ["K33"]),
    (
        replace(probe(outcome(Outcome.UNSCHEDULABLE, INSUFFICIENT)), slots=slots(allocatable=None, capacity=None)),
        ["K13"],
    ),
    (replace(probe(outcome(Outcome.UNSCHEDULABLE, INSUFFICIENT)), slots=slots(allocatable=0, holders=())), ["K38"]),
    (stopped(Outcome.REJECTED, "devices in use"), ["K40"]),
    (stopped(Outcome.REJECTED, "no healthy device"), ["K41"]),
    (stopped(Outcome.REJECTED, "plugin refused"), ["K21"]),
    (stopped(Outcome.START, "visible devices refused"), ["K45"]),
    (probe(outcome(Outcome.OOM_KILLED, exit_code=137)), ["W28"]),
    (probe(outcome(Outcome.WAITING, "ContainerCreating")), ["W68"]),
]


@pytest.mark.parametrize(("facts", "wanted"), RUN)
def test_pod_does_not_run(facts, wanted):
    assert causes_of(judge("POD-RUN-001", facts)) == wanted


NOT_THE_LAB = [
    probe(outcome(Outcome.IMAGE, "manifest unknown", "no such image")),
    stopped(Outcome.START, "executable not found", "sleep"),
    probe(outcome(Outcome.EVICTED, "preempted", "")),
    replace(GOOD, probe=value(pod("probe", None, refused="quota", text="exceeded quota"))),
    probe(outcome(Outcome.UNSCHEDULABLE, "0/1 nodes are available: 1 Insufficient memory.")),
]


@pytest.mark.parametrize("facts", NOT_THE_LAB)
def test_environment_is_no_verdict_on_the_lab(facts):
    assert isinstance(judge("POD-RUN-001", facts), Unchecked)


def test_full_card_is_busy_and_names_who():
    facts = replace(
        probe(outcome(Outcome.UNSCHEDULABLE, INSUFFICIENT)), slots=slots(holders=(holder("ai/ollama-0", 4),))
    )
    judgement = judge("POD-RUN-001", facts)
    assert isinstance(judgement, Unchecked)
    assert judgement.busy
    assert "ai/ollama-0" in judgement.reason


@pytest.mark.parametrize(
    "clause", [c for c in WORKLOAD if c not in ("POD-LEAK-001", "POD-LEAK-002", "POD-OVERFLOW-001")]
)
def test_busy_card_is_unchecked_never_failed(clause):
    facts = replace(
        GOOD, probe=BUSY, nvidia_smi=BUSY, listed=BUSY, env=BUSY, uid=BUSY, devices=BUSY, libraries=BUSY, floors=BUSY,
        vector_add=BUSY, over_request=BUSY,
    )  # fmt: skip
    judgement = judge(clause, facts, of_talos=TALOS, of_cluster=LABELLED)
    assert isinstance(judgement, Unchecked)
    assert judgement.busy


# nvidia-smi's own texts: facts transcode 7a
SMI = [
    (
        smi_failed(9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure ..."),
        "W01",
    ),
    (
        smi_failed(18, "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.173"),
        "W02",
    ),
    (smi_failed(255, "Failed to initialize NVML: Unknown Error"), "W03"),
    (smi_failed(6, "No devices were found"), "W04"),
    (smi(), "W04"),
    (smi_failed(15, "Unable to determine the device handle for GPU0000:0B:00.0: Unknown Error"), "W05"),
    (smi_failed(None, why="executable file not found in $PATH", missing=True), "W06"),
    (smi_failed(12, "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system."), "W08"),
    (smi_failed(None, why="it did not end within 60 s; it may still run there"), "W09"),
    (smi_failed(139), "K26"),
    (smi_failed(77, "something new"), "W04"),
]


@pytest.mark.parametrize(("reading", "cause"), SMI)
def test_nvidia_smi_fails(reading, cause):
    assert causes_of(judge("POD-SMI-001", replace(GOOD, nvidia_smi=reading))) == [cause]


def test_no_devices_without_a_card_node_is_an_injection_fault():
    nodes = value((device("/dev/nvidiactl"), device("/dev/nvidia-uvm")))
    facts = replace(GOOD, nvidia_smi=smi_failed(6, "No devices were found"), devices=nodes)
    assert causes_of(judge("POD-SMI-001", facts)) == ["W20"]


def test_nodes_without_libraries():
    facts = replace(GOOD, nvidia_smi=smi_failed(None, why="not found", missing=True), libraries=value(()))
    assert causes_of(judge("POD-SMI-001", facts)) == ["W52"]


def test_owners_pod_without_the_nvidia_runtime():
    gone = smi_failed(None, why="not found", missing=True)
    facts = replace(GOOD, via="exec", nvidia_smi=gone, libraries=value(()), devices=value(()))
    assert causes_of(judge("POD-SMI-001", facts)) == ["K47"]


def test_exec_that_broke_is_unchecked():
    facts = replace(GOOD, nvidia_smi=failed("nvidia-smi -q -x", "the connection ended before the command did", "exec"))
    assert isinstance(judge("POD-SMI-001", facts), Unchecked)


HEALTH = [
    ({"ecc_uncorrectable_volatile": 2}, "W69"),
    ({"memory_repair_pending": True}, "W69"),
    ({"memory_repair_failed": True}, "W69"),
    ({"recovery_action": "Reset"}, "W69"),
    ({"slowdowns": ("hw_thermal_slowdown",)}, "W75"),
    ({"temperature": 93}, "W75"),
    ({"compute_mode": "Exclusive_Process"}, "W76"),
    ({"compute_mode": "Prohibited"}, "W76"),
]


@pytest.mark.parametrize(("fields", "cause"), HEALTH)
def test_ailing_card(fields, cause):
    assert causes_of(judge("POD-HEALTH-001", replace(GOOD, nvidia_smi=smi(gpu(**fields))))) == [cause]


def test_unknown_counters_and_the_power_cap_are_no_ailment():
    fields = {
        "ecc_uncorrectable_volatile": unsupported("x", "N/A"), "memory_repair_failed": absent("x"),
        "recovery_action": absent("x"), "slowdowns": ("sw_power_cap", "gpu_idle"),
    }  # fmt: skip
    assert isinstance(judge("POD-HEALTH-001", replace(GOOD, nvidia_smi=smi(gpu(**fields)))), Pass)


IDENTITY = [
    (replace(GOOD, nvidia_smi=smi(gpu(vendor_device="10de:1e84"))), "W77"),
    (replace(GOOD, nvidia_smi=smi(gpu(), gpu(uuid="GPU-2", bus_id="0000:02:00.0"))), "K46"),
    (replace(GOOD, listed=value(ran("nvidia-smi -L", stdout="GPU 0: Tesla T4 (UUID: GPU-other)\n"))), "W77"),
]


@pytest.mark.parametrize(("facts", "cause"), IDENTITY)
def test_identity_differs(facts, cause):
    assert causes_of(judge("POD-IDENT-001", facts)) == [cause]


def test_void_environment_is_no_witness():
    facts = replace(GOOD, env=value((("NVIDIA_VISIBLE_DEVICES", "void"),)))
    assert isinstance(judge("POD-IDENT-001", facts), Pass)


def test_bus_id_is_not_the_guest_address():
    elsewhere = SimpleNamespace(pci=value((SimpleNamespace(address="0000:3b:00.0", vendor_device="10de:1eb8"),), "x"))
    assert causes_of(judge("POD-IDENT-002", of_talos=elsewhere)) == ["W77"]


def test_product_label_is_stale():
    labels = {"nvidia.com/gpu.product": "NVIDIA-A10"}
    cluster = SimpleNamespace(nodes=value((SimpleNamespace(name="moody-good", labels=labels),)))
    assert causes_of(judge("POD-IDENT-003", of_cluster=cluster)) == ["K58"]


def libraries(*names: str, capabilities: str | None = "compute,video,utility"):
    env = () if capabilities is None else (("NVIDIA_DRIVER_CAPABILITIES", capabilities),)
    return replace(GOOD, libraries=value(tuple(LIBRARY_FOLDER + n for n in names)), env=value(env))


CAPS = [
    (libraries("libcuda.so.1", capabilities="compute,utility"), ["K48"]),
    (libraries("libcuda.so.1", capabilities=None), ["K48"]),
    (libraries("libcuda.so.1", "libnvcuvid.so.1"), ["W13"]),
    (libraries("libcuda.so.1", "libnvidia-encode.so.1", capabilities="all"), ["W14"]),
    (libraries("libnvidia-ml.so.1"), ["W12"]),
]


@pytest.mark.parametrize(("facts", "wanted"), CAPS)
def test_video_library_missing(facts, wanted):
    assert causes_of(judge("POD-CAPS-001", facts)) == wanted


def nodes(*seen):
    return replace(GOOD, devices=value(seen))


OPEN = [
    (nodes(device("/dev/nvidiactl"), device("/dev/nvidia0", error="Operation not permitted")), "K37"),
    (nodes(device("/dev/nvidiactl"), device("/dev/nvidia0", "crw-rw----", "Permission denied")), "W73"),
    (nodes(*(device(f"/dev/nvidia{n}", error="Operation not permitted") for n in ("ctl", "0", "-uvm"))), "W03"),
]


@pytest.mark.parametrize(("facts", "cause"), OPEN)
def test_device_node_does_not_open(facts, cause):
    assert causes_of(judge("POD-OPEN-001", facts)) == [cause]


@pytest.mark.parametrize(
    "facts",
    [nodes(device("/dev/nvidia0")), nodes(device("/dev/nvidia-uvm", error="Operation not permitted"))],
)
def test_unified_memory_is_missing_or_closed(facts):
    assert causes_of(judge("POD-UVM-001", facts)) == ["W19"]


def vector(log: str, state: PodOutcome | None = None, **fields):
    ended = state or PodOutcome(Outcome.EXITED, exit_code=1)
    return replace(GOOD, vector_add=value(pod("vector-add", ended, log=log, **fields)))


def said(error: str):
    return vector(f"[Vector addition of 50000 elements]\nFailed to allocate device vector A (error code {error})!\n")


CUDA = [
    (said("CUDA driver version is insufficient for CUDA runtime version"), "W11"),
    (said("no kernel image is available for execution on the device"), "W65"),
    (said("no CUDA-capable device is detected"), "W20"),
    (said("out of memory"), "W18"),
    (said("unknown error"), "K69"),
    (vector("Result verification failed at element 7!\n"), "W79"),
    (vector("", outcome(Outcome.START, "cuda>=12.8", "cuda too new for driver")), "W10"),
    (vector("", outcome(Outcome.REJECTED, "...", "devices in use")), "K40"),
    (vector("", outcome(Outcome.REJECTED, "...", "no healthy device")), "K41"),
]


@pytest.mark.parametrize(("facts", "cause"), CUDA)
def test_cuda_kernel_fails(facts, cause):
    assert causes_of(judge("POD-CUDA-001", facts)) == [cause]


def test_cuda_image_that_cannot_be_had_is_unchecked():
    assert isinstance(judge("POD-CUDA-001", vector("", outcome(Outcome.IMAGE, "i/o timeout"))), Unchecked)


def overflow(state: PodOutcome, asked: int = 1, woke=None, fillers=()):
    woke = woke if woke is not None else value(0.8)
    return replace(GOOD, overflow=value(OverflowSeen(3, 3, asked, pod("overflow", state, asked), woke, fillers)))


WAITING = outcome(Outcome.UNSCHEDULABLE, INSUFFICIENT)
OVERFLOW = [
    (overflow(outcome(Outcome.REJECTED, "...", "devices in use")), "K40"),
    (overflow(WAITING, woke=failed("pod", "it still does not run", "waiting")), "K40"),
    (overflow(WAITING, fillers=(pod("filler", outcome(Outcome.REJECTED, "...", "devices in use")),)), "K40"),
    (overflow(WAITING, fillers=(pod("filler", outcome(Outcome.REJECTED, "...", "no healthy device")),)), "K41"),
]


@pytest.mark.parametrize(("facts", "cause"), OVERFLOW)
def test_overflow_pod_misbehaves(facts, cause):
    assert causes_of(judge("POD-OVERFLOW-001", facts)) == [cause]


def test_overflow_pod_woke():
    assert isinstance(judge("POD-OVERFLOW-001", overflow(WAITING)), Pass)


@pytest.mark.parametrize(
    "facts",
    [
        overflow(outcome(Outcome.UNSCHEDULABLE, "0/1 nodes are available: 1 Insufficient cpu.")),
        overflow(RUNNING, asked=2),
    ],
)
def test_overflow_that_proves_nothing_is_unchecked(facts):
    assert isinstance(judge("POD-OVERFLOW-001", facts), Unchecked)


def test_two_slots_granted():
    facts = replace(GOOD, over_request=value(pod("over-request", RUNNING, asked=2)))
    assert causes_of(judge("POD-OVERREQ-001", facts)) == ["K12"]


def leaking(paths=("/dev/nvidia0",), listed=f"GPU 0: Tesla T4 (UUID: {UUID})\n"):
    return LeakSeen(pod("leak", asked=0), value(paths), value(ran("nvidia-smi -L", stdout=listed)))


@pytest.mark.parametrize(
    "facts", [replace(GOOD, leak=value(leaking())), replace(GOOD, runtime_class_only=value(leaking()))]
)
def test_pod_without_a_request_sees_the_gpu(facts):
    assert causes_of(judge("POD-LEAK-001", facts)) == ["K44"]


def test_hardened_runtime_that_refuses_is_fine():
    refused = outcome(Outcome.START, "insufficient privileges to read device list", "visible devices refused")
    leak = replace(leaking(), pod=pod("leak", refused, asked=0))
    assert isinstance(judge("POD-LEAK-001", replace(GOOD, leak=value(leak))), Pass)


def test_workload_takes_the_gpu_without_a_slot():
    facts = replace(GOOD, slots=slots(unaccounted=(holder("media/plex-0", 0),)))
    judgement = judge("POD-LEAK-002", facts)
    assert causes_of(judgement) == ["W53"]
    assert judgement.problems[0].subject == "media/plex-0"


def test_unshared_card_may_be_exclusive():
    exclusive = replace(GOOD, nvidia_smi=smi(gpu(compute_mode="Exclusive_Process")))
    alone = lab(sharing={"strategy": "none", "replicas": 1})
    assert isinstance(judge("POD-HEALTH-001", exclusive, alone), Pass)
