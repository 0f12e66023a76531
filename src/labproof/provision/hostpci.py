"""Step `hostpci`: the VM has the declared cards, by mapping or raw address, and its running QEMU holds them."""

from __future__ import annotations

from labproof.checks.host_devices import card_of, functions_of
from labproof.checks.judgement import Fail
from labproof.checks.vm_devices import card_entry, devices_of_entry, same_device, vm_facts
from labproof.facts.reading import Unjudged, need
from labproof.facts.vm import HostPci, PveFacts, VmConfig
from labproof.inventory.chains import Chain
from labproof.inventory.models import Host, Node, Vm
from labproof.provision import drain, mapping, scopes, vm_guard
from labproof.provision.bench import Bench
from labproof.provision.changes import CallChange, Change
from labproof.provision.failure import StepFailed
from labproof.provision.plan import Refusal, StepPlan
from labproof.provision.rights import RIGHT_OF, missing_privileges
from labproof.provision.start_timeout import start_timeout_s

NAME, LAYER = "hostpci", "vm"
#: What must hold afterwards.
VERIFIED = (
    "VM-EXISTS-001",
    "VM-MAPPING-001",
    "VM-HOSTPCI-001",
    "VM-MACHINE-001",
    "VM-BALLOON-001",
    "VM-PENDING-001",
    "VM-START-001",
    "VM-HOLDS-001",
)
_RIGHTS = "P51"


def vms(bench: Bench) -> tuple[Vm, ...]:
    """Declared VMs with a card, on hosts with a PVE API."""
    return tuple(v for v in bench.lab.vms if v.gpus and bench.lab.host(v.host).pve is not None)


def plan(bench: Bench, vm: Vm, host_pending: bool = False) -> StepPlan:
    """What the VM lacks. Reads only.

    Args:
        host_pending: the host's step has changes of its own first, so that what the host shows now will change.
    """
    host = bench.lab.host(vm.host)
    reading = bench.facts.pve(host.name)
    if reading.value is None:
        return StepPlan(NAME, LAYER, vm.name, refusals=(Refusal(reading.kind, f"{reading.source}: {reading.why}"),))
    from labproof.clients.errors import TransportFailure

    try:
        return _Planner(bench, vm, host, reading.value, host_pending).plan()
    except (StepFailed, Unjudged, TransportFailure) as unread:
        return StepPlan(NAME, LAYER, vm.name, refusals=(Refusal("unread", str(unread)),))


