"""containerd on a node: sandboxes, handlers, images, and what the NVIDIA runtime puts into a container.

Texts: containerd 2.3 as recorded (real-kubernetes.md, Sandbox and Containers); nvidia-container-cli from
kubernetes-gpu.md K35, K24 and talos.md T36.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labproof.simlab.pod.images import image_config
from labproof.simlab.world.states import DeviceNode, NodeGpu, NodeState

# Which driver library and program each value of NVIDIA_DRIVER_CAPABILITIES brings (libnvidia-container).
CAPABILITY_LIBRARIES: dict[str, tuple[str, ...]] = {
    "utility": ("libnvidia-ml.so.1", "libnvidia-cfg.so.1"),
    "compute": ("libcuda.so.1", "libnvidia-ptxjitcompiler.so.1", "libnvidia-nvvm.so.4"),
    "video": ("libnvidia-encode.so.1", "libnvcuvid.so.1", "libnvidia-opticalflow.so.1"),
    "graphics": ("libGLX_nvidia.so.0", "libEGL_nvidia.so.0", "libnvidia-glcore.so"),
    "display": (),
    "ngx": ("libnvidia-ngx.so.1",),
}
_SMI = ("nvidia-smi", "nvidia-debugdump", "nvidia-persistenced")
_MPS = ("nvidia-cuda-mps-control", "nvidia-cuda-mps-server")

# Highest CUDA version a driver branch supports (NVIDIA CUDA release notes; used for requirement checks and labels).
_CUDA_BY_BRANCH = (
    (595, "13.2"), (590, "13.1"), (580, "13.0"), (575, "12.9"), (570, "12.8"), (565, "12.7"), (560, "12.6"),
    (555, "12.5"), (550, "12.4"), (545, "12.3"), (535, "12.2"), (525, "12.0"), (470, "11.4"),
)  # fmt: skip


def cuda_of(driver: str | None) -> str:
    """The CUDA version a driver supports, e.g. 12.8 for 570.172.08."""
    branch = int((driver or "0").split(".", maxsplit=1)[0])
    return next((cuda for least, cuda in _CUDA_BY_BRANCH if branch >= least), "11.0")


@dataclass(frozen=True)
class Image:
    """An image: what labproof.simlab.pod.images says, and inputs `clusters.<name>.images` on top.

    Attributes:
        service: `forever` for a long-running program with nothing to model.
        cached: on every node before anything starts.
        exists: some registry has it.
    """

    ref: str
    size_bytes: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    service: str = ""
    uid: int = 0
    cached: bool = False
    exists: bool = True
    digest: str = ""

    @property
    def registry(self) -> str:
        """The registry host in the reference (docker.io when there is none)."""
        first, slash, _ = self.ref.partition("/")
        return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def image_from(ref: str, catalogue: Mapping[str, Any]) -> Image:
    """The image of a reference; one that nobody knows does not exist.

    Args:
        ref: as a pod spec names it.
        catalogue: inputs `clusters.<name>.images`: reference -> what differs from the images' own catalogue.
    """
    raw = dict(catalogue.get(ref) or {})
    config = image_config(ref, {k: {"size_bytes": 0, **(v or {})} for k, v in catalogue.items()})
    env = dict(config.env) if config else {k: str(v) for k, v in (raw.get("env") or {}).items()}
    return Image(
        ref,
        int(raw.get("size_bytes") or (config.size_bytes if config else 0) or 83886080),
        env,
        tuple(raw.get("entrypoint") or (config.entrypoint if config else ())),
        tuple(raw.get("cmd") or (config.cmd if config else ())),
        str(raw.get("service", "")),
        int(raw.get("uid", 0)),
        bool(raw.get("cached", False)),
        config is not None and not raw.get("absent"),
        str(raw.get("digest", "")),
    )


def argv_of(spec: Mapping[str, Any], image: Image) -> list[str]:
    """A container's argument vector: command and args over the image's entrypoint and cmd."""
    if spec.get("command"):
        return [*spec["command"], *(spec.get("args") or [])]
    return [*image.entrypoint, *(spec.get("args") or image.cmd)]


def split_image(ref: str) -> tuple[str, str, str]:
    """Registry host, repository and tag or digest, as in a pull's error text."""
    first, slash, rest = ref.partition("/")
    if not (slash and ("." in first or ":" in first or first == "localhost")):
        first, rest = "registry-1.docker.io", ref if slash else f"library/{ref}"
    repository, at, digest = rest.partition("@")
    name, colon, tag = repository.rpartition(":")
    if at:
        return first, name if colon else repository, digest
    return (first, name, tag) if colon and "/" not in tag else (first, repository, "latest")


