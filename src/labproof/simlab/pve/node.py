"""A PVE node: VM configurations with their pending section, running guests, tasks, mappings."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Mapping
from typing import Any

from labproof.simlab.host.machine import Host, Qemu, framebuffer_overlap
from labproof.simlab.pve import start as starting
from labproof.simlab.pve.hostpci import Refused, properties
from labproof.simlab.pve.tasks import Task
from labproof.simlab.world.states import GuestPci, VmState

SETTLED_S = 180.0


class PveNode:
    """PVE on one booted host. `start_guests` does what pve-guests.service does after a boot."""

    def __init__(self, host: Host) -> None:
        """No guest runs yet."""
        self.host = host
        self.tasks: list[Task] = []
        self._pids = itertools.count(24817, 113)
        self._handed_out: dict[str, int] = {}  # PCI address -> starts since the host booted

    # ------------------------------------------------------------- configuration

    @property
    def vms(self) -> dict[str, dict[str, Any]]:
        """Inputs of all VMs by id (text)."""
        found: dict[str, dict[str, Any]] = self.host.inputs.get("vms") or {}
        return found

    @property
    def mappings(self) -> dict[str, Any]:
        """PCI mappings by id."""
        found: dict[str, Any] = self.host.inputs["pve"].get("mapping") or {}
        return found

    def section(self, vmid: int) -> dict[str, Any]:
        """The main section of <vmid>.conf.

        Raises:
            Refused: there is no such VM on this node.
        """
        entry = self.vms.get(str(vmid))
        if entry is None:
            raise Refused(f"Configuration file 'nodes/{self.host.name}/qemu-server/{vmid}.conf' does not exist")
        config: dict[str, Any] = entry["config"]
        return config

    def pending(self, vmid: int) -> dict[str, Any]:
        """The [PENDING] section: key -> value, or False for a deletion."""
        return dict(self.vms[str(vmid)].get("pending") or {})

    def effective_config(self, vmid: int) -> dict[str, Any]:
        """Configuration with pending changes applied: what the next start uses."""
        config = dict(self.section(vmid))
        for key, value in self.pending(vmid).items():
            if value is False:
                config.pop(key, None)
            else:
                config[key] = value
        return config

    def digest(self, vmid: int) -> str:
        """40 hex digits over the whole file."""
        text = json.dumps([self.section(vmid), self.pending(vmid)], sort_keys=True)
        return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def conf_text(self, vmid: int) -> str:
        """The file /etc/pve/qemu-server/<vmid>.conf: main section, [PENDING], snapshots."""
        sections = [("", self.section(vmid)), ("[PENDING]", self.pending(vmid))]
        sections += [(f"[{n}]", c) for n, c in (self.vms[str(vmid)].get("snapshots") or {}).items()]
        text = ""
        for title, section in sections:
            if section or not title:
                deleted = [k for k, v in section.items() if v is False]
                text += f"\n{title}\n" if title else ""
                text += f"delete: {','.join(deleted)}\n" if deleted else ""
                text += "".join(f"{k}: {v}\n" for k, v in sorted(section.items()) if v is not False)
        return text

    # ------------------------------------------------------------- guests

    def next_pid(self) -> int:
        """A process id nobody has."""
        return next(self._pids)

    def new_task(self, kind: str, vmid: int | str, user: str, at: float) -> Task:
        """A running worker."""
        pstart = int((at - self.host.booted_at) * 100)
        task = Task(self.host.name, self.next_pid(), max(pstart, 0), at, kind, str(vmid), user)
        self.tasks.append(task)
        self.host.revision += 1
        return task

    def start(self, vmid: int, user: str = "root@pam", at: float | None = None) -> Task:
        """Start a VM; the task is finished when this returns, its end lies at the time QEMU needed."""
        begin = time.time() if at is None else at
        task = self.new_task("qmstart", vmid, user, begin)
        try:
            qemu = starting.start(self, vmid, task, begin)
        except Refused as refused:
            self.host.start_failures[vmid] = str(refused)
            task.finish(str(refused), begin + 1.0)
            return task
        self._apply_pending(vmid)
        task.finish(at=qemu.started_at)
        if at is None:  # a start asked for now takes no time here: its guest has settled when it is looked at
            qemu.started_at = begin - SETTLED_S
        self.host.qemus[vmid] = qemu
        for _, address in qemu.devices:
            self._handed_out[address] = self._handed_out.get(address, 0) + 1
        self.host.start_failures.pop(vmid, None)
        return task

    def stop(self, vmid: int, kind: str = "qmstop", user: str = "root@pam") -> Task:
        """Stop or shut down a VM; pending changes are applied (facts proxmox 3.1)."""
        task = self.new_task(kind, vmid, user, time.time())
        self.section(vmid)
        if vmid not in self.host.qemus:
            task.finish(f"VM {vmid} not running")
            return task
        del self.host.qemus[vmid]
        self._apply_pending(vmid)
        task.finish()
        return task

    def start_guests(self) -> None:
        """Start what the owner had started: `running` where given, else `onboot`; in `startup` order, then id."""
        order: list[tuple[int, int]] = []
        for text, entry in self.vms.items():
            config = entry["config"]
            if config.get("template"):
                continue
            if entry.get("running", str(config.get("onboot", 0)) == "1"):
                rank = properties(str(config.get("startup", "")), "order").get("order", "1000000")
                order.append((int(rank), int(text)))
        clock = self.host.booted_at + 45.0
        for _, vmid in sorted(order):
            # What runs was started with the main section: changes made since are in [PENDING]. A lock taken
            # since (a backup that crashed) did not stop that start either.
            entry = self.vms[str(vmid)]
            later, lock = entry.pop("pending", None), entry["config"].pop("lock", None)
            task = self.start(vmid, at=clock)
            if later is not None:
                entry["pending"] = later
            if lock is not None:
                entry["config"]["lock"] = lock
            clock = task.endtime or clock

    def _apply_pending(self, vmid: int) -> None:
        entry = self.vms[str(vmid)]
        entry["config"] = self.effective_config(vmid)
        entry["pending"] = {}
        self.host.revision += 1

    # ------------------------------------------------------------- seen from inside

    def vm_state(self, vmid: int) -> VmState:
        """The VM as its guest experiences it."""
        qemu = self.host.qemus.get(vmid)
        config: Mapping[str, Any] = qemu.config if qemu else self.effective_config(vmid)
        uuid = properties(str(config.get("smbios1", "")), "x").get("uuid", "")
        why = "" if qemu else self.host.start_failures.get(vmid, "stopped")
        return VmState(
            host=self.host.name,
            vmid=vmid,
            name=str(config.get("name", vmid)),
            running=qemu is not None,
            why_not=why,
            bios=str(config.get("bios", "seabios")),
            machine=qemu.machine if qemu else starting.machine_type(self.host, config),
            smbios_uuid=uuid,
            memory_mib=starting.memory_mib(config),
            started_at=qemu.started_at if qemu else 0.0,
            pci=self._guest_pci(qemu) if qemu else (),
            agent=str(config.get("agent", "0")).split(",")[0].removeprefix("enabled=") == "1",
        )

    def _guest_pci(self, qemu: Qemu) -> tuple[GuestPci, ...]:
        functions = []
        used: dict[str, int] = {}
        for key, address in qemu.devices:
            entry = properties(qemu.config[key])
            index, function = int(key[7:]), used.get(key, 0)
            used[key] = function + 1
            device = self.host.devices[address]
            where = (
                f"0000:{index + 1:02x}:00.{function}"
                if entry.get("pcie") == "1"
                else f"0000:00:{0x10 + index:02x}.{function}"
            )
            identity = str(device["id"])
            if entry.get("vendor-id") or entry.get("device-id"):
                vendor, number = identity.split(":")
                shown = (entry.get("vendor-id", vendor), entry.get("device-id", number))
                identity = ":".join(half.removeprefix("0x") for half in shown)
            functions.append(
                GuestPci(
                    address=where,
                    host_address=address,
                    vendor_device=identity,
                    subsystem=str(device.get("subsystem", "")),
                    pci_class=str(device["class"]),
                    card=self.host.cards.get(str(device.get("card"))),
                    defect=self._defect(qemu, address, device),
                )
            )
        return tuple(functions)

    def _defect(self, qemu: Qemu, address: str, device: Mapping[str, Any]) -> str:
        if device.get("defect"):
            return str(device["defect"])
        if device.get("starts_per_boot") and self._handed_out.get(address, 0) > int(device["starts_per_boot"]):
            return "no-reset"  # the card was not reset between two VMs' lives: its firmware does not start again
        if framebuffer_overlap(self.host, address) is not None:
            return "bar"
        return "bar" if self._bars_do_not_fit(qemu, address) else ""

    def _bars_do_not_fit(self, qemu: Qemu, address: str) -> bool:
        """OVMF caps the guest at 40 address bits where the CPU model lacks pdpe1gb (facts proxmox 3.4, P40)."""
        if qemu.config.get("bios") != "ovmf" or not str(self.host.devices[address]["class"]).startswith("0x03"):
            return False
        cpu = properties(qemu.config.get("cpu", "kvm64"), "cputype")
        wide = cpu.get("cputype") in ("host", "max") or "+pdpe1gb" in cpu.get("flags", "")
        large_bar = max(self.host.devices[address].get("bar_mib", [0])) >= 8192
        return not wide and (qemu.memory_mib > 500 * 1024 or large_bar)
