"""What a pod spec asks of a GPU node, judged by itself and against the sharing and the nodes that the files declare."""

from __future__ import annotations

import difflib
import re

from labproof.catalogue.versions import does
from labproof.lint.pods import Container, Pod
from labproof.lint.scope import Scope

_TRANSCODERS = re.compile(r"jellyfin|emby|plex|tdarr|fileflows|unmanic|frigate|ffmpeg", re.IGNORECASE)
_RESOURCES = {
    "nvidia.com/": re.compile(r"nvidia\.com/(?:gpu(?:\.shared)?|mig-[\w.+-]+|pgpu|[A-Z][\w.-]+)"),
    "gpu.intel.com/": re.compile(
        r"gpu\.intel\.com/(?:i915|xe|(?:i915_|xe_)?monitoring|millicores|memory\.max|tiles|shared-\w+)"
    ),
    "amd.com/": re.compile(r"amd\.com/(?:gpu|cpx_\w+|spx_\w+|\w+px_\w+)"),
}
_DEVICE = re.compile(r"/dev/(?:dri/(?:renderD|card)\d+|nvidia\d+|nvidiactl|nvidia-uvm|kfd)")


def judge_pod(pod: Pod, scope: Scope) -> None:
    """All rules that speak of one pod spec."""
    for container in pod.containers:
        _amounts(pod, container, scope)
        _environment(pod, container, scope)
        _host_device(pod, container, scope)
    _runtime(pod, scope)


def _amounts(pod: Pod, container: Container, scope: Scope) -> None:
    source = pod.document.source
    limits, requests = container.resource("limits"), container.resource("requests")
    for key, node in requests.items():
        line = container.resource_line("requests", key)
        if key not in limits:
            if container.node.get("resources", "limits") is None or not (container.node.get("resources") or node).open:
                scope.find(source, line, "K94", f"{key} is requested without a limit; the API server refuses the pod")
        elif None not in (limits[key].text, node.text) and limits[key].scalar != node.scalar:
            text = f"{key}: request {node.scalar} and limit {limits[key].scalar} must be equal"
            scope.find(source, line, "K94", text)
    for key, node in limits.items():
        line = container.resource_line("limits", key)
        word = node.text
        if word is not None and not re.fullmatch(r"\d+", word):
            scope.find(source, line, "K94", f"{key}: {word} is no whole number; there are no fractions of a device")
            continue
        _name(pod, key, line, scope)
        if word is not None and int(word[:9]) > 1:
            _more_than_one(pod, key, int(word[:9]), line, scope)


def _name(pod: Pod, key: str, line: int, scope: Scope) -> None:
    source = pod.document.source
    shape = next((pattern for domain, pattern in _RESOURCES.items() if key.startswith(domain)), None)
    if shape is not None and not shape.fullmatch(key):
        scope.find(source, line, "K97", f"no device plugin publishes `{key}`: the pod stays Pending")
        return
    ours = [s for s in scope.sharing if s.resource == key.removesuffix(".shared")]
    if not ours or not key.startswith("nvidia.com/gpu"):
        return
    if key.endswith(".shared") and not any(s.renamed for s in ours):
        text = f"`{key}` needs renameByDefault: true in the sharing configuration ({ours[0].path}:{ours[0].line})"
        scope.find(source, line, "K10", text)
    elif not key.endswith(".shared") and all(s.renamed for s in ours):
        where = f"{ours[0].path}:{ours[0].line}"
        scope.find(source, line, "K10", f"the sharing configuration ({where}) renames this to {key}.shared")


def _more_than_one(pod: Pod, key: str, amount: int, line: int, scope: Scope) -> None:
    ours = [s for s in scope.sharing if s.resource == key.removesuffix(".shared")]
    if not ours:
        return
    where = f"{ours[0].path}:{ours[0].line}"
    if all(s.fails for s in ours):
        scope.find(
            pod.document.source, line, "K11", f"{amount} of {key}, but the sharing ({where}) allows 1 per container"
        )
    elif not any(s.fails for s in ours):
        text = f"{amount} of {key} under sharing ({where}) may be {amount} times the same card"
        scope.find(pod.document.source, line, "K12", text)


