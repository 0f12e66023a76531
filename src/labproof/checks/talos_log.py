"""The kernel log since the boot: what the driver complained about, by a table of Xid numbers."""

from __future__ import annotations

import re

from labproof.catalogue.versions import Xid, xid
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.talos_view import problem
from labproof.facts.reading import need
from labproof.facts.talos import KernelLog

_XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-f:.]+)\): (\d+)", re.IGNORECASE)
_LOST = re.compile(r"GPU [0-9a-f:.]+: GPU has fallen off the bus|GPU is lost", re.IGNORECASE)


@clause_check(
    "TALOS-LOG-001",
    title="The card answers: no loss and no hang in the kernel log",
    severity=BLOCKING,
    scope="node",
    reads=("talos",),
    causes=("T20", "T21", "W09"),
    wants=("nvidia",),
    after=("TALOS-DEVICE-002",),
)
def log_shows_no_lost_card(subject: Subject) -> Judgement:
    """A lost card keeps its device nodes; only the log tells. A rotated buffer is no proof of a fault."""
    facts = subject.talos_facts
    log = need(facts.kernel_log, "kernel log of the node")
    source = facts.kernel_log.source
    problems: list[Problem] = []
    lost = [line for line in log.lines if _LOST.search(line)]
    lost += [line for line, number in _xids(log) if number.says == "lost" and line not in lost]
    if lost:
        problems.append(problem(subject, "T21", *(Evidence(source, line) for line in lost[:3])))
    hung = [line for line, number in _xids(log) if number.says == "hung"]
    if hung and not lost:
        problems.append(problem(subject, "W09", *(Evidence(source, line) for line in hung[:3])))
    failed = [line for line in log.lines if "RmInitAdapter failed" in line or "rm_init_adapter failed" in line]
    if failed and not problems:
        problems.append(problem(subject, "T20", *(Evidence(source, line) for line in failed[:3])))
    return verdict_of(problems, (_extent(subject, log),))


@clause_check(
    "TALOS-LOG-002",
    title="The card's memory and links are sound",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T67",),
    wants=("nvidia",),
    after=("TALOS-LOG-001",),
)
def log_shows_no_memory_errors(subject: Subject) -> Judgement:
    """Xids of programs (13, 31, 43, 45 ...) are evidence here and judged where the program ran."""
    facts = subject.talos_facts
    log = need(facts.kernel_log, "kernel log of the node")
    source = facts.kernel_log.source
    found = _xids(log)
    bad = [(line, x) for line, x in found if x.says in ("memory", "link")]
    if bad:
        told = tuple(Evidence(source, f"{line} [{x.title}]") for line, x in bad[:5])
        return Fail((problem(subject, "T67", *told),))
    work = [f"Xid {x.number} ({x.title})" for _, x in found if x.says == "work"]
    note = (Evidence(source, f"programs failed on the card: {', '.join(work[:5])}"),) if work else ()
    return Pass((_extent(subject, log), *note))


def _xids(log: KernelLog) -> list[tuple[str, Xid]]:
    found = []
    for line in log.lines:
        match = _XID.search(line)
        if match is not None:
            found.append((line, xid(int(match[2]))))
    return found


def _extent(subject: Subject, log: KernelLog) -> Evidence:
    """How far back the log reaches."""
    source = subject.talos_facts.kernel_log.source
    if log.from_boot:
        return Evidence(source, f"{log.records} records since the boot, none of this kind")
    return Evidence(source, f"the last {log.records} records (older ones are gone), none of this kind")
