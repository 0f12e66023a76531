"""The door of the talos layer: the API answers, from the node and the release that lab.yaml declares."""

from __future__ import annotations

from labproof.catalogue.versions import does, parse_tag
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.talos_upgrade import no_room_for_another_image
from labproof.checks.talos_view import displays, listed, log_evidence, log_lines, problem, seen, tag_of
from labproof.facts.reading import State, Unjudged, need
from labproof.facts.talos import TalosFacts

_REFUSALS = {"no request forwarding": "T51", "not authorized": "T52", "expired": "T54"}


@clause_check(
    "TALOS-API-001",
    title="The Talos API answers os:reader",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T51", "T52", "T54"),
)
def api_answers_a_reader(subject: Subject) -> Judgement:
    """A refusal with a known cause is a finding; silence is not (the node may be down for a reason below)."""
    reading = subject.facts.talos(subject.node.name)
    if reading.state is State.VALUE and reading.value is not None:
        facts = reading.value
        told = f"{tag_of(facts)} to {facts.role or 'a certificate without role'}"
        return Pass((seen(facts.version, told),))
    cause = _REFUSALS.get(reading.kind)
    if cause is None:
        raise Unjudged(reading, f"Talos API of {subject.node.name}")
    return Fail((problem(subject, cause, Evidence(reading.source, reading.why)),))


@clause_check(
    "TALOS-GUEST-001",
    title="The guest sees every passed card",
    severity=BLOCKING,
    scope="chain",
    reads=("talos",),
    causes=("T56", "T57"),
    wants=("nvidia",),
    after=("TALOS-API-001",),
)
def guest_sees_every_card(subject: Subject) -> Judgement:
    """Matched by vendor:device, never by address: firmware numbers the guest's buses (facts proxmox 2.4)."""
    facts = subject.talos_facts
    devices = need(facts.pci, "PCI devices of the node")
    gpu, node = subject.chain.gpu, subject.node
    wanted = sum(1 for g in subject.lab.gpus if g.device == gpu.device and _on_node(subject, g.name))
    cards = [d for d in displays(devices) if d.vendor_device == gpu.device]
    others = [d for d in devices if d.vendor_device.startswith("10de:") and d not in cards]
    shown = listed(f"{d.address} {d.vendor_device} class {d.class_code}" for d in (*cards, *others))
    evidence = seen(facts.pci, f"NVIDIA functions: {shown}")
    if len(cards) <= _rank(subject):  # of several alike the first are taken for served, as at the VM's entries
        partial = others and not displays(devices)
        expected = f"lab.yaml declares {wanted} x {gpu.device} for {node.name}"
        cause = "T57" if partial else "T56"
        return Fail((problem(subject, cause, evidence, Evidence("lab.yaml", expected), about=gpu.name),))
    return Pass((evidence,))


@clause_check(
    "TALOS-GUEST-002",
    title="The guest sees the card's further functions",
    severity=DEGRADED,
    scope="chain",
    reads=("talos",),
    causes=("T85",),
    wants=("nvidia", "functions"),
    after=("TALOS-GUEST-001",),
)
def guest_sees_every_function(subject: Subject) -> Judgement:
    """The card computes and encodes without its audio and USB functions; a function left with the host is half a
    passthrough: the host's driver may touch it, and the slot cannot be reset as one (facts proxmox 1, P22).
    """
    facts = subject.talos_facts
    devices = need(facts.pci, "PCI devices of the node")
    gpu = subject.chain.gpu
    wanted = sum(1 for g in subject.lab.gpus if g.device == gpu.device and _on_node(subject, g.name))
    have = [d.vendor_device for d in devices]
    missing = [f for f in gpu.functions if have.count(f) < gpu.functions.count(f) * wanted]
    evidence = seen(facts.pci, f"PCI functions: {listed(f'{d.address} {d.vendor_device}' for d in devices)}")
    if missing:
        expected = f"lab.yaml also declares {listed(missing)} for {gpu.name}"
        return Fail((problem(subject, "T85", evidence, Evidence("lab.yaml", expected), about=gpu.name),))
    return Pass((evidence,))


def _rank(subject: Subject) -> int:
    """How many GPUs of the same model reach the node before this one, in the order in which the VM is given them."""
    chain, lab = subject.chain, subject.lab
    order = chain.vm.gpus if chain.vm is not None else subject.node.gpus
    alike = [name for name in order if lab.gpu(name).device == chain.gpu.device]
    return alike.index(chain.gpu.name) if chain.gpu.name in alike else 0


def _on_node(subject: Subject, gpu: str) -> bool:
    """Whether another GPU of the lab reaches the same node."""
    node, lab = subject.node, subject.lab
    return gpu in node.gpus or any(gpu in vm.gpus and vm.name == node.vm for vm in lab.vms)


@clause_check(
    "TALOS-VERSION-001",
    title="The node runs the declared Talos version",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T04", "T44", "T45", "T64"),
    after=("TALOS-API-001",),
)
def version_is_the_declared_one(subject: Subject) -> Judgement:
    """A version that is not the declared one means that an upgrade did not stay (facts talos 5, A/B scheme)."""
    facts = subject.talos_facts
    talos = subject.node.talos
    declared = talos.version if talos else None
    running = tag_of(facts)
    if declared is None:
        return Pass((seen(facts.version, f"{running}; lab.yaml declares no version to compare with"),))
    evidence = (seen(facts.version, running), Evidence("lab.yaml", f"version: {declared}"))
    if running == declared:
        return Pass(evidence[:1])
    if has_plain_installer(facts) and plain_installer_ends_before(declared):
        told = seen(facts.schematic, f"no schematic and no extension: a plain installer, and {declared} has none")
        return verdict_of([problem(subject, "T45", *evidence, told)])
    lack = no_room_for_another_image(facts)
    if lack is not None and is_older(running, declared):
        partition = facts.boot_partition.value
        told = seen(facts.boot_partition, f"{partition.label}: {partition.size_mib} MiB" if partition else "")
        return verdict_of([problem(subject, lack, *evidence, told)])
    fallback = log_evidence(facts, log_lines(facts, "boot sequence"))
    return verdict_of([problem(subject, "T04", *evidence, *fallback)])


def is_older(running: str, declared: str) -> bool:
    """Whether the running release is older than the declared one, so that an upgrade did not take place."""
    try:
        return parse_tag(running) < parse_tag(declared)
    except ValueError:
        return False


def has_plain_installer(facts: TalosFacts) -> bool:
    """Whether the node was installed from the plain installer image: no schematic, and no extension built in."""
    return facts.schematic.state is State.ABSENT and facts.extensions.value == ()


def plain_installer_ends_before(tag: str) -> bool:
    """Whether there is no plain installer image of this release."""
    try:
        return not does(tag, "plain_installer")
    except ValueError:  # lab.yaml may declare what is no release tag; that it does not run is told anyway
        return False
