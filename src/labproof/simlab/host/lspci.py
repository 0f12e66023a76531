"""What lspci prints: texts per device, put together by the stand-in according to its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labproof.simlab.host import kernel, standins
from labproof.simlab.host.machine import Host
from labproof.simlab.host.tree import Tree

CLASS_NAMES = {
    "0x0600": "Host bridge", "0x0604": "PCI bridge", "0x0601": "ISA bridge", "0x0580": "Memory controller",
    "0x0c05": "SMBus",
    "0x0880": "System peripheral", "0x0c03": "USB controller", "0x0106": "SATA controller",
    "0x0108": "Non-Volatile memory controller",
    "0x0200": "Ethernet controller", "0x0300": "VGA compatible controller", "0x0302": "3D controller",
    "0x0380": "Display controller",
    "0x0403": "Audio device", "0x0c80": "Serial bus controller",
}  # fmt: skip


def write_lspci(host: Host, tree: Tree) -> None:
    """Write one folder per device with the pieces of every output form."""
    for address, device in sorted(host.devices.items()):
        base = f"{standins.HOME}/lspci/{address}"
        for name, text in _pieces(host, address, device).items():
            tree.file(f"{base}/{name}", text)


def class_name(device: Mapping[str, Any]) -> str:
    """`3D controller`."""
    return CLASS_NAMES.get(str(device["class"])[:6], "Class")


def _pieces(host: Host, address: str, device: Mapping[str, Any]) -> dict[str, str]:
    vendor, number = str(device["id"]).split(":")
    code = str(device["class"])[2:6]
    dead = host.dead(address)
    revision = "ff" if dead else str(device.get("revision", "0x00"))[2:]
    suffix = f" (rev {revision})" if revision != "00" else ""
    maker, name, kind = (
        device.get("vendor_name", "Unknown vendor"),
        device.get("device_name", "Device"),
        class_name(device),
    )
    sub_vendor, _, sub_device = str(device.get("subsystem", "")).partition(":")
    driver = host.drivers.bound.get(address)
    modules = [
        m for m in kernel.modules_for(device, host.inputs.get("extra_modules") or {}) if host.drivers.available(m)
    ]
    tail = (f"\tKernel driver in use: {driver}\n" if driver else "") + (
        f"\tKernel modules: {', '.join(modules)}\n" if modules else ""
    )
    if dead:
        tail = "\t!!! Unknown header type 7f\n" + tail
    machine = [
        ("Slot", address),
        ("Class", f"{kind}|{code}"),
        ("Vendor", f"{maker}|{vendor}"),
        ("Device", f"{name}|{number}"),
    ]
    if sub_vendor:
        machine += [("SVendor", f"{maker}|{sub_vendor}"), ("SDevice", f"Device|{sub_device}")]
    if revision != "00":
        machine.append(("Rev", revision))
    machine.append(("ProgIf", str(device["class"])[6:8]))
    kernel_rows = ([("Driver", driver)] if driver else []) + [("Module", m) for m in modules]
    rest = [("NUMANode", str(device["numa"]))] if device.get("numa") is not None else []
    if address in host.group_of:
        rest.append(("IOMMUGroup", str(host.group_of[address])))
    subsystem = {
        "plain": f"\tSubsystem: {maker} Device {sub_device}\n",
        "nn": f"\tSubsystem: {maker} Device [{sub_vendor}:{sub_device}]\n",
        "n": f"\tSubsystem: {sub_vendor}:{sub_device}\n",
    }
    pieces = {
        "plain": f"{kind}: {maker} {name}{suffix}\n",
        "n": f"{code}: {vendor}:{number}{suffix}\n",
        "nn": f"{kind} [{code}]: {maker} {name} [{vendor}:{number}]{suffix}\n",
        "kernel": tail,
        "ids": f"{vendor}:{number}:{code}\n",
    }
    pieces |= {f"subsystem.{form}": text if sub_vendor else "" for form, text in subsystem.items()}
    for form in ("plain", "n", "nn"):
        rows = [*machine, *rest]
        pieces[f"machine.{form}"] = "".join(f"{key}:\t{_spelled(value, form)}\n" for key, value in rows[1:])
        rows = [*machine, *kernel_rows, *rest]
        pieces[f"machine-k.{form}"] = "".join(f"{key}:\t{_spelled(value, form)}\n" for key, value in rows[1:])
    return pieces


def _spelled(value: str, form: str) -> str:
    name, bar, code = value.partition("|")
    if not bar:
        return value
    return {"plain": name, "n": code, "nn": f"{name} [{code}]"}[form]
