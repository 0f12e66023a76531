"""The card on the bus: exactly where it is declared, answering, with all its functions."""

from __future__ import annotations

import re

from labproof.checks.host_devices import card_of, describe, full_address, seen, the_card
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.facts.host import PciDevice
from labproof.facts.reading import need

LIST = "grep . /sys/bus/pci/devices/*/{vendor,device}"
DEAD = re.compile(r"Unable to change power state|stuck in D3|not ready \d+ms after|device inaccessible")


@clause_check(
    "HOST-DEVICE-001",
    title="The GPU is at its declared address",
    severity=BLOCKING,
    scope="chain",
    reads=("host",),
    causes=("P16", "P17", "P44"),
)
def gpu_is_at_its_address(subject: Subject) -> Judgement:
    """H7: the declared id is at the declared address; elsewhere is P16 (with the new address), nowhere P17."""
    gpu, host = subject.chain.gpu, subject.host.name
    devices = need(subject.host_facts.pci, "PCI devices")
    card = card_of(subject)
    if card is not None:
        return Pass((seen(subject, LIST, describe(card)),))
    rest = [g for g in subject.lab.gpus if g.host == gpu.host and g.name != gpu.name]
    twins = {full_address(g.address) for g in rest if g.address}  # a card that lab.yaml calls by another name
    same = [d for d in devices if d.ids == gpu.device and d.address not in twins]
    address = full_address(gpu.address) if gpu.address else ""
    values = (("host", host), ("address", address), ("device", gpu.device))
    if same and not gpu.address:
        found = ", ".join(d.address for d in same)
        return Unchecked(
            f"{len(same)} devices are {gpu.device} ({found}) and lab.yaml gives no address to tell them apart"
        )
    here = next((d for d in devices if d.address == address), None)
    at_address = seen(subject, f"lspci -nns {address}", describe(here) if here else "no device at this address")
    parent = next((d for d in same if d.slot == address.rsplit(".", 1)[0] and d.numvfs is not None), None)
    if parent is not None and here is None:  # VF and PF have one id: the PF is not the card that moved
        path = f"/sys/bus/pci/devices/{parent.address}/sriov_numvfs"
        count = seen(subject, f"cat {path}", f"{parent.numvfs}: {address} does not exist")
        return Fail((Problem("P44", gpu.name, (at_address, count), values),))
    if same:
        found = ", ".join(d.address for d in same)
        moved = seen(subject, LIST, f"{gpu.device} is at {found}")
        remedy = (
            f"{gpu.device} is now at {found}. Update the mapping or hostpci of the VM and `address` in lab.yaml; "
            f"check what else moved (network names) before starting any VM."
        )
        return Fail((Problem("P16", gpu.name, (at_address, moved), values, remedy),))
    vendor = gpu.device.split(":")[0]
    others = [describe(d) for d in devices if d.ids.startswith(f"{vendor}:")]
    nowhere = f"no {gpu.device}; of vendor {vendor}: {'; '.join(others) or 'nothing'}"
    evidence = (at_address, seen(subject, LIST, nowhere)) if address else (seen(subject, LIST, nowhere),)
    return Fail((Problem("P17", gpu.name, evidence, values),))


@clause_check(
    "HOST-DEVICE-002",
    title="The GPU answers",
    severity=BLOCKING,
    scope="chain",
    reads=("host",),
    causes=("P18",),
    after=("HOST-DEVICE-001",),
)
def gpu_answers(subject: Subject) -> Judgement:
    """H8: configuration space does not read ff.

    The power state alone is no fault: an idle card rests in D3cold on vfio-pci, and the kernel itself says `unknown`
    of a device whose driver was removed (pci_device_remove). It counts together with a line of the kernel log.
    """
    card = the_card(subject)
    state = card.power_state or "not given"
    path = f"/sys/bus/pci/devices/{card.address}"
    power = seen(subject, f"cat {path}/power_state", state)
    values = (("host", subject.host.name), ("address", card.address))
    head = card.config_head
    # a virtual function's own id registers read ff by specification (SR-IOV), so they tell nothing
    if (head == "ffffffff" and card.physfn is None) or card.revision == "ff":
        read = seen(subject, f"od -N4 {path}/config", f"{head or '?'}, revision {card.revision}")
        return Fail((Problem("P18", card.address, (read, power), values),))
    log = subject.host_facts.kernel_log.value
    said = [line for line in (log.lines if log else ()) if card.address in line and DEAD.search(line)]
    if said and state in ("D3cold", "unknown"):
        line = seen(subject, subject.host_facts.kernel_log.source, said[-1])
        return Fail((Problem("P18", card.address, (power, line), values),))
    if head is None and card.physfn is None and state not in ("D0", "D3hot"):
        return Unchecked(f"configuration space of {card.address} was not read and its power state is {state}")
    return Pass((seen(subject, f"od -N4 {path}/config", head or "virtual function"), power))


@clause_check(
    "HOST-DEVICE-003",
    title="Every declared function of the card is there",
    severity=DEGRADED,
    scope="chain",
    reads=("host",),
    causes=("P68",),
    after=("HOST-DEVICE-001",),
)
def declared_functions_are_there(subject: Subject) -> Judgement:
    """Functions lab.yaml names, by id; functions it does not name are nobody's business here."""
    card = the_card(subject)
    left = [d for d in need(subject.host_facts.pci) if d.slot == card.slot and d.address != card.address]
    problems: list[Problem] = []
    found: list[Evidence] = [seen(subject, LIST, describe(card))]
    for ids in subject.chain.gpu.functions:
        match = next((d for d in left if d.ids == ids), None)
        if match is not None:
            left.remove(match)
            found.append(seen(subject, LIST, describe(match)))
            continue
        shown = seen(subject, f"ls -d /sys/bus/pci/devices/{card.slot}.*", _slot(card, left))
        values = (("host", subject.host.name), ("address", card.address), ("device", ids))
        problems.append(Problem("P68", f"{card.slot} {ids}", (shown,), values))
    return verdict_of(problems, found)


def _slot(card: PciDevice, others: list[PciDevice]) -> str:
    return "; ".join(describe(d) for d in (card, *others))


@clause_check(
    "HOST-LINK-001",
    title="The PCIe link has its full width",
    severity=HYGIENE,
    scope="chain",
    reads=("host",),
    causes=("P53",),
    after=("HOST-DEVICE-001",),
)
def link_has_full_width(subject: Subject) -> Judgement:
    """P53: width only, since idle cards lower their speed. A slot with fewer lanes is the owner's to accept."""
    card = the_card(subject)
    shown = seen(
        subject,
        f"cat /sys/bus/pci/devices/{card.address}/current_link_width",
        f"x{card.link_width} of x{card.max_link_width}" if card.max_link_width else "not given (no PCI Express link)",
    )
    if card.link_width and card.max_link_width and card.link_width < card.max_link_width:
        values = (("host", subject.host.name), ("address", card.address))
        return Fail((Problem("P53", card.address, (shown,), values),))
    return Pass((shown,))