def pull_error(ref: str, state: str, resolver: str) -> str:
    """What a failed pull says. `state`: no-such-host | not-found | unauthorized | timeout."""
    host, repository, tag = split_image(ref)
    url = f"https://{host}/v2/{repository}/manifests/{tag}"
    head = f'failed to pull and unpack image "{ref}": failed to resolve image: '
    if state == "not-found":
        return head + f"{host}/{repository}:{tag}: not found"
    if state == "unauthorized":
        return (
            head + "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to "
            f"https://{host}/token?scope=repository%3A{repository.replace('/', '%2F')}%3Apull&service={host}: "
            "401 Unauthorized"
        )
    if state == "timeout":
        return head + f'failed to do request: Head "{url}": dial tcp: i/o timeout'
    return head + (f'failed to do request: Head "{url}": dial tcp: lookup {host} on {resolver}:53: no such host')


def sandbox_error(node: NodeState, handler: str, sandbox_id: str) -> str:
    """Why no sandbox can be made for a handler ("" = the node's default); "" when it can."""
    name = handler or node.default_runtime
    if name not in node.runtime_handlers:
        return f'unable to get OCI runtime for sandbox "{sandbox_id}": no runtime for "{name}" is configured'
    if name in node.broken_handlers:
        binary = f"/usr/local/bin/{name}-container-runtime" if name != "runc" else "/bin/runc"
        return (
            f'failed to start sandbox "{sandbox_id}": failed to create containerd task: failed to create shim '
            "task: OCI runtime create failed: unable to retrieve OCI runtime error (open "
            f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{sandbox_id}/log.json: "
            f"no such file or directory): fork/exec {binary}: no such file or directory"
        )
    if not node.containers_start:
        return f'unable to get OCI runtime for sandbox "{sandbox_id}": no runtime for "{name}" is configured'
    return ""


