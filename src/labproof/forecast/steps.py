"""The steps of an upgrade in this lab: which machine moves from which version to which, as the facts have it today."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from labproof.catalogue.upgrades import numbers
from labproof.checks.kubernetes_view import image_version
from labproof.checks.talos_api import has_plain_installer, plain_installer_ends_before
from labproof.checks.talos_upgrade import no_room_for_another_image
from labproof.facts.bundle import Facts
from labproof.facts.host import HostFacts
from labproof.facts.kubernetes import ClusterFacts
from labproof.facts.reading import Reading
from labproof.facts.talos import TalosFacts
from labproof.forecast.target import BadTarget, Targets
from labproof.inventory.models import Cluster, Lab

PIN_FILE = "/etc/kernel/proxmox-boot-pin"
#: The standalone plugin and the operator carry versions of their own.
_FLAVOUR = {"plugin": "nvidia-device-plugin", "operator": "gpu-operator"}


@dataclass(frozen=True)
class Step:
    """One machine or cluster that moves. `stays` says why it does not, though it was asked to."""

    component: str
    subject: str
    before: str
    after: str
    stays: str = ""

    @property
    def moves(self) -> bool:
        """Whether another version will run."""
        return not self.stays and self.before != self.after

    def __str__(self) -> str:
        if self.stays:
            return f"{self.component} {self.subject}: {self.before} stays ({self.stays})"
        same = " (runs already)" if self.before == self.after else ""
        return f"{self.component} {self.subject}: {self.before} -> {self.after}{same}"


@dataclass(frozen=True)
class Missing:
    """Something a forecast needs and the facts do not hold."""

    what: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What moves, and what could not be told."""

    steps: tuple[Step, ...]
    missing: tuple[Missing, ...]

    def of(self, component: str, subject: str) -> Step | None:
        """The step of one component on one subject that really moves it."""
        found = (s for s in self.steps if s.component == component and s.subject == subject and s.moves)
        return next(found, None)


def plan_of(facts: Facts, lab: Lab, targets: Targets) -> Plan:
    """The steps that these targets mean in this lab.

    Raises:
        BadTarget: the lab has nothing of a component, or it runs something newer already.
    """
    steps: list[Step] = []
    missing: list[Missing] = []
    for found in _all(facts, lab, targets):
        if isinstance(found, Missing):
            missing.append(found)
            continue
        if not found.stays and _older(found.after, found.before):
            raise BadTarget(
                f"{found.component} {found.after} would be a downgrade: {found.subject} runs {found.before}; "
                "a forecast looks ahead only"
            )
        steps.append(found)
    return Plan(tuple(steps), tuple(missing))


def _older(after: str, before: str) -> bool:
    width = min(len(numbers(after)), len(numbers(before)))
    return numbers(after)[:width] < numbers(before)[:width]


def _all(facts: Facts, lab: Lab, targets: Targets) -> Iterator[Step | Missing]:
    if targets.pve or targets.kernel:
        yield from _hosts(facts, lab, targets)
    if targets.talos:
        yield from _talos(facts, lab, targets.talos)
    if targets.kubernetes or targets.kubelet:
        yield from _kubernetes(facts, lab, targets)
    for component in _FLAVOUR:
        version = getattr(targets, component)
        if version:
            yield from _charts(facts, lab, component, version)


def _unread(what: str, reading: Reading[Any]) -> Missing:
    return Missing(what, reading.why or "not recorded")


def _hosts(facts: Facts, lab: Lab, targets: Targets) -> Iterator[Step | Missing]:
    hosts = [h for h in lab.hosts if h.kind == "proxmox"]
    if not hosts:
        raise BadTarget("this lab has no Proxmox VE host, so there is nothing to upgrade by --to pve or kernel")
    for host in hosts:
        if targets.pve:
            told = facts.pve(host.name)
            version = told.value.version if told.value is not None else None
            if version is None or version.value is None:
                yield _unread(f"version of Proxmox VE on {host.name}", version if version is not None else told)
            else:
                yield Step("pve", host.name, version.value.version, targets.pve)
        reading = facts.host(host.name)
        if reading.value is None or reading.value.kernel.value is None:
            yield _unread(f"kernel of {host.name}", reading if reading.value is None else reading.value.kernel)
        elif targets.kernel:
            yield _kernel(host.name, reading.value, reading.value.kernel.value, targets.kernel)


def _kernel(host: str, facts: HostFacts, running: str, target: str) -> Step:
    pinned = [f.lines[0].strip() for f in facts.boot_files.value or () if f.path == PIN_FILE and f.lines]
    if pinned:
        return Step("kernel", host, running, target, f"pinned to {pinned[0]}: proxmox-boot-tool kernel unpin")
    return Step("kernel", host, running, target)


