"""Memory: a VM with a passed device pins all of it at start and never gives any back."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.vm_devices import is_running, names_of, shown, vm_config, vm_label
from labproof.facts.reading import State, need

MIB = 1024**2
#: QEMU's own memory beside the guest's, and what the host needs to stay responsive while it pins.
MARGIN_MIB = 1024


@clause_check(
    "VM-MEMORY-001",
    title="The host has the memory to start the VM",
    severity=BLOCKING,
    scope="chain",
    reads=("vm",),
    causes=("P37",),
    after=("VM-EXISTS-001",),
)
def memory_suffices(subject: Subject) -> Judgement:
    """V7: only before a start; a running VM has its memory already."""
    config = vm_config(subject)
    node = need(subject.pve_facts.node_status, "node status")
    free = node.memory_available // MIB
    evidence = Evidence(f"GET /nodes/{subject.pve_facts.node}/status", f"{free} MiB available")
    if is_running(subject) or subject.vm.state != "always":
        return Pass((evidence,))
    wanted = (config.memory_mib or 0) + MARGIN_MIB
    if config.hostpci and "hugepages" not in config.keys and free < wanted:
        text = Evidence("qm config", f"memory {config.memory_mib} MiB, and {MARGIN_MIB} MiB beside it")
        return Fail((Problem("P37", vm_label(subject), (evidence, text), names_of(subject)),))
    return Pass((evidence,))


@clause_check(
    "VM-MEMORY-002",
    title="The running VMs leave the host memory of its own",
    severity=DEGRADED,
    scope="host",
    reads=("vm",),
    causes=("P60",),
)
def running_vms_leave_memory(subject: Subject) -> Judgement:
    """P60: with pinned memory, overcommitment cannot be paged or ballooned away. Containers' limits do not count."""
    pve = subject.pve_facts
    node = need(pve.node_status, "node status")
    guests = need(pve.guests, "guests")
    running = [g for g in guests if g.node == pve.node and g.kind == "qemu" and g.status == "running"]
    total = sum(g.memory for g in running)
    text = f"{len(running)} running VMs may use {total // MIB} MiB of {node.memory_total // MIB} MiB"
    evidence = Evidence("GET /cluster/resources?type=vm", text)
    if node.memory_total and total > node.memory_total:
        return Fail((Problem("P60", subject.host.name, (evidence,), (("host", subject.host.name),)),))
    return Pass((evidence,))


@clause_check(
    "VM-HUGEPAGES-001",
    title="Hugepages the VM asks for can be had",
    severity=BLOCKING,
    scope="chain",
    reads=("host", "vm"),
    causes=("P38",),
    after=("VM-EXISTS-001",),
)
def hugepages_can_be_had(subject: Subject) -> Judgement:
    """P38: hugepages need `numa: 1`; before a start enough free pages of that size, or memory to make them of."""
    config = vm_config(subject)
    asked = config.keys.get("hugepages")
    evidence = shown(subject, config, "hugepages", "numa", "memory")
    if asked is None:
        return Pass((evidence,))
    label, values = vm_label(subject), names_of(subject)
    if config.keys.get("numa") != "1":
        return Fail((Problem("P38", label, (evidence,), values),))
    if is_running(subject) or asked == "any":
        return Pass((evidence,))
    sizes = subject.host_facts.hugepages
    pages = {p.size_kib: p for p in (need(sizes, "hugepages") if sizes.state is State.VALUE else ())}
    size_kib = int(asked) * 1024
    page = pages.get(size_kib)
    wanted = (config.memory_mib or 0) * 1024 // size_kib
    have = page.free if page else 0
    text = f"{have} free pages of {asked} MiB, {wanted} wanted"
    counted = Evidence(f"cat /sys/kernel/mm/hugepages/hugepages-{size_kib}kB/free_hugepages", text)
    # 2 MiB pages are made at start from free memory; 1 GiB pages in practice only at boot
    if page is None or (int(asked) >= 1024 and have < wanted):
        return Fail((Problem("P38", label, (evidence, counted), values),))
    return Pass((evidence, counted))
