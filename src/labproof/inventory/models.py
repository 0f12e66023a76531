"""lab.yaml as typed models: what an owner declares, in the field's words.

Every model forbids unknown keys, so a typo is an error with its line, never a silent default.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, TypeVar

from pydantic import Field, SecretStr, StringConstraints

from labproof.inventory.branches import App, GitOps, Metrics
from labproof.inventory.declared import Declared, Name

PciAddress = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{4,}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")]
VendorDevice = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")]


# ------------------------------------------------------------------ hosts


class Ssh(Declared):
    """How the host is reached over SSH; everything not given comes from ~/.ssh/config."""

    address: Name  # host name, IP, or an alias of ~/.ssh/config
    port: int | None = Field(None, ge=1, le=65535)
    user: str | None = None
    key: str | None = None  # path of a private key file
    password: SecretStr | None = None
    agent: bool = True
    jump: str | None = None  # alias or user@host:port
    known_hosts: str | None = None  # path; default ~/.ssh/known_hosts


class PveApi(Declared):
    """Proxmox VE API; a token is enough for everything the suite reads."""

    url: Name  # https://pve5.lan:8006
    token_id: str | None = None  # labproof@pve!suite
    token_secret: SecretStr | None = None
    user: str | None = None  # for a ticket: root@pam
    password: SecretStr | None = None
    ca: str | None = None  # path of pve-root-ca.pem
    node: str | None = None  # PVE node name where it differs from the host's name


class Kernel(Declared):
    """Kernel command line tokens the owner wants; empty = what the kernel version and CPU need."""

    wanted: tuple[str, ...] = ()


class Host(Declared):
    """A machine with a PCI slot."""

    name: Name
    kind: Literal["proxmox", "linux"] = "proxmox"
    ssh: Ssh | None = None
    pve: PveApi | None = None
    kernel: Kernel = Kernel()
    bind_at_boot: bool = True  # policy: vfio-pci holds the card from boot on, not only when the VM starts


class Gpu(Declared):
    """One card, on one host."""

    name: Name
    host: str | None = None  # none on bare metal Talos or plain Kubernetes
    device: VendorDevice  # 10de:1eb8
    address: PciAddress | None = None  # 0000:3b:00.0
    functions: tuple[VendorDevice, ...] = ()  # further functions of the slot (audio, USB), in order
    power_limit_watts: float | None = Field(default=None, gt=0)  # the limit that should be in force


# ------------------------------------------------------------------ VMs


class VmMatch(Declared):
    """Join a VM by something that outlives a rebuild."""

    mapping: str | None = None
    smbios_uuid: str | None = None
    name: str | None = None  # glob pattern


class Vm(Declared):
    """A VM that a GPU is passed to."""

    name: Name
    host: Name
    id: int | None = Field(None, ge=100)
    mac: str | None = None
    match: VmMatch | None = None
    gpus: tuple[str, ...] = ()  # names of GPUs, in hostpci order
    mapping: str | None = None  # PCI mapping id that hostpci is expected to use
    machine: Literal["q35", "i440fx"] | None = None
    bios: Literal["ovmf", "seabios"] | None = None
    cpu: str | None = None
    memory_mib: int | None = None
    state: Literal["always", "on-demand", "parked"] = "always"


# ------------------------------------------------------------------ nodes


class Talos(Declared):
    """Talos API of a node."""

    talosconfig: Name  # path
    admin_talosconfig: str | None = None  # path of one with os:admin, for --provision; default: `talosconfig` itself
    context: str | None = None
    node: str | None = None  # address for the `node` metadata; default: the node's own
    version: str | None = None  # v1.11.6
    schematic: str | None = None  # 64 hex
    extensions: tuple[str, ...] = ()  # official names without `siderolabs/`, in schematic order
    modules: tuple[str, ...] = ("nvidia", "nvidia_uvm", "nvidia_drm", "nvidia_modeset")


class Node(Declared):
    """A Kubernetes node that a GPU reaches."""

    name: Name  # Kubernetes node name
    cluster: Name
    os: Literal["talos", "linux"] = "talos"
    vm: str | None = None  # none on bare metal
    gpus: tuple[str, ...] = ()  # bare metal only: GPUs in the machine
    talos: Talos | None = None
    ssh: Ssh | None = None  # for os: linux
    control_plane: bool = False


# ------------------------------------------------------------------ clusters


class Plugin(Declared):
    """What makes the GPU a Kubernetes resource."""

    flavour: Literal["nvidia-device-plugin", "gpu-operator", "intel", "generic", "hostpath"]
    resource: str | None = None  # default by flavour, e.g. nvidia.com/gpu
    namespace: str | None = None
    version: str | None = None  # chart or image version, e.g. 0.18.2
    discovery: Literal["nvml", "auto", "tegra"] | None = None

    @property
    def resource_name(self) -> str:
        """The extended resource a pod asks for."""
        if self.resource:
            return self.resource
        return {"intel": "gpu.intel.com/i915"}.get(self.flavour, "nvidia.com/gpu")


class Discovery(Declared):
    """Which labels to expect: `none` when labels are typed by hand."""

    nfd: Literal["none", "stock", "vendor"] = "none"
    gfd: bool = False


class Sharing(Declared):
    """Time-slicing of every card of the cluster."""

    strategy: Literal["none", "time-slicing", "mps", "shared"] = "none"  # shared: Intel's sharedDevNum
    replicas: int = Field(1, ge=1)
    rename: bool = False


class RuntimeClass(Declared):
    """The RuntimeClass GPU pods name, and whether it must be there."""

    name: str = "nvidia"
    expected: Literal["present", "absent"] = "present"
    default_runtime: str = "runc"


class Taint(Declared):
    """A node taint the owner wants."""

    key: Name
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"


class Scheduling(Declared):
    """Labels and taints a GPU node carries by the owner's will."""

    labels: dict[str, str] = Field(default_factory=dict)
    taints: tuple[Taint, ...] = ()


