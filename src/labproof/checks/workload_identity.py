"""POD-IDENT: one card from the declaration over Talos and the node's label to the pod."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.workload_view import values_of
from labproof.facts.nvidia_smi import SmiReport, parse_smi_list
from labproof.facts.reading import need

PRODUCT_LABEL = "nvidia.com/gpu.product"


def _report(subject: Subject) -> SmiReport:
    return need(need(subject.workload_facts.nvidia_smi, "nvidia-smi").report, "nvidia-smi -q -x")


@clause_check(
    "POD-IDENT-001",
    title="The pod got the declared card, and only what it asked for",
    severity=BLOCKING,
    scope="chain",
    reads=("workload",),
    causes=("K46", "W77"),
    wants=("nvidia",),
    after=("POD-SMI-001",),
)
def pod_got_the_declared_card(subject: Subject) -> Judgement:
    """vendor:device of every visible card, their number, and one UUID in -q, -L and (legacy) the environment.

    NVIDIA_VISIBLE_DEVICES is `void` under CDI although the GPU works (K73), so only UUIDs in it are compared.
    """
    facts, report = subject.workload_facts, _report(subject)
    values = values_of(subject, facts.probe.value)
    seen = tuple(
        Evidence("nvidia-smi -q -x", f"{g.vendor_device.value} {g.product_name.value} {g.bus_id.value} {g.uuid.value}")
        for g in report.gpus
    )
    problems = []
    strangers = [g for g in report.gpus if g.vendor_device.value not in (None, subject.chain.gpu.device)]
    if strangers:
        problems.append(Problem("W77", f"probe pod on {facts.node}", seen, values))
    asked = facts.probe.value.asked if facts.probe.value is not None else 0
    if asked and len(report.gpus) > asked:
        problems.append(Problem("K46", f"probe pod on {facts.node}", seen, values))
    by_query = {g.uuid.value for g in report.gpus if g.uuid.value}
    listed = facts.listed.value
    by_list = {uuid for _, _, uuid in parse_smi_list(listed.stdout)} if listed is not None and listed.ok else by_query
    by_env = {u for u in (facts.variable("NVIDIA_VISIBLE_DEVICES") or "").split(",") if u.startswith("GPU-")}
    if not problems and (by_list != by_query or (by_env and by_env != by_query)):
        told = Evidence("nvidia-smi -L, NVIDIA_VISIBLE_DEVICES", f"{sorted(by_list)}, {sorted(by_env)}")
        cause = "K46" if by_env and by_env < by_query else "W77"
        problems.append(Problem(cause, f"probe pod on {facts.node}", (*seen, told), values))
    return verdict_of(problems, seen)


@clause_check(
    "POD-IDENT-002",
    title="The pod's card is the one Talos sees",
    severity=BLOCKING,
    scope="chain",
    reads=("talos", "workload"),
    causes=("W77",),
    wants=("nvidia", "talos"),
    after=("POD-SMI-001", "TALOS-API-001"),
)
def card_is_at_the_guest_address(subject: Subject) -> Judgement:
    """The bus id nvidia-smi tells is the guest address of the declared card: both speak of the guest's PCI."""
    devices = need(subject.talos_facts.pci, "PCI devices of the node")
    wanted = subject.chain.gpu.device
    addresses = sorted(d.address for d in devices if d.vendor_device == wanted)
    ids = [g.bus_id.value for g in _report(subject).gpus if g.bus_id.value]
    seen = (
        Evidence(subject.talos_facts.pci.source, f"{wanted} at {', '.join(addresses) or 'no address'}"),
        Evidence("nvidia-smi -q -x", f"bus id {', '.join(ids)}"),
    )
    if ids and all(bus in addresses for bus in ids):
        return Pass(seen)
    return Fail((Problem("W77", subject.node.name, seen, values_of(subject)),))


@clause_check(
    "POD-IDENT-003",
    title="The node's product label names the pod's card",
    severity=DEGRADED,
    scope="chain",
    reads=("kubernetes", "workload"),
    causes=("K58",),
    wants=("nvidia", "gfd"),
    after=("POD-SMI-001", "K8S-LABEL-002"),
)
def product_label_names_the_card(subject: Subject) -> Judgement:
    """GFD writes the product name with dashes and, shared, `-SHARED`; a stale label sends pods to the wrong node."""
    node = next((n for n in need(subject.cluster_facts.nodes, "nodes") if n.name == subject.node.name), None)
    label = node.labels.get(PRODUCT_LABEL, "") if node is not None else ""
    names = sorted({g.product_name.value for g in _report(subject).gpus if g.product_name.value})
    seen = (
        Evidence(f"label {PRODUCT_LABEL} of node {subject.node.name}", label or "not there"),
        Evidence("nvidia-smi -q -x", ", ".join(names)),
    )
    if not label:
        return Pass(seen)  # that it is missing is for the kubernetes layer to say
    plain = label.removesuffix("-SHARED").lower()
    if any(name.replace(" ", "-").lower() == plain for name in names):
        return Pass(seen)
    return Fail((Problem("K58", subject.node.name, seen, values_of(subject)),))
