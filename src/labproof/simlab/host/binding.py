"""Which driver holds which device: modules loaded at boot and later, aliases, ids, overrides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from labproof.simlab.host import kernel, modprobe
from labproof.simlab.host.topology import is_bridge

Log = Callable[[str, str], None]


class Drivers:
    """Loaded modules and bound devices of a running kernel.

    Attributes:
        bound: PCI address -> driver name; devices without a driver are missing.
        loaded: modules in the order in which they were loaded, with the parameters they got.
        overrides: PCI address -> driver_override.
    """

    def __init__(
        self,
        devices: Mapping[str, Mapping[str, Any]],
        *,
        version: str,
        cmdline: str,
        unavailable: frozenset[str],
        extra: Mapping[str, Mapping[str, Any]],
        group_of: Mapping[str, int],
        log: Log,
    ) -> None:
        """Nothing is loaded yet; bridges have their built-in driver."""
        self._devices = devices
        self._version = version
        self._cmdline = cmdline
        self._unavailable = unavailable
        self._extra = extra
        self._group_of = group_of
        self._log = log
        self.bound: dict[str, str] = {
            address: "pcieport" for address, device in devices.items()
            if is_bridge(device) and not device.get("conventional")
        }  # fmt: skip
        self.bound |= {  # built into Debian's kernels (recorded, captures/host/guest)
            address: "virtio-pci" for address, device in devices.items() if str(device["id"]).startswith("1af4:10")
        }  # fmt: skip
        self.loaded: dict[str, dict[str, str]] = {}
        self.overrides: dict[str, str] = {}
        self._vfio_ids: list[str] = []

    def available(self, module: str, *, on_disk: bool = False) -> bool:
        """Whether the kernel takes the module, or with `on_disk` whether its file is there at all."""
        if module in self._unavailable or (not on_disk and module in self._cmdline_list("module_blacklist")):
            return False
        if module == "vfio_virqfd":
            return kernel.has_virqfd_module(self._version)
        if module in ("nvidia", "nvidia_drm", "nvidia_modeset", "nvidia_uvm"):
            return "nvidia" in self._extra
        return True

    def coldplug(self, config: modprobe.ModprobeConfig) -> None:
        """udev's first pass: load the aliases of every device, in bus order."""
        banned = config.blacklist | set(self._cmdline_list("modprobe.blacklist"))
        for address in sorted(self._devices):
            for module in kernel.modules_for(self._devices[address], self._extra):
                if module not in banned:
                    self.load(module, config)

    def load(self, module: str, config: modprobe.ModprobeConfig) -> bool:
        """modprobe: softdeps first, then what the module needs, then the module; False when it cannot be found."""
        if module in self.loaded:
            return True
        for before in config.loads_before(module):
            self.load(before, config)
        if not all(self.available(m) for m in kernel.closure([module])):
            return False
        for one in kernel.closure([module]):
            if one not in self.loaded:
                self._insert(one, config)
        return True

    def set_override(self, address: str, driver: str) -> None:
        """driverctl: set driver_override, and move the device over if that driver is there."""
        self.overrides[address] = driver
        if driver.replace("-", "_") in self.loaded and self._probe_succeeds(address, driver):
            self.bound[address] = driver

    def bind_vfio(self, address: str) -> bool:
        """What PVE does at VM start: new_id, unbind, bind. False when vfio-pci refuses the device."""
        if not self._probe_succeeds(address, "vfio-pci"):
            return False
        wanted = self._devices[address]["id"]
        self.bound[address] = "vfio-pci"
        for other, device in self._devices.items():  # new_id also takes every unbound twin, facts 1.4
            if other not in self.bound and device["id"] == wanted and self._probe_succeeds(other, "vfio-pci"):
                self.bound[other] = "vfio-pci"
        return True

    def _insert(self, module: str, config: modprobe.ModprobeConfig) -> None:
        parameters = {
            name: value
            for owner, text in config.options if owner == module
            for name, _, value in (word.partition("=") for word in text.split())
        }  # fmt: skip
        for token in self._cmdline.split():
            owner, dot, rest = token.partition(".")
            if dot and owner.replace("-", "_") == module and "=" in rest:
                name, _, value = rest.partition("=")
                parameters[name] = value
        self.loaded[module] = parameters
        driver = kernel.driver_of(module)
        if module == "vfio":
            self._log("kernel", "VFIO - User Level meta-driver version: 0.3")
        if module == "vfio_pci":
            self._register_ids(parameters, config)
        for address, device in sorted(self._devices.items()):
            if address in self.bound:
                continue
            override = self.overrides.get(address)
            matches = override == driver if override else (
                device["id"] in self._vfio_ids if driver == "vfio-pci"
                else module in kernel.modules_for(device, self._extra)
            )  # fmt: skip
            if matches and self._probe_succeeds(address, driver):
                self.bound[address] = driver
                if driver == "nouveau":
                    self._log("kernel", f"nouveau {address}: NVIDIA TU104 (164000a1)")

    def _register_ids(self, parameters: Mapping[str, str], config: modprobe.ModprobeConfig) -> None:
        self._vfio_ids = list(config.vfio_ids())
        for token in self._cmdline.split():
            if token.replace("-", "_").startswith("vfio_pci.ids="):
                self._vfio_ids = token.split("=", 1)[1].lower().split(",")
        known = set(parameters) - {
            "ids",
            "disable_idle_d3",
            "disable_vga",
            "enable_sriov",
            "nointxmask",
            "disable_denylist",
        }
        for name in sorted(known):
            self._log("kernel", f"vfio_pci: unknown parameter '{name}' ignored")
        for word in self._vfio_ids:
            self._log("kernel", f"vfio_pci: add [{word}[ffffffff:ffffffff]] class 0x000000/00000000")

    def _probe_succeeds(self, address: str, driver: str) -> bool:
        if driver == "vfio-pci" and address not in self._group_of:
            # vfio_register_group_dev: no group, no device (kernel >= 5.15)
            self._log("kernel", f"vfio-pci {address}: probe with driver vfio-pci failed with error -22")
            return False
        if driver == "nouveau" and self._devices[address].get("defect") == "no-chip":
            self._log("kernel", f"nouveau {address}: unknown chipset (00000000)")
            return False
        return driver == "vfio-pci" or self._devices[address].get("defect") != "dead"

    def _cmdline_list(self, name: str) -> list[str]:
        words = [t.split("=", 1)[1] for t in self._cmdline.split() if t.startswith(f"{name}=")]
        return [w.replace("-", "_") for word in words for w in word.split(",")]
