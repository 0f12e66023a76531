"""A pod of ours on one card of a node that has several: Kubernetes hands out slots, it cannot be asked for a card."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from labproof.facts.pod_outcome import Outcome
from labproof.facts.reading import Reading, failed
from labproof.facts.workload import PodSeen, Slots
from labproof.inventory.chains import Chain, chains_of
from labproof.inventory.models import Lab
from labproof.probes.pods import OwnPods
from labproof.probes.workload_inspect import read_smi


def cards_of_node(lab: Lab, chain: Chain) -> tuple[str, ...]:
    """Names of all declared GPUs that reach the chain's node, in the order in which its VM is given them."""
    names = [c.gpu.name for c in chains_of(lab) if c.node == chain.node]
    order = chain.vm.gpus if chain.vm is not None else chain.node.gpus if chain.node is not None else ()
    return tuple(sorted(names, key=lambda name: order.index(name) if name in order else len(order)))


def settle_on_card(
    pods: OwnPods, chain: Chain, slots: Slots, image: str, limit: int, busy: str
) -> PodSeen | Reading[Any]:
    """A pod with one slot, on the chain's own card.

    Where the node has several cards, pods are made one after the other until each card was seen once; the pod on the
    chain's is kept and the others removed. Guests number their buses in the order of the VM's entries, so the first
    card by bus address is the first one declared.

    Args:
        slots: what the node offers.
        limit: slots that may be held at once.
        busy: why no more.

    Returns:
        The pod, whatever became of it; failed with kind `busy` when no slot that we may hold is on that card.
    """
    first = pods.settle(pods.make("probe", "probe", image, 1))
    cards = cards_of_node(pods.lab, chain)
    address = _address(pods, first) if len(cards) > 1 else None
    if address is None:
        return first
    # a node that lost a card offers fewer slots; the first declared ones are taken for those that are left
    replicas = pods.cluster.sharing.replicas if pods.cluster.sharing.strategy != "none" else 1
    there = min(len(cards), max(1, slots.allocatable or 0) // replicas or 1)
    place = cards.index(chain.gpu.name)
    seen, made = {address: first}, [first]
    while len(seen) < there and len(made) < limit:
        made.append(pods.settle(pods.make("probe", f"probe-{len(made)}", image, 1)))
        address = _address(pods, made[-1])
        if address is None:
            break
        seen.setdefault(address, made[-1])
    kept = seen[sorted(seen)[place]] if len(seen) == there and place < there else None
    pods.remove(*(pod.name for pod in made if pod is not kept))
    if kept is None:
        why = f"{len(made)} slots were of {len(seen)} of {len(cards)} cards ({', '.join(sorted(seen))}); {busy}"
        return failed("nvidia-smi -q -x", f"no slot of {chain.gpu.name} was had: {why}", "busy")
    return replace(kept, role="probe")


def mates_on_card(
    pods: OwnPods, chain: Chain, first: PodSeen, made: list[PodSeen], image: str, limit: int
) -> list[PodSeen]:
    """Those of `made` (all running) that share the card of `first`; for each that does not another one is tried.

    Together with `first` no more than `limit` slots are held; pods on other cards are removed before it returns.
    """
    if len(cards_of_node(pods.lab, chain)) < 2:
        return made
    card, wanted = _address(pods, first), len(made)
    found: list[PodSeen] = []
    away: list[PodSeen] = []
    for number in range(max(wanted, limit - 1)):
        if number >= wanted:
            if len(found) == wanted:
                break
            made = [*made, pods.settle(pods.make("probe", f"at-once-{number + 1}", image, 1))]
        (found if _address(pods, made[number]) == card else away).append(made[number])
    pods.remove(*(pod.name for pod in away))
    return found


def _address(pods: OwnPods, seen: PodSeen) -> str | None:
    """Bus address of the one card a running pod sees; None when it does not run, or sees none or several."""
    if seen.outcome is None or seen.outcome.outcome is not Outcome.RUNNING:
        return None
    smi = read_smi(lambda argv: pods.exec(seen, argv)).value
    report = smi.report.value if smi is not None else None
    return report.gpus[0].bus_id.value if report is not None and len(report.gpus) == 1 else None
