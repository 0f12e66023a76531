"""The machine around the card."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("VM-MACHINE-001")
def test_pcie_has_q35(judgement):
    """A hostpci entry with pcie=1 MUST have the q35 machine.

    Preconditions: VM.Audit on the VM
    Expected: the machine is q35 in any spelling, or no entry has pcie=1
    """
    assert_holds(judgement)


@clause("VM-MACHINE-002")
def test_settings_are_as_declared(judgement):
    """The settings of the VM MUST be those that lab.yaml declares.

    Preconditions: machine, bios, cpu, memory or mapping declared
    Expected: each declared one is configured
    """
    assert_holds(judgement)


@clause("VM-CPU-001")
def test_cpu_leaves_room(judgement):
    """Under OVMF the CPU model MUST leave the guest room for the card.

    Preconditions: bios: ovmf; others pass
    Expected: cpu: host, or a model with pdpe1gb
    """
    assert_holds(judgement)


@clause("VM-FIRMWARE-001")
def test_firmware_places_the_memory(judgement):
    """The VM's firmware MUST be able to place the memory of the card.

    Preconditions: the GPU is on the bus
    Expected: no SeaBIOS with a BAR of 4 GiB or more
    """
    assert_holds(judgement)


@clause("VM-BALLOON-001")
def test_balloon_is_off(judgement):
    """Ballooning MUST NOT promise memory that a VM with a passed device cannot give.

    Preconditions: VM.Audit on the VM
    Expected: no balloon minimum below the memory
    """
    assert_holds(judgement)
