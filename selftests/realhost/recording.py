"""Recordings of the guest: what the probe printed there, scrubbed and kept small.

A recording is the probe's whole text, or only those of its sections that differ from another recording's.
"""

from __future__ import annotations

import re
from pathlib import Path

from labproof.facts.host import HostFacts
from labproof.probes.host_parse import parse_host

FOLDER = Path(__file__).parents[1] / "captures" / "host" / "guest"
_BASED_ON = "@@@ as "


def scrub(text: str) -> str:
    """Without what identifies one boot or one build; the log's addresses are QEMU's own and stay."""
    text = re.sub(r"(?m)^boot_id .*$", "boot_id 00000000-0000-4000-8000-000000000000", text)
    text = re.sub(r"(?m)^installed .*\n", "", text)
    text = re.sub(r"(?m)^\|Modules linked in:.*\n", "", text)  # a busy machine made the guest's CPU look stuck
    text = re.sub(r"(?ms)^@@ dmesg .*?^@@= \d+\n", "", text)  # the journal says the same
    return re.sub(r"(?m)^(\|.*Linux version \S+).*$", r"\1 (scrubbed)", text)


def sections(text: str) -> dict[str, str]:
    """Section name -> its lines with head and end, in the order of the probe."""
    found: dict[str, str] = {}
    for block in re.split(r"(?m)^(?=@@ )", text):
        if block.startswith("@@ "):
            found[block.split()[1]] = block
    return found


def write(name: str, text: str, based_on: str = "") -> None:
    """Keep a recording; with `based_on` only what differs from that one."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    text = scrub(text)
    if based_on:
        before = sections(whole(based_on))
        changed = "".join(block for key, block in sections(text).items() if before.get(key) != block)
        text = f"{_BASED_ON}{based_on}\n{changed}"
    (FOLDER / f"{name}.txt").write_text(text, "utf-8")


def whole(name: str) -> str:
    """A recording in full."""
    text = (FOLDER / f"{name}.txt").read_text("utf-8")
    if not text.startswith(_BASED_ON):
        return text
    head, _, rest = text.partition("\n")
    merged = {**sections(whole(head.removeprefix(_BASED_ON))), **sections(rest)}
    return "".join(merged.values())


def facts(name: str) -> HostFacts:
    """A recording as the host's facts, read at the moment it was recorded."""
    text = whole(name)
    clock = re.search(r"(?m)^clock (\d+)", text)
    return parse_host(text, "guest", float(clock[1]) if clock else 0.0)


def recorded() -> tuple[str, ...]:
    """Names of all recordings."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.txt")))