def _environment(pod: Pod, container: Container, scope: Scope) -> None:
    source = pod.document.source
    asks = any(key.startswith("nvidia.com/") for key in container.resource("limits"))
    devices, line = container.env.get("NVIDIA_VISIBLE_DEVICES", (None, 0))
    if asks and devices is not None and (devices == "all" or re.fullmatch(r"\d+(,\d+)*|GPU-[\w,-]+", devices)):
        text = f"NVIDIA_VISIBLE_DEVICES={devices} beside a request: it can override the device that the plugin grants"
        scope.find(source, line, "K46", text)
    capabilities, line = container.env.get("NVIDIA_DRIVER_CAPABILITIES", (None, 0))
    transcodes = _TRANSCODERS.search(f"{container.image} {container.name}") is not None
    given = {word.strip() for word in (capabilities or "all").split(",")}
    if asks and transcodes and not {"all", "video"} & given:
        text = f"NVIDIA_DRIVER_CAPABILITIES={capabilities} leaves NVENC and NVDEC out; add video"
        scope.find(source, line, "K48", text)


def _runtime(pod: Pod, scope: Scope) -> None:
    source, runtime, requests = pod.document.source, pod.runtime_class, pod.requests()
    asks = any(key.startswith("nvidia.com/") for key in requests)
    if runtime is not None and runtime.text is not None:
        known = scope.runtime_classes
        near = difflib.get_close_matches(runtime.text, known, 1, 0.75) if runtime.text not in known else []
        if near and not near[0].startswith(runtime.text):
            text = f"RuntimeClass `{runtime.text}` is not declared; did you mean `{near[0]}`?"
            scope.find(source, runtime.line, "K23", text)
        if runtime.text.startswith("nvidia") and not asks and _takes_all(pod):
            text = "runs with the NVIDIA runtime but requests no GPU: it sees every card, and no scheduler counts it"
            scope.find(source, runtime.line, "W53", text)
        return
    legacy = scope.tag is not None and not does(scope.tag, "cdi") and "nvidia" in scope.runtime_classes
    if runtime is None and asks and legacy and pod.complete and not scope.default_runtime:
        text = f"requests a GPU without runtimeClassName: nvidia, which Talos {scope.tag} needs for the injection"
        scope.find(source, next(iter(requests.values())), "K47", text)


def _takes_all(pod: Pod) -> bool:
    """Whether a pod without a request is an application that takes the card, and everything of it is to be seen."""
    if pod.spec.get("resourceClaims") is not None or pod.infrastructure or not pod.complete_enough:
        return False
    void = any(container.env.get("NVIDIA_VISIBLE_DEVICES", (None, 0))[0] == "void" for container in pod.containers)
    return bool(pod.containers) and not void and pod.owner not in ("DaemonSet", "values")


def _host_device(pod: Pod, container: Container, scope: Scope) -> None:
    """hostPath of a device: without privileges the device cgroup refuses it (facts kubernetes-gpu 7)."""
    volumes = pod.spec.get("volumes")
    if volumes is None or volumes.kind != "list":
        return
    privileged = container.node.get("securityContext", "privileged")
    if privileged is not None and privileged.plain is not False:
        return
    mounts = container.node.get("volumeMounts")
    names = [mount.get("name") for mount in mounts.members] if mounts is not None else []
    mounted = {name.scalar for name in names if name is not None}
    granted = any(container.resource("limits")) or pod.spec.get("resourceClaims") is not None
    for volume in volumes.members:
        name, path = volume.get("name"), volume.get("hostPath", "path")
        if name is None or path is None or path.text is None or name.scalar not in mounted or granted:
            continue
        device = _DEVICE.fullmatch(path.text) is not None or path.text.rstrip("/") == "/dev/dri"
        if device and pod.document.complete and not pod.infrastructure and pod.owner != "DaemonSet":
            text = f"{path.text} as hostPath in a container that is not privileged: opening it is refused"
            scope.find(pod.document.source, path.line, "W29", text)
