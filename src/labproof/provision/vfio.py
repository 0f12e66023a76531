"""Step `vfio`: the IOMMU is live and vfio-pci holds the declared cards from boot on.

Plans from the facts and the clauses' own checks; the files that change are read as they are, byte for byte.
"""

from __future__ import annotations

from labproof.checks.host_boot_loader import BootConfiguration, boot_configuration, satisfied, switched_off
from labproof.checks.host_cmdline import wanted_tokens
from labproof.checks.host_devices import card_of
from labproof.checks.host_iommu import firmware_table, iommu_is_live_on
from labproof.checks.host_persistence import binding_of
from labproof.checks.judgement import Fail
from labproof.facts.host import HostFacts, PciDevice
from labproof.facts.reading import State, Unjudged, need
from labproof.inventory.chains import Chain
from labproof.inventory.models import Host, Node
from labproof.provision import boot_arguments, drain, guests, scopes, vfio_files
from labproof.provision.bench import Bench
from labproof.provision.changes import Change, CommandChange, FileChange, FileState
from labproof.provision.failure import StepFailed
from labproof.provision.plan import Refusal, StepPlan

NAME, LAYER = "vfio", "host"
#: What must hold afterwards.
VERIFIED = (
    "HOST-IOMMU-001",
    "HOST-CMDLINE-001",
    "HOST-CMDLINE-002",
    "HOST-PERSIST-001",
    "HOST-PERSIST-002",
    "HOST-PERSIST-003",
    "HOST-PERSIST-004",
    "HOST-DRIVER-001",
    "HOST-DRIVER-002",
)
#: Without these nothing on the host is worth changing.
_GUARDS = ("HOST-ID-001", "HOST-DEVICE-001", "HOST-DEVICE-002", "HOST-GROUP-002", "HOST-CMDLINE-003")


def hosts(bench: Bench) -> tuple[Host, ...]:
    """Declared hosts that a chain passes through and that can be reached by SSH."""
    return tuple(h for h in bench.lab.hosts if h.ssh is not None and bench.chains(host=h.name))


def plan(bench: Bench, host: Host) -> StepPlan:
    """What the host lacks. Reads only.

    Returns:
        A plan; what could not be read is a refusal with the reason.
    """
    reading = bench.facts.host(host.name)
    if reading.value is None:
        return StepPlan(NAME, LAYER, host.name, refusals=(Refusal(reading.kind, f"{reading.source}: {reading.why}"),))
    from labproof.clients.errors import TransportFailure

    try:
        return _Planner(bench, host, reading.value).plan()
    except (StepFailed, Unjudged, TransportFailure) as unread:
        return StepPlan(NAME, LAYER, host.name, refusals=(Refusal("unread", str(unread)),))


