"""The VM is there, on this node, readable, unlocked, and it is the declared one."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.vm_devices import config_path, names_of, vm_facts, vm_label
from labproof.facts.reading import Reading, State, need


@clause_check(
    "VM-RIGHTS-001",
    title="The API account sees what the suite reads",
    severity=DEGRADED,
    scope="host",
    reads=("vm",),
    causes=("P51",),
)
def account_sees_the_node(subject: Subject) -> Judgement:
    """H2: nothing forbidden, and no list is empty that cannot be (PVE filters instead of refusing)."""
    pve = subject.pve_facts
    values = (("host", subject.host.name),)
    readings: tuple[tuple[str, Reading[tuple[object, ...]]], ...] = (
        ("/nodes", pve.nodes),  # type: ignore[assignment]
        ("/cluster/resources?type=vm", pve.guests),
        (f"/nodes/{pve.node}/hardware/pci", pve.pci),
    )
    problems = []
    for path, reading in readings:
        if reading.state is State.FAILED and reading.kind != "forbidden":
            return Unchecked(f"{path}: {reading.why}", reading)
        if reading.state is State.VALUE and reading.value:
            continue
        text = "200 with an empty list" if reading.state is State.VALUE else reading.why
        problems.append(Problem("P51", f"{pve.identity}: {path}", (Evidence(f"GET {path}", text),), values))
    for vm in pve.vms:
        if vm.config.kind == "forbidden":
            where = Evidence(vm.config.source, vm.config.why)
            problems.append(Problem("P51", f"{pve.identity}: VM {vm.vmid.value}", (where,), values))
    seen = [f"{path}: {len(reading.value or ())}" for path, reading in readings]
    return verdict_of(problems, (Evidence("GET /nodes", f"as {pve.identity}: {', '.join(seen)}"),))


@clause_check(
    "VM-EXISTS-001",
    title="The declared VM is on this node",
    severity=BLOCKING,
    scope="chain",
    reads=("vm",),
    causes=("P52",),
)
def vm_is_on_the_node(subject: Subject) -> Judgement:
    """V1: found by id or match, its configuration is on this node, and its MAC is the declared one."""
    pve, vm = subject.pve_facts, vm_facts(subject)
    label, values = vm_label(subject), names_of(subject)
    if vm.vmid.state is State.ABSENT:
        where = Evidence(vm.vmid.source, vm.vmid.why)
        return Fail((Problem("P52", label, (where,), values),))
    vmid = need(vm.vmid, f"VM {subject.vm.name}")
    elsewhere = next((g for g in pve.guests.value or () if g.vmid == vmid and g.node != pve.node), None)
    if vm.config.state is State.ABSENT or elsewhere is not None:
        place = f"VM {vmid} is on node {elsewhere.node}" if elsewhere else f"no VM {vmid} in what the account may see"
        evidence = (Evidence("GET /cluster/resources?type=vm", place), Evidence(config_path(subject), vm.config.why))
        return Fail((Problem("P52", label, evidence, values),))
    config = need(vm.config, f"configuration of {subject.vm.name}")
    nets = "; ".join(text for key, text in config.keys.items() if key.startswith("net"))
    if subject.vm.mac is not None and subject.vm.mac.lower() not in nets.lower():
        text = f"declared MAC {subject.vm.mac}, found {nets or 'no network card'}"
        remedy = f"{label} is another VM than the declared one: correct its id (or use `match`) in lab.yaml."
        return Fail((Problem("P52", label, (Evidence(config_path(subject), text),), values, remedy),))
    return Pass((Evidence(config_path(subject), f"{label} {config.keys.get('name', '')} on {pve.node}"),))


@clause_check(
    "VM-LOCK-001",
    title="The VM is not locked",
    severity=DEGRADED,
    scope="chain",
    reads=("vm",),
    causes=("P46",),
    after=("VM-EXISTS-001",),
)
def vm_is_not_locked(subject: Subject) -> Judgement:
    """V1: no lock; under one PVE neither starts the VM nor changes it."""
    status = need(vm_facts(subject).status, f"status of {subject.vm.name}")
    where = config_path(subject, "status/current")
    if status.lock:
        evidence = Evidence(where, f"lock: {status.lock}")
        return Fail((Problem("P46", vm_label(subject), (evidence,), names_of(subject)),))
    return Pass((Evidence(where, "no lock"),))
