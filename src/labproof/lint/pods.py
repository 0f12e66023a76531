"""Pod specs, wherever they hide: workloads, and the values of the charts that most labs deploy their apps with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from labproof.lint.scope import Chart, Document, Scope
from labproof.lint.tree import Node

_TEMPLATED = {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "ReplicationController"}
_NOTHING = Node("map", 1, 1)
GPU_DOMAINS = ("nvidia.com/", "gpu.intel.com/", "amd.com/", "squat.ai/", "devic.es/")
#: Images and charts of GPU components themselves: they see the card without asking for a slot, and must.
_INFRASTRUCTURE = (
    "dcgm-exporter", "gpu-operator", "gpu-feature-discovery", "device-plugin", "nvidia_gpu_exporter",
    "nvidia-gpu-exporter", "node-feature-discovery", "dra-driver", "nvitop", "gpu-exporter", "intel-gpu-plugin", "dcgm",
)  # fmt: skip


@dataclass
class Container:
    """One container: its resources and environment with lines."""

    name: str
    image: str
    node: Node
    env: dict[str, tuple[str | None, int]] = field(default_factory=dict)

    def resource(self, side: str) -> dict[str, Node]:
        """Extended GPU resources of `limits` or `requests`."""
        found = self.node.get("resources", side)
        if found is None:
            return {}
        return {key: value for key, value, _ in found.items() if key.startswith(GPU_DOMAINS)}

    def resource_line(self, side: str, key: str) -> int:
        """Line of a resource's key."""
        return self.node.at("resources", side, key)


@dataclass
class Pod:
    """One pod spec. `complete` is False where a chart or a template adds to it."""

    document: Document
    name: str
    owner: str
    spec: Node
    containers: list[Container]
    settings: dict[str, Node | None]
    complete: bool

    @property
    def node_selector(self) -> Node | None:
        """`nodeSelector`."""
        return self.settings["nodeSelector"]

    @property
    def affinity(self) -> Node | None:
        """`affinity`."""
        return self.settings["affinity"]

    @property
    def tolerations(self) -> Node | None:
        """`tolerations`."""
        return self.settings["tolerations"]

    @property
    def runtime_class(self) -> Node | None:
        """`runtimeClassName`."""
        return self.settings["runtimeClassName"]

    @property
    def complete_enough(self) -> bool:
        """Whether what it requests is to be seen here: an example on a page counts, values of a chart do not."""
        return self.complete or (self.document.source.excerpt and not self.spec.open)

    @property
    def infrastructure(self) -> bool:
        """Whether this is a GPU component itself."""
        words = " ".join([self.name, *(c.image for c in self.containers)]).lower()
        return any(word in words for word in _INFRASTRUCTURE)

    def requests(self) -> dict[str, int]:
        """GPU resources that the pod's containers are limited to, with the line of the first."""
        found: dict[str, int] = {}
        for container in self.containers:
            for key in container.resource("limits"):
                found.setdefault(key, container.resource_line("limits", key))
        return found


def pods_of(scope: Scope) -> Iterator[Pod]:
    """Every pod spec of a scope."""
    for document in scope.documents:
        spec = _spec(document)
        if spec is not None:
            yield _pod(document, document.name, document.kind, spec, document.complete)
    for chart in scope.charts:
        yield from _app_template(chart)


def _spec(document: Document) -> Node | None:
    if document.kind == "Pod":
        return document.root.get("spec")
    if document.kind == "CronJob":
        return document.root.get("spec", "jobTemplate", "spec", "template", "spec")
    if document.kind in _TEMPLATED:
        return document.root.get("spec", "template", "spec")
    return None


def _pod(document: Document, name: str, owner: str, spec: Node, complete: bool) -> Pod:
    listed = [*(spec.get("containers") or spec).members, *(spec.get("initContainers") or spec).members]
    containers = []
    for node in listed:
        image, word = node.get("image"), node.get("name")
        containers.append(Container(word.scalar if word else "", image.scalar if image else "", node, _env(node)))
    return Pod(document, name, owner, spec, containers, _settings(spec), complete)


def _settings(*owners: Node | None) -> dict[str, Node | None]:
    """What a pod says of its place, from the first owner that says it."""
    given = [owner for owner in owners if owner is not None]
    found: dict[str, Node | None] = {}
    for key in ("nodeSelector", "affinity", "tolerations", "runtimeClassName"):
        found[key] = next((owner.get(key) for owner in given if owner.get(key) is not None), None)
    return found


def _app_template(chart: Chart) -> Iterator[Pod]:
    """The bjw-s app-template layout; other charts with the usual top-level values count as one container."""
    values, document = chart.values, chart.document
    controllers = values.get("controllers")
    defaults = values.get("defaultPodOptions")
    if controllers is None or controllers.kind != "map":
        if values.get("resources") is not None and chart.name not in ("gpu-operator", "nvidia-device-plugin"):
            image = values.get("image", "repository")
            container = Container(chart.name, image.scalar if image is not None else "", values, _env(values))
            yield Pod(document, document.name or chart.name, "values", values, [container], _settings(values), False)
        return
    for name, controller, _ in controllers.items():
        containers = []
        for group in ("containers", "initContainers"):
            for word, node, _ in (controller.get(group) or _NOTHING).items():
                image = node.get("image", "repository")
                containers.append(Container(word, image.scalar if image is not None else "", node, _env(node)))
        own = controller.get("pod")
        spec = own or defaults or values
        yield Pod(document, name, "app-template", spec, containers, _settings(own, defaults), chart.complete)


def _env(node: Node) -> dict[str, tuple[str | None, int]]:
    env = node.get("env")
    found: dict[str, tuple[str | None, int]] = {}
    if env is None:
        return found
    if env.kind == "map":
        for key, value, line in env.items():
            inner = value.get("value") if value.kind == "map" else value
            found[key] = (inner.text if inner is not None else None, line)
    for member in env.members:
        name, given = member.get("name"), member.get("value")
        if name is not None and name.kind == "scalar":
            found[name.scalar] = (given.text if given is not None else None, name.line)
    return found
