"""The simulated cluster: control plane, nodes and what runs on them, derived from inputs and node states."""

from __future__ import annotations

import asyncio
import copy
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from labproof.simlab.kube import flux, intel_chart, operator_chart, runtime
from labproof.simlab.kube import nodes as node_objects
from labproof.simlab.kube.admission import Refused, admit_create, not_found
from labproof.simlab.kube.clock import Clock
from labproof.simlab.kube.controllers import Controllers
from labproof.simlab.kube.discovery import Features
from labproof.simlab.kube.events import Recorder
from labproof.simlab.kube.genesis import initial_objects, installed_kinds, plan_changes
from labproof.simlab.kube.kinds import Kind, KindTable, Obj
from labproof.simlab.kube.kubelet import Kubelet
from labproof.simlab.kube.pod_http import Listeners
from labproof.simlab.kube.process import LAB_PROGRAMS, Programs
from labproof.simlab.kube.rbac import Authorizer
from labproof.simlab.kube.scheduler import Scheduler
from labproof.simlab.kube.store import Change, Store
from labproof.simlab.kube.versions import Release
from labproof.simlab.kube.written import Written
from labproof.simlab.world.states import NodeState

log = logging.getLogger(__name__)

_HISTORY_S = 3600.0  # at most so much of the past is played before the world starts
_SETTLE_S = 0.02
_NODE_STATUS_S = 4.0  # the kubelet pushes node status every 10 s (recorded 0-10 s)


