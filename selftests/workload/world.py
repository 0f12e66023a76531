"""A healthy T4 chain as typed workload facts; tests replace what a fault would change and ask for a judgement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from labproof.checks.judgement import Fail, Judgement
from labproof.checks.registry import clauses
from labproof.checks.subject import Subject
from labproof.facts.nvidia_smi import SmiGpu, SmiReport
from labproof.facts.pod_command import Ran
from labproof.facts.pod_outcome import Outcome, PodOutcome
from labproof.facts.reading import NOT_ASKED, Reading, absent, unsupported, value
from labproof.facts.scheduler_message import parse_unschedulable
from labproof.facts.workload import (
    DeviceSeen,
    Floors,
    ImageChoice,
    LeakSeen,
    OverflowSeen,
    PodSeen,
    SlotHolder,
    Slots,
    SmiSeen,
    WorkloadFacts,
)
from labproof.inventory.chains import features_of, targets_of
from labproof.inventory.models import Lab

NODE, RESOURCE, UUID = "moody-good", "nvidia.com/gpu", "GPU-8f2c1d34-55aa-4b21-9c0e-001122334455"
LIBRARY_FOLDER = "/usr/lib/x86_64-linux-gnu/"
INSUFFICIENT = (
    "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint(s). no new claims to "
    "deallocate, preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod."
)


def lab(**cluster: Any) -> Lab:
    """The T4 lab; keywords replace settings of its cluster."""
    settings = {
        "name": "moody",
        "kubeconfig": "unused",
        "plugin": {"flavour": "nvidia-device-plugin", "discovery": "nvml"},
        "discovery": {"nfd": "vendor", "gfd": True},
        "sharing": {"strategy": "time-slicing", "replicas": 4},
        "workloads": [{"name": "media/jellyfin", "slots": 1}],
    }
    return Lab.model_validate(
        {
            "lab": "t4",
            "hosts": [{"name": "pve5", "ssh": {"address": "pve5"}, "pve": {"url": "https://pve5:8006"}}],
            "gpus": [{"name": "t4", "host": "pve5", "device": "10de:1eb8", "address": "0000:3b:00.0"}],
            "vms": [{"name": "vm", "host": "pve5", "id": 1105, "gpus": ["t4"]}],
            "nodes": [{"name": NODE, "cluster": "moody", "vm": "vm", "talos": {"talosconfig": "unused"}}],
            "clusters": [settings | cluster],
            "timings": {"poll_s": 0.01, "pod_start_s": 2.0, "pod_pending_s": 0.05, "transcode_s": 2.0,
                        "command_s": 2.0, "sample_s": 1.0, "sample_poll_s": 0.01},
        }
    )  # fmt: skip


def ran(argv: str, rc: int | None = 0, stdout: str = "", stderr: str = "", why: str = "", missing: bool = False) -> Ran:
    return Ran(tuple(argv.split()), rc, stdout, stderr, why, missing, 1000.0, 1000.5)


def gpu(**fields: Any) -> SmiGpu:
    """A healthy T4; keywords replace fields by plain values."""
    healthy: dict[str, Any] = {
        "bus_id": "0000:01:00.0", "vendor_device": "10de:1eb8", "product_name": "Tesla T4", "architecture": "Turing",
        "uuid": UUID, "virtualization_mode": "Pass-Through", "persistence_mode": "Enabled", "compute_mode": "Default",
        "performance_state": "P8", "gsp_firmware": "570.172.08", "recovery_action": "None", "memory_total": 15360,
        "memory_used": 0, "memory_free": 14913, "gpu_util": 0, "encoder_util": 0, "decoder_util": 0,
        "encoder_sessions": 0, "ecc_mode": "Enabled", "ecc_uncorrectable_volatile": 0,
        "ecc_uncorrectable_aggregate": 0, "memory_repair_pending": False, "memory_repair_failed": False,
        "temperature": 40, "slowdown_temperature": 93, "power_draw": 20.0, "power_limit": 70.0, "link_gen_current": 3,
        "link_gen_max": 3, "link_width_current": 16, "link_width_max": 16, "slowdowns": ("gpu_idle",),
    }  # fmt: skip
    return SmiGpu(**{name: v if isinstance(v, Reading) else value(v) for name, v in (healthy | fields).items()})


def smi(*gpus: SmiGpu, **run: Any) -> Reading[SmiSeen]:
    report = SmiReport("nvsmi_device_v12.dtd", value("570.172.08"), value("12.8"), value(len(gpus)), gpus)
    return value(SmiSeen(ran("nvidia-smi -q -x", **run), value(report)))


def smi_failed(rc: int | None, stdout: str = "", **run: Any) -> Reading[SmiSeen]:
    return value(SmiSeen(ran("nvidia-smi -q -x", rc, stdout, **run), absent("nvidia-smi -q -x")))


def outcome(kind: Outcome, text: str = "", detail: str = "", **fields: Any) -> PodOutcome:
    why = parse_unschedulable(text) if kind is Outcome.UNSCHEDULABLE else None
    return PodOutcome(kind, text=text, detail=detail, unschedulable=why, **fields)


RUNNING = PodOutcome(Outcome.RUNNING, source="status.phase")


def pod(role: str, state: PodOutcome | None = RUNNING, asked: int = 1, log: str = "", **fields: Any) -> PodSeen:
    return PodSeen(role, f"labproof-{role}-1", "labproof", "image", asked, state, log=log, **fields)


def device(path: str, mode: str = "crw-rw-rw-", error: str = "") -> DeviceSeen:
    opened = ran(f"dd if={path}", 1, stderr=f"dd: failed to open '{path}': {error}") if error else ran(f"dd if={path}")
    return DeviceSeen(path, mode, 0, 0, opened, opened)


def holder(name: str, slots: int, **fields: Any) -> SlotHolder:
    namespace, _, plain = name.partition("/")
    known = {
        "since": "2026-11-20T18:00:00Z",
        "phase": "Running",
        "priority": 0,
        "ours": False,
        "controller": "ReplicaSet",
    }
    return SlotHolder(namespace, plain, NODE, slots, **(known | fields))


def slots(**fields: Any) -> Slots:
    known = {"allocatable": 4, "capacity": 4, "holders": (holder("media/jellyfin-0", 1),)}
    return Slots(RESOURCE, NODE, **(known | fields))


def healthy() -> WorkloadFacts:
    nothing = LeakSeen(pod("leak", asked=0), value(()), value(ran("nvidia-smi -L", None, missing=True, why="no such")))
    libraries = ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-encode.so.1", "libnvcuvid.so.1")
    return WorkloadFacts(
        "pve5/0000:3b:00.0",
        NODE,
        RESOURCE,
        "labproof",
        "pod",
        "run1",
        1000.0,
        slots(),
        ImageChoice("image", True, 1, "the node has it"),
        value(pod("probe")),
        nvidia_smi=smi(gpu()),
        listed=value(ran("nvidia-smi -L", stdout=f"GPU 0: Tesla T4 (UUID: {UUID})\n")),
        env=value((("NVIDIA_DRIVER_CAPABILITIES", "compute,video,utility"), ("NVIDIA_VISIBLE_DEVICES", UUID))),
        uid=value(0),
        devices=value(tuple(device(f"/dev/nvidia{name}") for name in ("ctl", "0", "-uvm"))),
        libraries=value(tuple(LIBRARY_FOLDER + name for name in libraries)),
        floors=value(Floors(14913, 0, 40, "")),
        vector_add=value(
            pod("vector-add", PodOutcome(Outcome.SUCCEEDED, exit_code=0), log="[Vector addition]\nTest PASSED\nDone\n")
        ),
        leak=value(nothing),
        runtime_class_only=value(replace(nothing, pod=pod("runtime-class-only", asked=0))),
        overflow=value(
            OverflowSeen(3, 0, 4, pod("overflow", outcome(Outcome.UNSCHEDULABLE, INSUFFICIENT), 4), NOT_ASKED)
        ),
        over_request=value(
            pod("over-request", outcome(Outcome.REJECTED, "...", "more than one replica asked"), asked=2)
        ),
    )


@dataclass
class Recorded:
    """Facts by layer, as `labproof.facts.bundle.Facts` hands them out."""

    of_workload: Any = None
    of_transcode: Any = None
    of_talos: Any = None
    of_cluster: Any = None
    now: float = 1000.0

    def workload(self, chain: str) -> Reading[Any]:
        return _reading(self.of_workload)

    def transcode(self, chain: str) -> Reading[Any]:
        return _reading(self.of_transcode)

    def talos(self, node: str) -> Reading[Any]:
        return _reading(self.of_talos)

    def cluster(self, name: str) -> Reading[Any]:
        return _reading(self.of_cluster)


def _reading(facts: Any) -> Reading[Any]:
    return (
        facts if isinstance(facts, Reading) else (unsupported("test", "not given") if facts is None else value(facts))
    )


def expected(ident: str, declared: Lab | None = None) -> bool:
    """Whether the unit lab declares what a clause needs."""
    found = clauses()[ident]
    return all(
        set(found.wants) <= features_of(declared or lab(), t)
        for t in targets_of(declared or lab(), found.scope, found.layer)
    )


def judge(clause: str, facts: Any = None, declared: Lab | None = None, **layers: Any) -> Judgement:
    """The clause's judgement on these workload facts (a Reading or the facts themselves)."""
    found = clauses()[clause]
    target = targets_of(declared or lab(), found.scope, found.layer)[0]
    recorded = Recorded(facts if facts is not None else healthy(), **layers)
    return found.judge(Subject(recorded, declared or lab(), target))  # type: ignore[arg-type]


def causes_of(judgement: Judgement) -> list[str]:
    """The causes of a Fail; fails the test for anything else."""
    assert isinstance(judgement, Fail), judgement
    return [problem.cause for problem in judgement.problems]
