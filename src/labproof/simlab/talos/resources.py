"""COSI resources of a node, as cosi.resource.State answers them: namespace, type, id, and the spec as YAML.

Keys and oddities are those of facts/talos.md 3.5; every spec carries one key that no client of today knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from labproof.simlab.talos.pci import CLASSES, SUBCLASSES
from labproof.simlab.talos.releases import release
from labproof.simlab.talos.state import TalosState

SENSITIVE = frozenset({"MachineConfigs.config.talos.dev"})


@dataclass(frozen=True)
class Resource:
    """One resource. `spec` is written as YAML; a plain string is the whole document (MachineConfigs)."""

    id: str
    spec: Mapping[str, Any] | str
    owner: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def yaml(self) -> str:
        """The `yaml_spec` of the reply."""
        if isinstance(self.spec, str):
            return self.spec
        return yaml.safe_dump({**self.spec, "addedByALaterRelease": "ignore me"}, sort_keys=False)


def catalogue(state: TalosState) -> dict[tuple[str, str], list[Resource]]:
    """All resources by (namespace, type); a type that this release lacks has no entry."""
    runtime, ship = "runtime", release(state.os_version)
    found: dict[tuple[str, str], list[Resource]] = {
        (runtime, "ExtensionStatuses.runtime.talos.dev"): _extensions(state),
        (runtime, "KernelModuleSpecs.runtime.talos.dev"): [
            # The key is literally `string`: a tag typo in Talos.
            Resource(name, {"string": name, "parameters": list(parameters)}, "runtime.KernelModuleConfigController")
            for name, parameters in state.module_specs
        ],
        (runtime, "Services.v1alpha1.talos.dev"): [
            Resource(s.id, {"running": s.state == "Running", "healthy": bool(s.healthy), "unknown": s.healthy is None})
            for s in state.services
        ],
        (runtime, "MachineStatuses.runtime.talos.dev"): [
            Resource("machine", _machine_status(state), "runtime.MachineStatusController")
        ],
        (runtime, "SecurityStates.talos.dev"): [
            Resource("securitystate", {"bootedWithUKI": True} if state.uki else {}, "runtime.SecurityStateController")
        ],
        (runtime, "DiscoveredVolumes.block.talos.dev"): [
            Resource(f"sda{number}", _volume(number, label, mib), "block.DiscoveryController")
            for number, (label, mib) in enumerate(_partitions(state), 1)
        ],
        (runtime, "KernelParamStatuses.runtime.talos.dev"): [
            Resource(f"proc.sys.{name}", {"current": text, "default": text, "unsupported": False})
            for name, text in state.sysctls.items()
        ],
        (runtime, "PlatformMetadatas.talos.dev"): [Resource("platformmetadata", {"platform": state.platform})],
        (runtime, "Versions.runtime.talos.dev"): [Resource("version", {"version": state.os_version})],
        ("hardware", "PCIDevices.hardware.talos.dev"): _pci(state),
        ("hardware", "PCIDriverRebindStatuses.hardware.talos.dev"): [
            Resource(address, {"targetDriver": name}) for address, name in state.rebound.items()
        ],
        ("config", "MachineConfigs.config.talos.dev"): [
            Resource(name, text, "config.AcquireController", {"talos.dev/yaml-spec": "1"})
            for name, text in (
                ("v1alpha1", state.machine_config),
                ("persistent", state.machine_config if state.staged_config is None else state.staged_config),
            )
        ],
        ("k8s", "NodeStatuses.kubernetes.talos.dev"): [
            Resource(
                state.name,
                {
                    "nodename": state.name,
                    "nodeReady": True,
                    "unschedulable": False,
                    "labels": {f"extensions.talos.dev/{n}": v for n, v in state.extensions},
                    "annotations": {"extensions.talos.dev/schematic": state.schematic} if state.schematic else {},
                },
            )
        ],
    }
    dated: dict[tuple[str, str], list[Resource]] = {
        (runtime, "LoadedKernelModules.runtime.talos.dev"): [
            Resource(m.name, {**_module(m.size, m.dependencies), "state": "Live"}) for m in state.loaded
        ],
        (runtime, "KernelModuleStatuses.runtime.talos.dev"): [
            Resource(m.name, {"type": "dynamic", **_module(m.size, m.dependencies), "state": "live"})
            for m in state.loaded
        ],
        (runtime, "KernelCmdlines.runtime.talos.dev"): [Resource("cmdline", {"cmdline": state.cmdline})],
        (runtime, "ImageFactorySchematics.runtime.talos.dev"): [
            Resource("image-factory-schematic", {"schematicId": state.schematic, "flavor": "", "apiUrl": ""})
        ]
        if state.schematic
        else [],
        (runtime, "BootIDs.runtime.talos.dev"): [Resource("bootid", {"bootId": state.boot_id})],
    }
    return {**found, **{key: rows for key, rows in dated.items() if key[1] in ship.resources}}


def _partitions(state: TalosState) -> list[tuple[str, int]]:
    """The system disk: images in EFI for systemd-boot, in BOOT beside a small EFI for GRUB (facts talos 2, 1.10)."""
    images = [("EFI", state.boot_mib)] if state.uki else [("EFI", 100), ("BIOS", 1), ("BOOT", state.boot_mib)]
    return [*images, ("META", 1), ("STATE", 100), ("EPHEMERAL", 65536)]


def _volume(number: int, label: str, mib: int) -> dict[str, Any]:
    """One partition; field names from general knowledge of Talos' block resources."""
    return {
        "type": "partition", "devicePath": f"/dev/sda{number}", "parent": "sda", "size": mib * 2**20,
        "prettySize": f"{mib} MiB", "name": "vfat" if label == "EFI" else "xfs", "partitionLabel": label,
        "partitionIndex": number,
    }  # fmt: skip


