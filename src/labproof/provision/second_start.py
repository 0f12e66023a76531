"""The second start: a VM is shut down and started twice, and everything above it has to come back each time.

Cards exist that work once after the host's boot and never again (no working reset: facts proxmox P19, P44), so one
start proves nothing. Drained before, as every restart is; only ever by `--allow vm-restart`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from labproof.checks.gate import Gate
from labproof.checks.judgement import Fail
from labproof.checks.registry import BLOCKING, TRUNK, clauses
from labproof.facts.bundle import Facts
from labproof.facts.reading import Reading, failed, value
from labproof.facts.restart import RestartFacts, Start
from labproof.facts.store import FactsStore, now
from labproof.facts.vm import PveFacts
from labproof.inventory.models import Host, Lab, Vm
from labproof.provision import drain, guests, hands, scopes
from labproof.provision.bench import Bench, Limits
from labproof.provision.changes import CallChange
from labproof.provision.failure import StepFailed
from labproof.provision.journal import Journal
from labproof.provision.plan import Refusal
from labproof.provision.start_timeout import start_timeout_s

#: What the reading is called after.
SOURCE = "two restarts of the VM"
STARTS = 2


def probe_restart(lab: Lab, vm: Vm, add_probes: Callable[[FactsStore, Lab], None]) -> Reading[RestartFacts]:
    """Restart a VM twice and look each time with fresh facts.

    Args:
        lab: with `vm-restart` among `rights.acts`.
        vm: declared, running.
        add_probes: tells a store how this lab is read.

    Returns:
        What stood after each start; a failed reading where it could not be begun.
    """
    from labproof.clients.errors import TransportFailure, WaitFailed

    began = now()
    timings = lab.timings
    limits = Limits(shutdown_s=timings.shutdown_s, drain_s=timings.drain_s, poll_s=timings.poll_s)
    with tempfile.TemporaryDirectory(prefix="labproof-restart-") as folder:
        store = FactsStore(Path(folder) / "facts")
        add_probes(store, lab)
        with Bench(lab, Facts(store, began), Journal(Path(folder)), allow=(scopes.VM_RESTART,), limits=limits) as bench:
            try:
                return value(_Experiment(bench, vm).run(), SOURCE, began)
            except (StepFailed, TransportFailure, WaitFailed) as stopped:
                return failed(SOURCE, str(stopped), "not begun", began)


class _Experiment:
    """Two restarts of one VM."""

    def __init__(self, bench: Bench, vm: Vm) -> None:
        self.bench, self.vm = bench, vm
        self.host: Host = bench.lab.host(vm.host)
        self.chains = bench.chains(vm=vm.name)

    def run(self) -> RestartFacts:
        """Restart, look, ask with another VM; and once more."""
        restart, pairs = self._restart(), self._drains()
        starts: list[Start] = []
        rival, refused = "", ""
        for number in range(1, STARTS + 1):
            begun, ended = time.monotonic(), ""
            try:
                for before, _ in pairs:
                    hands.perform(self.bench, before.record())
                hands.perform(self.bench, restart.record())
            except StepFailed as stopped:
                ended = str(stopped)
            for _, after in pairs:  # whatever happened: pods are let on the node again
                try:
                    hands.perform(self.bench, after.record())
                except StepFailed as away:
                    ended = ended or str(away)
            self.bench.drop(TRUNK[0])
            broken = () if ended else self._broken()
            starts.append(Start(number, round(time.monotonic() - begun, 1), broken, ended))
            if number == 1 and not ended:
                rival, refused = self._ask_with_another()
            if ended or broken:
                break
        return RestartFacts(self.vm.name, tuple(starts), rival, refused)

    def _pve(self) -> PveFacts:
        reading = self.bench.facts.pve(self.host.name)
        if reading.value is None:
            raise StepFailed(f"PVE of {self.host.name}: {reading.why}")
        return reading.value

    def _restart(self) -> CallChange:
        pve = self._pve()
        found = next((v for v in pve.vms if v.name == self.vm.name), None)
        config = found.config.value if found is not None else None
        status = found.status.value if found is not None else None
        if config is None or status is None or status.status != "running":
            raise StepFailed(f"{self.vm.name} does not run: there is nothing to restart")
        return CallChange(
            target=self.host.name, scope=scopes.VM_RESTART, reason="the second start", clause="CODEC-RESTART-001",
            name="vm-restart", call=f"shut down and start VM {config.vmid}",
            detail={"node": pve.node, "vmid": config.vmid, "vm": self.vm.name, "timeout": start_timeout_s(config.keys)},
        )  # fmt: skip

    def _drains(self) -> list[tuple[CallChange, CallChange]]:
        refusals: list[Refusal] = []
        notes: list[str] = []
        found = []
        for node in {c.node.name: c.node for c in self.chains if c.node is not None}.values():
            pair = drain.around(self.bench, node, scopes.VM_RESTART, "the second start", refusals, notes)
            found += [pair] if pair is not None else []
        if refusals:
            raise StepFailed("; ".join(refusal.text for refusal in refusals))
        return found

    def _broken(self) -> tuple[str, ...]:
        """Blocking clauses of the whole trunk that do not hold on this VM's chains."""
        gate = Gate(self.bench.facts, self.bench.lab, TRUNK)
        mine = {chain.id for chain in self.chains}
        found: dict[str, None] = {}
        for clause in clauses().values():
            if clause.severity is not BLOCKING or clause.layer not in TRUNK or clause.id == "CODEC-RESTART-001":
                continue
            for target in gate.expected_targets(clause):
                if not mine & {chain.id for chain in target.chains}:
                    continue
                ruling = gate.rule(clause, target)
                if isinstance(ruling.judgement, Fail) and ruling.verdict == "fail":
                    problem = ruling.judgement.problems[0]
                    seen = problem.evidence[0].text if problem.evidence else ""
                    found[f"{clause.id} ({problem.cause}): {problem.subject}: {seen}"] = None
        return tuple(found)

    def _ask_with_another(self) -> tuple[str, str]:
        """Another declared VM with this card is told to start; it must be refused.

        Raises:
            StepFailed: it started; it was shut down again.
        """
        pve = self._pve()
        for other in self.bench.lab.vms:
            same = other.mapping is not None and other.mapping == self.vm.mapping
            if (
                other.name == self.vm.name
                or other.host != self.vm.host
                or not (same or set(other.gpus) & set(self.vm.gpus))
            ):
                continue
            found = next((v for v in pve.vms if v.name == other.name), None)
            status = found.status.value if found is not None else None
            if status is None or status.status != "stopped" or found is None or found.config.value is None:
                continue
            vmid = str(found.config.value.vmid)
            api = self.bench.api(self.host)
            try:
                guests.start(self.bench, api, pve.node, vmid, start_timeout_s(found.config.value.keys))
            except StepFailed as refused:
                return other.name, str(refused)
            guests.shut_down(self.bench, api, pve.node, vmid)
            raise StepFailed(f"VM {other.name} started although {self.vm.name} holds the card; it was shut down again")
        return "", ""
