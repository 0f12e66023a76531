"""What every step works with: the lab, its facts and judge, connections, the journal, limits and a voice."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from labproof.checks.gate import Gate
from labproof.checks.judgement import Fail, Judgement, Problem, Unchecked
from labproof.checks.registry import LAYERS, clauses
from labproof.checks.subject import Subject
from labproof.facts.bundle import Facts
from labproof.inventory.chains import Chain, Target, chains_of
from labproof.inventory.models import Cluster, Host, Lab, Node
from labproof.provision.host_shell import HostShell
from labproof.provision.journal import Journal

if TYPE_CHECKING:
    from labproof.clients.errors import Kind
    from labproof.clients.kubernetes import KubeSession
    from labproof.clients.pve import PveSession
    from labproof.clients.talos_admin import TalosAdmin

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Longest waits in seconds. An initramfs of all modules took 642 s (facts real-host); servers start slowly; the
    pods of a GPU stack pull their images first."""

    initramfs_s: float = 1800.0
    refresh_s: float = 300.0
    reboot_s: float = 1800.0
    shutdown_s: float = 180.0
    drain_s: float = 600.0
    upgrade_s: float = 1800.0
    node_ready_s: float = 900.0
    pods_s: float = 1800.0
    poll_s: float = 2.0
    tell_every_s: float = 15.0