class Workload(Declared):
    """An owner's workload that holds GPU slots."""

    name: Name  # namespace/name of the workload (Deployment, StatefulSet, Pod prefix)
    slots: int = Field(1, ge=0)
    state: Literal["always", "on-demand", "parked"] = "always"
    vram_mib: int | None = Field(default=None, ge=0)  # card memory it needs while it works


class Probe(Declared):
    """The pod the suite works in."""

    via: Literal["pod", "exec"] = "pod"
    pod: str | None = None  # namespace/name for via: exec
    container: str | None = None
    namespace: str = "labproof"
    image: str = "docker.io/jellyfin/jellyfin:10.11"
    cuda_image: str = "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0"
    ffmpeg: str = "/usr/lib/jellyfin-ffmpeg/ffmpeg"
    ffprobe: str = "/usr/lib/jellyfin-ffmpeg/ffprobe"
    vainfo: str | None = "/usr/lib/jellyfin-ffmpeg/vainfo"  # null: the image has none
    env: dict[str, str] = Field(default_factory=dict)  # what ffmpeg and vainfo need, e.g. LD_LIBRARY_PATH
    pull_policy: Literal["IfNotPresent", "Never", "Always"] = "IfNotPresent"
    pull_secret: str | None = None
    cpu: str = "2"
    memory: str = "2Gi"
    uid: int = 0
    max_slots: int | None = None  # never more than free - 1 unless this says so
    min_free_vram_mib: int = 1024
    vram_mib: int | None = Field(default=None, ge=96)  # card memory that our pod must be able to take
    max_encoder_sessions: int | None = None
    max_temperature_c: int = 85


class Transcode(Declared):
    """Codecs the owner expects the card to do; empty = everything its capability row says."""

    encode: tuple[str, ...] = ()
    decode: tuple[str, ...] = ()
    at_once: int | None = None  # default: slots free, at most sharing.replicas
    low_power: bool = False  # Intel: low-power encoding with bit rate control, which needs HuC
    qsv: bool = False  # Intel: apps use Quick Sync
    tone_mapping: bool = False  # HDR is mapped on the card
    subtitles: bool = False  # subtitles are burned in on the card


