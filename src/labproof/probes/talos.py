"""Read one Talos node through its API, with no more than the role `os:reader`.

About twenty small calls over one connection. What the role may not read (files, machine configuration) is asked only
where lab.yaml declares `os:admin`; the checks use the substitutes of facts talos 3.6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.talos import TalosSession, TalosTarget
from labproof.facts.reading import NOT_ASKED, Reading, State, absent, failed, unsupported, value
from labproof.facts.store import now
from labproof.facts.talos import (
    BootPartition,
    CriTable,
    Extension,
    KernelLog,
    MachineStage,
    Module,
    NodeFile,
    PciDevice,
    Schematic,
    Service,
    TalosFacts,
    TalosVersion,
)
from labproof.inventory.models import Lab, Node
from labproof.probes import talos_parse as parse
from labproof.probes.patience import AFTER, Patience

T = TypeVar("T")

RUNTIME, HARDWARE = "runtime", "hardware"
CUSTOMIZATION = "/etc/cri/conf.d/20-customization.part"


def probe_talos(lab: Lab, node: Node) -> Reading[TalosFacts]:
    """Read everything the talos checks need of one node.

    Args:
        lab: for timings and declared rights.
        node: a node that declares `talos`.

    Returns:
        A value whose single readings may have failed, or a failed reading when the API did not answer at all. Its
        `kind` is the client's word, or `expired`, `not authorized`, `no request forwarding`, `wrong node`.
    """
    if node.talos is None:
        raise ValueError(f"node {node.name} declares no talos")
    began = now()
    source = f"talosctl -n {node.talos.node or node.name} version"
    try:
        target = TalosTarget(
            node.talos.talosconfig, node.talos.context, node=node.talos.node, timeout_s=lab.timings.request_s
        )
        session = TalosSession(target)
    except TransportFailure as failure:
        return failed(source, f"{failure.target}: {failure.text}", _refusal(failure), began)
    with session:
        try:
            shown = session.version()
            answered = session.hostname()
        except TransportFailure as failure:
            return failed(source, f"{failure.target}: {failure.text}", _refusal(failure), began)
        if answered.split(".")[0] != node.name.split(".")[0]:
            why = (
                f"the node that answers is called {answered!r}, not {node.name!r}: check nodes[].talos.node in lab.yaml"
            )
            return failed(source, why, "wrong node", began)
        asked = _Asked(session, node.talos.node or node.name, admin=lab.rights.talos == "os:admin")
        version = TalosVersion(
            shown.version.tag if shown.version else "",
            shown.version.sha if shown.version else "",
            shown.platform.name if shown.platform else "",
            shown.version.arch if shown.version else "",
        )
        return value(_read(asked, node.name, began, value(version, source, began)), source, began)


def probe_kernel_log(lab: Lab, node: Node) -> Reading[KernelLog]:
    """The kernel log alone, read again: what was added since the first reading happened while we worked.

    Raises:
        ValueError: the node declares no talos.
    """
    if node.talos is None:
        raise ValueError(f"node {node.name} declares no talos")
    target = TalosTarget(
        node.talos.talosconfig, node.talos.context, node=node.talos.node, timeout_s=lab.timings.request_s
    )
    try:
        session = TalosSession(target)
    except TransportFailure as failure:
        return failed("talosctl dmesg", f"{failure.target}: {failure.text}", _refusal(failure), now())
    with session:
        return _Asked(session, node.talos.node or node.name, admin=False).kernel_log()


def _refusal(failure: TransportFailure) -> str:
    """Machine word of a refusal at the door."""
    for text in ("no request forwarding", "not authorized"):
        if text in (failure.answer or ""):
            return text
    if failure.kind in (Kind.TLS, Kind.AUTH) and "expired" in failure.text:
        return "expired"  # the node's clock may be ahead of ours, then only the node thinks so
    return failure.kind.value


def _read(asked: _Asked, name: str, began: float, version: Reading[TalosVersion]) -> TalosFacts:
    extensions, schematic = asked.extensions()
    return TalosFacts(
        name=name,
        at=began,
        role=", ".join(asked.session.roles),
        version=version,
        boot_time=asked.read("talosctl get systemstat", lambda s: float(s.system_stat().boot_time)),
        extensions=extensions,
        schematic=schematic,
        module_specs=asked.module_specs(),
        modules=asked.modules(),
        pci=asked.pci(),
        drivers=asked.drivers(),
        rebound=asked.rebound(),
        device_nodes=asked.device_nodes(),
        services=asked.services(),
        stage=asked.stage(),
        cri_parts=asked.names("/etc/cri/conf.d", lambda entry: entry.endswith(".part")),
        bpf_jit_harden=asked.sysctl("net.core.bpf_jit_harden"),
        cmdline=asked.cmdline(),
        kernel_log=asked.kernel_log(),
        cdi_specs=asked.names("/run/cdi", lambda entry: entry.endswith((".yaml", ".json"))),
        dri_links=asked.dri_links(),
        host_tools=asked.names("/usr/bin", lambda entry: entry.startswith("nvidia-")),
        firmware=asked.names("/usr/lib/firmware/nvidia", lambda entry: entry[:1].isdigit()),
        install_image=asked.install_image(),
        cri_customization=asked.cri_customization(),
        booted_with_uki=asked.booted_with_uki(),
        boot_partition=asked.boot_partition(),
    )


class _Asked:
    """Questions to one node; each answer is a Reading that says what was asked."""

    def __init__(self, session: TalosSession, node: str, *, admin: bool) -> None:
        self.session = session
        self._node = node
        self._admin = admin
        self._patience = Patience()

    def read(self, command: str, ask: Callable[[TalosSession], T]) -> Reading[T]:
        """Ask once; a transport failure becomes the reading's state."""
        source = command.replace("talosctl ", f"talosctl -n {self._node} ", 1)
        lost = self._patience.lost
        if lost is not None:
            return failed(source, f"{AFTER}{lost.text}", lost.kind.value)
        at = now()
        try:
            answer = ask(self.session)
            self._patience.answered()
            return value(answer, source, at)
        except TransportFailure as failure:
            self._patience.failed(failure)
            if failure.kind is Kind.UNSUPPORTED:
                return unsupported(source, failure.text)
            if failure.kind is Kind.NOT_FOUND:
                return absent(source, failure.text, at)
            return failed(source, failure.text, failure.kind.value, at)
        except (AttributeError, KeyError, TypeError, ValueError) as odd:  # a spec of another shape than today's
            return failed(source, f"the answer has an unknown form ({type(odd).__name__})", "protocol", at)

    def extensions(self) -> tuple[Reading[tuple[Extension, ...]], Reading[Schematic]]:
        """Installed extensions, and the virtual entry named `schematic`."""
        rows = self.read(
            "talosctl get extensions",
            lambda s: tuple(r.spec for r in s.cosi_list(RUNTIME, "ExtensionStatuses.runtime.talos.dev")),
        )
        if rows.state is not State.VALUE or rows.value is None:
            kept: Reading[Schematic] = Reading(rows.state, None, rows.source, rows.why, rows.at, rows.kind)
            return Reading(rows.state, None, rows.source, rows.why, rows.at, rows.kind), kept
        found, schematic = parse.extensions(rows.value)
        if schematic is None:
            missing = absent(rows.source, "no entry named schematic: the image is not from an image factory", rows.at)
            return value(found, rows.source, rows.at), missing
        return value(found, rows.source, rows.at), value(schematic, rows.source, rows.at)

    def module_specs(self) -> Reading[tuple[str, ...]]:
        """Modules that the machine configuration wants; the key is spelled `string` (a tag typo in Talos)."""
        return self.read(
            "talosctl get kernelmodulespecs",
            lambda s: tuple(
                sorted(
                    str(r.spec.get("string") or r.spec.get("name") or r.id)
                    for r in s.cosi_list(RUNTIME, "KernelModuleSpecs.runtime.talos.dev")
                )
            ),
        )

    def modules(self) -> Reading[tuple[Module, ...]]:
        """Loaded modules: KernelModuleStatuses (1.14), LoadedKernelModules (1.11), else the folders of /sys/module."""
        for kind in ("KernelModuleStatuses.runtime.talos.dev", "LoadedKernelModules.runtime.talos.dev"):
            reading = self.read(
                f"talosctl get {kind}",
                lambda s, k=kind: tuple(  # type: ignore[misc]
                    sorted(
                        (Module(r.id, str(r.spec.get("state", "")).lower()) for r in s.cosi_list(RUNTIME, k)),
                        key=lambda module: module.name,
                    )
                ),
            )
            if reading.state is not State.UNSUPPORTED:
                return reading
        names = self.names("/sys/module", lambda entry: True)
        if names.value is None:
            return Reading(names.state, None, names.source, names.why, names.at, names.kind)
        return value(tuple(Module(name) for name in names.value), names.source, names.at)

    def pci(self) -> Reading[tuple[PciDevice, ...]]:
        """PCI functions; the kernel's scan at boot."""
        return self.read(
            "talosctl get pcidevices",
            lambda s: tuple(
                sorted(
                    (parse.pci_device(r.id, r.spec) for r in s.cosi_list(HARDWARE, "PCIDevices.hardware.talos.dev")),
                    key=lambda device: device.address,
                )
            ),
        )

    def rebound(self) -> Reading[tuple[tuple[str, str], ...]]:
        """Functions that the machine configuration gives to another driver."""
        kind = "PCIDriverRebindStatuses.hardware.talos.dev"
        return self.read(
            "talosctl get pcidriverrebindstatuses",
            lambda s: tuple(sorted((r.id, str(r.spec.get("targetDriver", ""))) for r in s.cosi_list(HARDWARE, kind))),
        )

    def names(self, folder: str, wanted: Callable[[str], bool]) -> Reading[tuple[str, ...]]:
        """Names in a folder of the node."""
        return self.read(
            f"talosctl list {folder}",
            lambda s: tuple(sorted(entry.name for entry in s.list_dir(folder) if wanted(entry.name))),
        )

    def drivers(self) -> Reading[tuple[tuple[str, str], ...]]:
        """Which driver holds which PCI function now: the links below /sys/bus/pci/drivers."""
        folder = "/sys/bus/pci/drivers"
        return self.read(
            f"talosctl list -d 2 {folder}",
            lambda s: parse.driver_links(entry.name for entry in s.list_dir(folder, depth=2)),
        )

    def device_nodes(self) -> Reading[tuple[NodeFile, ...]]:
        """`/dev/nvidia*` and what is in `/dev/dri`."""

        def ask(session: TalosSession) -> tuple[NodeFile, ...]:
            found = [e for e in session.list_dir("/dev", depth=2) if e.name.startswith(("nvidia", "dri/"))]
            files = (NodeFile(f"/dev/{e.name}", e.permissions, e.is_char_device) for e in found if not e.is_dir)
            return tuple(sorted(files, key=lambda file: file.path))

        return self.read("talosctl list -l -d 2 /dev", ask)

    def dri_links(self) -> Reading[tuple[tuple[str, str], ...]]:
        """`pci-0000:00:10.0-render` and the node it stands for: the number of a DRM node says nothing."""
        folder = "/dev/dri/by-path"
        return self.read(
            f"talosctl list -l {folder}",
            lambda s: tuple(
                sorted((e.name, f"/dev/dri/{e.link.rpartition('/')[2]}") for e in s.list_dir(folder) if e.link)
            ),
        )

    def services(self) -> Reading[tuple[Service, ...]]:
        """All services with their last event."""
        return self.read(
            "talosctl services",
            lambda s: tuple(sorted((parse.service(info) for info in s.service_list()), key=lambda row: row.id)),
        )

    def stage(self) -> Reading[MachineStage]:
        """Where the machine is in its life."""
        kind = "MachineStatuses.runtime.talos.dev"
        return self.read("talosctl get machinestatus", lambda s: parse.stage(s.cosi_get(RUNTIME, kind, "machine").spec))

    def sysctl(self, name: str) -> Reading[int]:
        """A kernel parameter that Talos sets, as it is now; absent when Talos does not manage it."""
        kind = "KernelParamStatuses.runtime.talos.dev"
        return self.read(
            f"talosctl get kernelparamstatus proc.sys.{name}",
            lambda s: int(str(s.cosi_get(RUNTIME, kind, f"proc.sys.{name}").spec["current"])),
        )

    def cmdline(self) -> Reading[str]:
        """The kernel command line (from Talos 1.11)."""

        def ask(session: TalosSession) -> str:
            rows = session.cosi_list(RUNTIME, "KernelCmdlines.runtime.talos.dev")
            return parse.command_line(str(rows[0].spec.get("cmdline", ""))) if rows else ""

        return self.read("talosctl get kernelcmdline", ask)

    def booted_with_uki(self) -> Reading[bool]:
        """How the kernel was started; a field that is false is left out of the answer (facts talos 3.5)."""
        kind = "SecurityStates.talos.dev"
        return self.read(
            "talosctl get securitystate",
            lambda s: bool(s.cosi_get(RUNTIME, kind, "securitystate").spec.get("bootedWithUKI")),
        )

    def boot_partition(self) -> Reading[BootPartition]:
        """The partition that holds the images; a node with GRUB has a BOOT beside a small EFI."""
        kind = "DiscoveredVolumes.block.talos.dev"
        found = self.read(
            "talosctl get discoveredvolumes",
            lambda s: {
                str(row.spec.get("partitionLabel")): int(row.spec["size"]) // 2**20
                for row in s.cosi_list(RUNTIME, kind)
                if row.spec.get("partitionLabel") in ("EFI", "BOOT")
            },
        )
        if found.value is None:
            return Reading(found.state, None, found.source, found.why, found.at, found.kind)
        for label in ("BOOT", "EFI"):
            if label in found.value:
                return value(BootPartition(label, found.value[label]), found.source, found.at)
        return absent(found.source, "no partition is labelled EFI or BOOT", found.at)

    def kernel_log(self) -> Reading[KernelLog]:
        """The part of the ring buffer that speaks of GPUs, modules and the boot."""
        return self.read("talosctl dmesg", lambda s: parse.kernel_log([record.text for record in s.dmesg()]))

    def install_image(self) -> Reading[str]:
        """`machine.install.image`; only os:admin may read the machine configuration."""
        if not self._admin:
            return NOT_ASKED
        kind = "MachineConfigs.config.talos.dev"
        return self.read(
            "talosctl get machineconfig v1alpha1",
            lambda s: parse.install_image(s.cosi_get("config", kind, "v1alpha1").spec),
        )

    def cri_customization(self) -> Reading[tuple[CriTable, ...]]:
        """What the owner's containerd part sets; only os:admin may read files, and only this much is kept of it."""
        if not self._admin:
            return NOT_ASKED
        return self.read(
            f"talosctl read {CUSTOMIZATION}",
            lambda s: parse.cri_tables(s.read_file(CUSTOMIZATION).decode("utf-8", "replace")),
        )
