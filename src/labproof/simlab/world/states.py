"""Derived states that one layer of the simulated lab hands to the layer above.

Nothing here is an input: faults and variations change inputs (labs/*/world/*.yaml), and each layer derives its state
from its own inputs and the state below. That is what makes a symptom follow from its cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Inputs = Mapping[str, Any]


@dataclass
class Card:
    """One physical GPU, shared by whoever sees it: abilities, and the counters that move while work runs.

    Attributes:
        key: name in `cards.yaml`.
        inputs: that entry (model, pci ids, uuid, memory_mib, encoders, decoders, session_limit, ecc, power, faults).
        host_address: PCI address on the host (or on the metal node).
        sessions: encoder sessions open now, by owner.
        vram: MiB held now, by owner.
        decoding: decode streams running now, by owner.
        idle_ms: what the residency counter of the render power state showed when last looked at (Intel: rc6).
        looked_at: when that was, in seconds of the monotonic clock.
        happened: Xid numbers that work brought about since the world began, with their time (Unix seconds).
    """

    key: str
    inputs: Inputs
    host_address: str
    sessions: dict[str, float] = field(default_factory=dict)
    vram: dict[str, int] = field(default_factory=dict)
    decoding: dict[str, float] = field(default_factory=dict)
    idle_ms: float = 3_600_000.0
    looked_at: float = 0.0
    happened: list[tuple[float, int]] = field(default_factory=list)


@dataclass(frozen=True)
class GuestPci:
    """A PCI function as the guest (or metal node) sees it."""

    address: str  # in the guest, 0000:01:00.0
    host_address: str
    vendor_device: str  # 10de:1eb8
    subsystem: str
    pci_class: str  # 0x030200
    card: Card | None = None  # None for audio/USB functions and other devices
    # "" | "bar" (BAR not assigned) | "dead" (config reads ff) | "no-reset" (worked once, not after the second start)
    defect: str = ""


@dataclass(frozen=True)
class VmState:
    """A VM as its guest experiences it."""

    host: str
    vmid: int
    name: str
    running: bool
    why_not: str  # PVE's own text of the failed start task, "" when running
    bios: str  # ovmf | seabios
    machine: str  # pc-q35-9.2+pve1
    smbios_uuid: str
    memory_mib: int
    started_at: float  # Unix seconds
    pci: tuple[GuestPci, ...] = ()
    agent: bool = True  # the virtio port of the guest agent exists


@dataclass(frozen=True)
class DeviceNode:
    """A device node under /dev on a node."""

    path: str
    mode: int  # permission bits, 0o666
    uid: int = 0
    gid: int = 0
    major: int = 195
    minor: int = 0


@dataclass(frozen=True)
class NodeGpu:
    """A GPU that a node's driver really drives."""

    card: Card
    address: str  # PCI address in the node
    uuid: str
    index: int


@dataclass(frozen=True)
class DrmDevice:
    """A GPU that a DRM driver with a render node drives (i915, xe): its nodes and what became of its firmware."""

    card: Card
    address: str  # PCI address in the node
    vendor_device: str  # 8086:9a49
    driver: str  # i915 | xe
    card_node: str  # /dev/dri/card1
    render_node: str  # /dev/dri/renderD128
    guc: bool = False  # the scheduler firmware submits the work
    huc: bool = False  # the media firmware is authenticated


@dataclass(frozen=True)
class NodeState:
    """A node's operating system as the kubelet and its containers experience it."""

    name: str
    address: str
    up: bool  # the kernel runs and the network answers
    os: str  # talos | linux
    os_version: str  # v1.11.6
    kernel: str  # 6.12.62-talos
    boot_id: str
    booted_at: float  # Unix seconds
    stage: str  # Talos machine stage: booting | running | ...
    driver_version: str | None  # NVIDIA kernel module loaded, None when not
    driver_open: bool
    library_version: str | None  # NVIDIA user libraries of the toolkit extension, None when not installed
    library_root: str  # /usr/local/glibc/usr/lib up to 1.12, /usr/local/lib from 1.13
    modules: frozenset[str]  # loaded, Live
    gpus: tuple[NodeGpu, ...]  # driven GPUs only
    device_nodes: tuple[DeviceNode, ...]
    runtime_handlers: tuple[str, ...]  # containerd handlers: runc, nvidia
    default_runtime: str
    broken_handlers: tuple[str, ...] = ()  # configured, but their binary does not exist
    cdi_enabled: bool = False
    cdi_spec: bool = False  # /run/cdi/nvidia.yaml exists
    nri_enabled: bool = False
    extensions: tuple[tuple[str, str], ...] = ()  # (name, version) as the kubelet labels the node
    schematic: str | None = None
    node_labels: tuple[tuple[str, str], ...] = ()  # machine.nodeLabels
    node_taints: tuple[tuple[str, str], ...] = ()  # machine.nodeTaints: key, value:effect
    bpf_jit_harden: int = 2
    dmesg: tuple[str, ...] = ()  # kernel log lines so far (text only)
    pci: tuple[GuestPci, ...] = ()
    toolkit: str | None = None  # version of the container toolkit
    containers_start: bool = True  # False when every sandbox fails (default runtime names a missing handler)
    before: NodeState | None = None  # how it stood until `changed_at`, where something happened to it since its boot
    changed_at: float = 0.0  # Unix seconds
    drm: tuple[DrmDevice, ...] = ()
    every_container: tuple[str, ...] = ()  # device nodes that the runtime's own base specification gives to all


@dataclass
class Process:
    """A running program of a container, as /proc shows it to the container's other processes."""

    argv: tuple[str, ...]
    opened: dict[int, str] = field(default_factory=dict)  # file descriptor -> path
    engines: dict[str, float] = field(default_factory=dict)  # engine -> nanoseconds of work done for it


@dataclass
class PodWorld:
    """What a process in a container can see and touch.

    Attributes:
        owner: "namespace/pod" for card bookkeeping.
        image: image reference; decides which programs and files exist.
        env: environment of the container after kubelet, plugin and runtime.
        uid: user id the process runs as.
        devices: device nodes present in the container, path -> node.
        allowed: paths the device cgroup lets it open.
        libraries: driver libraries injected: libcuda.so.1, libnvidia-ml.so.1, libnvidia-encode.so.1, libnvcuvid.so.1
        programs: programs injected: nvidia-smi ...
        gpus: GPUs visible to this container, in order.
        files: writable files of the container: path -> record (media files) or bytes.
        image_inputs: what a cluster's inputs say about its images (`clusters.<name>.images`), for the programs' model.
        volumes: mount points of writable volumes.
        gids: groups of the process.
        loader_broken: an injected library makes every program die while it is loaded (SIGSEGV).
        processes: programs that work on a GPU now, by process id.
    """

    owner: str
    image: str
    env: dict[str, str]
    uid: int
    node: NodeState
    devices: dict[str, DeviceNode]
    allowed: frozenset[str]
    libraries: frozenset[str]
    programs: frozenset[str]
    gpus: tuple[NodeGpu, ...]
    files: dict[str, Any] = field(default_factory=dict)
    cpu_limit: float = 2.0
    memory_limit_mib: int = 2048
    read_only_root: bool = False
    image_inputs: Inputs = field(default_factory=dict)
    volumes: tuple[str, ...] = ("/tmp",)  # noqa: S108 - a path in the simulated container
    gids: frozenset[int] = frozenset()
    loader_broken: bool = False
    processes: dict[int, Process] = field(default_factory=dict)
