"""The state an owner trusts: pinned facts of one run, and what has drifted from them since.

Drift is a finding of its own: run.json lists it under `drift`, and it makes a run red where `--fail-on` says so of
degraded findings. A card that moved to another group or address often still works, and then no clause fails: the
owner asked to be told all the same. It ends when the state is put back, or pinned anew.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labproof.facts.atomic import write_text
from labproof.report.compare_runs import BASELINE, NoSuchRun, SavedRun
from labproof.report.compare_snapshot import Snapshot

SCHEMA = 1
FILE = "baseline.json"
#: Drift of what is configured: it works today, it is not what the owner trusts (DESIGN section 2, severities).
SEVERITY = "degraded"


@dataclass(frozen=True)
class Kind:
    """What drift of one pinned thing usually comes from, and what to do when it was not wanted."""

    name: str
    meaning: str
    remedy: str


_FIRMWARE = Kind(
    "firmware",
    "Firmware settings were reset or changed: a BIOS update, cleared CMOS, a new board.",
    "Look at VT-d or AMD-Vi, SR-IOV and above-4G decoding in the firmware setup, and set them as they were.",
)
#: By the name of the thing in a comparison. Sources: facts proxmox 1.3 (firmware), 1.5 (groups), 2 (addresses and
#: mappings); facts talos 2 (schematics).
KINDS = {
    "firmware tables": _FIRMWARE,
    "IOMMUs": _FIRMWARE,
    "IOMMU group": Kind(
        "group",
        "Another device shares the group, or the kernel groups otherwise: a card was moved, ACS or the kernel changed.",
        "Put the card back into its slot, or take the new device out of the group; then look at `pvesh get"
        " /nodes/<host>/hardware/pci`.",
    ),
    "PCI address": Kind(
        "address",
        "The bus was renumbered: a card or NVMe disk was added or removed, or bifurcation changed.",
        "Give the VM the card by a PCI mapping, correct the address in the mapping and in lab.yaml, and look whether"
        " another VM's hostpci now points at something else.",
    ),
    "PCI mapping": Kind(
        "mapping",
        "The mapping was edited, or the card behind it is another one.",
        "Compare `pvesh get /cluster/mapping/pci` with `lspci -nn` and correct the mapping.",
    ),
    "schematic": Kind(
        "schematic",
        "The node runs another Talos image than the trusted one: an upgrade by another installer image.",
        "Upgrade the node to the installer image of the trusted schematic, or compare the extensions of the two.",
    ),
}
ANEW = "If this is the state you want: labproof baseline set latest"


def pin(reports: Path, run: SavedRun) -> dict[str, Any]:
    """Make a run the baseline; returns the content of baseline.json.

    Raises:
        NoSuchRun: the run's facts are gone, or none of what is pinned was read in it.
    """
    if run.facts is None or run.lab is None:
        raise NoSuchRun(f"run {run.id} cannot be a baseline: {run.why_no_facts}")
    pinned = pinned_facts(Snapshot(run.facts, run.lab))
    if not any(entry["items"] is not None for entry in pinned):
        raise NoSuchRun(f"run {run.id} cannot be a baseline: nothing that is pinned was read in it (host, VM, Talos)")
    head = {key: run.result.get(key) for key in ("run_id", "started", "lab", "simulated", "exit_status", "versions")}
    content = {"schema": SCHEMA, **head, "pinned": pinned}
    folder = reports / BASELINE
    folder.mkdir(parents=True, exist_ok=True)
    saved = reports / "runs" / run.id / "facts" / "run.facts.json"
    if saved.is_file():
        write_text(folder / saved.name, saved.read_text("utf-8"))
    write_text(folder / FILE, json.dumps(content, indent=1) + "\n")
    return content


def pinned_facts(snapshot: Snapshot) -> list[dict[str, Any]]:
    """What a baseline holds: group membership, firmware tables and IOMMUs, PCI addresses, mapping, schematic."""
    return [
        {
            "layer": seen.where.layer, "subject": seen.where.subject, "what": seen.thing.name,
            "items": None if seen.items is None else dict(seen.items), "why": seen.why,
        }
        for seen in snapshot.seen.values()
        if seen.thing.pinned
    ]  # fmt: skip


def read(reports: Path) -> dict[str, Any] | None:
    """Content of baseline.json, None when no baseline is set.

    Raises:
        NoSuchRun: it is there and not whole, or of another schema.
    """
    try:
        content = json.loads((reports / BASELINE / FILE).read_text("utf-8"))
        if content["schema"] != SCHEMA:
            raise NoSuchRun(f"{reports / BASELINE}: schema {content['schema']}, this labproof reads {SCHEMA}")
        return dict(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise NoSuchRun(f"{reports / BASELINE / FILE} is not whole; set the baseline again") from None


def clear(reports: Path) -> bool:
    """Forget the baseline; whether there was one."""
    there = (reports / BASELINE / FILE).exists()
    shutil.rmtree(reports / BASELINE, ignore_errors=True)
    return there


def drift(reports: Path, snapshot: Snapshot, simulated: bool) -> list[dict[str, Any]]:
    """How the pinned facts of a run differ from the baseline of the same lab.

    A thing that one of the two did not read has not drifted: it is left out.

    Returns:
        Records with `kind`, `severity`, `layer`, `subject`, `what`, `item`, `before`, `after`, `text`, `meaning`,
        `remedy` and the baseline's `run_id`.
    """
    try:
        trusted = read(reports)
    except NoSuchRun:
        return []  # trouble() tells; a run is no place to fail for it
    if trusted is None or trusted["lab"] != snapshot.lab.lab or bool(trusted["simulated"]) != simulated:
        return []
    now = {(p["layer"], p["subject"], p["what"]): p["items"] for p in pinned_facts(snapshot)}
    found = []
    for pinned in trusted["pinned"]:
        seen = now.get((pinned["layer"], pinned["subject"], pinned["what"]))
        if seen is None or pinned["items"] is None:
            continue
        for item in dict.fromkeys([*pinned["items"], *seen]):
            was, is_now = pinned["items"].get(item), seen.get(item)
            if was != is_now:
                found.append(_record(trusted["run_id"], pinned, item, was, is_now))
    return found


def trouble(reports: Path) -> str:
    """Why a baseline that was set cannot be held against a run; empty when it can, or when none is set."""
    try:
        read(reports)
    except NoSuchRun as torn:
        return str(torn)
    return ""


def _record(run_id: str, pinned: dict[str, Any], item: str, was: str | None, now: str | None) -> dict[str, Any]:
    name = f"{pinned['subject']}: {pinned['what']}{f' {item}' if item else ''}"
    if "there" in (was, now):
        text = f"{name} is {'gone' if now is None else 'new'}"
    else:
        text = f"{name}: {was or 'nothing'} -> {now or 'nothing'}"
    kind = KINDS[pinned["what"]]
    return {
        "kind": kind.name, "severity": SEVERITY, "meaning": kind.meaning, "remedy": f"{kind.remedy}\n{ANEW}",
        "layer": pinned["layer"], "subject": pinned["subject"], "what": pinned["what"], "item": item, "before": was,
        "after": now, "text": text, "run_id": run_id,
    }  # fmt: skip
