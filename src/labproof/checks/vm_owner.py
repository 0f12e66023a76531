"""Who else names the card: other VMs, their autostart, backups that start them."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Judgement, Problem, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.vm_devices import (
    card_entry,
    devices_of_entry,
    is_running,
    names_of,
    same_device,
    vm_config,
    vm_facts,
)
from labproof.facts.reading import need
from labproof.facts.vm import Guest, VmConfig


def rivals(subject: Subject) -> tuple[VmConfig, ...]:
    """Other VMs of the node whose configuration can only mean the same card.

    A mapping with several devices on the node is shared on purpose: PVE gives each VM the first free one, so it is
    a conflict only where the VMs outnumber the devices.
    """
    pve = subject.pve_facts
    config = vm_config(subject)
    entry = card_entry(subject, config)
    if entry is None:
        return ()
    mine = devices_of_entry(pve, entry)
    found = []
    for other in need(pve.configs, "configurations of all VMs"):
        if other.vmid == config.vmid or _is_template(subject, other.vmid):
            continue
        named = [d for o in other.hostpci for d in devices_of_entry(pve, o)]
        if any(same_device(a, b) for a in mine for b in named):
            found.append(other)
    places = len(mine) if entry.mapping is not None else 1
    return tuple(found) if len(found) + 1 > places else ()


def _guest(subject: Subject, vmid: int) -> Guest | None:
    return next((g for g in subject.pve_facts.guests.value or () if g.vmid == vmid), None)


def _is_template(subject: Subject, vmid: int) -> bool:
    guest = _guest(subject, vmid)
    return guest is not None and guest.template


def _runs(subject: Subject, vmid: int) -> bool:
    guest = _guest(subject, vmid)
    return guest is not None and guest.status == "running"


def _line(config: VmConfig) -> str:
    entries = "; ".join(f"hostpci{h.index}: {config.keys[f'hostpci{h.index}']}" for h in config.hostpci)
    return f"VM {config.vmid} {config.keys.get('name', '')}: {entries}"


_CONFIGS = "GET /nodes/{node}/qemu/{vmid}/config"


@clause_check(
    "VM-OWNER-001",
    title="No other running VM has the GPU",
    severity=BLOCKING,
    scope="chain",
    reads=("vm",),
    causes=("P31",),
    after=("VM-HOSTPCI-001",),
)
def no_other_vm_has_the_gpu(subject: Subject) -> Judgement:
    """V6: a running VM that names the card holds it, unless ours runs: then PVE has given it to ours."""
    others = rivals(subject)
    running = [other for other in others if _runs(subject, other.vmid)]
    evidence = Evidence(_CONFIGS, "; ".join(_line(o) for o in others) or "no other VM names the card")
    if running and not is_running(subject):
        problem = [
            Problem("P31", f"VM {o.vmid}", (Evidence(_CONFIGS, f"{_line(o)}, running"),), names_of(subject))
            for o in running
        ]
        return verdict_of(problem, (evidence,))
    return verdict_of((), (evidence,))


@clause_check(
    "VM-OWNER-002",
    title="No other VM is set up to take the GPU",
    severity=DEGRADED,
    scope="chain",
    reads=("vm",),
    causes=("P31", "P49"),
    after=("VM-HOSTPCI-001", "VM-OWNER-001"),
)
def no_other_vm_wants_the_gpu(subject: Subject) -> Judgement:
    """V6: a second configuration with the card; with onboot on both, the next boot of the host is a race.

    Two VMs that the lab declares for the same GPU take turns by the owner's will; only the race remains a fault.
    """
    config = vm_config(subject)
    declared = {vm.vmid.value for vm in subject.pve_facts.vms if _shares(subject, vm.name)}
    problems = []
    others = rivals(subject)
    for other in others:
        both = config.keys.get("onboot") == "1" == other.keys.get("onboot")
        if not both and other.vmid in declared:
            continue
        text = _line(other) + (", onboot: 1 on both" if both else "")
        cause = "P49" if both else "P31"
        problems.append(Problem(cause, f"VM {other.vmid}", (Evidence(_CONFIGS, text),), names_of(subject)))
    entry = card_entry(subject, config)
    status = vm_facts(subject).status.value
    several = len(subject.pve_facts.nodes.value or ()) > 1
    if several and status is not None and status.ha_managed and entry is not None and entry.mapping is None:
        text = f"{_line(config)}; HA may recover it on another node, where this raw address is another device"
        problems.append(Problem("P49", f"VM {config.vmid}", (Evidence(_CONFIGS, text),), names_of(subject)))
    evidence = Evidence(_CONFIGS, "; ".join(_line(o) for o in others) or "no other VM names the card")
    return verdict_of(problems, (evidence,))


def _shares(subject: Subject, name: str) -> bool:
    vm = subject.lab.vm(name)
    return name != subject.vm.name and subject.chain.gpu.name in vm.gpus


@clause_check(
    "VM-BACKUP-001",
    title="No backup job starts another VM with the GPU",
    severity=DEGRADED,
    scope="chain",
    reads=("vm",),
    causes=("P50",),
    after=("VM-HOSTPCI-001",),
)
def no_backup_takes_the_gpu(subject: Subject) -> Judgement:
    """P50: vzdump starts a stopped VM paused, with all its devices (qemu-server VZDump/QemuServer.pm)."""
    others = [o for o in rivals(subject) if not _runs(subject, o.vmid)]
    if not others:
        return verdict_of((), (Evidence(_CONFIGS, "no stopped VM names the card"),))
    problems = []
    for job in need(subject.pve_facts.backup_jobs, "backup jobs"):
        if not job.enabled or job.node not in ("", subject.pve_facts.node):
            continue
        for other in others:
            covered = other.vmid in job.vmids or (job.all_guests and other.vmid not in job.exclude)
            if covered:
                text = f"job {job.id} covers {_line(other)}, which is stopped"
                evidence = Evidence("GET /cluster/backup", text)
                problems.append(Problem("P50", f"VM {other.vmid}", (evidence,), names_of(subject)))
    return verdict_of(problems, (Evidence("GET /cluster/backup", "no job covers a stopped VM with the card"),))
