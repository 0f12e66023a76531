"""The kubelet's device manager: which device ids exist on a node, and who holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


class AdmissionRefused(Exception):
    """The device manager cannot serve a pod; the text goes behind `Allocate failed due to `."""


@dataclass
class Endpoint:
    """A registered device plugin and its devices."""

    resource: str
    devices: dict[str, bool]  # id -> healthy
    allocate: Callable[[list[str]], str]  # "" or the plugin's error text
    alive: bool = True


@dataclass
class DeviceManager:
    """Devices of one node.

    Attributes:
        endpoints: by resource name; a stopped one stays, with alive False (its capacity is kept for five minutes).
        held: pod uid -> container -> resource -> device ids.
        leaked: ids that the kubelet believes allocated although no pod holds them (K8S#130145).
        known: resources whose key the node status keeps for ever (K8S#92396).
    """

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    held: dict[str, dict[str, dict[str, list[str]]]] = field(default_factory=dict)
    leaked: dict[str, list[str]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)

    def register(self, endpoint: Endpoint) -> None:
        """A plugin registered (again)."""
        self.endpoints[endpoint.resource] = endpoint
        self.known.add(endpoint.resource)

    def stop(self, resource: str) -> None:
        """The plugin's stream ended: its devices count as unhealthy, the capacity stays."""
        if resource in self.endpoints:
            self.endpoints[resource].alive = False

    def forget_all(self) -> None:
        """The kubelet restarted: nothing is registered until plugins come again."""
        self.endpoints.clear()

    def numbers(self) -> dict[str, tuple[int, int]]:
        """Capacity and allocatable by resource."""
        found = dict.fromkeys(self.known, (0, 0))
        for name, endpoint in self.endpoints.items():
            healthy = sum(endpoint.devices.values()) if endpoint.alive else 0
            found[name] = (len(endpoint.devices), healthy)
        return found

    def ids_in_use(self, resource: str) -> set[str]:
        """Ids held by pods, and leaked ones."""
        used = set(self.leaked.get(resource, ()))
        for by_container in self.held.values():
            for by_resource in by_container.values():
                used.update(by_resource.get(resource, ()))
        return used

    def allocate(self, uid: str, container: str, resource: str, count: int) -> list[str]:
        """Take `count` devices for a container.

        Raises:
            AdmissionRefused: with the kubelet's text (real-kubernetes.md, Rejected by the kubelet).
        """
        endpoint = self.endpoints.get(resource)
        if endpoint is None:
            # predicate.go: a resource the node never knew is not the kubelet's business
            if resource not in self.known:
                return []
            raise AdmissionRefused(f"no healthy devices present; cannot allocate unhealthy devices {resource}")
        healthy = [i for i, well in endpoint.devices.items() if well and endpoint.alive]
        if not healthy:
            raise AdmissionRefused(f"no healthy devices present; cannot allocate unhealthy devices {resource}")
        used = self.ids_in_use(resource)
        free = [i for i in healthy if i not in used]
        if len(free) < count:
            raise AdmissionRefused(
                f"requested number of devices unavailable for {resource}. Requested: {count}, Available: {len(free)}"
            )
        wanted = free[:count]
        error = endpoint.allocate(wanted)
        if error:
            raise AdmissionRefused(f"rpc error: code = Unknown desc = {error}")
        self.held.setdefault(uid, {}).setdefault(container, {})[resource] = wanted
        return wanted

    def leak(self, resource: str, count: int) -> None:
        """Book free devices as taken by nobody."""
        endpoint = self.endpoints.get(resource)
        used = self.ids_in_use(resource)
        free = [i for i in (endpoint.devices if endpoint else {}) if i not in used]
        self.leaked.setdefault(resource, []).extend(free[-count:])

    def release(self, uid: str) -> None:
        """A pod is gone or terminal."""
        self.held.pop(uid, None)

    def of(self, uid: str, container: str) -> dict[str, list[str]]:
        """Device ids of one container by resource."""
        return self.held.get(uid, {}).get(container, {})

    def healthy(self, resource: str, device: str) -> bool:
        """Health of a device as container status shows it; an endpoint that went away keeps its last word."""
        endpoint = self.endpoints.get(resource)
        return bool(endpoint and endpoint.devices.get(device, False))
