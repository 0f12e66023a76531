"""GPU blocks of the bpg Terraform provider, and Terraform's JSON plan (facts proxmox 0.3, 0.4, 2.3-2.5; wild 6)."""

from __future__ import annotations

import json
import re
from typing import Any

from labproof.lint.hcl import Attribute, Block, HclFile
from labproof.lint.scope import Scope
from labproof.lint.sources import Source

_VM = {"proxmox_virtual_environment_vm", "proxmox_vm"}
_MAPPING = {"proxmox_virtual_environment_hardware_mapping_pci", "proxmox_hardware_mapping_pci"}
_HOSTPCI = {"device", "id", "mapping", "mdev", "pcie", "rombar", "rom_file", "xvga"}
_ADDRESS = re.compile(r"(?:[0-9a-f]{4,}:)?[0-9a-f]{2}:[0-9a-f]{2}(?:\.[0-7])?")


def judge_hcl(file: HclFile, source: Source, scope: Scope) -> None:
    """VMs and mappings of one file."""
    token = any("api_token" in f.body.attributes or _provider_token(f) for f in scope.hcl)
    for block in file.body.walk():
        if block.kind != "resource" or len(block.labels) < 2:
            continue
        if block.labels[0] in _VM:
            _vm(block, source, scope, token)
        elif block.labels[0] in _MAPPING:
            _mapping(block, source, scope)


def _provider_token(file: HclFile) -> bool:
    for block in file.body.blocks:
        if block.kind == "provider" and block.labels[:1] == ("proxmox",):
            return "api_token" in block.attributes and "password" not in block.attributes
    return False


def _vm(block: Block, source: Source, scope: Scope, token: bool) -> None:
    cards = [inner for inner in block.blocks if inner.kind == "hostpci"]
    seen: dict[str, int] = {}
    for card in cards:
        _hostpci(card, source, scope, token)
        name = card.literal("device")
        if name is not None and name in seen:
            scope.find(source, card.attributes["device"].line, "K96", f"{name} is there twice in this VM")
        seen[name or ""] = card.line
    pcie = next((card for card in cards if _is_true(card.attributes.get("pcie"), scope)), None)
    machine = block.attributes.get("machine")
    if pcie is None or (machine is not None and not machine.literal):
        return
    if machine is None or not re.match(r"(?:pc-)?q35", machine.value):
        has = "no machine" if machine is None else f'machine = "{machine.value}"'
        text = f"pcie without q35: this block sets {has} (the default is i440fx), and the VM does not start"
        scope.find(source, pcie.attributes["pcie"].line, "P21", text)


def _is_true(attribute: Attribute | None, scope: Scope) -> bool:
    """A literal true, or a reference to a name that these files set to true and nowhere to false."""
    if attribute is None:
        return False
    if attribute.literal:
        return attribute.value == "true"
    name = re.split(r"[.\s]", attribute.value)[-1]
    values = {a.value for file in scope.hcl for a in file.objects if a.name == name and a.literal}
    return values == {"true"}


def _hostpci(card: Block, source: Source, scope: Scope, token: bool) -> None:
    device = card.attributes.get("device")
    ident, mapping = card.attributes.get("id"), card.attributes.get("mapping")
    for name, attribute in card.attributes.items():
        if name not in _HOSTPCI:
            text = f"hostpci has no argument `{name}`; it has {', '.join(sorted(_HOSTPCI))}"
            scope.find(source, attribute.line, "K96", text)
    if device is not None and device.literal and not re.fullmatch(r"hostpci(?:\d|1[0-5])", device.value):
        text = f'device = "{device.value}": here stands the slot, "hostpci0"; the PCI address belongs into `id`'
        scope.find(source, device.line, "K96", text)
    elif ident is None and mapping is None:
        line = device.line if device is not None else card.line
        text = "hostpci names no card: `device` is the slot (hostpci0), the PCI address belongs into `id` or `mapping`"
        scope.find(source, line, "K96", text)
    elif card.literal("id") not in (None, "null") and card.literal("mapping") not in (None, "null"):
        scope.find(source, card.attributes["mapping"].line, "K96", "`id` and `mapping` exclude each other")
    if ident is not None and ident.literal and ident.value != "null":
        if not all(_ADDRESS.fullmatch(part) for part in ident.value.split(";")):
            text = f'id = "{ident.value}" is no PCI address of the form 0000:3b:00.0, lower case'
            scope.find(source, ident.line, "K96", text)
        elif token:
            text = f"a raw address ({ident.value}) with an API token: Proxmox VE wants root@pam; use `mapping`"
            scope.find(source, ident.line, "P33", text)


