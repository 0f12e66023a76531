"""The PCI resource mapping: created, compared, updated with its digest (facts proxmox 2.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from labproof.checks.host_devices import card_of, full_address
from labproof.checks.vm_devices import mapping_rights
from labproof.facts.reading import Unjudged, absent, need
from labproof.facts.vm import PveFacts
from labproof.inventory.chains import Chain
from labproof.inventory.models import Host, Vm
from labproof.provision import scopes
from labproof.provision.bench import Bench
from labproof.provision.changes import LATER, CallChange
from labproof.provision.failure import ChangedSince, StepFailed
from labproof.provision.plan import Refusal

if TYPE_CHECKING:
    from labproof.clients.pve import PveSession

Item = dict[str, str]


def path_of(bench: Bench, chain: Chain) -> str:
    """The address a mapping or a raw entry names: the whole slot where further functions are declared."""
    gpu = chain.gpu
    if gpu.address is not None:
        address = full_address(gpu.address)
    else:
        card = card_of(bench.subject(chain))
        if card is None:
            raise Unjudged(absent("lspci", f"{gpu.device} is not there exactly once"), gpu.name)
        address = card.address
    return address.rsplit(".", 1)[0] if gpu.functions else address


def change(
    bench: Bench, vm: Vm, host: Host, pve: PveFacts, host_pending: bool, refusals: list[Refusal]
) -> CallChange | None:
    """What the VM's mapping lacks, None when it is right or none is declared."""
    if vm.mapping is None:
        return None
    wanted = _wanted(bench, vm, host, pve, host_pending)
    mappings = need(pve.mappings, "PCI mappings")
    known = next((m for m in mappings if m.id == vm.mapping), None)
    if known is None and not mappings and not mapping_rights(pve):
        raise StepFailed(f"the API shows {pve.identity} no mapping at all: it needs Mapping.Audit")
    have = list(known.entries) if known is not None else []
    foreign = [e for e in have if e.get("node") == pve.node and not any(_same_card(e, w) for w in wanted)]
    strangers = [e for e in foreign if e.get("id") not in {w["id"] for w in wanted}]
    if strangers:
        text = f"mapping {vm.mapping} names another device, {_line(strangers[0])}: declare another mapping, or mend it"
        refusals.append(Refusal("P34", text))
        return None
    kept = [e for e in have if e.get("node") != pve.node]
    kept += [e for e in foreign if _on_bus(pve, e)]  # a further card of the same id that others take from
    after = [*kept, *(_merged(have, w) for w in wanted)]
    if known is not None and _key(after) == _key(have):
        return None
    verb = "POST /cluster/mapping/pci" if known is None else f"PUT /cluster/mapping/pci/{vm.mapping}"
    why = "there is no such mapping" if known is None else "it does not fit the hardware"
    return CallChange(
        target=host.name, scope=scopes.VM_CONFIG, reason=f"{vm.mapping}: {why}", clause="VM-MAPPING-001",
        name="mapping", call=verb, before={"map": text_of(have) if known is not None else None},
        after={"map": text_of(after)}, detail={"id": vm.mapping, "node": pve.node},
    )  # fmt: skip


def _wanted(bench: Bench, vm: Vm, host: Host, pve: PveFacts, host_pending: bool) -> list[Item]:
    """An entry for each card that a VM of this host takes by this mapping."""
    devices = {d.address: d for d in need(pve.pci, "PCI devices of the node")}
    sharing = [v.name for v in bench.lab.vms if v.mapping == vm.mapping and v.host == host.name]
    items = []
    for chain in (c for name in sharing for c in bench.chains(vm=name)):
        path = path_of(bench, chain)
        first = devices.get(path if "." in path else f"{path}.0")
        if first is None:
            raise Unjudged(absent("GET hardware/pci", f"no device at {path}"), chain.gpu.name)
        group = LATER if first.iommu_group is None and host_pending else str(first.iommu_group)
        if first.iommu_group is None and not host_pending:
            raise Unjudged(absent("GET hardware/pci", f"{path} is in no IOMMU group"), chain.gpu.name)
        item = {"node": pve.node, "path": path, "id": chain.gpu.device}
        items.append({**item, "subsystem-id": first.subsystem, "iommugroup": group})
    return items


def _same_card(entry: Mapping[str, str], wanted: Item) -> bool:
    return entry.get("path") == wanted["path"] or (
        entry.get("path", "").rsplit(".", 1)[0] == wanted["path"].rsplit(".", 1)[0] and entry.get("id") == wanted["id"]
    )


def _merged(have: Iterable[Mapping[str, str]], wanted: Item) -> Item:
    """The wanted item; an entry that names the slot another way keeps its own path."""
    old = next((e for e in have if e.get("node") == wanted["node"] and _same_card(e, wanted)), None)
    if old is None:
        return wanted
    return {**old, **wanted, "path": old["path"]}


def _on_bus(pve: PveFacts, entry: Mapping[str, str]) -> bool:
    path = entry.get("path", "")
    return any(d.address in (path, f"{path}.0") and d.ids == entry.get("id") for d in pve.pci.value or ())


def text_of(items: Iterable[Mapping[str, str]]) -> str:
    """Items as PVE's property strings, one a line, in an order of their own."""
    return "\n".join(sorted(_line(item) for item in items))


def _line(item: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(item.items()))


def _key(items: Iterable[Mapping[str, str]]) -> list[str]:
    return sorted(_line(item) for item in items)


def current(api: PveSession, name: str) -> tuple[str | None, str]:
    """The mapping's items as text (None when there is none) and the digest of the file it is in."""
    for row in api.get("/cluster/mapping/pci"):
        if row.get("id") == name:
            lines = [",".join(sorted(str(item).split(","))) for item in row.get("map") or ()]
            return "\n".join(sorted(lines)), str(row.get("digest", ""))
    return None, ""


def put(api: PveSession, name: str, before: str | None, after: str | None) -> None:
    """Bring the mapping from `before` to `after` (None: not there), only if it still is `before`.

    Raises:
        ChangedSince: it is neither; nothing was written.
    """
    now, digest = current(api, name)
    if now == after:
        return
    if now != before:
        raise ChangedSince(f"mapping {name} was changed by somebody else: it is {now or 'gone'}")
    items = (after or "").split("\n")
    if after is None:
        api.delete(f"/cluster/mapping/pci/{name}")
    elif before is None:
        api.post("/cluster/mapping/pci", id=name, map=items)
    else:
        api.put(f"/cluster/mapping/pci/{name}", map=items, digest=digest)
