"""The VM's hostpci entry for the card: there, as declared, and one that can work."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.registry import BLOCKING, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.checks.vm_devices import (
    card_entry,
    config_path,
    devices_of_entry,
    hostpci_text,
    names_of,
    same_device,
    shown,
    vm_config,
    vm_label,
)
from labproof.facts.vm import HostPci, VmConfig


@clause_check(
    "VM-HOSTPCI-001",
    title="The VM is given the declared GPU",
    severity=BLOCKING,
    scope="chain",
    reads=("vm",),
    causes=("P16", "P48", "P59"),
    after=("VM-EXISTS-001",),
)
def vm_is_given_the_gpu(subject: Subject) -> Judgement:
    """V2: a hostpci entry names the card, by the declared mapping or by its address; parsed, never compared as text."""
    config, values, label = vm_config(subject), names_of(subject), vm_label(subject)
    here = Evidence(config_path(subject), hostpci_text(config))
    if not config.hostpci:
        return Fail((Problem("P59", label, (here,), values),))
    entry = card_entry(subject, config)
    if entry is None:
        wanted = f"mapping={subject.vm.mapping}" if subject.vm.mapping else subject.chain.gpu.address
        declared = Evidence("lab.yaml", f"{subject.chain.gpu.name} {subject.chain.gpu.device}: {wanted}")
        return Fail((Problem("P48", label, (here, declared), values),))
    devices = {d.address: d for d in subject.pve_facts.pci.value or ()}
    if devices and entry.mapping is None:
        named = [d for d in devices.values() if any(same_device(path, d.address) for path in entry.devices)]
        if not any(d.ids == subject.chain.gpu.device for d in named):
            text = "; ".join(f"{d.address} is {d.ids}" for d in named) or f"no device at {', '.join(entry.devices)}"
            bus = Evidence(f"GET /nodes/{subject.pve_facts.node}/hardware/pci", text)
            return Fail((Problem("P16", label, (here, bus), values),))
    return Pass((here,))


@clause_check(
    "VM-HOSTPCI-002",
    title="The entry's options suit the card",
    severity=HYGIENE,
    scope="chain",
    reads=("vm",),
    causes=("P42", "P45", "P54"),
    after=("VM-HOSTPCI-001",),
)
def options_suit_the_card(subject: Subject) -> Judgement:
    """x-vga on a card without display, declared functions left out, ids overridden for the guest."""
    config, values, label = vm_config(subject), names_of(subject), vm_label(subject)
    entry = card_entry(subject, config)
    if entry is None:
        return Pass((Evidence(config_path(subject), hostpci_text(config)),))
    evidence = shown(subject, config, f"hostpci{entry.index}")
    devices = {d.address: d for d in subject.pve_facts.pci.value or ()}
    passed = devices_of_entry(subject.pve_facts, entry)
    problems = []
    classes = {d.pci_class for a, d in devices.items() if any(same_device(p, a) for p in passed)}
    if entry.option("x-vga") == "1" and any(c.startswith("0302") for c in classes):
        problems.append(Problem("P42", label, (evidence,), values))
    if any(key.endswith(("vendor-id", "device-id")) for key, _ in entry.options):
        problems.append(Problem("P54", label, (evidence,), values))
    wanted = set(subject.chain.gpu.functions)
    given = {d.ids for a, d in devices.items() for c in config.hostpci for p in devices_of_entry(subject.pve_facts, c)
             if same_device(p, a)}  # fmt: skip
    if devices and wanted - given:
        missing = Evidence("lab.yaml", f"declared functions not passed: {', '.join(sorted(wanted - given))}")
        problems.append(Problem("P45", label, (evidence, missing), values))
    return verdict_of(problems, (evidence,))


@clause_check(
    "VM-HOSTPCI-003",
    title="The entry can be started at all",
    severity=BLOCKING,
    scope="chain",
    reads=("vm",),
    causes=("P43", "P44"),
    after=("VM-HOSTPCI-001",),
)
def entry_can_be_started(subject: Subject) -> Judgement:
    """The six conditions of legacy-igd, and no physical function while its virtual functions exist."""
    config, values, label = vm_config(subject), names_of(subject), vm_label(subject)
    problems = []
    for entry in config.hostpci:
        evidence = shown(subject, config, f"hostpci{entry.index}")
        broken = legacy_igd_faults(config, entry)
        if broken:
            why = Evidence("qemu-server PCI.pm", "; ".join(broken))
            problems.append(Problem("P43", f"{label} hostpci{entry.index}", (evidence, why), values))
        passed = devices_of_entry(subject.pve_facts, entry)
        children = [d.address for d in subject.pve_facts.pci.value or () if d.physfn in passed]
        if children and entry.option("mdev", "") == "":
            text = f"virtual functions {', '.join(children)} of {', '.join(passed)} exist"
            bus = Evidence(f"GET /nodes/{subject.pve_facts.node}/hardware/pci", text)
            problems.append(Problem("P44", f"{label} hostpci{entry.index}", (evidence, bus), values))
    return verdict_of(problems, (Evidence(config_path(subject), hostpci_text(config)),))


def legacy_igd_faults(config: VmConfig, entry: HostPci) -> list[str]:
    """Which conditions of `legacy-igd=1` are not met (qemu-server PCI.pm; facts proxmox 1.7, 2.6)."""
    if entry.option("legacy-igd") != "1":
        return []
    vga = config.keys.get("vga", "").split(",")[0].removeprefix("type=")
    tests = (
        (config.is_q35, "it is not compatible with q35"),
        (vga != "none", "it requires vga none"),
        (entry.option("rombar", "1") == "0", "it needs the ROM BAR"),
        (entry.option("x-vga") == "1", "it is not compatible with x-vga"),
        (bool(entry.option("mdev", "")), "it is not compatible with mdev"),
        (len(entry.devices) > 1, "it is not compatible with multifunction devices"),
        (any(not d.endswith(("00:02.0", "00:02")) for d in entry.devices), "only 00:02.0 can be assigned this way"),
    )
    return [text for wrong, text in tests if wrong]
