"""From a pod's container to what its process sees: environment, devices, libraries (PodWorld)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from labproof.simlab.kube import driver_root, podspec, runtime
from labproof.simlab.kube.kinds import Obj
from labproof.simlab.kube.podrun import ContainerRun, PodRun, identity, supplemental_groups
from labproof.simlab.kube.quantity import amount
from labproof.simlab.pod.injection import limited
from labproof.simlab.world.states import DeviceNode, NodeState, PodWorld

if TYPE_CHECKING:
    from labproof.simlab.kube.kubelet import Kubelet


_WRITABLE = ("/etc/kubernetes", "/etc/cni", "/usr/libexec/kubernetes", "/usr/etc/udev")  # on Talos


class ConfigMissing(Exception):
    """CreateContainerConfigError."""


class CreateFailed(Exception):
    """CreateContainerError."""


class StartFailed(Exception):
    """RunContainerError / StartError."""


class StartHangs(Exception):
    """The runtime does not come back: the container stays where it is, and no event tells why."""


@dataclass
class DeviceResponse:
    """What a device plugin's Allocate adds to a container."""

    env: dict[str, str] = field(default_factory=dict)
    cdi: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)  # host paths
    links: dict[str, str] = field(default_factory=dict)  # further path in the container -> host path


def environment(
    kubelet: Kubelet, pod: Obj, spec: Obj, image: runtime.Image, response: DeviceResponse
) -> dict[str, str]:
    """The container's environment: image, then the device plugin, then the pod, which wins (facts V22).

    Raises:
        ConfigMissing: a ConfigMap or Secret it names does not exist.
    """
    env: dict[str, str] = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    env |= image.env
    env["HOSTNAME"] = pod["spec"].get("hostname") or pod["metadata"]["name"]
    env |= response.env
    namespace = pod["metadata"]["namespace"]
    for source in spec.get("envFrom") or []:
        name = podspec.value_at(source, "configMapRef", "name")
        if name:
            found = kubelet.cluster.store.get("configmaps", name, namespace)
            if found is None:
                raise ConfigMissing(f'configmap "{name}" not found')
            env |= found.get("data") or {}
    for row in spec.get("env") or []:
        if "valueFrom" not in row:
            env[row["name"]] = str(row.get("value") or "")
            continue
        path = podspec.value_at(row, "valueFrom", "fieldRef", "fieldPath")
        key = podspec.value_at(row, "valueFrom", "configMapKeyRef")
        if path:
            env[row["name"]] = {
                "spec.nodeName": pod["spec"].get("nodeName", ""),
                "metadata.name": pod["metadata"]["name"],
                "metadata.namespace": namespace,
                "metadata.uid": pod["metadata"]["uid"],
                "status.hostIP": kubelet.state.address,
            }.get(path, "")
        elif key:
            found = kubelet.cluster.store.get("configmaps", key["name"], namespace)
            if found is None:
                raise ConfigMissing(f'configmap "{key["name"]}" not found')
            env[row["name"]] = str((found.get("data") or {}).get(key["key"], ""))
    return env


def responses(kubelet: Kubelet, run: PodRun, name: str) -> DeviceResponse:
    """What the plugins answered for the devices of one container."""
    total = DeviceResponse()
    for resource, ids in kubelet.devices.of(run.uid, name).items():
        answer = kubelet.answers.get(resource)
        if answer is None:
            continue
        part = answer(ids)
        total.env |= part.env
        total.cdi += part.cdi
        total.devices += part.devices
        total.links |= part.links
    return total


def build_world(kubelet: Kubelet, pod: Obj, run: PodRun, container: ContainerRun, image: runtime.Image) -> PodWorld:
    """Everything the container's process can see and touch.

    Raises:
        ConfigMissing, CreateFailed, StartFailed: in the words of the kubelet, containerd or runc.
        StartHangs: the node's toolkit never answers.
    """
    from labproof.simlab.kube.service_table import service_for  # it imports this module's users

    state: NodeState = kubelet.state
    spec = container.spec
    # the GPU stack's own pods, and the owner's services, have run since before the toolkit was touched
    longer = service_for(runtime.argv_of(spec, image), image) is not None
    toolkit = {} if longer else kubelet.inputs.get("toolkit") or {}
    privileged = bool((spec.get("securityContext") or {}).get("privileged"))
    response = responses(kubelet, run, container.name)
    env = environment(kubelet, pod, spec, image, response)
    nodes = {d.path: d for d in state.device_nodes}
    devices = _granted(kubelet, response, identity(pod, spec, image.uid))
    folder = read_only_folder(pod, spec, state)
    if folder:
        failed = kubelet.cluster.store.hex("container")
        raise CreateFailed(
            f'failed to generate container "{failed}" spec: failed to generate spec: failed to mkdir "{folder}": '
            f"mkdir {folder}: read-only file system"
        )
    if toolkit.get("hangs") and runtime.uses_nvidia_runtime(state, run.handler):
        raise StartHangs
    injection = runtime.Injection()
    if response.cdi:
        injection = runtime.cdi(state, response.cdi, kubelet.cdi_specs())
        if injection.error:
            raise CreateFailed(injection.error)
        hook = kubelet.cdi_hook
        if hook and not kubelet.has_file(hook):
            raise StartFailed(
                "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc "
                f"create failed: unable to start container process: error during container init: error running "
                f"createContainer hook #0: fork/exec {hook}: no such file or directory"
            )
        env["NVIDIA_VISIBLE_DEVICES"] = "void"  # toolkit >= 1.18 (facts K73)
    elif runtime.uses_nvidia_runtime(state, run.handler):
        injection = runtime.legacy(state, env)
        if toolkit.get("refuses_env") and injection.devices and not privileged:
            injection = runtime.refused_environment()
        if injection.error:
            raise StartFailed(
                "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc "
                f"create failed: unable to start container process: {injection.error}"
            )
    elif "DRIVER_INSTALL_DIR" in env and driver_root.is_found(state, env["DRIVER_INSTALL_DIR"]):
        injection = runtime.from_driver_root(state)  # operands load NVML from the host's driver root
    devices |= injection.devices
    allowed = set(devices)
    if privileged:
        devices |= nodes
        allowed |= set(nodes)
    devices |= _mounted_devices(pod, spec, nodes)
    limits = (spec.get("resources") or {}).get("limits") or {}
    world = PodWorld(
        owner=f"{run.namespace}/{run.name}",
        image=image.ref,
        env=env,
        uid=identity(pod, spec, image.uid)[0],
        gids=frozenset({identity(pod, spec, image.uid)[1], *supplemental_groups(pod)}),
        node=state,
        devices=devices,
        allowed=frozenset(allowed),
        libraries=frozenset(injection.libraries),
        programs=frozenset(injection.programs),
        gpus=injection.gpus,
        cpu_limit=float(amount(limits.get("cpu", kubelet.cpus))),
        memory_limit_mib=int(amount(limits["memory"]) / 2**20) if "memory" in limits else kubelet.memory_mib,
        read_only_root=bool((spec.get("securityContext") or {}).get("readOnlyRootFilesystem")),
        image_inputs=kubelet.cluster.inputs.get("images") or {},
    )
    return limited(world, toolkit)