def shuffled(rows: list[Resource]) -> list[Resource]:
    """The rows in an order that nobody should rely on, the same each time."""
    return sorted(rows, key=lambda row: hashlib.md5(row.id.encode(), usedforsecurity=False).digest())


def _extensions(state: TalosState) -> list[Resource]:
    rows = []
    for number, extension in enumerate(state.installed):
        metadata: dict[str, Any] = {
            "name": extension.name,
            "version": extension.version,
            "author": extension.author,
            "description": extension.description,
            "compatibility": {"talos": {"version": ">= v1.5.0"}},
        }
        if extension.extra_info:
            metadata["extraInfo"] = extension.extra_info
        # Factory images number the extensions; only the name inside tells which is which.
        key = "modules.dep" if extension.name == "modules.dep" else str(number)
        rows.append(Resource(key, {"image": f"{key}.sqsh", "metadata": metadata}, "runtime.ExtensionStatusController"))
    return rows


def _machine_status(state: TalosState) -> dict[str, Any]:
    status: dict[str, Any] = {"ready": not state.unmet, "unmetConditions": []}
    status["unmetConditions"] = [{"name": name, "reason": reason} for name, reason in state.unmet]
    return {"stage": state.stage, "status": status}


def _pci(state: TalosState) -> list[Resource]:
    rows = []
    for row in state.pci_rows:
        kind = row.pci_class.removeprefix("0x")
        vendor, product = row.vendor_device.split(":")
        spec = {
            "class": CLASSES.get(kind[:2], ""),
            "subclass": SUBCLASSES.get(kind[:4], ""),
            "vendor": row.vendor,
            "product": row.product,
            "class_id": f"0x{kind[:2]}",
            "subclass_id": f"0x{kind[2:4]}",
            "vendor_id": f"0x{vendor}",
            "product_id": f"0x{product}",
        }
        if row.driver and release(state.os_version).minor >= (1, 10):
            spec["driver"] = row.driver
        rows.append(Resource(row.address, spec, "hardware.PCIDevicesController"))
    return rows


def _module(size: int, dependencies: tuple[str, ...]) -> dict[str, Any]:
    return {"size": size, "referenceCount": 0, "dependencies": list(dependencies), "address": "0x0000000000000000"}