def _mapping(block: Block, source: Source, scope: Scope) -> None:
    """Proxmox VE compares these at every start, although its schema calls them optional (facts proxmox 2.4)."""
    text_of_map = block.attributes.get("map")
    if text_of_map is None or text_of_map.literal:
        return
    for item in re.findall(r"\{([^{}]*)\}", text_of_map.value):
        for key, name in (("subsystem_id", "subsystem_id"), ("iommu_group", "iommu_group")):
            if not re.search(rf"\b{key}\b\s*[=:]", item):
                scope.find(source, text_of_map.line, "P34", f"the mapping lacks {name}: the VM's start is refused")
        path = re.search(r"\bpath\s*[=:]\s*\"([^\"$]+)\"", item)
        if path and not re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}(?:\.[0-7])?", path[1]):
            text = f'path "{path[1]}" needs the form 0000:3b:00.0 with its domain, lower case'
            scope.find(source, text_of_map.line, "P34", text)


def judge_plan(source: Source, scope: Scope) -> None:
    """Terraform's plan (`terraform show -json`): a GPU VM that goes or loses its card."""
    try:
        plan: Any = json.loads(source.text)
    except (ValueError, RecursionError) as broken:
        scope.unreadable(source, getattr(broken, "lineno", 1), "not JSON: make it with `terraform show -json <plan>`")
        return
    changes = plan.get("resource_changes") if isinstance(plan, dict) else None
    if not isinstance(changes, list):
        scope.unreadable(source, 1, "no `resource_changes`: make it with `terraform show -json <plan>`")
        return
    for change in changes:
        if isinstance(change, dict) and isinstance(change.get("change"), dict):
            _change(change, source, scope)


def _change(change: dict[str, Any], source: Source, scope: Scope) -> None:
    body, address = change["change"], str(change.get("address", ""))
    listed = body.get("actions")
    actions = listed if isinstance(listed, list) else []
    at = source.text.find(json.dumps(address))
    line = source.text.count("\n", 0, at) + 1 if at >= 0 else 1
    kind = change.get("type")
    if kind in _MAPPING and "delete" in actions:
        done = "replaced" if "create" in actions else "deleted"
        scope.find(source, line, "P35", f"{address} would be {done}: VMs that use this mapping do not start meanwhile")
        return
    if kind not in _VM:
        return
    before, after = _cards(body.get("before")), _cards(body.get("after"))
    if not before or actions in (["no-op"], ["read"]):
        return
    if "delete" in actions:
        if "create" not in actions:
            scope.find(source, line, "P59", f"{address} holds {', '.join(before)} and would be deleted")
            return
        why = body.get("replace_paths")
        forced = f" (forced by {json.dumps(why)})" if why else ""
        kept = "" if after else ", and comes back without a GPU"
        scope.find(source, line, "P59", f"{address} holds {', '.join(before)} and would be rebuilt{forced}{kept}")
    elif len(after) < len(before) and not _unknown_cards(body):
        gone = ", ".join(card for card in before if card not in after) or "a card"
        scope.find(source, line, "P59", f"{address} would lose {gone}")


def _cards(state: object) -> list[str]:
    cards = state.get("hostpci") if isinstance(state, dict) else None
    found = []
    for card in cards if isinstance(cards, list) else []:
        if isinstance(card, dict):
            found.append(str(card.get("mapping") or card.get("id") or card.get("device")))
    return found


def _unknown_cards(body: dict[str, Any]) -> bool:
    unknown = body.get("after_unknown")
    return isinstance(unknown, dict) and unknown.get("hostpci") is True
