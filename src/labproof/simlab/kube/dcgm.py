"""dcgm-exporter: collects every interval what the cards it sees tell, and answers `/metrics` with the last collection.

Labels and the default counters: NVIDIA/dcgm-exporter etc/default-counters.csv and README; facts/kubernetes-gpu.md 6.
The log of a start without NVML is that of 4.8.4 (NVIDIA/dcgm-exporter#612, 2026-09).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labproof.simlab.kube.kinds import Obj
from labproof.simlab.kube.plugin import nvml_error
from labproof.simlab.kube.pod_http import Answer, Asked
from labproof.simlab.kube.services import Running
from labproof.simlab.pod.readings import Readings, read_card
from labproof.simlab.world.states import NodeGpu

PORT = 9400
_INTERVAL_MS = 30000
_BLANK = 9223372036854775794  # what DCGM answers where a card does not tell (README)


@dataclass(frozen=True)
class Counter:
    """One field of the counters list."""

    name: str
    kind: str
    help: str
    read: Callable[[NodeGpu, Readings], float]


def _xid(gpu: NodeGpu, _now: Readings) -> float:
    incidents = gpu.card.inputs.get("incidents") or {}
    return float(list(incidents)[-1]) if incidents else 0.0


_COUNTERS = (
    Counter("DCGM_FI_DEV_SM_CLOCK", "gauge", "SM clock frequency (in MHz).", lambda _g, r: r.graphics_mhz),
    Counter("DCGM_FI_DEV_MEM_CLOCK", "gauge", "Memory clock frequency (in MHz).", lambda _g, r: r.memory_mhz),
    Counter("DCGM_FI_DEV_MEMORY_TEMP", "gauge", "Memory temperature (in C).", lambda _g, _r: 0),
    Counter("DCGM_FI_DEV_GPU_TEMP", "gauge", "GPU temperature (in C).", lambda _g, r: r.temperature_c),
    Counter("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W).", lambda _g, r: r.power_w),
    Counter("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "counter", "Total number of PCIe retries.", lambda _g, _r: 0),
    Counter("DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization (in %).", lambda _g, r: r.gpu_percent),
    Counter("DCGM_FI_DEV_MEM_COPY_UTIL", "gauge", "Memory utilization (in %).", lambda _g, r: r.memory_percent),
    Counter("DCGM_FI_DEV_ENC_UTIL", "gauge", "Encoder utilization (in %).", lambda _g, r: r.encoder_percent),
    Counter("DCGM_FI_DEV_DEC_UTIL", "gauge", "Decoder utilization (in %).", lambda _g, r: r.decoder_percent),
    Counter("DCGM_FI_DEV_XID_ERRORS", "gauge", "Value of the last XID error encountered.", _xid),
    Counter("DCGM_FI_DEV_FB_FREE", "gauge", "Framebuffer memory free (in MiB).", lambda _g, r: r.free_mib),
    Counter("DCGM_FI_DEV_FB_USED", "gauge", "Framebuffer memory used (in MiB).", lambda _g, r: r.used_mib),
    Counter("DCGM_FI_DEV_VGPU_LICENSE_STATUS", "gauge", "vGPU License status", lambda _g, _r: 0),
)
#: Profiling counters: data-centre cards since Volta, consumer cards since Blackwell (DCGM#234).
_PROFILING = Counter(
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "gauge", "Ratio of time the graphics engine is active.",
    lambda _g, r: r.gpu_percent / 100,
)  # fmt: skip


def dcgm_exporter(running: Running) -> Callable[[], None] | None:
    """Start: NVML must be there; then collect every interval and listen on 9400."""
    running.log('level=INFO msg="Starting dcgm-exporter"')
    running.log('level=INFO msg="DCGM successfully initialized!"')
    error = nvml_error(running)
    if error:
        running.log(f'level=ERROR msg="Cannot init NVML library; err: {error}"')
        running.log(f"level=ERROR msg={error}")
        running.later(0.3, lambda: running.exit(1, ""))
        return None
    gpus = running.world.gpus
    if not any(map(_profiles, gpus)):
        module = "This request is serviced by a module of DCGM that is not currently loaded"
        running.log(f'level=INFO msg="Not collecting DCP metrics: {module}"')
    counters = _counters(running)
    every = float(_option(running, "DCGM_EXPORTER_INTERVAL", "-c", "--collect-interval") or _INTERVAL_MS) / 1000
    page = [""]

    def collect() -> None:
        page[0] = _page(running, gpus, counters)
        running.later(max(0.5, every), collect)

    async def answer(asked: Asked) -> Answer:
        if asked.path == "/metrics":
            return Answer(page[0].encode(), content_type="text/plain")
        return Answer(b"404 page not found\n", 404, "text/plain")

    collect()
    return running.kubelet.cluster.listeners.listen(running.pod["metadata"]["uid"], PORT, answer)


def _option(running: Running, variable: str, *names: str) -> str:
    for number, word in enumerate(running.argv):
        name, given, text = word.partition("=")
        if name in names:
            return text if given else next(iter(running.argv[number + 1 : number + 2]), "")
    return running.world.env.get(variable, "")


def _counters(running: Running) -> tuple[Counter, ...]:
    """The default list, or the CSV of a ConfigMap that is mounted where `-f` points."""
    text = _mounted(running, _option(running, "DCGM_EXPORTER_COLLECTORS", "-f", "--collectors"))
    if text is None:
        return (*_COUNTERS, _PROFILING)
    names = {line.split(",")[0].strip() for line in text.splitlines() if not line.startswith("#")}
    return tuple(c for c in (*_COUNTERS, _PROFILING) if c.name in names)


def _mounted(running: Running, path: str) -> str | None:
    """A file of a ConfigMap volume, None when nothing of the kind is mounted there."""
    pod = running.pod
    maps = {v["name"]: v["configMap"]["name"] for v in pod["spec"].get("volumes") or () if v.get("configMap")}
    for mount in running.container.spec.get("volumeMounts") or ():
        place = str(mount["mountPath"]).rstrip("/")
        if mount["name"] not in maps or not path.startswith(f"{place}/"):
            continue
        found = running.kubelet.cluster.store.get("configmaps", maps[mount["name"]], pod["metadata"]["namespace"])
        return str((found.get("data") or {}).get(path[len(place) + 1 :], "")) if found else None
    return None


def _profiles(gpu: NodeGpu) -> bool:
    inputs = gpu.card.inputs
    major = float(str(inputs.get("compute_capability", "0")))
    return major >= (10 if inputs.get("session_limit") == "consumer" else 7)


def _holders(running: Running, gpu: NodeGpu) -> list[Obj]:
    """Pods that hold a slot of this card, as the kubelet's podresources tell, oldest first."""
    held = []
    for run in running.kubelet.runs.values():
        for container in run.mains if not run.finished else ():
            ids = [i for found in container.held.values() for i in found]
            if any(i.partition("::")[0] == gpu.uuid for i in ids):
                labels = {"container": container.name, "namespace": run.namespace, "pod": run.name}
                held.append((run.start_time, labels))
    return [labels for _, labels in sorted(held, key=lambda h: (h[0], h[1]["pod"]))]