class Bench:
    """Everything a step may use. Close it: it holds connections."""

    def __init__(
        self,
        lab: Lab,
        facts: Facts,
        journal: Journal,
        *,
        allow: Collection[str] = (),
        limits: Limits | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Nothing is contacted before it is needed."""
        self.lab, self.facts, self.journal = lab, facts, journal
        self.allow = frozenset(allow)
        self.limits = limits or Limits()
        self.tell = tell
        self._stack = ExitStack()
        self._shells: dict[str, HostShell] = {}
        self._apis: dict[str, PveSession] = {}
        self._clusters: dict[str, KubeSession] = {}
        self._nodes: dict[str, TalosAdmin] = {}
        self.boots: dict[str, str] = {}  # node -> boot id that its kubelet posted when it was drained
        self._gate = Gate(facts, lab, LAYERS)

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._stack.close()
        self._shells.clear()
        self._apis.clear()
        self._clusters.clear()
        self._nodes.clear()

    # -------------------------------------------------------------- looking

    def drop(self, layer: str) -> None:
        """Forget facts and judgements of a layer and of all above."""
        self.facts.drop(layer)
        self._gate = Gate(self.facts, self.lab, LAYERS)

    def chains(
        self, *, host: str | None = None, vm: str | None = None, node: str | None = None, cluster: str | None = None
    ) -> tuple[Chain, ...]:
        """Chains through a host, a VM, a node or a cluster."""
        return tuple(
            c
            for c in chains_of(self.lab)
            if (host is None or (c.host is not None and c.host.name == host))
            and (vm is None or (c.vm is not None and c.vm.name == vm))
            and (node is None or (c.node is not None and c.node.name == node))
            and (cluster is None or (c.cluster is not None and c.cluster.name == cluster))
        )

    def subject(self, chain: Chain) -> Subject:
        """Facts and lab as one chain sees them."""
        return Subject(self.facts, self.lab, Target("chain", chain.id, (chain,)))

    def host_subject(self, host: Host) -> Subject:
        """Facts and lab as the host's clauses see them."""
        return Subject(self.facts, self.lab, Target("host", host.name, self.chains(host=host.name)))

    def judge(self, ident: str, chain: Chain) -> Judgement | None:
        """The clause's judgement for the target that this chain passes through; None when the lab has none for it."""
        clause = clauses()[ident]
        for target in self._gate.expected_targets(clause):
            if chain.id in {c.id for c in target.chains}:
                return self._gate.judge(clause, target)
        return None

    def fault(self, ident: str, chain: Chain) -> Problem | None:
        """The clause's first problem that lab.yaml does not accept, None when it holds or cannot be judged."""
        clause = clauses()[ident]
        for target in self._gate.expected_targets(clause):
            if chain.id in {c.id for c in target.chains}:
                return self._gate.failing(clause, target)
        return None

    def red(self, idents: Collection[str], chains: Collection[Chain]) -> list[str]:
        """Which of the clauses do not hold for these chains, each with its cause or why it could not be judged."""
        found: dict[str, None] = {}
        for ident in idents:
            for chain in chains:
                judgement = self.judge(ident, chain)
                problem = self.fault(ident, chain) if isinstance(judgement, Fail) else None
                if problem is not None:
                    seen = problem.evidence[0].text if problem.evidence else ""
                    found[f"{ident} ({problem.cause}): {problem.subject}: {seen}"] = None
                elif isinstance(judgement, Unchecked):
                    found[f"{ident}: {judgement.reason}"] = None
        return list(found)

    # -------------------------------------------------------------- reaching

    def shell(self, host: Host) -> HostShell:
        """The host over SSH."""
        if host.name not in self._shells:
            from labproof.clients.ssh import SshSession
            from labproof.probes.host import ssh_target

            if host.ssh is None:
                raise LookupError(f"{host.name} has no ssh")
            session = self._stack.enter_context(SshSession(ssh_target(host.ssh, self.lab.timings.connect_s)))
            self._shells[host.name] = HostShell(session, self.lab.timings.command_s)
        return self._shells[host.name]

    def api(self, host: Host) -> PveSession:
        """The host's PVE API."""
        if host.name not in self._apis:
            from labproof.clients.pve import PveSession
            from labproof.probes.vm import pve_target

            if host.pve is None:
                raise LookupError(f"{host.name} has no PVE API")
            self._apis[host.name] = self._stack.enter_context(PveSession(pve_target(host.pve, self.lab.timings)))
        return self._apis[host.name]

    def kube(self, cluster: Cluster) -> KubeSession:
        """The cluster's API."""
        if cluster.name not in self._clusters:
            from labproof.clients.kubernetes import KubeSession, KubeTarget

            timings = self.lab.timings
            target = KubeTarget(cluster.kubeconfig, cluster.context, timings.connect_s, timings.request_s)
            self._clusters[cluster.name] = self._stack.enter_context(KubeSession(target))
        return self._clusters[cluster.name]

    def talos(self, node: Node) -> TalosAdmin:
        """The node's Talos API, with whatever role its talosconfig for provisioning has."""
        if node.name not in self._nodes:
            from labproof.clients.talos import TalosTarget
            from labproof.clients.talos_admin import TalosAdmin

            talos = node.talos
            if talos is None:
                raise LookupError(f"{node.name} has no Talos API")
            path = talos.admin_talosconfig or talos.talosconfig
            target = TalosTarget(path, talos.context, node=talos.node, timeout_s=self.lab.timings.request_s)
            self._nodes[node.name] = self._stack.enter_context(TalosAdmin(target))
        return self._nodes[node.name]

    # -------------------------------------------------------------- waiting

    def wait(
        self,
        what: str,
        read: Callable[[], T],
        done: Callable[[T], bool],
        *,
        limit_s: float,
        terminal: Callable[[T], bool] | None = None,
        through: Collection[Kind] = (),
    ) -> T:
        """Wait for a state, saying what for, how long already and at most.

        Raises:
            WaitFailed: it did not come; TransportFailure: of a kind not in `through`.
        """
        from labproof.clients.wait import wait_until

        began = told = time.monotonic()
        self.tell(f"waiting for {what}, at most {limit_s:.0f} s")

        def look() -> T:
            nonlocal told
            now = time.monotonic()
            if now - told >= self.limits.tell_every_s:
                told = now
                self.tell(f"still waiting for {what}: {now - began:.0f} s of at most {limit_s:.0f} s")
            return read()

        return wait_until(look, done, terminal, limit_s=limit_s, every_s=self.limits.poll_s, what=what, through=through)
