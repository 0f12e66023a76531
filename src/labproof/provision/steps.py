"""The steps of provisioning in the order in which they are taken; undo takes them back in the opposite one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labproof.inventory.chains import Chain
from labproof.provision import hostpci, vfio
from labproof.provision.bench import Bench
from labproof.provision.plan import StepPlan


@dataclass(frozen=True)
class Step:
    """One step for all its targets.

    Attributes:
        name: as plans and journals call it.
        layer: layer it changes.
        verified: clauses that must hold afterwards.
        targets: declared names of what it is taken for (hosts, VMs, nodes, clusters).
        plan: what one target lacks; told whether something it rests on has changes of its own first.
        chains: chains through a target.
        rests_on: targets below whose steps must have ended well: (step's layer, name).
    """

    name: str
    layer: str
    verified: tuple[str, ...]
    targets: Callable[[Bench], tuple[str, ...]]
    plan: Callable[[Bench, str, bool], StepPlan]
    chains: Callable[[Bench, str], tuple[Chain, ...]]
    rests_on: Callable[[Bench, str], tuple[tuple[str, str], ...]]


def _nothing_below(bench: Bench, target: str) -> tuple[tuple[str, str], ...]:
    return ()


VFIO = Step(
    vfio.NAME,
    vfio.LAYER,
    vfio.VERIFIED,
    targets=lambda bench: tuple(host.name for host in vfio.hosts(bench)),
    plan=lambda bench, host, pending: vfio.plan(bench, bench.lab.host(host)),
    chains=lambda bench, host: bench.chains(host=host),
    rests_on=_nothing_below,
)
HOSTPCI = Step(
    hostpci.NAME,
    hostpci.LAYER,
    hostpci.VERIFIED,
    targets=lambda bench: tuple(vm.name for vm in hostpci.vms(bench)),
    plan=lambda bench, vm, pending: hostpci.plan(bench, bench.lab.vm(vm), pending),
    chains=lambda bench, vm: bench.chains(vm=vm),
    rests_on=lambda bench, vm: ((vfio.LAYER, bench.lab.vm(vm).host),),
)
STEPS: tuple[Step, ...] = (VFIO, HOSTPCI)


def step_of(name: str) -> Step:
    """The step of a journal's entry.

    Raises:
        LookupError: no step of this version has that name.
    """
    found = next((step for step in STEPS if step.name == name), None)
    if found is None:
        raise LookupError(f"the journal names an unknown step {name!r}: it is of another version")
    return found
