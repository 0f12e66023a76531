"""What the Talos API changes: machine configuration, image, boots. Only the world's inputs; the rest is derived anew.

A node's inputs hold, beside what an owner wrote: `config.text` (the active configuration, byte for byte),
`staged_config`, `rebooted_at`, `previous_talos` (the other boot slot) and `pulled` (images that 1.13 pulled).
Inputs a fault or a test may set: `boots_old_image`, `hangs_at_reboot`, `new_image_never_settles` (its
clock stays unsynchronised), `boot_takes_s`.
"""

from __future__ import annotations

import time
from typing import Any

import yaml

from labproof.simlab.talos.containerd import CUSTOMIZATION
from labproof.simlab.talos.installer import image_inputs

SETTLED_S = 180.0  # a reboot takes no time here: whoever looks sees a node that has settled
REBOOT, AUTO, NO_REBOOT, STAGED = 0, 1, 2, 3


class Refused(Exception):
    """The node does not do it; the text is Talos' own."""


def configuration(text: str) -> dict[str, Any]:
    """Inputs `config` of a node from a machine configuration.

    Raises:
        Refused: it is none.
    """
    try:
        documents = [d for d in yaml.safe_load_all(text) if isinstance(d, dict)]
    except yaml.YAMLError as wrong:
        raise Refused(f"failed to parse config: {str(wrong).splitlines()[0]}") from None
    main = next((d for d in documents if "machine" in d), None)
    if main is None or not isinstance(main["machine"], dict):
        raise Refused("the applied machine configuration doesn't match")
    machine = main["machine"]
    files = {str(f["path"]): str(f.get("content", "")) for f in machine.get("files") or ()}
    for path in files:
        if path != CUSTOMIZATION and not path.startswith("/var"):
            raise Refused(f"create operation not allowed outside of /var: {path!r}")
    modules = (machine.get("kernel") or {}).get("modules") or ()
    rebind = [d for d in documents if d.get("kind") == "PCIDriverRebindConfig"]
    return {
        "install_image": str((machine.get("install") or {}).get("image", "")),
        "modules": {str(m["name"]): list(m.get("parameters") or ()) for m in modules},
        "sysctls": {str(k): str(v) for k, v in (machine.get("sysctls") or {}).items()},
        "files": files,
        "node_labels": {str(k): str(v) for k, v in (machine.get("nodeLabels") or {}).items()},
        "node_taints": {str(k): str(v) for k, v in (machine.get("nodeTaints") or {}).items()},
        "pci_driver_rebind": {str(d["name"]): str(d["targetDriver"]) for d in rebind},
        "text": text,
    }


def apply(world: Any, name: str, text: str, mode: int, *, dry_run: bool) -> tuple[int, str]:
    """ApplyConfiguration; returns the mode that was used and a line about it.

    Raises:
        Refused: not a configuration, or it cannot be applied in that mode.
    """
    inputs = world.inputs["nodes"][name]
    old, new = inputs.get("config") or {}, configuration(text)
    needs_reboot = (old.get("files") or {}) != new["files"]
    if mode == NO_REBOOT and needs_reboot:
        raise Refused("configuration can't be applied in immediate mode: diff in .machine.files")
    if mode not in (REBOOT, AUTO, NO_REBOOT, STAGED):
        raise Refused("mode is not simulated")
    used = (REBOOT if needs_reboot else NO_REBOOT) if mode == AUTO else mode
    if dry_run:
        return used, "Dry run summary"
    inputs["config_writes"] = int(inputs.get("config_writes", 0)) + 1
    if used == STAGED:
        inputs["staged_config"] = text
        return used, "Staged configuration to be applied after the next reboot"
    inputs.pop("staged_config", None)
    inputs["config"] = {**old, **new}
    if used == REBOOT:
        reboot(world, name)
        return used, "Applied configuration with a reboot"
    return used, "Applied configuration without a reboot"


def install(world: Any, name: str, reference: str) -> None:
    """Write an image to the other boot slot and make it the next one to boot.

    Raises:
        NoSuchImage: it cannot be had.
    """
    inputs = world.inputs["nodes"][name]
    before = dict(inputs["talos"])
    after = image_inputs(world.factory, reference, before)
    inputs["next_talos"] = after


def reboot(world: Any, name: str) -> None:
    """The node boots: what was staged and installed is now what it runs, unless its image does not come up."""
    inputs = world.inputs["nodes"][name]
    staged = inputs.pop("staged_config", None)
    if staged is not None:
        inputs["config"] = {**(inputs.get("config") or {}), **configuration(staged)}
    following = inputs.pop("next_talos", None)
    if following is not None and not inputs.get("boots_old_image"):
        inputs["previous_talos"], inputs["talos"] = dict(inputs["talos"]), following
        if inputs.get("new_image_never_settles"):
            inputs["config"] = {**(inputs.get("config") or {}), "time_sync": False}
    inputs["taken_at_runtime"], inputs["unloaded_at_runtime"] = {}, False
    boot(inputs)


def boot(inputs: dict[str, Any]) -> None:
    """Another boot of the node begins now."""
    now = time.time()
    inputs["rebooted_at"] = now - SETTLED_S
    inputs["away_until"] = float("inf") if inputs.get("hangs_at_reboot") else now + float(inputs.get("boot_takes_s", 0))


def roll_back(world: Any, name: str) -> None:
    """Boot the other slot.

    Raises:
        Refused: nothing is in it.
    """
    inputs = world.inputs["nodes"][name]
    previous = inputs.pop("previous_talos", None)
    if previous is None:
        raise Refused("cannot rollback: no previous installation")
    inputs["previous_talos"], inputs["talos"] = dict(inputs["talos"]), previous
    inputs.pop("next_talos", None)
    if inputs.get("new_image_never_settles"):
        inputs["config"] = {**(inputs.get("config") or {}), "time_sync": True}
    boot(inputs)