class Cluster(Declared):
    """A Kubernetes cluster."""

    name: Name
    kubeconfig: Name  # path
    context: str | None = None
    version: str | None = None
    plugin: Plugin
    injection: Literal["legacy", "cdi", "nri"] = "legacy"
    discovery: Discovery = Discovery()
    sharing: Sharing = Field(default_factory=lambda: Sharing(strategy="none", replicas=1))
    runtime_class: RuntimeClass = RuntimeClass()
    scheduling: Scheduling = Scheduling()
    probe: Probe = Probe()
    transcode: Transcode = Transcode()
    compute: bool = True
    workloads: tuple[Workload, ...] = ()
    metrics: Metrics | None = None
    apps: tuple[App, ...] = ()
    gitops: GitOps | None = None


# ------------------------------------------------------------------ the rest


class Rights(Declared):
    """Rights beyond the shipped read-only roles; a clause that needs one is expected only where it is declared."""

    host: Literal["root", "reader"] = "root"
    talos: Literal["os:reader", "os:operator", "os:admin"] = "os:reader"
    acts: tuple[Literal["vm-restart"], ...] = ()  # opt-in experiments; `--allow vm-restart` adds its word for one run


class Factory(Declared):
    """An Image Factory that --provision may register schematics with; without one it asks none."""

    url: Name  # https://factory.talos.dev
    ca: str | None = None  # path of its CA, for one of your own
    registry: str | None = None  # host in image references; default: the url's

    @property
    def image_host(self) -> str:
        """The first part of an image reference."""
        return self.registry or self.url.partition("://")[2].strip("/")


class Timings(Declared):
    """Durations in seconds; simulated labs declare short ones."""

    connect_s: float = 10.0
    command_s: float = 60.0
    request_s: float = 30.0
    stable_reads: int = 3
    stable_interval_s: float = 10.0
    pod_start_s: float = 600.0
    pod_pending_s: float = 15.0
    poll_s: float = 1.0
    sample_s: float = 10.0  # length of a test clip in seconds
    sample_poll_s: float = 0.5
    transcode_s: float = 180.0
    deadline_s: float = 3600.0
    initramfs_s: float = 1800.0  # provisioning: an initramfs with all modules took 642 s (facts real-host)
    reboot_s: float = 1800.0  # provisioning: servers take long to start
    shutdown_s: float = 180.0  # provisioning: a guest's own shutdown
    drain_s: float = 600.0  # provisioning: until all pods of a node are evicted (budgets may make it wait)
    upgrade_s: float = 1800.0  # provisioning: pull, install and boot of a Talos image (talosctl waits 30 m)


class Acceptance(Declared):
    """A failure the owner lives with: becomes verdict `excepted` until the date."""

    clause: Name
    reason: Name
    cause: str | None = None
    chain: str | None = None
    subject: str | None = None
    until: date | None = None


class Lab(Declared):
    """Everything an owner declares about one lab."""

    lab: Name
    hosts: tuple[Host, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    vms: tuple[Vm, ...] = ()
    nodes: tuple[Node, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    factory: Factory | None = None
    rights: Rights = Rights()
    timings: Timings = Timings()
    exceptions: tuple[Acceptance, ...] = ()

    def host(self, name: str) -> Host:
        """The declared host; KeyError when there is none of that name."""
        return _named(self.hosts, name)

    def gpu(self, name: str) -> Gpu:
        """The declared GPU; KeyError when there is none of that name."""
        return _named(self.gpus, name)

    def vm(self, name: str) -> Vm:
        """The declared VM; KeyError when there is none of that name."""
        return _named(self.vms, name)

    def node(self, name: str) -> Node:
        """The declared node; KeyError when there is none of that name."""
        return _named(self.nodes, name)

    def cluster(self, name: str) -> Cluster:
        """The declared cluster; KeyError when there is none of that name."""
        return _named(self.clusters, name)


_Thing = TypeVar("_Thing", Host, Gpu, Vm, Node, Cluster)


def _named(items: tuple[_Thing, ...], name: str) -> _Thing:
    for item in items:
        if item.name == name:
            return item
    raise KeyError(name)