def _granted(kubelet: Kubelet, response: DeviceResponse, owner: tuple[int, int]) -> dict[str, DeviceNode]:
    """Device nodes that the plugin named, and those that containerd's base specification gives to all.

    Raises:
        CreateFailed: one that was named is not on the node.
    """
    nodes = {d.path: d for d in kubelet.state.device_nodes}
    devices: dict[str, DeviceNode] = {}
    for path in response.devices:
        if path not in nodes:
            failed = kubelet.cluster.store.hex("container")
            raise CreateFailed(
                f'failed to generate container "{failed}" spec: failed to generate spec: lstat {path}: '
                "no such file or directory"
            )
        devices[path] = nodes[path]
    devices |= {path: nodes[path] for path in kubelet.state.every_container if path in nodes}
    if (kubelet.inputs.get("containerd") or {}).get("device_ownership") and owner[0]:
        # device_ownership_from_security_context: the nodes get the workload's user, by-path mounts do not
        devices = {path: replace(node, uid=owner[0], gid=owner[1]) for path, node in devices.items()}
    for path, target in response.links.items():  # device nodes of their own, with the host's owner and mode
        if target in nodes:
            devices[path] = replace(nodes[target], path=path)
    return devices


def _mounted_devices(pod: Obj, spec: Obj, nodes: dict[str, DeviceNode]) -> dict[str, DeviceNode]:
    """Device nodes that hostPath volumes show; without privileged the device cgroup still refuses them."""
    paths = {v["name"]: podspec.value_at(v, "hostPath", "path") for v in pod["spec"].get("volumes") or []}
    found: dict[str, DeviceNode] = {}
    for mount in spec.get("volumeMounts") or []:
        host = paths.get(mount["name"])
        if not host:
            continue
        for path, device in nodes.items():
            if path == host or path.startswith(host.rstrip("/") + "/"):
                found[mount["mountPath"].rstrip("/") + path.removeprefix(host.rstrip("/"))] = device
    return found


def _cannot_make(state: NodeState, path: str) -> str:
    """The folder of a host path that would have to be made on a read-only root; empty when there is none.

    Talos' root is an image: of /usr and /etc only a few places can be written (facts kubernetes-gpu 4, K29, K78).
    """
    if state.os != "talos" or not path.startswith(("/usr/", "/etc/")) or path.startswith(_WRITABLE):
        return ""
    there = {"/usr", "/usr/bin", "/usr/lib", "/usr/local", "/etc", "/etc/containerd", "/etc/cri", "/etc/cri/conf.d"}
    parts = path.rstrip("/").split("/")
    for length in range(2, len(parts) + 1):
        folder = "/".join(parts[:length])
        if folder not in there and not f"{state.library_root}/".startswith(f"{folder}/"):
            return folder
    return ""


def read_only_folder(pod: Obj, spec: Obj, state: NodeState) -> str:
    """The folder that containerd cannot make for one of a container's mounts; empty when all can be mounted."""
    sources = {v["name"]: v["hostPath"]["path"] for v in pod["spec"].get("volumes") or [] if v.get("hostPath")}
    paths = (sources.get(mount["name"], "") for mount in spec.get("volumeMounts") or [])
    return next((folder for path in paths if (folder := _cannot_make(state, path))), "")


def mount_error(pod: Obj, state: NodeState) -> tuple[str, str]:
    """The first volume that cannot be mounted: its name and the kubelet's text; ("", "") when all can."""
    paths = {d.path for d in state.device_nodes}
    for volume in pod["spec"].get("volumes") or []:
        source = volume.get("hostPath")
        folder = _cannot_make(state, source["path"]) if source and source.get("type") == "DirectoryOrCreate" else ""
        if folder:
            text = f'MountVolume.SetUp failed for volume "{volume["name"]}" : mkdir {folder}: read-only file system'
            return volume["name"], text
        if source and source.get("type") == "CharDevice" and source["path"] not in paths:
            return volume["name"], (
                f'MountVolume.SetUp failed for volume "{volume["name"]}" : hostPath type check failed: '
                f"{source['path']} is not a character device"
            )
    return "", ""