class _Planner:
    """The plan for one host."""

    def __init__(self, bench: Bench, host: Host, facts: HostFacts) -> None:
        self.bench, self.host, self.facts = bench, host, facts
        self.subject = bench.host_subject(host)
        self.chains = bench.chains(host=host.name)
        self.refusals: list[Refusal] = []
        self.drained: list[str] = []  # what the owner should know of the nodes' pods

    def plan(self) -> StepPlan:
        """Files first, which have no effect yet; then what makes them effective; the reboot last."""
        cards = self._cards()
        owed = guests.owed(self.bench, self.host)
        arguments_due = self._arguments_due()
        boot_files = boot_arguments.file_changes(self.bench, self.host, self.subject, arguments_due, self.refusals)
        binding = self._binding_files(cards)
        stale = any(self._fails("HOST-PERSIST-002"))
        initramfs = stale or any(c.path == vfio_files.MODPROBE for c in binding)
        refresh = bool(boot_files) or bool(arguments_due)
        due = arguments_due or self._binding_due(cards, bool(binding) or stale)
        changes: list[Change] = [*binding, *boot_files]
        if refresh:
            changes.append(self._refresh(arguments_due or boot_files[0].reason))
        if initramfs:
            changes.append(self._initramfs())
        if due:
            changes += self._reboot(due, owed)
        else:
            changes += [guests.resume(self.bench, self.host, owed)] if owed else []
            changes += drain.all_owed(self.bench, self._nodes(), scopes.HOST_REBOOT, NAME)
        if not changes and not self.refusals:
            return StepPlan(NAME, LAYER, self.host.name)
        if changes and any(c.action not in ("resume", "node-resume") for c in changes):
            self._guard()
        return StepPlan(NAME, LAYER, self.host.name, tuple(changes), tuple(self.refusals), self._notes(changes))

    # -------------------------------------------------------------- findings

    def _fails(self, ident: str) -> list[str]:
        found = []
        for chain in self.chains:
            problem = self.bench.fault(ident, chain)
            if problem is not None:
                found.append(f"{problem.subject}: {problem.evidence[0].text if problem.evidence else problem.cause}")
        return list(dict.fromkeys(found))

    def _arguments_due(self) -> str:
        """Why the running kernel's arguments are not those it needs, empty when they are."""
        if firmware_table(self.facts) is None:
            if not iommu_is_live_on(self.facts):
                text = f"firmware of {self.host.name} publishes no IOMMU table: switch VT-d or AMD-Vi on there first"
                self.refusals.append(Refusal("P02", text))
            return ""
        live = need(self.facts.cmdline, "kernel command line")
        vendor = boot_arguments.vendor_of(self.facts)
        off = switched_off(live, vendor)
        if not iommu_is_live_on(self.facts):
            return f"the IOMMU is not live{f': {off} on the command line' if off else ''}"
        missing = [token for token in wanted_tokens(self.subject) if not satisfied(token, live)]
        return f"{' '.join(missing)} not on the command line" if missing else ""

    def _cards(self) -> dict[str, tuple[PciDevice, ...]]:
        """Functions to bind, by chain; only where lab.yaml wants them bound at boot and they are where declared."""
        found: dict[str, tuple[PciDevice, ...]] = {}
        for chain in self.chains:
            card = card_of(self.bench.subject(chain))
            if card is not None and self.host.bind_at_boot:
                found[chain.id] = vfio_files.declared_functions(self.facts, card, chain.gpu)
        return found

    def _binding_files(self, cards: dict[str, tuple[PciDevice, ...]]) -> list[FileChange]:
        """Our two files, when something declared is not bound by the boot configuration."""
        shell = self.bench.shell(self.host)
        devices = [device for functions in cards.values() for device in functions]
        twins = {d.ids for d in vfio_files.strangers(self.facts, devices)}  # ids that also stay with the host
        before_rules = shell.read(vfio_files.UDEV)
        how_bound = {d.address: binding_of(self.facts, d) for d in devices}
        addressed = [
            d for d in devices
            if d.ids in twins and (how_bound[d.address] is None or before_rules.text.startswith(vfio_files.MARKER))
        ]  # fmt: skip
        ours = [
            d for d in devices
            if d not in addressed and ((how := how_bound[d.address]) is None or how.startswith("ids="))
        ]  # fmt: skip
        others = vfio_files.others_ids(self.facts)
        unbound = [d for d in devices if binding_of(self.facts, d) is None]
        raced = self._fails("HOST-PERSIST-003")
        have = next((f for f in need(self.facts.modprobe_files) if f.path == vfio_files.MODPROBE), None)
        if not unbound and not raced and have is None:
            return []
        lost = [d for d in unbound if d not in addressed]
        if lost and others is not None:
            where, line = others
            lacking = ",".join(dict.fromkeys(d.ids for d in lost))
            text = f"{where} sets `{line}`, and of two `ids=` only one counts: add {lacking} there by hand"
            self.refusals.append(Refusal("P28", text))
            return []
        reason = "; ".join(
            [f"{d.address} {d.ids} is bound by nothing" for d in unbound] or raced or ["our file is not as declared"]
        )
        clause = "HOST-PERSIST-001" if unbound else "HOST-PERSIST-003"
        scope = scopes.CONSOLE_LOSS if any(d.boot_vga for d in unbound) else scopes.HOST_FILES
        text = vfio_files.modprobe_text(ours, addressed)
        if others is not None:  # somebody else's ids bind them: ours says only who comes first
            text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("options"))
        wanted = [(vfio_files.MODPROBE, text)]
        if addressed:
            wanted.append((vfio_files.UDEV, vfio_files.udev_text(addressed)))
        listed = (f for f in need(self.facts.modules_load_files) if f.path != vfio_files.MODULES_LOAD)
        if not vfio_files.lists_vfio(listed):
            wanted.append((vfio_files.MODULES_LOAD, vfio_files.modules_text(self.facts)))
        changes = []
        for path, content in wanted:
            before = shell.read(path)
            if before.content is not None and not before.text.startswith(vfio_files.MARKER):
                raise StepFailed(f"{path} is there and is not ours")
            if before.content != content.encode() or before.mode != 0o644:
                changes.append(
                    FileChange(
                        target=self.host.name, scope=scope, reason=reason, clause=clause, path=path, before=before,
                        after=FileState(content.encode()),
                    )
                )  # fmt: skip
        return changes

    def _binding_due(self, cards: dict[str, tuple[PciDevice, ...]], files_change: bool) -> str:
        """Why only a reboot gives the cards to vfio-pci, empty when it already has them."""
        loose = [d for functions in cards.values() for d in functions if d.driver != "vfio-pci"]
        if not loose:
            return ""
        text = "; ".join(f"{d.address} is on {d.driver or 'no driver'}" for d in loose)
        waiting = any(
            getattr(self.bench.judge("HOST-PERSIST-002", chain), "qualifier", None) == "pending-reboot"
            for chain in self.chains
        )
        held = self._fails("HOST-DRIVER-001") or self._fails("HOST-DRIVER-002")
        return text if files_change or waiting or held else ""

    # -------------------------------------------------------------- commands

    def _boot(self) -> BootConfiguration:
        return boot_configuration(self.facts)

    def _refresh(self, reason: str) -> CommandChange:
        command = "proxmox-boot-tool refresh" if self._boot().loader == "systemd-boot" else "update-grub"
        return CommandChange(
            target=self.host.name, scope=scopes.HOST_BOOT, reason=reason, clause="HOST-IOMMU-001", name="refresh",
            command=command, seconds=self.bench.limits.refresh_s,
        )  # fmt: skip

    def _initramfs(self) -> CommandChange:
        return CommandChange(
            target=self.host.name, scope=scopes.HOST_BOOT, reason="the initramfs holds the old module options",
            clause="HOST-PERSIST-002", name="initramfs", command="update-initramfs -u -k all",
            seconds=self.bench.limits.initramfs_s,
        )  # fmt: skip

    def _reboot(self, reason: str, owed: dict[str, str | None]) -> list[Change]:
        clause = "HOST-IOMMU-001" if not iommu_is_live_on(self.facts) else "HOST-DRIVER-002"
        nodes = [
            pair
            for node in self._nodes()
            if self._runs(node)
            and (
                pair := drain.around(
                    self.bench, node, scopes.HOST_REBOOT, f"{self.host.name} reboots", self.refusals, self.drained
                )
            )
            is not None
        ]
        drained = guests.drain(self.bench, self.host, self.refusals)
        reboot = CommandChange(
            target=self.host.name, scope=scopes.HOST_REBOOT, reason=reason, clause=clause, name="reboot",
            command="systemctl reboot", seconds=self.bench.limits.reboot_s,
        )  # fmt: skip
        stopped = {**owed, **(drained.before if drained is not None else {})}
        resumed = [guests.resume(self.bench, self.host, stopped)] if stopped else []
        stop = [drained] if drained is not None else []
        return [*(before for before, _ in nodes), *stop, reboot, *resumed, *(after for _, after in nodes)]

    def _nodes(self) -> tuple[Node, ...]:
        """Declared nodes on this host."""
        here = {vm.name for vm in self.bench.lab.vms if vm.host == self.host.name}
        return tuple(node for node in self.bench.lab.nodes if node.vm in here)

    def _runs(self, node: Node) -> bool:
        pve = self.bench.facts.pve(self.host.name).value if self.host.pve is not None else None
        vm = next((v for v in pve.vms if v.name == node.vm), None) if pve is not None else None
        return vm is not None and vm.status.value is not None and vm.status.value.status == "running"

    # -------------------------------------------------------------- refusing

    def _guard(self) -> None:
        """What makes any change of this host wrong."""
        if self.facts.uid.state is State.VALUE and self.facts.uid.value != 0:
            self.refusals.append(Refusal("rights", f"{self.host.name}: the SSH account is not root"))
        for ident in _GUARDS:
            for text in self._fails(ident):
                self.refusals.append(Refusal(ident, text))
        self._guard_boot()
        for chain in self.chains:
            vm = self._vm_of(chain)
            if vm is not None:
                self.refusals.append(Refusal("P49", vm))

    def _guard_boot(self) -> None:
        """While the IOMMU is off nobody knows the groups: no VM may take one at the boot that makes them (P09)."""
        reading = self.bench.facts.pve(self.host.name) if self.host.pve is not None else None
        if iommu_is_live_on(self.facts) or reading is None or reading.value is None:
            return
        for config in need(reading.value.configs, "configurations of all VMs"):
            if config.hostpci and config.keys.get("onboot") == "1":
                text = (
                    f"VM {config.vmid} starts with {self.host.name} and has a passed device; which devices share its"
                    f" group shows only after the reboot: `qm set {config.vmid} --onboot 0` until then"
                )
                self.refusals.append(Refusal("P09", text))

    def _vm_of(self, chain: Chain) -> str | None:
        """Why the chain's VM forbids a reboot: HA would move it, or start it again in between."""
        if chain.vm is None or self.host.pve is None:
            return None
        pve = self.bench.facts.pve(self.host.name).value
        vm = next((v for v in pve.vms if v.name == chain.vm.name), None) if pve is not None else None
        status = vm.status.value if vm is not None else None
        managed = status is not None and status.ha_managed
        return f"VM {chain.vm.name} is managed by HA: take it out of HA before its host reboots" if managed else None

    def _notes(self, changes: list[Change]) -> tuple[str, ...]:
        reboots = any(change.action == "reboot" for change in changes)
        judged = self.bench.judge("HOST-CONSOLE-001", self.chains[0])
        console = isinstance(judged, Fail)
        return (
            *((f"{self.host.name} reboots: everything that runs on it stops meanwhile",) if reboots else ()),
            *(("the host's console is on the card and will be gone",) if console else ()),
            *self.drained,
        )