def _talos(facts: Facts, lab: Lab, target: str) -> Iterator[Step | Missing]:
    nodes = [n for n in lab.nodes if n.os == "talos" and n.talos is not None]
    if not nodes:
        raise BadTarget("this lab declares no Talos node, so there is nothing to upgrade by --to talos")
    for node in nodes:
        reading = facts.talos(node.name)
        if reading.value is None:
            yield _unread(f"Talos API of {node.name}", reading)
        elif reading.value.version.value is None:
            yield _unread(f"Talos version of {node.name}", reading.value.version)
        else:
            tag = reading.value.version.value.tag
            yield Step("talos", node.name, tag, target, refusal(reading.value, target))


def refusal(facts: TalosFacts, target: str) -> str:
    """Why the upgrade cannot install this release; empty when nothing known stands against it.

    A node that has neither a schematic nor an extension was installed from the plain installer, which `talosctl
    upgrade` takes again; an image built by hand with extensions lies in a registry of the owner's.
    """
    if has_plain_installer(facts) and plain_installer_ends_before(target):
        return "it was installed from the plain installer image, which is not published for this release"
    partition = facts.boot_partition.value
    if partition is not None and no_room_for_another_image(facts) is not None:
        return f"its {partition.label} partition of {partition.size_mib} MiB has no room for another image"
    return ""


def _kubernetes(facts: Facts, lab: Lab, targets: Targets) -> Iterator[Step | Missing]:
    for cluster in lab.clusters:
        reading = facts.cluster(cluster.name)
        version = reading.value.version if reading.value is not None else None
        if reading.value is None or version is None or version.value is None:
            yield _unread(f"Kubernetes version of {cluster.name}", version if version is not None else reading)
            continue
        server = version.value.split("+")[0]
        if targets.kubernetes:
            yield Step("kubernetes", cluster.name, server, targets.kubernetes)
        if reading.value.nodes.value is None:
            yield _unread(f"nodes of {cluster.name}", reading.value.nodes)
        for node in reading.value.nodes.value or ():
            declared = node.name in {n.name for n in lab.nodes}
            if not declared or not node.kubelet:
                continue
            follows = numbers(node.kubelet)[:2] == numbers(server)[:2]
            target = targets.kubelet or (targets.kubernetes if follows else None)
            if target:
                yield Step("kubelet", node.name, node.kubelet, target)
            else:
                why = f"it does not run the API server's {server} today, so something holds it: --to kubelet=VERSION"
                yield Step("kubelet", node.name, node.kubelet, str(targets.kubernetes), why)


def _charts(facts: Facts, lab: Lab, component: str, target: str) -> Iterator[Step | Missing]:
    clusters = [c for c in lab.clusters if c.plugin.flavour == _FLAVOUR[component]]
    if not clusters:
        raise BadTarget(f"no cluster of this lab uses the {_FLAVOUR[component]}, so --to {component} moves nothing")
    for cluster in clusters:
        reading = facts.cluster(cluster.name)
        if reading.value is None:
            yield _unread(f"Kubernetes API of {cluster.name}", reading)
            continue
        images = _images(reading.value, component)
        if images is None:
            yield _unread(f"images of the {_FLAVOUR[component]} in {cluster.name}", reading.value.daemonsets)
            continue
        versions = [v for v in map(image_version, images) if v is not None]
        if versions:
            yield Step(component, cluster.name, ".".join(map(str, max(versions))), target)
        else:
            yield Missing(f"version of the {_FLAVOUR[component]} in {cluster.name}", "no image with a version runs")


def _images(cluster: ClusterFacts, component: str) -> tuple[str, ...] | None:
    if component == "plugin":
        sets = cluster.daemonsets.value
        return None if sets is None else tuple(i for d in sets if d.role == "plugin" for i in d.images)
    pods = cluster.pods.value
    if pods is None:
        return None
    return tuple(c.image for p in pods for c in p.containers if c.name == "gpu-operator")


def declared_after(lab: Lab, plan: Plan) -> Lab:
    """The lab as its owner declares it once the upgrade is ordered: versions only.

    A machine that stays behind is declared with the new version too: that is how its staying shows.
    """
    ordered = {(s.component, s.subject): s.after for s in plan.steps}
    nodes = tuple(
        n.model_copy(update={"talos": n.talos.model_copy(update={"version": ordered["talos", n.name]})})
        if n.talos is not None and ("talos", n.name) in ordered
        else n
        for n in lab.nodes
    )
    clusters = tuple(_cluster_after(c, ordered) for c in lab.clusters)
    return lab.model_copy(update={"nodes": nodes, "clusters": clusters})


def _cluster_after(cluster: Cluster, ordered: dict[tuple[str, str], str]) -> Cluster:
    moved = cluster
    if ("kubernetes", cluster.name) in ordered:
        moved = moved.model_copy(update={"version": ordered["kubernetes", cluster.name]})
    for component in _FLAVOUR:
        if (component, cluster.name) in ordered:
            plugin = moved.plugin.model_copy(update={"version": ordered[component, cluster.name]})
            moved = moved.model_copy(update={"plugin": plugin})
    return moved
