"""Turn single answers of the Talos API into facts: pure functions, one format each (facts talos 3.4, 3.5 and 4)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from labproof.clients import plain_yaml
from labproof.clients.talos_messages import ServiceInfo
from labproof.facts.talos import CriTable, Extension, KernelLog, MachineStage, PciDevice, Schematic, Service

_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_OF_INTEREST = re.compile(
    r"NVRM|nvidia|vgaarb|fallen off the bus|error loading module|unavailable key|key was rejected|startAllServices|"
    r"boot sequence|Direct firmware load|GSP firmware|pcieport.*(?:AER|error)|BAR \d+: (?:can't|no space)|i915|\bxe\b",
    re.IGNORECASE,
)
KEPT_LINES = 400  # of a talkative driver, the first and the last half


def driver_links(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Address and driver of every link `<driver>/<address>` below /sys/bus/pci/drivers."""
    pairs = (name.split("/") for name in names if name.count("/") == 1)
    return tuple(sorted((address, driver) for driver, address in pairs if _PCI_ADDRESS.fullmatch(address)))


def extensions(specs: Iterable[Any]) -> tuple[tuple[Extension, ...], Schematic | None]:
    """Real extensions in the node's order, and the entry named `schematic` if there is one.

    Matched by the name inside: resource ids are `0`, `1` ... on factory images and registry names on others.
    """
    found: list[Extension] = []
    schematic: Schematic | None = None
    for spec in specs:
        metadata = spec.get("metadata") or {}
        name, version = str(metadata.get("name", "")), str(metadata.get("version", ""))
        if name == "schematic":
            schematic = Schematic(version, str(metadata.get("extraInfo") or ""))
        elif name != "modules.dep":
            found.append(Extension(name, version))
    return tuple(sorted(found, key=lambda extension: extension.name)), schematic


def pci_device(address: str, spec: Mapping[str, Any]) -> PciDevice:
    """One PCIDevice; the ids are hex text (`0x10de`), which a YAML reader may have taken for a number."""
    vendor, product = _hex(spec.get("vendor_id"), 4), _hex(spec.get("product_id"), 4)
    kind = _hex(spec.get("class_id"), 2) + _hex(spec.get("subclass_id"), 2)
    name = str(spec.get("product") or "")
    return PciDevice(address, f"{vendor}:{product}", kind, name, str(spec.get("driver") or ""))


def _hex(word: Any, digits: int) -> str:
    number = word if isinstance(word, int) else int(str(word or "0"), 16)
    return f"{number:0{digits}x}"


def service(info: ServiceInfo) -> Service:
    """A service with its newest event's text."""
    events = info.events.events if info.events else ()
    newest = max(events, key=lambda e: (e.ts.seconds, e.ts.nanos) if e.ts else (0, 0), default=None)
    healthy = None if info.health is None or info.health.unknown else info.health.healthy
    return Service(info.id, info.state, healthy, newest.msg if newest else "")


def stage(spec: Mapping[str, Any]) -> MachineStage:
    """MachineStatus."""
    status = spec.get("status") or {}
    unmet = tuple(f"{c.get('name')}: {c.get('reason')}" for c in status.get("unmetConditions") or ())
    return MachineStage(str(spec.get("stage", "unknown")), bool(status.get("ready")), unmet)


def normalised(text: str) -> str:
    """One kernel record as one line: SUBSYSTEM and DEVICE trailers off, escaped newlines and quotes resolved."""
    line = text.split("\n", 1)[0]
    line = re.sub(r"\\x0a(?:NVRM:\s*)?", " ", line)
    return " ".join(line.replace('\\x5c"', '"').split())


def kernel_log(texts: Sequence[str]) -> KernelLog:
    """The records of interest of a whole ring buffer."""
    lines = [normalised(text) for text in texts]
    kept = [line for line in lines if _OF_INTEREST.search(line)]
    if len(kept) > KEPT_LINES:
        kept = [*kept[: KEPT_LINES // 2], *kept[-KEPT_LINES // 2 :]]
    return KernelLog(tuple(kept), any(line.startswith("Linux version ") for line in lines[:50]), len(lines))


def command_line(text: str) -> str:
    """The kernel command line without the configuration's address, which may carry a credential."""
    return " ".join(word if not word.startswith("talos.config=") else "talos.config=..." for word in text.split())


def cri_tables(text: str) -> tuple[CriTable, ...]:
    """The plugin tables of a containerd part.

    Raises:
        ValueError: the part is not TOML.
    """
    plugins = tomllib.loads(text).get("plugins", {})
    found = []
    for name, body in plugins.items():
        containerd = body.get("containerd") if isinstance(body, dict) else None
        default = containerd.get("default_runtime_name", "") if isinstance(containerd, dict) else ""
        found.append(CriTable(str(name), isinstance(containerd, dict), str(default)))
    return tuple(found)


def install_image(config: Any) -> str:
    """`machine.install.image` of a machine configuration, given parsed or as text, of one or more documents."""
    parsed = plain_yaml.load(config) if isinstance(config, str) else config
    documents = parsed if isinstance(parsed, list) else [parsed]
    for document in documents:
        if isinstance(document, dict) and isinstance(document.get("machine"), dict):
            return str((document["machine"].get("install") or {}).get("image") or "")
    return ""
