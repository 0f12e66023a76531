"""The VM that is about to be changed is the declared one: asked again with every hand that is laid on it."""

from __future__ import annotations

from collections.abc import Mapping

from labproof.inventory.models import Vm


def wrong_vm(vm: Vm, config: Mapping[str, object]) -> str:
    """Why this configuration is not the declared VM's, empty when it is.

    By its MAC where one is declared; by SMBIOS uuid or mapping where it is joined by those; else by its name.
    """
    name = str(config.get("name", ""))
    if vm.mac is not None:
        cards = "; ".join(str(text) for key, text in config.items() if key.startswith("net"))
        if vm.mac.lower() not in cards.lower():
            return f"the VM found is {name} with {cards or 'no network card'}; declared is MAC {vm.mac}"
        return ""
    if vm.match is not None and vm.match.smbios_uuid is not None:
        if vm.match.smbios_uuid.lower() not in str(config.get("smbios1", "")).lower():
            return f"the VM found is {name} with another SMBIOS uuid than the declared one"
        return ""
    if vm.match is not None and (vm.match.mapping is not None or vm.match.name is not None):
        return ""  # found by exactly that
    if name != vm.name:
        return f"the VM found is called {name}, not {vm.name}: declare its MAC to change it under another name"
    return ""