@dataclass
class Injection:
    """What a runtime adds to a container."""

    devices: dict[str, DeviceNode] = field(default_factory=dict)
    libraries: set[str] = field(default_factory=set)
    programs: set[str] = field(default_factory=set)
    gpus: tuple[NodeGpu, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    error: str = ""  # the container cannot be started; text behind `unable to start container process: `


def uses_nvidia_runtime(node: NodeState, handler: str) -> bool:
    """Whether containers of this sandbox pass through nvidia-container-runtime."""
    return (handler or node.default_runtime).startswith("nvidia")


def _hook(text: str) -> str:
    return (
        "error during container init: error running prestart hook #0: exit status 1, stdout: , stderr: "
        f"Auto-detected mode as 'legacy'\nnvidia-container-cli: {text}"
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def legacy(node: NodeState, env: Mapping[str, str]) -> Injection:
    """nvidia-container-runtime in legacy mode: decided by the container's environment alone."""
    visible = env.get("NVIDIA_VISIBLE_DEVICES")
    if visible is None and "CUDA_VERSION" in env:
        visible = "all"  # images older than CUDA 8 era conventions; libnvidia-container's compatibility rule
    if visible in {None, "", "void"}:
        return Injection()
    if not node.driver_version:
        return Injection(error=_hook("initialization error: nvml error: driver not loaded"))
    if node.library_version and node.library_version != node.driver_version:
        return Injection(error=_hook("initialization error: nvml error: driver/library version mismatch"))
    if node.bpf_jit_harden >= 2 and node.os == "talos" and _version(node.os_version) < (1, 13):
        return Injection(
            error=_hook(
                "mount error: failed to add device rules: unable to generate new device filter program from "
                "existing programs: unable to create new device filters program: load program: "
                "invalid argument: last insn is not an exit or jmp"
            )
        )
    require = env.get("NVIDIA_REQUIRE_CUDA", "")
    if require and env.get("NVIDIA_DISABLE_REQUIRE", "").lower() not in {"1", "true"}:
        wanted = re.search(r"cuda>=(\d+\.\d+)", require)
        if wanted and _version(cuda_of(node.driver_version)) < _version(wanted.group(1)):
            return Injection(
                error=_hook(
                    f"requirement error: unsatisfied condition: cuda>={wanted.group(1)}, please update your "
                    "driver to a newer version, or use an earlier cuda container"
                )
            )
    gpus: tuple[NodeGpu, ...] = ()
    if visible == "all":
        gpus = node.gpus
    elif visible != "none":
        for name in str(visible).split(","):
            gpu = next((g for g in node.gpus if name in {g.uuid, str(g.index)}), None)
            if gpu is None:
                return Injection(error=_hook(f"device error: {name}: unknown device"))
            if gpu not in gpus:
                gpus = (*gpus, gpu)
    wanted_caps = env.get("NVIDIA_DRIVER_CAPABILITIES") or "utility,compute"
    capabilities = set(CAPABILITY_LIBRARIES) if wanted_caps == "all" else set(wanted_caps.split(","))
    return _inject(node, gpus, capabilities)


def refused_environment() -> Injection:
    """A hook that takes no device list from the environment of an unprivileged container (facts kubernetes-gpu K45)."""
    return Injection(
        error="error during container init: error running prestart hook #0: exit status 1, stdout: , stderr: "
        "insufficient privileges to read device list from NVIDIA_VISIBLE_DEVICES envvar"
    )


def cdi(node: NodeState, names: list[str], specs: Mapping[str, tuple[str, ...]]) -> Injection:
    """CDI devices by name. `specs`: kind -> device names that a spec on this node defines.

    Returns:
        Everything of the driver (a CDI spec knows no capabilities); `error` in containerd's words.
    """
    missing = [n for n in names if n.partition("=")[2] not in specs.get(n.partition("=")[0], ())]
    if missing:
        return Injection(
            error="failed to create containerd container: CDI device injection failed: unresolvable CDI devices "
            + ", ".join(missing)
        )
    gpus: tuple[NodeGpu, ...] = ()
    for name in names:
        device = name.partition("=")[2]
        for gpu in node.gpus:
            if device in {"all", gpu.uuid, str(gpu.index)} and gpu not in gpus:
                gpus = (*gpus, gpu)
    return _inject(node, gpus, set(CAPABILITY_LIBRARIES))


def from_driver_root(node: NodeState) -> Injection:
    """What a privileged container gets that mounts the host's driver root: everything."""
    return _inject(node, node.gpus, set(CAPABILITY_LIBRARIES))


def _inject(node: NodeState, gpus: tuple[NodeGpu, ...], capabilities: set[str]) -> Injection:
    found = Injection(gpus=gpus)
    for capability in capabilities:
        found.libraries.update(CAPABILITY_LIBRARIES.get(capability, ()))
    if "utility" in capabilities:
        found.programs.update(_SMI)
    if "compute" in capabilities:
        found.programs.update(_MPS)
    wanted = {"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"}
    if capabilities & {"graphics", "display"}:
        wanted.add("/dev/nvidia-modeset")
    wanted |= {f"/dev/nvidia{gpu.index}" for gpu in gpus}
    found.devices = {d.path: d for d in node.device_nodes if d.path in wanted}
    return found


def all_devices(node: NodeState) -> dict[str, DeviceNode]:
    """What a privileged container sees of the node's GPU device nodes."""
    return {d.path: d for d in node.device_nodes}