class SimCluster:
    """One cluster of the simulated lab.

    Attributes:
        store: all objects.
        kubelets: by node name.
        clock: the cluster's time; `speed` divides every latency.
        release: Kubernetes release, which decides texts and fields.
    """

    def __init__(
        self,
        name: str,
        inputs: Mapping[str, Any],
        nodes: Mapping[str, NodeState],
        world_time: float,
        programs: Programs | None = None,
        earlier: SimCluster | None = None,
    ) -> None:
        """Build the cluster and play its past.

        Args:
            name: the cluster's name in the lab.
            inputs: `clusters.<name>` of the inputs tree.
            nodes: operating system of every node of the cluster; nodes that only `inputs.nodes` knows are plain.
            world_time: Unix seconds at which the world starts.
            programs: what containers can run; the lab's own by default.
            earlier: this cluster before its machines restarted; what clients wrote to it is still there.
        """
        self.name = name
        self.inputs = inputs
        self.world_time = world_time
        self.release = Release(str(inputs.get("version", "v1.34.3")))
        self.containerd = str(inputs.get("containerd", "2.1.5"))
        self.programs: Programs = programs or LAB_PROGRAMS
        self.loop: asyncio.AbstractEventLoop | None = None
        states = {n: s for n, s in nodes.items() if n in (inputs.get("nodes") or {}) or not inputs.get("nodes")}
        for node, entry in (inputs.get("nodes") or {}).items():
            if entry.get("run_by") in nodes:  # another machine took the name: its kubelet registered last
                states[node] = replace(nodes[entry["run_by"]], name=node)
            if node not in states:
                states[node] = node_objects.plain_node(node, entry, world_time - 86400)
        booted = [s.booted_at for s in states.values() if s.up and s.booted_at < world_time]
        start = max(max(booted, default=world_time) - 5.0, world_time - float(inputs.get("history_s", _HISTORY_S)))
        start = min(start, world_time - min(120.0, float(inputs.get("history_s", _HISTORY_S))))
        self.clock = Clock(start, float(inputs.get("speed", 20.0)))
        self.kinds = KindTable(installed_kinds(inputs))
        self.store = Store(self.clock, self.kinds, name)
        self.pods_kind = self.kinds.key("pods")
        self.nodes_kind = self.kinds.key("nodes")
        self.recorder = Recorder(self.store)
        self.scheduler = Scheduler(self.store, self.recorder, self.release)
        self.features = Features(self._feature_labels)
        self.authorizer = Authorizer(self.store)
        self.listeners = Listeners()  # of programs in pods
        self.tokens: dict[str, tuple[str, tuple[str, ...]]] = {}  # bearer token -> user, groups
        self.kubelets: dict[str, Kubelet] = {
            n: Kubelet(self, states[n], (inputs.get("nodes") or {}).get(n) or {}) for n in sorted(states)
        }
        self.controllers = Controllers(self)
        self.written: Written = earlier.written if earlier is not None else Written()
        self._dirty = False
        self._node_posts: set[str] = set()
        self._images: dict[str, runtime.Image] = {}
        self._last_heartbeat = 0.0
        self._closed = False
        self.on_close: list[Callable[[], None]] = []
        self._begin(earlier)
        self.clock.run_history(world_time)

    def _begin(self, earlier: SimCluster | None) -> None:
        for ref, entry in (self.inputs.get("images") or {}).items():
            if (entry or {}).get("cached"):
                for kubelet in self.kubelets.values():
                    kubelet.images[ref] = self._digest(ref)
        for kubelet in self.kubelets.values():
            self.post_node(kubelet.name)
            self.store.put(self.nodes_kind, self.written.dress(self.store.get("nodes", kubelet.name) or {}))
        for obj in initial_objects(self):
            self.seed(obj)
        if earlier is not None:
            self.written.carry(earlier, self)
        self.store.listeners.append(self._changed)
        for kubelet in self.kubelets.values():
            before, wait = kubelet.state.before, kubelet.state.changed_at - self.clock.now()
            if before is not None and wait > 0:
                self.clock.after(wait, partial(kubelet.turn, kubelet.state))
                kubelet.state = before
        for after, action in plan_changes(self):
            self.clock.after(after, action)
        self.dirty()

    def seed(self, obj: Obj) -> None:
        """Create an initial object as its installer would; what the server refuses is logged, as helm would fail."""
        kind = self.kinds.named(obj["kind"], obj["apiVersion"])
        if kind is None:
            raise ValueError(f"clusters.{self.name}: no kind {obj['apiVersion']} {obj['kind']}")
        try:
            self.create(kind, obj)
        except Refused as refused:
            log.info("cluster %s: %s", self.name, refused.message)

    # ------------------------------------------------------------------ life

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let an event loop drive the cluster (idempotent); called by the API server."""
        if self.loop is loop or self._closed:
            return
        self.loop = loop
        self.clock.live(loop)
        for kubelet in self.kubelets.values():
            kubelet.go_live()

    def close(self) -> None:
        """End timers, processes and watches: the world is replaced."""
        if self._closed:
            return
        for kubelet in self.kubelets.values():
            kubelet.close()
        self._closed = True
        self.clock.close()
        self.store.close()
        for action in self.on_close:
            action()

    def _changed(self, change: Change) -> None:
        if change.key in {"events", "leases.coordination.k8s.io"}:
            return
        if change.key == "pods" and change.kind == "DELETED":
            for kubelet in self.kubelets.values():
                kubelet.forget(change.obj["metadata"]["uid"])
        self.dirty()

    def dirty(self) -> None:
        """Something changed: controllers, scheduler and kubelets look again soon."""
        if self._dirty or self._closed:
            return
        self._dirty = True
        self.clock.after(_SETTLE_S, self.reconcile)

    def reconcile(self) -> None:
        """One pass of everything that watches the API."""
        self._dirty = False
        for operator in (operator_chart, intel_chart, flux):
            operator.reconcile(self)
        self.controllers.run()
        self.scheduler.run()
        for pod in self.store.each("pods"):
            node = pod["spec"].get("nodeName")
            if node in self.kubelets:
                self.kubelets[node].notice(pod)

    # ------------------------------------------------------------------ objects

    def create(self, kind: Kind, obj: Obj, dry_run: bool = False) -> tuple[Obj, list[str]]:
        """Admit and store a new object; returns it and the warnings.

        Raises:
            Refused: as the server answers.
        """
        obj = copy.deepcopy(obj)
        meta = obj.setdefault("metadata", {})
        obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
        warnings = admit_create(self, kind, obj)
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + self.store.suffix()
        namespace = meta.get("namespace", "") if kind.namespaced else ""
        if self.store.get(kind.key, meta["name"], namespace) is not None:
            details = {"name": meta["name"], **({"group": kind.group} if kind.group else {}), "kind": kind.plural}
            raise Refused(409, "AlreadyExists", f'{kind.key} "{meta["name"]}" already exists', details)
        for server_set in ("uid", "resourceVersion", "creationTimestamp", "generation", "selfLink"):
            meta.pop(server_set, None)
        if dry_run:
            meta |= {"uid": self.store.new_uid(), "creationTimestamp": self.clock.stamp()}
            return obj, warnings
        stored = self.store.put(kind, obj)
        if kind.key == "namespaces":
            self.furnish(meta["name"])
        if kind.key == "customresourcedefinitions.apiextensions.k8s.io":
            self.serve_crd(stored)
        return stored, warnings

    def serve_crd(self, crd: Obj) -> None:
        """Serve the kinds of a CustomResourceDefinition."""
        names, spec = crd["spec"]["names"], crd["spec"]
        for version in spec.get("versions") or []:
            if version.get("served", True):
                self.kinds.add(
                    Kind(
                        spec["group"],
                        version["name"],
                        names["plural"],
                        names["kind"],
                        spec.get("scope") == "Namespaced",
                        tuple(names.get("shortNames") or ()),
                    )
                )

    def furnish(self, namespace: str) -> None:
        """What controllers put into every namespace."""
        for key, name in (("serviceaccounts", "default"), ("configmaps", "kube-root-ca.crt")):
            if self.store.get(key, name, namespace) is None:
                extra: Obj = {"data": {"ca.crt": ""}} if key == "configmaps" else {}
                self.store.put(self.kinds.key(key), {"metadata": {"name": name, "namespace": namespace}, **extra})

    def delete(self, kind: Kind, name: str, namespace: str, grace: int | None = None) -> Obj:
        """Delete an object; pods gracefully.

        Raises:
            Refused: 404.
        """
        obj = self.store.get(kind.key, name, namespace)
        if obj is None:
            raise not_found(kind, name)
        if kind.key == "pods":
            return self.delete_pod(obj, grace)
        if kind.key == "namespaces":
            for other in self.kinds.kinds:
                if other.namespaced and other.group != "events.k8s.io":
                    for child in self.store.all(other.key, name):
                        if other.key == "pods":
                            self.delete_pod(child, 0)
                        else:
                            self.store.remove(other.key, child["metadata"]["name"], name)
        if kind.key == "customresourcedefinitions.apiextensions.k8s.io":
            for gone in self.kinds.remove(obj["spec"]["group"], obj["spec"]["names"]["plural"]):
                for custom in self.store.all(gone.key):
                    self.store.remove(gone.key, custom["metadata"]["name"], custom["metadata"].get("namespace", ""))
        self.store.remove(kind.key, name, namespace)
        return obj

    def delete_pod(self, pod: Obj, grace: int | None = None) -> Obj:
        """Delete a pod: at once when it never started, ended, or by force; else its kubelet stops it first."""
        meta, spec = pod["metadata"], pod["spec"]
        seconds = spec.get("terminationGracePeriodSeconds", 30) if grace is None else grace
        kubelet = self.kubelets.get(spec.get("nodeName", ""))
        ended = (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
        if kubelet is None or seconds == 0 or ended:
            self.store.remove("pods", meta["name"], meta["namespace"])
            return pod
        if meta.get("deletionTimestamp"):
            return pod
        fresh = copy.deepcopy(pod)
        fresh["metadata"] |= {"deletionTimestamp": self.clock.stamp(), "deletionGracePeriodSeconds": seconds}
        stored = self.store.put(self.pods_kind, fresh)
        kubelet.stop(stored, float(seconds))
        return stored

    # ------------------------------------------------------------------ nodes

    def post_node(self, name: str) -> None:
        """The kubelet of a node posts its status."""
        self.store.put(self.nodes_kind, node_objects.node_object(self, self.kubelets[name]))
        lease = node_objects.lease_object(self, self.kubelets[name])
        self.store.put(self.kinds.key("leases.coordination.k8s.io"), lease)

    def node_status_soon(self, name: str) -> None:
        """The device manager changed: the next periodic status push tells."""
        if name in self._node_posts or self._closed:
            return
        self._node_posts.add(name)

        def push() -> None:
            self._node_posts.discard(name)
            self.post_node(name)

        self.clock.after(_NODE_STATUS_S, push)

    def heartbeat(self) -> None:
        """Bring heartbeat times of live nodes up to date when somebody looks (kubelets post every 10 s)."""
        if self.clock.now() - self._last_heartbeat < 1.0:
            return
        self._last_heartbeat = self.clock.now()
        for kubelet in self.kubelets.values():
            if kubelet.alive:
                self.post_node(kubelet.name)

    def node_label(self, node: str, label: str) -> str | None:
        """A label of a node."""
        found = self.store.get("nodes", node)
        return (found["metadata"].get("labels") or {}).get(label) if found else None

    def _feature_labels(self, node: str, labels: dict[str, str]) -> None:
        found = self.store.get("nodes", node)
        if found is None:
            return
        fresh = copy.deepcopy(found)
        meta = fresh["metadata"]
        own = "nfd.node.kubernetes.io/feature-labels"
        before = [n for n in (meta.get("annotations") or {}).get(own, "").split(",") if n]
        kept = {
            k: v
            for k, v in (meta.get("labels") or {}).items()
            if k.removeprefix("feature.node.kubernetes.io/") not in before
        }
        meta["labels"] = kept | labels
        short = sorted(k.removeprefix("feature.node.kubernetes.io/") for k in labels)
        meta.setdefault("annotations", {})[own] = ",".join(short)
        if not short:
            del meta["annotations"][own]
        self.store.put(self.nodes_kind, fresh)

    def machine_of(self, node: str) -> str:
        """The DMI product name of a node as GFD writes it (gpu.machine)."""
        kubelet = self.kubelets[node]
        product = str(getattr(kubelet.state, "product_name", "") or kubelet.inputs.get("machine", ""))
        return "-".join(re.sub(r"[^A-Za-z0-9\-_. ]", "", product).split()) or "unknown"

    def pod_cidr(self, node: str) -> str:
        """The node's range of pod addresses."""
        return f"10.244.{sorted(self.kubelets).index(node)}.0/24"

    def pod_ip(self, node: str, number: int) -> str:
        """An address of that range."""
        return f"10.244.{sorted(self.kubelets).index(node)}.{number % 250 + 2}"

    # ------------------------------------------------------------------ containers

    @property
    def containerd_two(self) -> bool:
        """Whether containerd is 2.x: node.status.runtimeHandlers, container user."""
        return not self.containerd.startswith("1.")

    def handler_of(self, pod: Obj) -> str:
        """The runtime handler of the pod's RuntimeClass, "" for the node's default."""
        name = pod["spec"].get("runtimeClassName")
        found = self.store.get("runtimeclasses.node.k8s.io", name) if name else None
        return str(found.get("handler", "")) if found else ""

    def image(self, ref: str) -> runtime.Image:
        """The image of a reference."""
        if ref not in self._images:
            self._images[ref] = runtime.image_from(ref, self.inputs.get("images") or {})
        return self._images[ref]

    def _digest(self, ref: str) -> str:
        return self.image(ref).digest or f"sha256:{self.store.hex('image ' + ref)}"

    def pull(self, node: str, ref: str) -> str:
        """Pull an image to a node; returns the error text, "" on success."""
        image = self.image(ref)
        state = str(((self.inputs.get("registries") or {}).get(image.registry) or {}).get("state", "up"))
        if state == "up" and not image.exists:
            host = image.registry
            state = "not-found" if "." in host and not host.endswith(".invalid") else "no-such-host"
        if state == "up":
            self.kubelets[node].images[ref] = self._digest(ref)
            self.node_status_soon(node)
            return ""
        return runtime.pull_error(ref, state, str(self.inputs.get("resolver", "10.96.0.10")))

    def pod_security(self, namespace: str) -> dict[str, str]:
        """Pod Security levels of a namespace: its labels over the cluster's defaults (Talos: enforce baseline)."""
        defaults = self.inputs.get("pod_security") or {}
        found = {m: str(defaults.get(m, "privileged")) for m in ("enforce", "warn")}
        if namespace in (defaults.get("exempt") or ("kube-system",)):
            return dict.fromkeys(found, "privileged")
        space = self.store.get("namespaces", namespace)
        labels = (space or {"metadata": {}})["metadata"].get("labels") or {}
        return {m: labels.get(f"pod-security.kubernetes.io/{m}", level) for m, level in found.items()}