def _page(running: Running, gpus: tuple[NodeGpu, ...], counters: tuple[Counter, ...]) -> str:
    env, node = running.world.env, running.kubelet.state
    every = env.get("KUBERNETES_VIRTUAL_GPUS", "").lower() == "true"
    cards = []
    for number, gpu in enumerate(gpus):
        labels = {
            "gpu": str(number), "UUID": gpu.uuid, "pci_bus_id": f"0000{gpu.address}".upper(),
            "device": f"nvidia{gpu.index}", "modelName": gpu.card.inputs["product"],
            "Hostname": env.get("NODE_NAME") or env.get("HOSTNAME", ""),
            "DCGM_FI_DRIVER_VERSION": node.driver_version or "",
        }  # fmt: skip
        holders = _holders(running, gpu)
        rows = [{**h, "vgpu": str(n)} for n, h in enumerate(holders)] if every else holders[:1]
        texts = [",".join(f'{k}="{v}"' for k, v in {**labels, **row}.items()) for row in rows or [{}]]
        cards.append((gpu, read_card(gpu.card), texts))
    lines: list[str] = []
    for counter in counters:
        lines += [f"# HELP {counter.name} {counter.help}", f"# TYPE {counter.name} {counter.kind}"]
        for gpu, now, texts in cards:
            if counter is _PROFILING and not _profiles(gpu):
                continue
            silent = counter.name.endswith("MEMORY_TEMP") and gpu.card.inputs.get("ecc") is None
            told = str(_BLANK) if silent else f"{counter.read(gpu, now):g}"
            lines += [f"{counter.name}{{{text}}} {told}" for text in texts]
    return "\n".join(lines) + "\n" if gpus else ""
