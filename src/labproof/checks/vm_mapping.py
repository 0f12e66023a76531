"""The PCI resource mapping still fits the hardware, and nothing waits for a restart."""

from __future__ import annotations

import re

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.vm_devices import config_path, mapping_rights, names_of, vm_facts, vm_label
from labproof.facts.reading import need

#: Keys of a VM that decide whether and how the card works; other pending keys are none of our business.
MATTERS = re.compile(r"hostpci\d+|machine|bios|cpu|memory|balloon|numa|hugepages|vga|efidisk0|args")


@clause_check(
    "VM-MAPPING-001",
    title="The PCI mapping fits the hardware of this node",
    severity=BLOCKING,
    scope="chain",
    reads=("vm",),
    causes=("P34", "P35"),
    wants=("mapping",),
)
def mapping_fits(subject: Subject) -> Judgement:
    """V4: PVE's own check of the mapping against sysfs, which it repeats at every start."""
    pve, wanted = subject.pve_facts, subject.vm.mapping
    mappings = need(pve.mappings, "PCI mappings")
    where = f"GET /cluster/mapping/pci?check-node={pve.node}"
    values = (("host", subject.host.name), *((k, v) for k, v in names_of(subject) if k != "host"))
    mapping = next((m for m in mappings if m.id == wanted), None)
    if mapping is None:
        if not mappings and not mapping_rights(pve):
            return Unchecked(f"the API shows {pve.identity} no mapping at all: it needs Mapping.Audit", pve.mappings)
        listed = Evidence(where, f"no mapping {wanted}; there are: {', '.join(m.id for m in mappings) or 'none'}")
        return Fail((Problem("P35", f"mapping {wanted}", (listed,), values),))
    here = [entry for entry in mapping.entries if entry.get("node") == pve.node]
    text = "; ".join(",".join(f"{k}={v}" for k, v in entry.items()) for entry in here) or "no entry"
    evidence = (Evidence(where, f"{wanted}: {text}"),)
    if not here:
        return Fail((Problem("P35", f"mapping {wanted}", evidence, values),))
    if mapping.checks:
        said = "; ".join(f"{severity}: {message}" for severity, message in mapping.checks)
        return Fail((Problem("P34", f"mapping {wanted}", (*evidence, Evidence(where, said)), values),))
    return Pass(evidence)


@clause_check(
    "VM-PENDING-001",
    title="No change of the VM waits for a restart",
    severity=DEGRADED,
    scope="chain",
    reads=("vm",),
    causes=("P32",),
    after=("VM-EXISTS-001",),
)
def nothing_is_pending(subject: Subject) -> Judgement:
    """V5: keys that concern the card; a reboot from inside the guest applies none of them."""
    pending = need(vm_facts(subject).pending, "pending changes")
    where = config_path(subject, "pending")
    waiting = [p for p in pending if MATTERS.fullmatch(p.key)]
    others = ", ".join(p.key for p in pending if p not in waiting)
    if not waiting:
        return Pass((Evidence(where, f"nothing that concerns the card ({others})" if others else "nothing"),))
    problems = []
    for change in waiting:
        text = f"{change.key}: {change.value or 'none'} -> {'deleted' if change.delete else change.pending}"
        subject_name = f"{vm_label(subject)} {change.key}"
        problems.append(Problem("P32", subject_name, (Evidence(where, text),), names_of(subject)))
    return verdict_of(problems, (), "pending-restart")