class _Planner:
    """The plan for one VM."""

    def __init__(self, bench: Bench, vm: Vm, host: Host, pve: PveFacts, host_pending: bool) -> None:
        self.bench, self.vm, self.host, self.pve, self.host_pending = bench, vm, host, pve, host_pending
        self.chains = bench.chains(vm=vm.name)
        self.refusals: list[Refusal] = []
        self.drained: list[str] = []  # what the owner should know of the node's pods

    def plan(self) -> StepPlan:
        """The mapping, the configuration, the restart that makes it effective."""
        found = vm_facts(self.bench.subject(self.chains[0]))
        if found.config.value is None:
            self._refuse_clause("VM-EXISTS-001")
            if not self.refusals:
                need(found.config, f"configuration of {self.vm.name}")
            return StepPlan(NAME, LAYER, self.vm.name, refusals=tuple(self.refusals))
        config = found.config.value
        status = need(found.status, f"status of {self.vm.name}")
        changes: list[Change] = []
        mapped = mapping.change(self.bench, self.vm, self.host, self.pve, self.host_pending, self.refusals)
        changes += [mapped] if mapped is not None else []
        wanted = self._wanted(config)
        if wanted:
            changes.append(self._configure(config, wanted))
        running = status.status == "running"
        after = {**config.keys, **{k: v for k, v in wanted.items() if v is not None}}
        reason = self._restart_reason(running, bool(wanted))
        if reason:
            changes += self._restarted(self._restart(config, after, running, reason), running)
        else:
            changes += drain.all_owed(self.bench, self._nodes(), scopes.VM_RESTART, NAME)
        if changes:
            self._guard(config)
            self._rights(config, changes)
        return StepPlan(NAME, LAYER, self.vm.name, tuple(changes), tuple(self.refusals), self._notes(changes))

    # -------------------------------------------------------------- what is wanted

    def _wanted(self, config: VmConfig) -> dict[str, str | None]:
        """Keys that differ from what is declared, with their new values."""
        wanted: dict[str, str | None] = {}
        vm = self.vm
        if vm.machine is not None and config.is_q35 != (vm.machine == "q35"):
            wanted["machine"] = "q35" if vm.machine == "q35" else "pc"
        q35 = vm.machine == "q35" if vm.machine is not None else config.is_q35
        if vm.bios is not None and vm.bios != config.bios:
            wanted["bios"] = vm.bios
            if vm.bios == "ovmf" and "efidisk0" not in config.keys:
                text = f"{vm.name} has no EFI disk, which OVMF needs: add one by hand, or declare bios: seabios"
                self.refusals.append(Refusal("P69", text))
        if vm.cpu is not None and vm.cpu != config.cpu_type:
            _, comma, flags = config.keys.get("cpu", "").partition(",")
            wanted["cpu"] = f"{vm.cpu}{comma}{flags}"
        balloon = config.keys.get("balloon", "")
        if balloon.isdigit() and 0 < int(balloon) < (config.memory_mib or 0):
            wanted["balloon"] = "0"
        taken = {entry.index for entry in config.hostpci}
        for chain in self.chains:
            entry = card_entry(self.bench.subject(chain), config)
            if entry is None:
                index = next(n for n in range(16) if n not in taken)
                taken.add(index)
                wanted[f"hostpci{index}"] = f"{self._target(chain)}{',pcie=1' if q35 else ''}"
            else:
                corrected = self._corrected(entry, chain, q35)
                if corrected is not None:
                    wanted[f"hostpci{entry.index}"] = corrected
        return wanted

    def _target(self, chain: Chain) -> str:
        if self.vm.mapping is not None:
            return f"mapping={self.vm.mapping}"
        return f"host={mapping.path_of(self.bench, chain)}"

    def _corrected(self, entry: HostPci, chain: Chain, q35: bool) -> str | None:
        """The entry as it should be, None when it is right."""
        options = dict(entry.options)
        by_mapping = self.vm.mapping is not None and entry.mapping != self.vm.mapping
        if entry.pcie and not q35:
            options.pop("pcie")
        elif not by_mapping:
            return None
        device = f"mapping={entry.mapping}" if entry.mapping is not None else f"host={';'.join(entry.devices)}"
        target = self._target(chain) if by_mapping else device
        return ",".join([target, *(f"{key}={value}" for key, value in options.items())])

    # -------------------------------------------------------------- changes

    def _configure(self, config: VmConfig, wanted: dict[str, str | None]) -> CallChange:
        before = {key: config.keys.get(key) for key in wanted}
        lacks = self.bench.fault("VM-HOSTPCI-001", self.chains[0])
        reason = "the VM is not given the card" if lacks is not None else "its settings are not the declared ones"
        return CallChange(
            target=self.host.name, scope=scopes.VM_CONFIG, reason=reason,
            clause="VM-HOSTPCI-001" if lacks is not None else "VM-MACHINE-002", name="vm-config",
            call=f"PUT /nodes/{self.pve.node}/qemu/{config.vmid}/config", before=before, after=wanted,
            detail={"node": self.pve.node, "vmid": config.vmid, "vm": self.vm.name},
        )  # fmt: skip

    def _restart_reason(self, running: bool, changes: bool) -> str:
        if not running:
            return "it is to run and is stopped" if self.vm.state == "always" else ""
        if changes:
            return "a running VM takes these keys at a full restart only; a reboot from inside applies none"
        pending = self.bench.fault("VM-PENDING-001", self.chains[0])
        if pending is not None:
            return f"waiting for a restart: {pending.evidence[0].text}"
        held = [problem for chain in self.chains if (problem := self.bench.fault("VM-HOLDS-001", chain)) is not None]
        configured = all(self.bench.fault("VM-HOSTPCI-001", chain) is None for chain in self.chains)
        return "the running QEMU does not hold the card" if held and configured else ""

    def _restart(self, config: VmConfig, after: dict[str, str], running: bool, reason: str) -> CallChange:
        timeout = start_timeout_s(after)
        stop = self.bench.limits.shutdown_s + 60 if running else 0.0
        verb = "shut down and start" if running else "start"
        return CallChange(
            target=self.host.name, scope=scopes.VM_RESTART, reason=reason, clause="VM-HOLDS-001", name="vm-restart",
            call=f"{verb} VM {config.vmid} {config.keys.get('name', '')}", seconds=stop + timeout + 60,
            detail={"node": self.pve.node, "vmid": config.vmid, "vm": self.vm.name, "timeout": timeout},
        )  # fmt: skip

    def _nodes(self) -> tuple[Node, ...]:
        return tuple({c.node.name: c.node for c in self.chains if c.node is not None}.values())

    def _restarted(self, restart: CallChange, running: bool) -> list[Change]:
        """The restart with its node drained before and let back afterwards."""
        before: list[Change] = []
        after: list[Change] = []
        if not running:  # an interrupted run drained it and could not start the VM
            after += drain.all_owed(self.bench, self._nodes(), scopes.VM_RESTART, NAME)
        for node in self._nodes() if running else ():
            why = f"its VM {self.vm.name} restarts"
            pair = drain.around(self.bench, node, scopes.VM_RESTART, why, self.refusals, self.drained)
            if pair is not None:
                before, after = [*before, pair[0]], [*after, pair[1]]
        return [*before, restart, *after]

    def _notes(self, changes: list[Change]) -> tuple[str, ...]:
        notes = ["the host's step comes first; this one is planned again after it"] if self.host_pending else []
        if any(change.action == "vm-restart" for change in changes):
            notes.append(f"what runs in {self.vm.name} stops meanwhile")
        notes += self.drained
        return tuple(notes) if changes else ()

    # -------------------------------------------------------------- refusing

    def _refuse_clause(self, ident: str) -> None:
        for chain in self.chains:
            problem = self.bench.fault(ident, chain)
            if problem is not None:
                text = problem.evidence[-1].text if problem.evidence else ""
                self.refusals.append(Refusal(problem.cause, f"{ident}: {problem.subject}: {text}"))

    def _guard(self, config: VmConfig) -> None:
        """The wrong VM, one somebody works on, one that is not ours to restart; a card that would hurt."""
        for ident in ("VM-EXISTS-001", "VM-LOCK-001", "VM-OWNER-001", "HOST-DEVICE-001"):
            self._refuse_clause(ident)
        wrong = vm_guard.wrong_vm(self.vm, config.keys)
        if wrong and not any(refusal.cause == "P52" for refusal in self.refusals):
            self.refusals.append(Refusal("P52", wrong))
        status = vm_facts(self.bench.subject(self.chains[0])).status.value
        if status is not None and status.template:
            self.refusals.append(Refusal("P52", f"VM {config.vmid} is a template"))
        if status is not None and status.ha_managed and self.vm.mapping is None:
            why = "a raw address means another device on another node: use a mapping"
            text = f"VM {config.vmid} is managed by HA, and {why}"
            self.refusals.append(Refusal("P49", text))
        if status is not None and status.status != "running":
            self._refuse_clause("VM-MEMORY-001")
        if not self.host_pending and self.host.ssh is not None:
            for ident in ("HOST-IOMMU-001", "HOST-GROUP-004", "HOST-GROUP-002", "HOST-GROUP-001", "HOST-RMRR-001"):
                self._refuse_clause(ident)
            for chain in self.chains:
                self._refuse_held(chain)
        self._refuse_gone_entries(config)

    def _refuse_held(self, chain: Chain) -> None:
        """P62: a start while a host driver holds the card fails or hangs, and leaves the VM down."""
        subject = self.bench.subject(chain)
        card = card_of(subject)
        if card is None:
            return
        for device in functions_of(subject.host_facts, card):
            lets_go = device.address != card.address or not self.host.bind_at_boot
            if device.driver in (None, "vfio-pci") or device.is_pci_bridge:
                continue
            if lets_go and not isinstance(self.bench.judge("HOST-DRIVER-001", chain), Fail):
                continue
            text = f"{device.address} is held by the host's {device.driver}: bind it to vfio-pci first"
            self.refusals.append(Refusal("P62", text))

    def _refuse_gone_entries(self, config: VmConfig) -> None:
        """Entries of somebody else that name a device that is not there stop every start (P16)."""
        bus = [d.address for d in self.pve.pci.value or ()]
        for entry in config.hostpci:
            for device in devices_of_entry(self.pve, entry):
                if bus and not any(same_device(device, address) for address in bus):
                    text = f"hostpci{entry.index} names {device}, which is not on the bus: remove it by hand first"
                    self.refusals.append(Refusal("P16", text))

    def _rights(self, config: VmConfig, changes: list[Change]) -> None:
        root = self.pve.identity == "root@pam"
        path = f"/vms/{config.vmid}"
        for change in changes:
            if not isinstance(change, CallChange):
                continue
            lacking: tuple[str, ...] = ()
            if change.name == "mapping":
                lacking = missing_privileges(self.pve, f"/mapping/pci/{self.vm.mapping}", ("Mapping.Modify",))
            elif change.name == "vm-restart":
                lacking = missing_privileges(self.pve, path, ("VM.PowerMgmt",))
            elif change.name == "vm-config":
                keys = [key for key in change.after if not key.startswith("hostpci")]
                entries = [key for key in change.after if key.startswith("hostpci")]
                wanted = [*(RIGHT_OF[key] for key in keys), *(["VM.Config.HWType"] if entries else [])]
                lacking = missing_privileges(self.pve, path, wanted)
                if entries and self.vm.mapping is not None:
                    lacking += missing_privileges(self.pve, f"/mapping/pci/{self.vm.mapping}", ("Mapping.Use",))
                texts = [str(side.get(key)) for key in entries for side in (change.before, change.after)]
                if not root and any(text != "None" and "mapping=" not in text for text in texts):
                    text = f"only root@pam by password may set a raw hostpci, not {self.pve.identity}: use a mapping"
                    self.refusals.append(Refusal("P33", text))
            if lacking:
                held = f"{self.pve.identity} lacks {', '.join(dict.fromkeys(lacking))} for: {change.title}"
                self.refusals.append(Refusal(_RIGHTS, held))
